"""A line between a scheduler and a nodelet that share a process and its loop: no socket, no bytes.

What is said at one end is heard at the other: the same messages, in order, never while the other
end is in the middle of something. Who is through with what it does flushes its end; else the loop
does so soon. Nothing is lost but with the process. As on a socket, a bounded number is heard a
turn, and what waits is bounded by the windows of those who speak.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from .sockets import DRAIN_MESSAGES, DRAIN_S

Said = tuple[Any, list[bytes]]  # a message, which the direction of its line allows, and its payload
Hear = Callable[[Iterable[Said]], None]
ROUNDS_MAX = 16  # of question and answer in one flush; then others in the loop have their turn


class DirectEnd:
    """One end; `direct_line` makes two."""

    def __init__(self) -> None:
        """Hear nothing yet; what is said meanwhile waits."""
        self.other: DirectEnd
        self._waiting: deque[Said] = deque()  # said to this end, and not heard yet
        self._hear: Hear | None = None
        self._loop = asyncio.get_running_loop()
        self._is_due = False  # the loop will give it a turn
        self._is_busy = False  # it is having one, or is flushing
        self._failed: asyncio.Future[None] = self._loop.create_future()  # then it hears no more

    def begin(self, hear: Hear) -> None:
        """From now on let `hear` take what is said to this end."""
        self._hear = hear
        self._turn_soon()

    def end(self) -> None:
        """Hear nothing more; what is said here is heard still."""
        self._hear = None

    async def wait_failed(self) -> None:
        """Raise what `hear` raises, when it does."""
        await self._failed

    def say(self, message: Any, payload: Sequence[bytes]) -> None:
        """Let the other end hear a message: with the next `flush`, or soon."""
        self.other._waiting.append((message, list(payload)))
        self.other._turn_soon()

    def flush(self) -> None:
        """Let what was said here be heard now, and what is answered to it.

        For who is through with what it does: it may have heard something when this returns.
        """
        other = self.other
        if not (other._waiting or self._waiting):
            return  # as mostly
        if self._is_busy or other._is_busy:
            return  # whoever is at it goes on
        self._is_busy = other._is_busy = True
        try:
            for _ in range(ROUNDS_MAX):
                has_heard = bool(other._waiting) and other._have_turn()
                if not has_heard and not (self._waiting and self._have_turn()):
                    return
        finally:
            self._is_busy = other._is_busy = False

    def _turn_soon(self) -> None:
        if self._waiting and not self._is_due and self._hear is not None:
            self._is_due = True
            self._loop.call_soon(self._on_due)

    def _on_due(self) -> None:
        self._is_due = False
        self.other.flush()
        self._turn_soon()

    def _have_turn(self) -> bool:
        """Hear what waits; return whether there was something."""
        if self._hear is None or not self._waiting:
            return False
        try:
            self._hear((self._waiting.popleft(),) if len(self._waiting) == 1 else self._next())
        except BaseException as error:
            self._hear = None
            self._failed.set_exception(error)
        return True

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
