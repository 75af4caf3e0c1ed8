"""The event loop that a coroutine runs in, as far as maps need one: asyncio, uvloop or trio."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any, Literal, Protocol

WAKE_S = 0.2  # so late a cell that waits is interrupted


class Loop(Protocol):
    """What a map needs."""

    def call_soon(self, what: Callable[[], None]) -> None:
        """Have something called in the loop; from any thread. Nothing if the loop is gone."""

    def new_event(self) -> "Event":
        """Return an event of the loop."""

    def spawn(self, what: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        """Run a coroutine beside; return what cancels it."""


class Event(Protocol):
    """As both have it."""

    def set(self) -> None:
        """Wake who waits."""

    async def wait(self) -> Any:
        """Wait until it is set."""


def current_loop() -> Loop:
    """Return the loop that runs in this thread.

    Raises:
        RuntimeError: there is none that is known.
    """
    try:
        return _Asyncio(asyncio.get_running_loop())
    except RuntimeError:
        trio: Any = sys.modules.get("trio")
        if trio is not None:
            with suppress(RuntimeError):
                return _Trio(trio, trio.lowlevel.current_trio_token())
    raise RuntimeError("burla.amap is for coroutines that asyncio, uvloop or trio runs")


class _Asyncio:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself keeps weak references

    def call_soon(self, what: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(what)

    def new_event(self) -> Event:
        return _Alert() if "ipykernel" in sys.modules else asyncio.Event()

    def spawn(self, what: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        task = self._loop.create_task(what())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

        def cancel() -> None:
            task.cancel()

        return cancel


class _Alert(asyncio.Event):
    """Wakes its loop now and then while somebody waits.

    The kernel of a notebook takes an interrupt in a signal handler that wakes no loop, and would
    cancel the cell when something else happens there.
    """

    async def wait(self) -> Literal[True]:
        loop = asyncio.get_running_loop()
        timers: list[asyncio.TimerHandle] = []

        def wake() -> None:
            timers[:] = [loop.call_later(WAKE_S, wake)]

        wake()
        try:
            return await super().wait()
        finally:
            timers[0].cancel()


class _Trio:
    def __init__(self, trio: Any, token: Any) -> None:
        self._trio, self._token = trio, token

    def call_soon(self, what: Callable[[], None]) -> None:
        with suppress(self._trio.RunFinishedError):
            self._token.run_sync_soon(what)

    def new_event(self) -> Event:
        event: Event = self._trio.Event()
        return event

    def spawn(self, what: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        scope = self._trio.CancelScope()

        async def run() -> None:
            with scope:
                await what()

        self._trio.lowlevel.spawn_system_task(run)
        cancel: Callable[[], None] = scope.cancel
        return cancel


async def pull(
    inputs: AsyncIterator[Any], put: Callable[[Any, BaseException | None], None]
) -> None:
    """Take one element of an asynchronous iterator and put it, or what it raised instead."""
    try:
        value = await anext(inputs)
    except BaseException as error:
        put(None, error)
        if not isinstance(error, Exception):  # the task is cancelled
            raise
    else:
        put(value, None)
