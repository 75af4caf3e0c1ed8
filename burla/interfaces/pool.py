"""`burla.Pool`: the pool of Python's `multiprocessing`, over the cluster."""

import multiprocessing
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar, Unpack

from burla.nested import is_nested
from burla.own_frames import hides_own_frames
from burla.parallel_map import remote_parallel_map

from .engine import CallOptions, Engine, Settings
from .imap import TERMINATED, Feeders, IMapIterator

R = TypeVar("R")
Callback = Callable[[Any], object]
Kwds = Mapping[str, Any] | None
Tuples = Iterable[Iterable[Any]]

NOT_RUNNING = "Pool not running"


class AsyncResult(Generic[R]):
    """The result of a call, or of a map, that is waited for when it is wanted."""

    def __init__(
        self,
        count: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> None:
        """Wait for outcomes.

        Args:
            count: of calls, of which this is the list of results; None: of one call.
            callback: called with the result, in another thread.
            error_callback: called with the error, if it fails.
        """
        self._is_list = count is not None
        self._values: list[Any] = [None] * (1 if count is None else count)
        self._left = len(self._values)
        self._error: BaseException | None = None
        self._callback, self._error_callback = callback, error_callback
        self._done = threading.Event()
        if not self._left:
            self._finish()

    def ready(self) -> bool:
        """Return whether all calls have ended."""
        return self._done.is_set()

    def successful(self) -> bool:
        """Return whether none of them failed.

        Raises:
            ValueError: they have not ended.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._error is None

    def wait(self, timeout: float | None = None) -> None:
        """Return when all calls have ended, or after `timeout` seconds."""
        self._done.wait(timeout)

    @hides_own_frames
    def get(self, timeout: float | None = None) -> R:
        """Return the result; the error of the first call that failed is raised.

        Raises:
            multiprocessing.TimeoutError: it is not there after `timeout` seconds.
        """
        if not self._done.wait(timeout):
            raise multiprocessing.TimeoutError
        if self._error is not None:
            raise self._error
        values: Any = self._values
        result: R = values if self._is_list else values[0]
        return result

    # --- a sink, whose tokens are indices ---

    def begin(self, token: int) -> bool:
        """Say that the call is wanted."""
        return True

    def succeed(self, token: int, value: Any) -> None:
        """Take a result."""
        self._values[token] = value
        self._count()

    def fail(self, token: int, error: BaseException) -> None:
        """Take an error; the first one that comes is that of all."""
        self._error = self._error or error
        self._count()

    def cancel(self, token: int) -> None:
        """Take note that the pool was terminated before this call was made."""
        self.fail(token, RuntimeError(TERMINATED))

    def _count(self) -> None:
        self._left -= 1
        if not self._left:
            self._finish()

    def _finish(self) -> None:
        result = self._values if self._is_list else self._values[0]
        try:
            if self._error is not None and self._error_callback is not None:
                self._error_callback(self._error)
            elif self._error is None and self._callback is not None:
                self._callback(result)
        finally:
            self._done.set()


class Pool:
    """Call functions on the cluster as `multiprocessing.Pool` does in processes of this machine.

    A drop-in: `from burla import Pool`. With no cluster configured it runs on this machine.
    Lambdas, closures and what a script or a notebook defines need no import, errors have the
    remote traceback, and a process that dies loses no call. `chunksize` is taken and ignored: calls
    go together as it is best anyway. See `Executor` for what holds for both.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        maxtasksperchild: int | None = None,
        context: object = None,
        **options: Unpack[CallOptions],
    ) -> None:
        """Start nothing: the first call does.

        Args:
            processes: how many calls run at the same time at most; None: as many as fit.
            initializer: called in each worker process before its first call. Then all functions of
                this pool share their globals there.
            initargs: what it is called with.
            maxtasksperchild: taken and ignored: processes go with the work that they had.
            context: taken and ignored: how processes start does not show.
            options: `func_cpu`, `func_ram`, `func_gpu`, `grow`, `env`, `files`, `packages`,
                `image`, `timeout`, `retries`, `spinner` (else False) and `progress`, as
                `remote_parallel_map` has them; each time that nothing is left counts as an end.

        Raises:
            TypeError: an argument is of a wrong kind; the text names it.
            ValueError: an argument has an impossible value.
        """
        if processes is not None and processes < 1:
            raise ValueError("Number of processes must be at least 1")
        self._settings = settings = Settings(processes, initializer, tuple(initargs), options)
        settings.request(settings.many())  # what is wrong is said now
        self._engine = Engine(settings)
        self._feeders = Feeders(self._engine, NOT_RUNNING)
        end = weakref.finalize(self, self._feeders.drop)
        end.atexit = False  # then calls that were submitted are waited for

    # --- waiting for the result ---

    @hides_own_frames
    def apply(
        self,
        func: Callable[..., R],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
    ) -> R:
        """Return `func(*args, **kwds)`."""
        return self.apply_async(func, args, kwds).get()

    @hides_own_frames
    def map(
        self, func: Callable[[Any], R], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[R]:
        """Return the results in order; the error of a call is raised when all have ended."""
        return self._map(func, iterable, is_star=False)

    @hides_own_frames
    def starmap(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
    ) -> list[R]:
        """Do as `map` does, with the arguments of each call as an element."""
        return self._map(func, iterable, is_star=True)

    def imap(
        self, func: Callable[[Any], R], iterable: Iterable[Any], chunksize: int = 1
    ) -> IMapIterator[R]:
        """Return an iterator over the results in order; an iterator is read ahead, in a thread."""
        return self._imap(func, iterable, chunksize, is_ordered=True)

    def imap_unordered(
        self, func: Callable[[Any], R], iterable: Iterable[Any], chunksize: int = 1
    ) -> IMapIterator[R]:
        """Return an iterator over the results as they come."""
        return self._imap(func, iterable, chunksize, is_ordered=False)

    # --- at once ---

    def apply_async(
        self,
        func: Callable[..., R],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult[R]:
        """Begin a call; `callback` or `error_callback` are called with its outcome."""
        self._check()
        result: AsyncResult[R] = AsyncResult(None, callback, error_callback)
        self._engine.submit(result, 0, func, tuple(args), dict(kwds or {}))
        return result

    def map_async(
        self,
        func: Callable[[Any], R],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult[list[R]]:
        """Begin what `map` does."""
        inputs = [(one,) for one in iterable]
        return self._begin_map(func, inputs, callback, error_callback)

    def starmap_async(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult[list[R]]:
        """Begin what `starmap` does."""
        return self._begin_map(func, [tuple(one) for one in iterable], callback, error_callback)

    # --- ends ---

    def close(self) -> None:
        """Take no more calls."""
        self._feeders.close()

    def terminate(self) -> None:
        """Take no more calls and stop those that run: they fail."""
        self._feeders.stop()
        self._engine.stop(NOT_RUNNING)

    def join(self) -> None:
        """Return when all calls have ended, after `close` or `terminate`.

        Raises:
            ValueError: it takes calls still.
        """
        if not self._is_closed():
            raise ValueError("Pool is still running")
        self._feeders.join()
        self._engine.join()

    def __enter__(self) -> "Pool":
        """Return it, if it is running."""
        self._check()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop all that runs still."""
        self.terminate()

    def __reduce__(self) -> Any:
        """Refuse: it belongs to its process."""
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    # --- ---

    def _is_closed(self) -> bool:
        return bool(self._engine.closed) or self._feeders.is_closing

    def _check(self) -> None:
        if self._is_closed():
            raise ValueError(NOT_RUNNING)

    def _map(self, func: Callable[..., R], iterable: Iterable[Any], *, is_star: bool) -> list[R]:
        self._check()
        inputs = iterable if type(iterable) in (list, tuple, range) else list(iterable)
        is_plain = self._settings.initializer is None and (is_nested() or self._engine.is_idle())
        if not is_plain:  # the calls that there are share the processes
            if is_star:
                return self.starmap_async(func, inputs).get()
            return self.map_async(func, inputs).get()
        wanted: Any = self._settings.of_map()
        results: list[Any] = remote_parallel_map(
            func, inputs, unpack=is_star, return_exceptions=True, **wanted
        )
        for kind in set(map(type, results)):
            if issubclass(kind, BaseException):
                _raise_first(results)
        return results

    def _begin_map(
        self,
        func: Callable[..., R],
        inputs: list[tuple[Any, ...]],
        callback: Callback | None,
        error_callback: Callback | None,
    ) -> AsyncResult[list[R]]:
        self._check()
        result: AsyncResult[list[R]] = AsyncResult(len(inputs), callback, error_callback)
        if inputs:
            self._engine.submit_all(result, func, inputs, 0)
        return result

    def _imap(
        self, func: Callable[[Any], R], iterable: Iterable[Any], chunksize: int, *, is_ordered: bool
    ) -> IMapIterator[R]:
        self._check()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize}")
        return IMapIterator(
            self, self._feeders, self._engine, func, iterable, is_ordered=is_ordered
        )


def _raise_first(results: list[Any]) -> None:
    """Raise the first error of a call; a function may return errors, too."""
    for value in results:
        if isinstance(value, BaseException) and hasattr(value, "burla_input_index"):
            raise value
