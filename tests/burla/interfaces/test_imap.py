"""Iterators of a pool: what is read when, and by whom."""

import gc
import multiprocessing
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from burla import Pool
from burla.interfaces import imap


class Here:
    """Stands in for an engine: makes calls at once, or keeps them."""

    def __init__(self, *, is_held: bool = False) -> None:
        self.closed = ""
        self.is_held = is_held
        self.held: list[Callable[[], None]] = []

    def submit(self, sink: Any, token: int, function: Any, args: Any, kwargs: Any) -> None:
        """Take one call."""
        if self.closed:
            raise RuntimeError(self.closed)

        def make() -> None:
            sink.succeed(token, function(*args, **kwargs))

        self.held.append(make)
        if not self.is_held:
            make()

    def submit_all(self, sink: Any, function: Any, inputs: Any, at: int) -> int:
        """Take many."""
        for at, args in enumerate(inputs, at):  # noqa: B020
            self.submit(sink, at, function, args, {})
        return at

    def close(self, why: str, *, cancel: bool = False) -> None:
        """Take no more."""
        self.closed = self.closed or why

    def stop(self, why: str) -> None:
        """Take no more."""
        self.close(why)

    def join(self) -> None:
        """Wait for nothing."""


def pool_on(engine: Here) -> Pool:
    pool: Any = Pool()
    pool._engine = engine
    pool._feeders._engine = engine
    return pool  # type: ignore[no-any-return]


def test_a_generator_that_waits_for_its_results_to_be_taken() -> None:
    room = threading.Semaphore(2)

    def inputs() -> Iterator[int]:
        for one in range(20):
            assert room.acquire(timeout=20)
            yield one

    taken = []
    for result in pool_on(Here()).imap(abs, inputs()):
        taken.append(result)
        room.release()
    assert taken == [*range(20)]


def test_no_more_is_read_ahead_than_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imap, "AHEAD", 3)
    read: list[int] = []
    reached = threading.Event()

    def inputs() -> Iterator[int]:
        for one in range(9):
            read.append(one)
            if one == 2:
                reached.set()
            yield one

    pool = pool_on(Here())
    results = pool.imap_unordered(abs, inputs())
    assert reached.wait(20)
    assert next(results) == 0
    assert sorted([*results]) == [*range(1, 9)]
    pool.close()
    pool.join()


def test_who_joins_a_pool_need_not_take_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imap, "AHEAD", 3)
    pool = pool_on(Here())
    results = pool.imap(abs, iter(range(9)))
    pool.close()
    with pytest.raises(ValueError, match="not running"):
        pool.imap(abs, iter([1]))
    pool.join()
    assert [*results] == [*range(9)]
    assert next(results, None) is None


@pytest.mark.parametrize("is_ordered", [True, False])
def test_what_the_iterator_raises_is_the_last_outcome(*, is_ordered: bool) -> None:
    pool = pool_on(Here())
    which = pool.imap if is_ordered else pool.imap_unordered
    results = which(abs, (one if one < 2 else 1 // 0 for one in range(9)))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert [*results] == []


def test_the_end_comes_after_results_that_come_late() -> None:
    engine = Here(is_held=True)
    pool = pool_on(engine)
    results = pool.imap_unordered(abs, iter([1, 2]))
    for thread in threading.enumerate():
        if thread.name == "burla-imap":
            thread.join(20)
    for make in reversed(engine.held):
        make()
    assert [*results] == [2, 1]


def test_terminate_ends_who_waits_for_an_iterator() -> None:
    go_on = threading.Event()

    def inputs() -> Iterator[int]:
        yield 1
        go_on.wait(20)
        yield 2

    pool = pool_on(Here())
    results = pool.imap(abs, inputs())
    assert next(results) == 1
    with pytest.raises(multiprocessing.TimeoutError):
        results.next(0)
    pool.terminate()
    with pytest.raises(RuntimeError, match="terminated"):
        next(results)
    assert [*results] == []
    go_on.set()


def test_a_pool_that_is_dropped_ends_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imap, "AHEAD", 1)
    engine = Here()
    pool = pool_on(engine)
    results = pool.imap(abs, iter(range(9)))
    assert next(results) == 0
    gone = weakref.ref(pool)
    del pool
    assert next(results) == 1
    threads = [one for one in threading.enumerate() if one.name == "burla-imap"]
    del results
    gc.collect()
    assert gone() is None
    assert engine.closed
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize("count", [None, 2])
def test_threads_that_share_an_iterator_get_a_result_each(count: int | None) -> None:
    engine = Here(is_held=True)
    pool = pool_on(engine)
    results = pool.imap(abs, [1, 2] if count else iter([1, 2]))
    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.append(next(results))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for other in threading.enumerate():
        if other.name == "burla-imap":
            other.join(20)
    for make in engine.held:
        make()
    for thread in threads:
        thread.join(20)
    assert sorted(got) == [1, 2]
    assert [*results] == []
