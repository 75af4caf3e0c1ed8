"""`burla.amap`: `remote_parallel_map` for coroutines."""

from _queue import SimpleQueue
from collections import deque
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
)
from typing import Any, Literal, TypeVar, Unpack, overload

from msgspec.structs import replace

from burla.calling import request_of
from burla.monkey_patches import refuse_green_threads
from burla.nested import is_nested
from burla.own_frames import hide_own_frames
from burla.parallel_map import Rest, remote_parallel_map
from burla.starting import Request
from burla.values.payloads import is_lazy

from . import reactor
from .loops import Event, Loop, current_loop, pull
from .reactor import Machine, Reactor

R = TypeVar("R")
Inputs = Iterable[Any] | AsyncIterable[Any]


@overload
def amap(
    function_: Callable[..., R],
    inputs: Inputs,
    *,
    generator: Literal[False] = False,
    with_index: Literal[False] = False,
    return_exceptions: Literal[False] | None = None,
    **rest: Unpack[Rest],
) -> Coroutine[Any, Any, list[R]]: ...
@overload
def amap(
    function_: Callable[..., R],
    inputs: Inputs,
    *,
    generator: Literal[False] = False,
    with_index: Literal[False] = False,
    return_exceptions: Literal[True],
    **rest: Unpack[Rest],
) -> Coroutine[Any, Any, list[R | BaseException]]: ...
@overload
def amap(
    function_: Callable[..., R],
    inputs: Inputs,
    *,
    generator: Literal[False] = False,
    with_index: Literal[True],
    return_exceptions: Literal[False] | None = None,
    **rest: Unpack[Rest],
) -> Coroutine[Any, Any, list[tuple[int, R]]]: ...
@overload
def amap(
    function_: Callable[..., R],
    inputs: Inputs,
    *,
    generator: Literal[False] = False,
    with_index: Literal[True],
    return_exceptions: Literal[True],
    **rest: Unpack[Rest],
) -> Coroutine[Any, Any, list[tuple[int, R | BaseException]]]: ...
@overload
def amap(
    function_: Callable[..., R],
    inputs: Inputs,
    *,
    generator: Literal[True],
    with_index: Literal[False] = False,
    return_exceptions: Literal[False] | None = None,
    **rest: Unpack[Rest],
) -> "AsyncResults[R]": ...
@overload
def amap(
    function_: Callable[..., R],
    inputs: Inputs,
    *,
    generator: Literal[True],
    with_index: Literal[False] = False,
    return_exceptions: Literal[True],
    **rest: Unpack[Rest],
) -> "AsyncResults[R | BaseException]": ...
@overload
def amap(
    function_: Callable[..., R],
    inputs: Inputs,
    *,
    generator: Literal[True],
    with_index: Literal[True],
    return_exceptions: Literal[False] | None = None,
    **rest: Unpack[Rest],
) -> "AsyncResults[tuple[int, R]]": ...
@overload
def amap(
    function_: Callable[..., R],
    inputs: Inputs,
    *,
    generator: Literal[True],
    with_index: Literal[True],
    return_exceptions: Literal[True],
    **rest: Unpack[Rest],
) -> "AsyncResults[tuple[int, R | BaseException]]": ...
def amap(
    function_: Callable[..., Any],
    inputs: Inputs,
    *,
    generator: bool = False,
    with_index: bool = False,
    return_exceptions: bool | None = None,
    **rest: Unpack[Rest],
) -> Any:
    """Do what `remote_parallel_map` does, without blocking the event loop.

    `await amap(f, inputs)` gives the list of results; `async for result in amap(f, inputs,
    generator=True)` gives them as they complete. Whoever cancels what awaits it, as
    `asyncio.timeout` does, ends its calls. For asyncio, uvloop and trio, also through anyio.

    Maps whose inputs are a list, tuple, range or array share one thread, however many there are: up
    to 256 are under way at once, others wait for them. One over an iterator has a thread of its
    own, in which that is advanced. It may be an asynchronous one: that is advanced in the loop.

    Args:
        function_: what is called; see `remote_parallel_map`.
        inputs: any iterable, also an asynchronous one; a list is taken as it is when it starts.
        generator: return an asynchronous iterator; leaving it early, or its `aclose`, ends the
            rest.
        with_index: see `remote_parallel_map`.
        return_exceptions: likewise.
        rest: likewise; `spinner` is False if it is not given, for there may be many maps.

    Raises:
        TypeError: an argument is of a wrong kind; the text names it.
        ValueError: an argument has an impossible value.
    """
    pulled = _Pulled(inputs) if isinstance(inputs, AsyncIterable) else None
    given: Any = inputs if pulled is None else pulled
    wanted: dict[str, Any] = {
        "spinner": False,
        **rest,
        "generator": generator,
        "with_index": with_index,
    }
    wanted["return_exceptions"] = return_exceptions
    try:
        request = request_of(function_, given, **wanted)
        if request.options.is_detached:
            raise ValueError(
                "detach=True is for remote_parallel_map, which returns as soon as the inputs are"
                " stored: in a coroutine, call it by asyncio.to_thread"
            )
    except BaseException as error:
        hide_own_frames(error)
        raise
    results: AsyncResults[Any] = AsyncResults(request, wanted, pulled)
    return results if generator else results.collect()


class AsyncResults(AsyncIterator[R]):
    """The results of a map, as they complete; the calls start with the first `anext`."""

    def __init__(self, request: Request, wanted: dict[str, Any], pulled: "_Pulled | None") -> None:
        """Start nothing.

        Args:
            request: what is wanted.
            wanted: the same, as options of a map.
            pulled: its inputs, if they come from an asynchronous iterator.
        """
        self._request, self._wanted, self._pulled = request, wanted, pulled
        self._mail: _Mail | None = None  # None: it has not begun
        self._reactor: Reactor | None = None
        self._machine: Machine | None = None
        self._chunk: Iterator[Any] = iter(())  # of results that are there
        self._is_over = False
        self._is_running = False  # somebody waits for the next result

    def __aiter__(self) -> "AsyncResults[R]":
        """Return itself."""
        return self

    async def __anext__(self) -> R:
        """Return the next result.

        Raises:
            RuntimeError: another task waits for it.
        """
        if self._is_running:
            raise RuntimeError("anext(): asynchronous generator is already running")
        self._is_running = True
        try:
            return await self._next()
        except BaseException as error:
            if type(error) is not StopAsyncIteration:
                hide_own_frames(error)
            raise
        finally:
            self._is_running = False

    async def _next(self) -> R:
        if self._mail is None and not self._is_over:
            if is_nested():
                self._chunk = iter(self._here())
            else:
                self._begin()
                await self._take()
        while not self._is_over:
            for value in self._chunk:
                result: R = value
                return result
            if self._reactor is None or self._machine is None:  # it ran in this call
                break
            self._reactor.go_on(self._machine)
            await self._take()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the calls that are left."""
        self._abandon()

    def __del__(self) -> None:
        """End the calls that are left: nobody can take their results any more."""
        self._abandon()

    async def collect(self) -> list[R]:
        """Return all results; only for what is no generator."""
        try:
            if is_nested():
                return list(self._here())
            self._begin()
            results: list[R] = await self._take()
            return results
        except BaseException as error:
            hide_own_frames(error)
            raise

    # --- ---

    def _here(self) -> Iterable[Any]:
        """Return the results of a map in a call: it runs right there."""
        request = self._request
        self._mail = _Mail(None)
        found: Iterable[Any] = remote_parallel_map(request.function, request.inputs, **self._wanted)
        return found

    def _begin(self) -> None:
        refuse_green_threads()
        loop, request = current_loop(), self._request
        if type(request.inputs) is list:  # another coroutine may change it meanwhile
            request = replace(request, inputs=list(request.inputs))
        if self._pulled is not None:
            self._pulled.loop = loop
        self._reactor = Reactor() if is_lazy(request.inputs) else reactor.shared
        self._mail = mail = _Mail(loop)
        self._machine = Machine(request, mail.hand, mail.end)
        self._reactor.begin(self._machine)

    async def _take(self) -> Any:
        """Wait for results of a generator, which become the chunk; or for the list of all."""
        assert self._mail is not None
        try:
            came = await self._mail.take()
        except BaseException:  # whoever waited is cancelled
            self._abandon()
            raise
        if not isinstance(came, _Ended):
            self._chunk = iter(came)
            return None
        was_over, self._is_over = self._is_over, True
        if self._pulled is not None:
            self._pulled.stop()
        if came.error is not None and not was_over:
            error, came.error = came.error, None
            raise error
        return came.results

    def _abandon(self) -> None:
        was_over, self._is_over = self._is_over, True
        if was_over or self._reactor is None or self._machine is None:
            return
        if self._pulled is not None:
            self._pulled.stop()
        self._reactor.abandon(self._machine)


class _Ended:
    """Nothing more comes."""

    def __init__(self, results: Any, error: BaseException | None) -> None:
        self.results, self.error = results, error


class _Mail:
    """What a map leaves for who waits in a loop. It knows nothing of that one."""

    def __init__(self, loop: Loop | None) -> None:
        self._loop = loop
        self._came: deque[Any] = deque()  # chunks, and what ends them
        self._more: Event | None = None if loop is None else loop.new_event()

    async def take(self) -> Any:
        """Return the next chunk, or what ends them."""
        assert self._loop is not None
        assert self._more is not None
        while not self._came:
            await self._more.wait()
            self._more = self._loop.new_event()
        return self._came.popleft()

    def hand(self, values: Iterable[Any]) -> None:
        """Leave results; called in another thread, as is `end`."""
        self._leave(list(values))

    def end(self, results: Any, error: BaseException | None) -> None:
        """Leave the list of results, or an error."""
        self._leave(_Ended(results, error))

    def _leave(self, what: Any) -> None:
        self._came.append(what)
        if self._loop is not None:
            self._loop.call_soon(self._wake)

    def _wake(self) -> None:
        if self._more is not None:
            self._more.set()


class _Pulled(Iterator[Any]):
    """An asynchronous iterable that another thread advances, one element at a time, in its loop."""

    def __init__(self, inputs: AsyncIterable[Any]) -> None:
        self._inputs = inputs
        self._iterator: AsyncIterator[Any] | None = None
        self._got: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._cancel: Callable[[], None] | None = None
        self._is_stopped = False
        self.loop: Loop | None = None

    def __next__(self) -> Any:
        assert self.loop is not None
        self.loop.call_soon(self._ask)
        value, error = self._got.get()
        if isinstance(error, StopAsyncIteration):
            raise StopIteration
        if error is not None:
            raise error
        return value

    def stop(self) -> None:
        """Advance it no more; in the loop, or where it is gone."""
        self._is_stopped = True
        if self._cancel is not None and self.loop is not None:
            self.loop.call_soon(self._cancel)
        self._got.put((None, StopAsyncIteration()))

    def _ask(self) -> None:
        if self._is_stopped or self.loop is None:
            return
        if self._iterator is None:
            self._iterator = aiter(self._inputs)
        iterator = self._iterator
        self._cancel = self.loop.spawn(lambda: pull(iterator, self._put))

    def _put(self, value: Any, error: BaseException | None) -> None:
        self._got.put((value, error))
