"""Memory of files by its address: mapped, copied to, given back. The only place that does so.

What the module `mmap` cannot: map over what is there, keep no descriptor, be left out of forked
children, let other threads run during a copy. Loads ctypes at the first call, which few processes
need.
"""

import contextlib
import functools
import mmap
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

_MAP_FIXED = 0x10
_MAP_POPULATE = 0x8000
_MADV_DONTFORK = 10
_PRESENT, _SWAPPED, _OF_FILE = 0x80, 0x40, 0x20  # in the highest byte of what a pagemap says
_ENTRY_BYTES = 8  # of one page in a pagemap


class _C(NamedTuple):
    """Functions of C; while they run other threads do as well."""

    map: Callable[[int | None, int, int, int, int, int], int]
    unmap: Callable[[int, int], int]
    advise: Callable[[int, int, int], int]
    move: Callable[[int, int, int], int]
    address_of: Callable[[Any], int]
    acquire: Callable[[Any], Any]  # returns what `release` takes, with the address in `buf`
    release: Callable[[Any], None]
    untrack: Callable[[object], None]
    exported: Callable[[mmap.mmap, int], Any]
    error: Callable[[], int]


@functools.cache
def _c() -> _C:
    import ctypes

    class Buffer(ctypes.Structure):
        """Py_buffer, which is part of the stable interface."""

        _fields_ = (
            ("buf", ctypes.c_void_p),
            ("obj", ctypes.c_void_p),
            ("len", ctypes.c_ssize_t),
            ("itemsize", ctypes.c_ssize_t),
            ("readonly", ctypes.c_int),
            ("ndim", ctypes.c_int),
            ("format", ctypes.c_char_p),
            ("shape", ctypes.c_void_p),
            ("strides", ctypes.c_void_p),
            ("suboffsets", ctypes.c_void_p),
            ("internal", ctypes.c_void_p),
        )

    here = ctypes.CDLL(None, use_errno=True)
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    map_, unmap, advise, move = here.mmap, here.munmap, here.madvise, here.memmove
    map_.restype, move.restype = pointer, pointer
    map_.argtypes = [pointer, size, number, number, number, ctypes.c_long]
    unmap.argtypes, advise.argtypes = [pointer, size], [pointer, size, number]
    move.argtypes = [pointer, pointer, size]
    get, release = ctypes.pythonapi.PyObject_GetBuffer, ctypes.pythonapi.PyBuffer_Release
    get.argtypes = [ctypes.py_object, ctypes.POINTER(Buffer), number]
    release.argtypes, release.restype = [ctypes.POINTER(Buffer)], None
    untrack = ctypes.pythonapi.PyObject_GC_UnTrack
    untrack.argtypes, untrack.restype = [ctypes.py_object], None

    def acquire(part: Any) -> Buffer:
        buffer = Buffer()
        get(part, buffer, 0)  # raises as Python does
        return buffer

    return _C(
        map=map_,
        unmap=unmap,
        advise=advise,
        move=move,
        address_of=lambda region: ctypes.addressof(ctypes.c_char.from_buffer(region)),
        acquire=acquire,
        release=release,
        untrack=untrack,
        exported=lambda region, size: (ctypes.c_char * size).from_buffer(region),
        error=ctypes.get_errno,
    )


def _map_file(
    place: int | None, size: int, protection: int, flags: int, file: int, at: int = 0
) -> int:
    """Return where it is.

    Raises:
        OSError: it cannot be mapped.
    """
    c = _c()
    found = c.map(place, size, protection, flags, file, at)
    if found is None or found == 2 ** (8 * _ENTRY_BYTES) - 1:
        raise OSError(c.error(), "cannot map")
    return found


def map_privately(file: int, size: int, at: int = 0) -> mmap.mmap:
    """Return a private mapping of bytes of a file, from the begin of a page; without descriptor.

    `mmap` would keep one with it, of which there are few. So it maps nothing, and what it maps is
    replaced.

    Raises:
        OSError: it cannot be mapped.
    """
    region = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    flags = mmap.MAP_PRIVATE | _MAP_FIXED
    both = mmap.PROT_READ | mmap.PROT_WRITE
    _map_file(_c().address_of(region), size, both, flags, file, at)
    return region


def when_gone(owner: object, call: Callable[..., None], *arguments: object) -> None:
    """Have `call` made when the memory of `owner` is about to go, and not before.

    The garbage collector calls what waits for the end of a cycle before any `__del__` in it, which
    may use the memory still, or keep it. So it is not told of `owner`, which refers to nothing
    that could refer back: that goes when whoever refers to it has gone.
    """
    _c().untrack(owner)
    weakref.finalize(owner, call, *arguments).atexit = False


def lend(region: mmap.mmap, size: int, given_back: Callable[[], None]) -> memoryview:
    """Return the first bytes of a region; `given_back` is called when nothing refers to them."""
    exported = _c().exported(region, size)
    when_gone(exported, given_back)
    return memoryview(exported).cast("B")


def address_of(region: mmap.mmap) -> int:
    """Return where a mapping that may be written to begins."""
    return _c().address_of(region)


def address_of_bytes(part: Any) -> int:
    """Return where the memory of an object begins that has contiguous bytes, if only to be read."""
    c = _c()
    buffer = c.acquire(part)
    try:
        return int(buffer.buf or 0)
    finally:
        c.release(buffer)


def is_as_in_file(address: int, size: int) -> bool:
    """Return whether nothing was written to memory, and to what shares its pages with it.

    It lies in a private mapping of a file. False: who knows.
    """
    page = mmap.PAGESIZE
    first = address // page
    count = -(-(address + size) // page) - first
    try:
        file = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            told = os.pread(file, count * _ENTRY_BYTES, first * _ENTRY_BYTES)
        finally:
            os.close(file)
    except OSError:
        return False
    if len(told) != count * _ENTRY_BYTES:
        return False
    return not any(
        bits & _SWAPPED or (bits & _PRESENT and not bits & _OF_FILE)
        for bits in set(told[_ENTRY_BYTES - 1 :: _ENTRY_BYTES])
    )


class Hold:
    """Keeps a descriptor's file open, with the lock on it, and no descriptor.

    A forked child keeps it as well, for as long as it is there.
    """

    def __init__(self, file: int) -> None:
        """Hold what is open as `file`, which may be closed then.

        Raises:
            OSError: it cannot be mapped.
        """
        self._pid = os.getpid()
        self._address = _map_file(None, mmap.PAGESIZE, mmap.PROT_READ, mmap.MAP_SHARED, file)

    def end(self) -> None:
        """Let go of it, once."""
        if self._pid == os.getpid():
            _c().unmap(self._address, mmap.PAGESIZE)


class Window:
    """Memory of a file that is written to by this process, again and again.

    Its pages are there: to write to them takes a third of the time of a system call that does. A
    forked child does not have it.
    """

    def __init__(self, file: int, size: int) -> None:
        """Map the first bytes of what is open to be read and written; it keeps no descriptor.

        Raises:
            OSError: they cannot be mapped, or are not there.
        """
        self.size = size
        if os.fstat(file).st_size < size:
            raise OSError(f"fewer than {size} bytes")
        both, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | _MAP_POPULATE
        self._address = _map_file(None, size, both, flags, file)
        self._pid = os.getpid()
        _c().advise(self._address, size, _MADV_DONTFORK)
        weakref.finalize(self, _unmap, self._address, size, self._pid).atexit = False

    def write(self, parts: Sequence[Any]) -> None:
        """Write `parts` one behind the other, from the beginning; they fit, and this is no child.

        The file must have its length still, which who writes it sees to by a lock.
        """
        assert self._pid == os.getpid()
        c, at = _c(), 0
        for part in parts:
            buffer = c.acquire(part)
            try:
                assert at + buffer.len <= self.size, (at, buffer.len, self.size)
                c.move(self._address + at, buffer.buf, buffer.len)
                at += buffer.len
            finally:
                c.release(buffer)


def _unmap(address: int, size: int, pid: int) -> None:
    if pid == os.getpid():
        with contextlib.suppress(Exception):
            _c().unmap(address, size)
