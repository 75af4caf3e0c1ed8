"""Which parts of outcomes are read for whom: one at a time for each client.

The next one is read when libzmq has let go of all bytes of the one before: so a client that asks
and asks, and does not read, takes the memory of one part.
"""

import os
import weakref
from collections.abc import Callable, Iterable

from burla.scheduler.store.effects import ReadPart


class Frame(bytearray):
    """Bytes of which can be told when nobody has them any more."""

    @classmethod
    def read(cls, file: int, at: int, size: int) -> "Frame":
        """Return bytes of a file; fewer at its end."""
        frame = cls(size)
        del frame[os.preadv(file, [frame], at) :]
        return frame


class PartReads:
    """Parts that are asked for, being read, and on their way."""

    def __init__(self) -> None:
        """Start with nobody."""
        self._waiting: dict[bytes, ReadPart] = {}  # by client
        self._begun: dict[bytes, ReadPart] = {}
        self._put_off: dict[bytes, ReadPart] = {}  # that could not be read
        self._sent: dict[bytes, list[weakref.ref[Frame]]] = {}

    def is_waiting(self) -> bool:
        """Return whether `take` may have something in a moment."""
        return bool(self._waiting)

    def ask(self, what: ReadPart) -> None:
        """Have a part read in its turn, instead of another one that its client has asked for."""
        begun = self._begun.get(what.peer)
        if begun is None or begun.asked != what.asked:
            self._waiting[what.peer] = what

    def put_off(self, what: ReadPart) -> None:
        """Have a part that cannot be read now read later, unless its client asks for another."""
        self._begun.pop(what.peer, None)
        self._put_off.setdefault(what.peer, what)

    def ask_again(self) -> None:
        """Have read what was put off."""
        put_off, self._put_off = self._put_off, {}
        self._waiting = put_off | self._waiting

    def take(self) -> list[ReadPart]:
        """Return what is to be read now."""
        ready = [what for peer, what in self._waiting.items() if not self._is_busy(peer)]
        for what in ready:
            del self._waiting[what.peer]
            self._begun[what.peer] = what
        return ready

    def end(self, peer: bytes, frames: Iterable[bytes | Frame]) -> None:
        """Take note of what was read for a client, and is sent now."""
        self._begun.pop(peer, None)
        self._sent[peer] = [weakref.ref(frame) for frame in frames if isinstance(frame, Frame)]

    def forget_gone(self, is_there: Callable[[bytes], bool]) -> None:
        """Forget clients that are gone, and what has arrived."""
        self._waiting = {peer: what for peer, what in self._waiting.items() if is_there(peer)}
        for peer in list(self._sent):
            self._is_busy(peer)

    def _is_busy(self, peer: bytes) -> bool:
        if any(frame() is not None for frame in self._sent.get(peer, ())):
            return True
        self._sent.pop(peer, None)
        return peer in self._begun
