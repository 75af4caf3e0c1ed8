"""`burla.Executor`: the executor of Python's `concurrent.futures`, over the cluster."""

import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor as _Executor, Future
from itertools import islice
from typing import Any, ParamSpec, TypeVar, Unpack

from burla.own_frames import hide_own_frames

from .engine import CallOptions, Engine, Settings
from .results import Results

P = ParamSpec("P")
R = TypeVar("R")

CLOSED = "cannot schedule new futures after shutdown"


class Executor(_Executor):
    """Call functions on the cluster, each on its own, with a future for each call.

    A `concurrent.futures.Executor`: whatever takes one takes this, as `as_completed`, `wait`,
    `asyncio`'s `run_in_executor` and `wrap_future` do. With no cluster configured it runs on this
    machine. Functions and arguments travel as those of `remote_parallel_map` do: lambdas, closures
    and what a script or a notebook defines need no import. What calls print appears here.

    Calls that are submitted close to each other go together, without waiting for each other. A
    call whose process died is made again; only if that happens three times is it an error, and only
    of its own future. When the cluster is lost all futures get that error, and `submit` raises
    `BrokenExecutor` from then on.

    While there is nothing to do there is no process, no thread and no node that belongs to it. What
    stands around the calls (working directory, environment, logging) is that of the time when the
    first call comes after such a rest. Changes of what a function refers to are seen by calls that
    are submitted a millisecond later. Big arrays are not copied: leave them as they are until the
    call is done.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **options: Unpack[CallOptions],
    ) -> None:
        """Start nothing: the first call does.

        Args:
            max_workers: how many calls run at the same time at most; None: as many as fit.
            initializer: called in each worker process before its first call. Then all functions of
                this executor share their globals there.
            initargs: what it is called with.
            options: `func_cpu`, `func_ram`, `func_gpu`, `grow`, `env`, `files`, `packages`,
                `image`, `timeout`, `retries`, `spinner` (else False) and `progress`, as
                `remote_parallel_map` has them; each time that nothing is left counts as an end.

        Raises:
            TypeError: an argument is of a wrong kind; the text names it.
            ValueError: an argument has an impossible value.
        """
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        settings = Settings(max_workers, initializer, tuple(initargs), options)
        settings.request(settings.many())  # what is wrong is said now
        self._engine = Engine(settings)
        end = weakref.finalize(self, self._engine.close, CLOSED)
        end.atexit = False  # then calls that were submitted are waited for

    @property
    def _max_workers(self) -> int:
        """Say how many calls may run at once: dask and others ask executors of Python that way."""
        return self._engine.slots()

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have `fn(*args, **kwargs)` called; return the future of its result.

        Raises:
            RuntimeError: it was shut down.
            BrokenExecutor: it broke before.
        """
        future: Future[R] = Future()
        self._engine.submit(FUTURES, future, fn, args, kwargs)
        return future

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[R]:
        """Return the results of `fn` on what `zip(*iterables)` gives, in order.

        Args:
            fn: called with one element of each.
            iterables: collected now, unless there is a `buffersize`.
            timeout: seconds from now, after which waiting for a result raises TimeoutError.
            chunksize: taken and ignored: calls go together as it is best anyway.
            buffersize: how many calls may be without their result being taken.

        Raises:
            RuntimeError: it was shut down.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        end_s = None if timeout is None else timeout + time.monotonic()
        inputs = zip(*iterables, strict=False)
        if buffersize is not None:
            return self._map_buffered(fn, inputs, end_s, buffersize)
        results = Results()
        count = self._engine.submit_all(results, fn, inputs, 0)
        return _in_order(results, count, end_s)

    def _map_buffered(
        self,
        fn: Callable[..., R],
        inputs: Iterator[tuple[Any, ...]],
        end_s: float | None,
        buffersize: int | None,
    ) -> Iterator[R]:
        self._engine.check()
        futures = deque(self.submit(fn, *args) for args in islice(inputs, buffersize))
        me = weakref.ref(self)  # who drops the executor drops it, iterating or not

        def results() -> Iterator[R]:
            try:
                while futures:
                    if buffersize is not None and (executor := me()) is not None:
                        futures.extend(executor.submit(fn, *args) for args in islice(inputs, 1))
                    left_s = None if end_s is None else end_s - time.monotonic()
                    yield _result_of(futures.popleft(), left_s)
            finally:
                for future in futures:
                    future.cancel()

        return results()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls.

        Args:
            wait: return when all calls have their outcomes, and all that they printed is written.
            cancel_futures: those that have not been sent to a node yet are cancelled.
        """
        self._engine.close(CLOSED, cancel=cancel_futures)
        if wait:
            try:
                self._engine.join()
            except KeyboardInterrupt:  # nobody waits for the calls any more
                self._engine.stop(CLOSED)
                raise

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Shut it down; whoever interrupted the block does not wait for its calls: they stop."""
        if kind is KeyboardInterrupt:
            self._engine.stop(CLOSED)
        self.shutdown()


def _result_of(future: Future[R], timeout_s: float | None) -> R:
    try:
        return future.result(timeout_s)
    finally:
        future.cancel()  # if it did not come in time
        del future  # or its error and this frame keep each other


def _in_order(results: Results, count: int, end_s: float | None) -> Iterator[Any]:
    try:
        for index in range(count):
            left_s = None if end_s is None else max(0.0, end_s - time.monotonic())
            yield results.take(index, left_s)
    except BaseException as error:
        hide_own_frames(error)
        raise
    finally:
        results.drop()


class _Futures:
    """Hands outcomes over to futures, which are their own tokens."""

    def begin(self, future: Future[Any]) -> bool:
        try:
            return future.set_running_or_notify_cancel()
        except RuntimeError:  # somebody else has set its result
            return False

    def succeed(self, future: Future[Any], value: Any) -> None:
        future.set_result(value)

    def fail(self, future: Future[Any], error: BaseException) -> None:
        if future.running() or self.begin(future):
            future.set_exception(error)

    def cancel(self, future: Future[Any]) -> None:
        if future.cancel():
            future.set_running_or_notify_cancel()


FUTURES = _Futures()
