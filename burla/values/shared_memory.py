"""Files in memory that two processes of one user share: written once, mapped privately.

Whoever writes a file sends a small *reference* to it: a frame that says where it is. An *input*
file stays its writer's, who writes it anew when nobody maps it any more: who maps it holds a shared
lock, which the mapping keeps when the descriptor is closed. A *result* file is given away: who maps
it takes it away from its place, and has it for as long as the mapping is there; then it may be
written anew as well. A *view* is a result that lies in an input file (views.py), of which it is a
second name until somebody maps it. A *part* of a function is never written again: it is named after
its content, and its writer removes it when it is old.
"""

import mmap
import os
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol
from weakref import WeakSet

from .file_locks import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, OPEN_PRIVATELY, flock
from .kept_mappings import KeptMappings
from .raw_memory import Window, map_privately, when_gone

INPUT = b"\x02"  # tags of references; a value that was sent begins with b"\x01" or b"\x80"
RESULT = b"\x03"
PART, BYTES_PART = b"\x04", b"\x05"  # of a function; the second was a `bytes`
VIEW = b"\x06"
SHARE_BYTES_MIN = 1 << 20  # a smaller value is sent: a file costs 0.1 ms
ALIGN = 64  # bytes; arrays are as fast as if they had been allocated here
WRITE_PARTS_MAX = 512  # buffers in one system call; IOV_MAX is 1024
MAPPINGS_MAX = 4000  # of one process at a time, then it copies; vm.max_map_count is 65530

_REFERENCE = struct.Struct("<cQ")  # tag, bytes of the value; then the path

_mappings: "WeakSet[mmap.mmap]" = WeakSet()


def may_map() -> bool:
    """Return whether this process may have one mapping more."""
    return len(_mappings) < MAPPINGS_MAX


def note_mapping(region: mmap.mmap) -> None:
    """Count a mapping for as long as it is there."""
    _mappings.add(region)


def is_reference(frame: Any) -> bool:
    """Return whether a value's first frame says where the value is."""
    return frame[:1] in (INPUT, RESULT, VIEW)


def refer(tag: bytes, size: int, path: str) -> bytes:
    """Return a reference to the first `size` bytes of the file at `path`."""
    return _REFERENCE.pack(tag, size) + os.fsencode(path)


def unpack(reference: Any) -> tuple[bytes, int, bytes]:
    """Return tag and size of a reference, and what follows: the path, and of a view where it is."""
    tag, size = _REFERENCE.unpack_from(reference)
    return tag, size, bytes(reference[_REFERENCE.size :])


def refer_to_part(path: str, size: int, *, is_bytes: bool) -> bytes:
    """Return a reference to the part of a function in the file at `path`."""
    return refer(BYTES_PART if is_bytes else PART, size, path)


def fetch_part(reference: bytes) -> memoryview:
    """Return a part; what is written to it is seen by nobody else.

    Raises:
        OSError: it is not there (any more).
    """
    _, size, path = unpack(reference)
    return map_part(os.open(path, os.O_RDONLY | OPEN_PRIVATELY), size)


def map_part(file: int, size: int) -> memoryview:
    """Return the `size` bytes behind a descriptor, likewise; closes it.

    Raises:
        OSError: they are not there.
    """
    try:
        return _map(file, size) if len(_mappings) < MAPPINGS_MAX else _copy(file, size)
    finally:
        os.close(file)


def map_region(file: int, at: int, size: int) -> memoryview:
    """Return bytes of a file, which take no memory until they are changed; nobody sees that.

    Raises:
        OSError: they are not there.
    """
    before = at % mmap.PAGESIZE
    if len(_mappings) < MAPPINGS_MAX and sys.platform != "win32":
        return _map(file, before + size, at - before)[before:]
    return _copy(file, size, at)


def peek(reference: Any) -> memoryview:
    """Return the value that a reference tells of, and leave it for who fetches it.

    Raises:
        OSError: it is not there (any more).
    """
    _, size, path = unpack(reference)
    file = os.open(path, os.O_RDONLY | OPEN_PRIVATELY)
    with suppress(BlockingIOError):
        flock(file, LOCK_SH | LOCK_NB)  # nor is it written anew while it is seen
    return map_part(file, size)


def size_of(frames: Sequence[Any]) -> int:
    """Return how many bytes a value has, of which these are the frames or a reference."""
    if frames and is_reference(frames[0]):
        size: int = _REFERENCE.unpack_from(frames[0])[1]
        return size
    return sum(map(len, frames))


def write(file: int, parts: Sequence[Any]) -> None:
    """Write all of `parts` to a descriptor.

    Raises:
        OSError: there is no room.
    """
    left = [memoryview(part).cast("B") for part in parts if len(part)]
    at = 0
    while at < len(left):
        if sys.platform == "win32":
            written = os.write(file, left[at])
        else:
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
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | OPEN_PRIVATELY, 0o600)
    try:
        if sys.platform != "win32":
            os.fchmod(file, 0o600)  # whatever the function has made of the umask
        write(file, parts)
    except BaseException:
        with suppress(OSError):
            os.unlink(path)
        raise
    finally:
        os.close(file)


def write_into(file: int, parts: Sequence[Any], window: Window | None) -> None:
    """Write all of `parts` to a file that is locked: where it is mapped, if it is there as well.

    Raises:
        OSError: there is no room.
    """
    if window is None or os.fstat(file).st_size < window.size:
        write(file, parts)
    else:
        window.write(parts)


def _no_window(file: int) -> None:
    return None


def is_awaited(file: int | str) -> bool:
    """Return whether a file has another name, by which somebody is about to map it.

    Raises:
        OSError: it is not there.
    """
    return os.stat(file).st_nlink > 1


def is_used(path: str) -> bool:
    """Return whether a value lies in a file, or somebody is about to map it.

    Raises:
        OSError: it is not there.
    """
    file = os.open(path, os.O_RDONLY | OPEN_PRIVATELY)
    try:
        flock(file, LOCK_EX | LOCK_NB)
        try:
            return is_awaited(file)
        finally:
            flock(file, LOCK_UN)
    except BlockingIOError:
        return True
    finally:
        os.close(file)


def rewrite(
    old: str, path: str, parts: Sequence[Any], window: Callable[[int], Window | None] = _no_window
) -> bool:
    """Turn the file `old` into one of `parts`, under the name `path`, unless it is in use.

    Args:
        old: of ours.
        path: where nothing is.
        parts: what is written.
        window: returns where this process has mapped what is open; None: nowhere.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    file = os.open(old, os.O_RDWR | OPEN_PRIVATELY)
    try:
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            return False
        try:
            if is_awaited(file):
                return False
            os.rename(old, path)  # first: who comes late must find nothing, rather than this
            write_into(file, parts, window(file))
        except BaseException:
            for name in (old, path):
                with suppress(OSError):
                    os.unlink(name)
            raise
        finally:
            flock(file, LOCK_UN)  # a child forked meanwhile has the descriptor, too
        return True
    finally:
        os.close(file)


def empty_and_remove(path: str) -> None:
    """Remove a file of ours, and its memory even where it is mapped, unless a value lies in it.

    Raises:
        OSError: it cannot be removed.
    """
    file = os.open(path, os.O_WRONLY | OPEN_PRIVATELY)
    try:
        with suppress(BlockingIOError):
            flock(file, LOCK_EX | LOCK_NB)
            if not is_awaited(file):
                os.ftruncate(file, 0)
            flock(file, LOCK_UN)
        os.unlink(path)
    finally:
        os.close(file)


class Keeper(Protocol):
    """Has the files of results when nobody refers to these any more."""

    def hold(self, file: int, path: str) -> str | None:
        """Take a file away from where it is; return its name, or None: it is to be removed."""

    def give_back(self, held: str) -> None:
        """Take note that nobody refers to the result. May be called by the garbage collector."""


keepers: dict[str, Keeper] = {}  # by the directory of their cluster
kept = KeptMappings()  # of this process, which allows none unless it is a worker


def fetch(reference: bytes | bytearray | memoryview) -> memoryview:
    """Return the value that a reference tells of; what is written to it is seen by nobody else.

    Raises:
        OSError: it is not there (any more).
    """
    tag, size, place = unpack(reference)
    path = os.fsdecode(place)
    file = os.open(path, os.O_RDONLY | OPEN_PRIVATELY)
    try:
        flock(file, LOCK_SH | LOCK_NB)
        return _take_result(file, path, size) if tag == RESULT else _see_input(file, path, size)
    finally:
        os.close(file)


def _see_input(file: int, path: str, size: int) -> memoryview:
    if not os.path.samestat(os.fstat(file), os.stat(path)):
        raise FileNotFoundError(f"{path} is another file by now")
    if len(_mappings) + kept.lent >= MAPPINGS_MAX:
        return _copy(file, size)
    lent = kept.lend(file, path, size)
    return _map(file, size) if lent is None else lent


def _take_result(file: int, path: str, size: int) -> memoryview:
    keeper = keepers.get(os.path.dirname(os.path.dirname(path)))
    held = None if keeper is None else keeper.hold(file, path)
    if keeper is None or held is None:
        os.unlink(path)
        return _map(file, size) if len(_mappings) < MAPPINGS_MAX else _copy(file, size)
    try:
        if len(_mappings) < MAPPINGS_MAX:
            value = _map(file, size)
            when_gone(value.obj, keeper.give_back, held)
        else:
            value = _copy(file, size)
            flock(file, LOCK_UN)
            keeper.give_back(held)
    except BaseException:
        with suppress(OSError):
            os.unlink(held)
        raise
    return value


def _map(file: int, size: int, at: int = 0) -> memoryview:
    """Return a private mapping; it lasts as long as something refers to the memory."""
    if os.fstat(file).st_size < at + size:
        raise OSError(f"fewer than {size} bytes")  # to touch them would be a SIGBUS
    region = map_privately(file, size, at)
    _mappings.add(region)
    return memoryview(region)


def _copy(file: int, size: int, start: int = 0) -> memoryview:
    view = memoryview(bytearray(size))
    at = 0
    while at < size:
        if sys.platform == "win32":
            os.lseek(file, start + at, os.SEEK_SET)
            piece = os.read(file, size - at)
            got = len(piece)
            view[at : at + got] = piece
        else:
            got = os.preadv(file, [view[at:]], start + at)
        if not got:
            raise OSError(f"fewer than {size} bytes")
        at += got
    return view
