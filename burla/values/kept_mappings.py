"""Mappings of input files that a worker keeps from call to call.

To map a file costs little, to touch its pages for the first time as much as to copy them. A caller
writes the files of a loop anew again and again, in place; so what a worker has mapped privately,
and nothing was written to, shows the next input without another fault. Whether something was
written the kernel tells (`is_as_in_file`); then, or if it does not tell, the mapping goes. It need
not be asked of pages that were looked at before if this process has had no fault since: to write to
one for the first time is one.

While a value lies in a mapping a lock on its file is held, which who writes it anew respects. It
has no descriptor, which functions might close; and a child that the function forks, and that has
the value too, holds the lock for as long as it lives.
"""

import mmap
import os
from functools import partial
from typing import NamedTuple

from .raw_memory import Hold, address_of, is_as_in_file, lend, map_privately

IDLE_MAX = 16  # mappings that no value lies in

_Key = tuple[int, int]  # device and number of a file, which its mapping keeps from being reused


class Lent(NamedTuple):
    """Where the value of a file is, while somebody has it."""

    address: int
    size: int
    path: str  # of the file, when it was mapped
    key: _Key  # of the file


class KeptMappings:
    """Those of this process. Thread-safe, and safe when the garbage collector gives one back."""

    def __init__(self) -> None:
        """Keep none yet."""
        self._bytes_max = 0
        self._idle: dict[_Key, mmap.mmap] = {}  # the one that was given back last is the last
        self._lent: dict[Hold, Lent] = {}

    @property
    def lent(self) -> int:
        """How many values lie in mappings of ours."""
        return len(self._lent)

    def find(self, address: int, size: int) -> Lent | None:
        """Return what memory is a part of; None: of nothing that is lent."""
        for one in list(self._lent.values()):
            if one.address <= address and address + size <= one.address + one.size:
                return one
        return None

    def allow(self, bytes_max: int) -> None:
        """Keep so many bytes at most in mappings that no value lies in."""
        self._bytes_max = bytes_max
        self._drop_old()

    def lend(self, file: int, path: str, size: int) -> memoryview | None:
        """Return the first bytes of a locked file, as `map_privately` would; None: nothing is kept.

        The lock is held, and the mapping in use, as long as something refers to the bytes. The
        descriptor may be closed.

        Raises:
            OSError: it cannot be mapped, or is not at that path.
        """
        status = os.fstat(file)
        if not size <= status.st_size <= self._bytes_max:
            return None
        key = (status.st_dev, status.st_ino)
        region, faults = self._idle.pop(key, None), None
        if region is None:
            region = _map_without_lock(path, status)
        else:
            faults = _faults()
        hold = Hold(file)
        self._lent[hold] = Lent(address_of(region), size, path, key)
        return lend(region, size, partial(self._take_back, key, region, size, hold, faults))

    def _take_back(
        self, key: _Key, region: mmap.mmap, size: int, hold: Hold, faults: "_Faults | None"
    ) -> None:
        try:
            is_same = faults is not None and faults == _faults()
            if self._bytes_max and (is_same or is_as_in_file(address_of(region), size)):
                self._idle[key] = region
                self._drop_old()
        finally:
            self._lent.pop(hold, None)
            hold.end()

    def _drop_old(self) -> None:
        idle = list(self._idle.items())
        size = sum(len(region) for _, region in idle)
        for at, (key, region) in enumerate(idle):
            if size <= self._bytes_max and len(idle) - at <= IDLE_MAX:
                return
            self._idle.pop(key, None)
            size -= len(region)


_Faults = tuple[int, int, int]  # of which process; the small ones, the others


def _faults() -> _Faults:
    """Return how often a page was touched that was not there, or might not be written to.

    By any thread of this process, in the kernel as well. What a debugger writes here is not told.
    """
    import resource  # which Windows lacks; there is no worker

    used = resource.getrusage(resource.RUSAGE_SELF)
    return os.getpid(), used.ru_minflt, used.ru_majflt


def _map_without_lock(path: str, status: os.stat_result) -> mmap.mmap:
    """Return a mapping of its own opening of a file: that of another would keep the lock of it."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not os.path.samestat(os.fstat(file), status):
            raise FileNotFoundError(f"{path} is another file by now")
        return map_privately(file, status.st_size)
    finally:
        os.close(file)
