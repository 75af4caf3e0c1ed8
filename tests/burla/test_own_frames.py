"""A caller sees their own frames."""

import queue
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from burla.own_frames import VARIABLE, hide_own_frames


def ours(source: str, module: str = "burla.shell.caller") -> Callable[..., Any]:
    """Return a function `f(g)` that is said to be of one of our modules."""
    names: dict[str, Any] = {"__name__": module, "queue": queue}
    exec(f"def f(g=None):\n    {source}", names)
    function: Callable[..., Any] = names["f"]
    return function


def names_of(error: BaseException) -> list[str]:
    """Return the functions that its traceback names, without the test's own."""
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)][1:]


def caught(call: Callable[[], Any]) -> BaseException:
    try:
        call()
    except BaseException as error:
        hide_own_frames(error)
        return error
    raise AssertionError("nothing was raised")


def mine() -> None:
    raise ValueError("mine")


def calling_ours() -> None:
    ours("g()")(mine)


def test_frames_of_ours_are_left_out_wherever_they_stand() -> None:
    again = ours("g()", "burla")
    error = caught(lambda: again(lambda: calling_ours()))
    assert names_of(error) == ["<lambda>", "<lambda>", "calling_ours", "mine"]


def test_so_is_what_ours_called_in_the_standard_library_to_wait() -> None:
    error = caught(lambda: ours("queue.Queue().get(timeout=0)")())
    assert names_of(error) == ["<lambda>"]
    error = caught(lambda: queue.Queue[int]().get(timeout=0))
    assert names_of(error) == ["<lambda>", "get"]  # the caller's own


def test_a_module_that_is_only_called_alike_is_not_ours() -> None:
    error = caught(lambda: ours("g()", "burlap.shell")(mine))
    assert names_of(error) == ["<lambda>", "f", "mine"]


def test_causes_and_contexts_are_treated_alike_and_rings_end() -> None:
    def chained() -> None:
        try:
            calling_ours()
        except ValueError as cause:
            error = KeyError("outer")
            cause.__context__ = error  # a ring
            raise error from cause

    error = caught(chained)
    assert error.__cause__ is not None
    assert [f.name for f in traceback.extract_tb(error.__cause__.__traceback__)] == [
        *("chained", "calling_ours", "mine")
    ]


def test_an_exception_that_refuses_attributes_is_no_trouble() -> None:
    class ShyError(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    def shy() -> None:
        raise ShyError

    assert names_of(caught(lambda: ours("g()")(shy))) == ["<lambda>", "shy"]


def test_a_frame_without_a_line_is_no_trouble() -> None:
    def raising() -> None:
        raise ValueError

    raising.__code__ = raising.__code__.replace(co_linetable=b"")
    error = caught(lambda: ours("g()")(raising))
    assert isinstance(error, ValueError)
    # the module traceback cannot show such a frame
    frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert frames == ["caught", "<lambda>", "raising"]
    error.__traceback__ = None


def test_all_frames_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "full")
    assert names_of(caught(calling_ours)) == ["calling_ours", "f", "mine"]


def test_a_generator_is_treated_alike() -> None:
    def raising() -> Iterator[int]:
        yield 1
        mine()

    from burla.calling import hiding_frames

    results = hiding_frames(raising())
    assert next(results) == 1
    assert names_of(caught(lambda: next(results))) == ["<lambda>", "raising", "mine"]
