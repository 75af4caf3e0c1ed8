"""What the calling threads leave for the thread that owns the sockets, and the bell that wakes it.

A thread in zmq's poll can be woken by a descriptor only. It is rung once for all that waits: who
posts while the bell rings need not ring again.
"""

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator

from msgspec import Struct

from burla.core.commands import Command
from burla.core.effects import ForCaller
from burla.core.session import Session


class LocalError(Struct, frozen=True):
    """Something in this process ended the job: writing its output, or our own thread."""

    error: BaseException


class OpenSession(Struct, frozen=True):
    """Begin a job, and tell `tell` what its caller is to do or know; called in the I/O thread."""

    session: Session
    tell: Callable[[ForCaller | LocalError], None]


class Reached(Struct, frozen=True):
    """Release `lock`: all that was posted before has been carried out."""

    lock: threading.Lock


Posted = OpenSession | Reached | Command


class CommandQueue:
    """A queue whose reader waits for a descriptor."""

    def __init__(self) -> None:
        """Start empty and silent."""
        self._posted: deque[Posted] = deque()
        self._ringing = False
        self._bell, self._bell_rope = socket.socketpair()
        self._bell.setblocking(False)
        self._bell_rope.setblocking(False)

    def fileno(self) -> int:
        """Return what becomes readable when the bell rings."""
        return self._bell.fileno()

    def post(self, posted: Posted, *, ring: bool = True) -> None:
        """Leave something; without `ring` it is looked at when something else rings."""
        self._posted.append(posted)
        if ring:
            self.ring()

    def ring(self) -> None:
        """Wake the reader."""
        if not self._ringing:
            self._ringing = True
            try:
                self._bell_rope.send(b"\0")
            except OSError:  # it has been rung often enough, or the reader has ended
                return

    def silence(self) -> bool:
        """Return whether the bell rang; it rings again for what is posted from now on."""
        if not self._ringing:
            return False
        try:
            self._bell.recv(4096)
        except BlockingIOError:  # about to be rung
            return False
        self._ringing = False  # before anybody looks: who comes later rings again
        return True

    def take(self) -> Iterator[Posted]:
        """Yield all that was posted, in order."""
        while self._posted:
            yield self._posted.popleft()

    def close(self) -> None:
        """Free the descriptors."""
        self._bell.close()
        self._bell_rope.close()
