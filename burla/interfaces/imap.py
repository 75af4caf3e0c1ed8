"""The iterators of a pool: `imap` and `imap_unordered`.

What has a length is submitted at once. Of an iterator a thread takes one input after the other, so
many ahead of the results that are taken: neither who asks for the iterator nor the calls wait for
the inputs that come later.
"""

import multiprocessing
import threading
import time
from _queue import SimpleQueue
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, Generic, TypeVar

from burla.nested import is_nested
from burla.own_frames import hides_own_frames

from .engine import Engine
from .results import Failed, Results

R = TypeVar("R")

AHEAD = 1024  # calls of an iterator whose results have not been taken
TERMINATED = "the pool was terminated before this call was made"
_END = object()  # an outcome: there are no more


class Feeders:
    """What feeds a pool from iterators: the pool is closed when they have all ended."""

    def __init__(self, engine: Engine, why: str) -> None:
        """Have none; `why`: what to say to who comes after the end."""
        self.is_closing = False
        self._engine, self._why = engine, why
        self._lock = threading.RLock()  # who drops a pool may hold it
        self._active: set[_Feeder] = set()

    def begin(self, feeder: "_Feeder") -> None:
        """Let one run in a thread of its own."""
        with self._lock:
            self._active.add(feeder)
        feeder.thread = threading.Thread(
            target=self._run, args=(feeder,), name="burla-imap", daemon=True
        )
        feeder.thread.start()

    def close(self) -> None:
        """Take no more calls, but those of iterators that are being read."""
        with self._lock:
            self.is_closing = True
            is_over = not self._active
        if is_over:
            self._engine.close(self._why)

    def join(self) -> None:
        """Return when all iterators have ended; nobody need take their results any more."""
        for feeder in self._all():
            feeder.lift()
            if feeder.thread not in (None, threading.current_thread()):
                feeder.thread.join()

    def stop(self) -> None:
        """Read no more of any."""
        with self._lock:
            self.is_closing = True
        for feeder in self._all():
            feeder.stop(RuntimeError(TERMINATED))

    def drop(self) -> None:
        """End as nobody can take results any more; calls that were submitted are made."""
        for feeder in self._all():
            feeder.abandon()
        self._engine.close(self._why)

    def _all(self) -> list["_Feeder"]:
        with self._lock:
            return [*self._active]

    def _run(self, feeder: "_Feeder") -> None:
        try:
            while feeder.step():
                pass
        finally:
            with self._lock:
                self._active.discard(feeder)
                is_over = self.is_closing and not self._active
            if is_over:
                self._engine.close(self._why)


class _Feeder:
    """Submits calls with what an iterator gives, one at a time."""

    def __init__(
        self, engine: Engine, results: Results, function: Callable[..., Any], inputs: Iterator[Any]
    ) -> None:
        self.submitted = 0
        self.thread: threading.Thread | None = None
        self._engine, self._results, self._function = engine, results, function
        self._inputs = inputs
        self._room: SimpleQueue[None] = SimpleQueue()  # one for each that may be ahead once more
        self._lock = threading.RLock()  # held while it is decided whether one more is submitted
        self._is_lifted = self._is_over = False

    def step(self) -> bool:
        """Submit the next one when there is room; return whether there may be more."""
        if self.submitted >= AHEAD and not self._is_lifted:
            self._room.get()
        if self._is_over:
            return False
        try:
            value = next(self._inputs)
        except StopIteration:
            self.stop(None)
            return False
        except BaseException as error:  # it comes where the result would
            self.stop(error)
            return False
        with self._lock:
            if self._is_over:
                return False
            try:
                self._engine.submit(self._results, self.submitted, self._function, (value,), {})
            except Exception as error:  # it takes no calls any more
                self.stop(error)
                return False
            self.submitted += 1
        return True

    def taken(self) -> None:
        """Take note that somebody has the result of one."""
        self._room.put(None)

    def lift(self) -> None:
        """Go on without waiting for results to be taken."""
        self._is_lifted = True
        self._room.put(None)

    def abandon(self) -> None:
        """Read no more; nobody waits for a result. May be called anywhere."""
        self._is_over = True
        self._room.put(None)

    def stop(self, error: BaseException | None) -> None:
        """Read no more; an error is the last outcome. In any thread."""
        with self._lock:
            if not self._is_over:
                self._is_over = True
                if error is not None:
                    self._results.fail(self.submitted, error)
                    self.submitted += 1
                self._results.succeed(self.submitted, _END)
        self._room.put(None)


class IMapIterator(Iterator[R], Generic[R]):
    """Results as they are wanted; an error of one call does not end it. For any threads."""

    def __init__(
        self,
        pool: object,
        feeders: Feeders,
        engine: Engine,
        function: Callable[..., R],
        iterable: Iterable[Any],
        *,
        is_ordered: bool,
    ) -> None:
        """Submit what is there, or begin to."""
        self._pool = pool  # it lives as long as somebody wants this
        self._results = Results(is_ordered=is_ordered)
        self._turn = threading.Lock()  # of who waits for the next result
        self._taken = 0
        self._count: int | None = None  # not known yet
        self._feeder: _Feeder | None = None
        self._is_fed_here = False  # a call waits for nobody: neither for a thread
        if isinstance(iterable, Sized):
            self._count = self._submit_all(engine, function, iter(iterable))
            return
        self._feeder = _Feeder(engine, self._results, function, iter(iterable))
        self._is_fed_here = is_nested()
        if not self._is_fed_here:
            feeders.begin(self._feeder)

    def _submit_all(self, engine: Engine, function: Callable[..., R], inputs: Iterator[Any]) -> int:
        """Return how many outcomes there will be; what `inputs` raises is the last one."""
        counted = _Counted(inputs)
        try:
            engine.submit_all(self._results, function, ((one,) for one in counted), 0)
        except Exception as error:
            self._results.fail(counted.count, error)
            return counted.count + 1
        return counted.count

    def __iter__(self) -> "IMapIterator[R]":
        """Return itself."""
        return self

    def __next__(self) -> R:
        """Return the next result."""
        return self.next()

    @hides_own_frames
    def next(self, timeout: float | None = None) -> R:
        """Return the next result; the error of a call that failed is raised in its place.

        Raises:
            multiprocessing.TimeoutError: it does not come in `timeout` seconds.
            StopIteration: there are no more.
        """
        wait_s = -1.0
        until_s = None if timeout is None else time.monotonic() + timeout
        if timeout is not None:
            wait_s = min(max(0.0, timeout), threading.TIMEOUT_MAX)
        if not self._turn.acquire(timeout=wait_s):
            raise multiprocessing.TimeoutError
        try:
            value = self._take(until_s)
        finally:
            self._turn.release()
        if type(value) is Failed:
            raise value.error
        result: R = value
        return result

    def _take(self, until_s: float | None) -> Any:
        """Return the next outcome. Only one thread does."""
        while self._taken != self._count:
            if self._is_fed_here and self._count is None and self._feeder is not None:
                self._feeder.step()
            try:
                left_s = None if until_s is None else until_s - time.monotonic()
                value = self._results.get(self._taken, left_s)
            except TimeoutError:
                raise multiprocessing.TimeoutError from None
            if value is _END:  # out of order, others are to come
                assert self._feeder is not None
                self._count = self._feeder.submitted
                continue
            self._taken += 1
            if self._feeder is not None:
                self._feeder.taken()
            return value
        raise StopIteration


class _Counted(Iterator[Any]):
    """An iterator that knows how much it has given."""

    def __init__(self, inputs: Iterator[Any]) -> None:
        self._inputs, self.count = inputs, 0

    def __next__(self) -> Any:
        value = next(self._inputs)
        self.count += 1
        return value
