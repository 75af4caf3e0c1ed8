"""Files in memory that two processes of one user share: written once, mapped privately.

Whoever writes a file sends a small *reference* to it: a frame that says where it is. An *input*
file stays its writer's, who writes it anew when nobody maps it any more: who maps it holds a shared
lock, which the mapping keeps when the descriptor is closed. A *result* file is given away: who maps
it removes its name, and the memory is there for as long as the mapping is.
"""

import fcntl
import functools
import mmap
import os
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakSet

INPUT = b"\x02"  # tags of references; a value that was sent begins with b"\x01" or b"\x80"
RESULT = b"\x03"
SHARE_BYTES_MIN = 1 << 20  # a smaller value is sent: a file costs 0.1 ms
ALIGN = 64  # bytes; arrays are as fast as if they had been allocated here
WRITE_PARTS_MAX = 512  # buffers in one system call; IOV_MAX is 1024
MAPPINGS_MAX = 4000  # of one process at a time, then it copies; vm.max_map_count is 65530

_REFERENCE = struct.Struct("<cQ")  # tag, bytes of the value; then the path
_MAP_FIXED = 0x10

_mappings: "WeakSet[mmap.mmap]" = WeakSet()


def is_reference(frame: Any) -> bool:
    """Return whether a value's first frame says where the value is."""
    return frame[:1] in (INPUT, RESULT)


def refer(tag: bytes, size: int, path: str) -> bytes:
    """Return a reference to the first `size` bytes of the file at `path`."""
    return _REFERENCE.pack(tag, size) + os.fsencode(path)


def write(file: int, parts: Sequence[Any]) -> None:
    """Write all of `parts` to a descriptor.

    Raises:
        OSError: there is no room.
    """
    left = [memoryview(part).cast("B") for part in parts if len(part)]
    at = 0
    while at < len(left):
        written = os.writev(file, left[at : at + WRITE_PARTS_MAX])
        while at < len(left) and written >= len(left[at]):
            written -= len(left[at])
            at += 1
        if written:
            left[at] = left[at][written:]


def create(path: str, parts: Sequence[Any]) -> None:
    """Make a file of `parts`.

    Raises:
        OSError: it cannot be made; nothing is left of it.
    """
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(file, 0o600)  # whatever the function has made of the umask
        write(file, parts)
    except BaseException:
        with suppress(OSError):
            os.unlink(path)
        raise
    finally:
        os.close(file)


def rewrite(old: str, path: str, parts: Sequence[Any]) -> bool:
    """Turn the file `old` into one of `parts`, under the name `path`, unless somebody maps it.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    file = os.open(old, os.O_WRONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            os.rename(old, path)  # first: who comes late must find nothing, rather than this
            write(file, parts)
        except BaseException:
            for name in (old, path):
                with suppress(OSError):
                    os.unlink(name)
            raise
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a child forked meanwhile has the descriptor, too
        return True
    finally:
        os.close(file)


def fetch(reference: bytes | bytearray | memoryview) -> memoryview:
    """Return the value that a reference tells of; what is written to it is seen by nobody else.

    Raises:
        OSError: it is not there (any more).
    """
    tag, size = _REFERENCE.unpack_from(reference)
    path = os.fsdecode(bytes(reference[_REFERENCE.size :]))
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if tag == INPUT:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(file), os.stat(path)):
                raise FileNotFoundError(f"{path} is another file by now")
        else:
            os.unlink(path)
        return _map(file, size) if len(_mappings) < MAPPINGS_MAX else _copy(file, size)
    finally:
        os.close(file)


def _map(file: int, size: int) -> memoryview:
    """Return a private mapping; it lasts as long as something refers to the memory.

    `mmap` would keep a descriptor with it, of which there are few. So it maps nothing, and what it
    maps is replaced.
    """
    if os.fstat(file).st_size < size:
        raise OSError(f"fewer than {size} bytes")  # to touch them would be a SIGBUS
    region = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    _replace()(region, file, size)
    _mappings.add(region)
    return memoryview(region)


@functools.cache
def _replace() -> Callable[[mmap.mmap, int, int], None]:
    """Return what replaces the memory of an mmap; loads ctypes, which few processes need."""
    import ctypes

    function = ctypes.CDLL(None, use_errno=True).mmap
    function.restype = ctypes.c_void_p
    number = ctypes.c_int
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, number, number, number, ctypes.c_long]

    def replace(region: mmap.mmap, file: int, size: int) -> None:
        address = ctypes.addressof(ctypes.c_char.from_buffer(region))
        protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | _MAP_FIXED
        if function(address, size, protection, flags, file, 0) != address:
            raise OSError(ctypes.get_errno(), "cannot map")

    return replace


def _copy(file: int, size: int) -> memoryview:
    view = memoryview(bytearray(size))
    at = 0
    while at < size:
        got = os.preadv(file, [view[at:]], at)
        if not got:
            raise OSError(f"fewer than {size} bytes")
        at += got
    return view
