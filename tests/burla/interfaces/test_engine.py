"""Which calls share a job, and who may ask."""

import os
import threading
from typing import Any

import pytest

import burla
from burla.interfaces import engine as engines
from burla.interfaces.engine import Engine, Settings
from burla.shipping.packages import Wanted


class Sink:
    """Takes nothing."""


class Queue:
    """Stands in for a lane."""

    made: list["Queue"]

    def __init__(self, begin: Any, left: Any) -> None:
        self.queue: list[Any] = []
        self.is_started = True
        self.made.append(self)

    def wake(self) -> None:
        """Take note of nothing."""


@pytest.fixture
def lanes(monkeypatch: pytest.MonkeyPatch) -> list[Queue]:
    """Have a cluster that there is none of; return what calls are queued for."""
    made: list[Queue] = []
    monkeypatch.setattr(Queue, "made", made, raising=False)
    monkeypatch.setattr(engines, "Lane", Queue)
    monkeypatch.setattr(engines, "cluster_address", lambda: "tcp://nowhere:1")
    return made


def engine(**options: Any) -> Engine:
    made = Engine(Settings(None, None, (), options))  # type: ignore[arg-type]
    engines._engines.discard(made)
    return made


def submit(one: Engine, function: Any, *args: Any) -> None:
    sink: Any = Sink()
    one.submit(sink, 0, function, args, {})


def test_calls_that_need_more_packages_have_a_job_of_their_own(lanes: list[Queue]) -> None:
    import numpy
    import packaging.version

    one = engine()
    submit(one, len, "a")
    submit(one, abs, -1)
    assert [len(lane.queue) for lane in lanes] == [2]
    submit(one, packaging.version.parse, "1")  # by its name
    assert len(lanes) == 2
    assert any("packaging" in name for name in one._modules)
    submit(one, len, numpy.arange(3))  # by an argument
    assert len(lanes) == 3
    submit(one, len, "a")
    submit(one, packaging.version.parse, "1")
    assert [len(lane.queue) for lane in lanes] == [2, 1, 3]
    sink: Any = Sink()
    other = engine()
    other.submit_all(sink, len, [("a",), (numpy.arange(3),)], 0)
    assert len(lanes) == 5
    assert [len(lane.queue) for lane in lanes[3:]] == [0, 2]


def test_packages_are_as_the_options_say(lanes: list[Queue]) -> None:
    import packaging.version

    one = engine(packages="off")
    submit(one, len, "a")
    submit(one, packaging.version.parse, "1")
    assert len(lanes) == 1
    assert one._settings.request(one._many).packages == Wanted("off")
    for make in (burla.Executor, burla.Pool):
        with pytest.raises(ValueError, match="there is no such file"):
            make(packages="none.txt")


def test_a_forked_child_is_told_even_if_a_lock_was_held(lanes: list[Queue]) -> None:
    one = engine()
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with one._lock:
            held.set()
            go_on.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(20)
    one._pid = os.getpid() + 1  # as after a fork
    sink: Any = Sink()
    try:
        with pytest.raises(RuntimeError, match="was forked"):
            submit(one, len, "a")
        with pytest.raises(RuntimeError, match="was forked"):
            one.submit_all(sink, len, [("a",)], 0)
        one.stop("over")
        assert one.is_idle()
    finally:
        go_on.set()
        thread.join()


def test_what_the_first_calls_begin_with_importing_goes_with_the_job(lanes: list[Queue]) -> None:
    def call(x: int) -> Any:
        import json

        import packaging.version as version

        return json, version, x

    one = engine()
    submit(one, call, 1)
    submit(one, call, 2)
    told = one._settings.leading(lanes[0].queue, [])
    assert told == [("packaging.version", ())]
    assert one._settings.leading([], [call]) == told  # of a batch of joblib's
    begun = Settings(None, print, (), {})  # which is called before
    assert begun.leading(lanes[0].queue, [call]) == []
