"""A line between a scheduler and a nodelet that share a process and its loop: no socket, no bytes.

What is said at one end is heard at the other: the same messages, in order, never while the one who
says them is in the middle of something. Nothing is lost but with the process. As on a socket, a
bounded number is heard a turn, and what waits is bounded by the windows of those who speak.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from .sockets import DRAIN_MESSAGES, DRAIN_S

Said = tuple[Any, list[bytes]]  # a message, which the direction of its line allows, and its payload
Hear = Callable[[Iterable[Said]], None]


class DirectEnd:
    """One end; `direct_line` makes two."""

    def __init__(self) -> None:
        """Hear nothing yet; what is said meanwhile waits."""
        self.other: DirectEnd
        self._waiting: deque[Said] = deque()  # said to this end, and not heard yet
        self._hear: Hear | None = None
        self._loop = asyncio.get_running_loop()
        self._is_due = False  # its turn will come
        self._failed: asyncio.Future[None] = self._loop.create_future()

    def begin(self, hear: Hear) -> None:
        """From now on let `hear` take what is said to this end."""
        self._hear = hear
        if self._waiting:
            self._have_turn()

    async def wait_failed(self) -> None:
        """Raise what `hear` raises, when it does."""
        await self._failed

    def say(self, message: Any, payload: Sequence[bytes]) -> None:
        """Let the other end hear a message."""
        self.other._take(message, payload)

    def _take(self, message: Any, payload: Sequence[bytes]) -> None:
        self._waiting.append((message, list(payload)))
        if not self._is_due and self._hear is not None:
            self._have_turn()

    def _have_turn(self) -> None:
        self._is_due = True
        self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        assert self._hear is not None
        self._is_due = False
        if self._failed.done():
            return
        try:
            self._hear(self._next())
        except BaseException as error:
            self._failed.set_exception(error)
            return
        if self._waiting and not self._is_due:
            self._have_turn()

    def _next(self) -> Iterator[Said]:
        until_s = time.monotonic() + DRAIN_S
        for _ in range(min(DRAIN_MESSAGES, len(self._waiting))):
            yield self._waiting.popleft()
            if time.monotonic() > until_s:
                return


def direct_line() -> tuple[DirectEnd, DirectEnd]:
    """Return the two ends of a new line, inside the loop of both."""
    one, other = DirectEnd(), DirectEnd()
    one.other, other.other = other, one
    return one, other
