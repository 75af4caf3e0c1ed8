"""Memory in which a value is put together that comes in fragments; used again when it is free.

Fresh pages cost more than what is copied into them. So the memory of a value that nobody refers to
any more is kept for a while, within bounds, for the next one of about its size: a loop of maps that
return arrays takes pages for two of them, once.
"""

import mmap
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

from .free_results import FREE_BYTES_MAX, FREE_PART, FREE_S, memory_bytes
from .raw_memory import lend
from .shared_memory import may_map, note_mapping

IDLE_MAX = 64  # free ones
FIT_PART = 8  # a value leaves at most this part of its room empty
TWICE_BYTES_MAX = 8 << 20  # of a pickle, that may be there beside what is made of it
DRAIN_BYTES = 4 << 20  # read, after which memory is given back


class _Room:
    """Memory that is not a file's."""

    def __init__(self, size: int) -> None:
        self.region = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        note_mapping(self.region)
        self.is_drained = False  # pages of it are gone
        self.until_s = 0.0  # when it has waited long enough for another value

    def drain(self, start: int, stop: int) -> None:
        """Give whole pages back."""
        self.is_drained = True
        self.region.madvise(mmap.MADV_DONTNEED, start, stop - start)


class Rooms:
    """The rooms of this process. Thread-safe, also when the garbage collector gives one back.

    That may come by wherever something is made; so nothing here walks through what it changes.
    """

    def __init__(
        self, clock_s: Callable[[], float] = time.monotonic, bytes_max: int | None = None
    ) -> None:
        """Have none yet.

        Args:
            clock_s: tells the time.
            bytes_max: what free ones may have together; 0: none is kept, so nobody need see to it;
                None: as much as files of results.
        """
        self._clock_s, self._bytes_max = clock_s, bytes_max
        self._idle: dict[int, _Room] = {}  # the one that was given back last is the last
        self._numbers = count()

    @property
    def idle(self) -> int:
        """How many are free."""
        return len(self._idle)

    def make(self, size: int) -> memoryview | None:
        """Return memory for a value, aligned as in a file; None: there is none.

        What was there before may still be in it. Fresh memory is none before it is written to.
        """
        if sys.platform == "win32":
            return _plain(size)
        try:
            room = self._take(size)
            if room is None:
                if not may_map():
                    return _plain(size)
                room = _Room(size)
            lent = lend(room.region, size, partial(self._take_back, room, os.getpid()))
        except (MemoryError, OSError, OverflowError):
            return None
        owner: Any = lent.obj
        owner.room = room
        return lent

    def drop_old(self) -> None:
        """Let go of what has waited for too long. To be called now and then."""
        if not self._idle:
            return
        now_s = self._clock_s()
        for number in list(self._idle):  # the oldest first
            room = self._idle.get(number)
            if room is not None and room.until_s > now_s:
                return
            self._idle.pop(number, None)

    def clear(self) -> None:
        """Let go of all that is free."""
        self._idle.clear()

    def _take(self, size: int) -> _Room | None:
        """Return a free one that fits; else make sure that one more is not too much."""
        for number in reversed(list(self._idle)):
            room = self._idle.get(number)
            if room is None or not size <= len(room.region) <= size + size // FIT_PART:
                continue
            if self._idle.pop(number, None) is not None:  # no other thread was quicker
                return room
        self._keep_to(self._most() - size)
        return None

    def _take_back(self, room: _Room, pid: int) -> None:
        if room.is_drained or pid != os.getpid() or len(room.region) > self._most():
            return
        room.until_s = self._clock_s() + FREE_S
        self._idle[next(self._numbers)] = room
        self._keep_to(self._most())

    def _most(self) -> int:
        if self._bytes_max is None:
            self._bytes_max = min(FREE_BYTES_MAX, memory_bytes() // FREE_PART)
        return self._bytes_max

    def _keep_to(self, bytes_max: int) -> None:
        """Let go of the oldest until those that are left have so many bytes at most."""
        found = [(number, self._idle.get(number)) for number in list(self._idle)]
        idle = [(number, len(room.region)) for number, room in found if room is not None]
        left = sum(size for _, size in idle)
        for at, (number, size) in enumerate(idle):
            if left <= bytes_max and len(idle) - at <= IDLE_MAX:
                return
            self._idle.pop(number, None)
            left -= size


def _plain(size: int) -> memoryview | None:
    try:
        return memoryview(bytearray(size))
    except (MemoryError, OverflowError):
        return None


rooms = Rooms()  # of this process


class Draining:
    """Reads a part of a room, and gives the pages back that were read.

    What is unpickled from it takes memory of its own: so there is never twice as much.
    """

    def __init__(self, part: memoryview, begin: int) -> None:
        """Read `part`, which begins so many bytes behind the beginning of its room."""
        self._part, self._begin = part, begin
        self._room: _Room | None = getattr(part.obj, "room", None)
        self._at = 0
        self._given_back = 0  # up to here, from the beginning of the room

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, all that are left if it is not said how many."""
        end = len(self._part) if size < 0 else min(len(self._part), self._at + size)
        data = bytes(self._part[self._at : end])
        self._go_to(end)
        return data

    def readinto(self, target: Any) -> int:
        """Fill `target` as far as there is something left."""
        into = memoryview(target).cast("B")
        filled = 0
        while filled < len(into):
            step = self._part[self._at : self._at + min(DRAIN_BYTES, len(into) - filled)]
            if not len(step):
                break
            into[filled : filled + len(step)] = step
            filled += len(step)
            self._go_to(self._at + len(step))
        return filled

    def readline(self) -> bytes:
        """Return the next line. Only pickles of old protocols have such."""
        end = bytes(self._part[self._at :]).find(b"\n") + 1
        return self.read(end or -1)

    def _go_to(self, at: int) -> None:
        self._at = at
        end = (self._begin + at) // mmap.PAGESIZE * mmap.PAGESIZE
        if self._room is not None and end - self._given_back >= DRAIN_BYTES:
            self._room.drain(self._given_back, end)
            self._given_back = end
