"""Results that lie in the file of an input: said by name, not copied.

A worker maps inputs privately. So what a function returns of its input, and did not write to, still
is memory of the file. The worker gives the file a second name, by which the caller is about to map
it, and says that and where each buffer lies; the caller maps each privately, by itself, and removes
the name. Meanwhile nobody writes the file anew: the worker holds a lock on it until the name is
there, and the caller has one before the name goes, for as long as somebody has the result.
"""

import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from .file_locks import LOCK_SH, OPEN_PRIVATELY, flock
from .kept_mappings import KeptMappings, Lent
from .raw_memory import address_of_bytes, is_as_in_file
from .shared_memory import VIEW, map_region, refer, unpack

RANGES_MAX = 16  # of one result; the caller has a mapping for each
INLINE_BYTES_MAX = 64 << 10  # of the result that lie elsewhere; they go with the reference
USED_SHARE = 2  # a file is not kept for less than this part of it

_COUNT = struct.Struct("<I")  # of ranges; then these, then what goes with the reference
_RANGE = struct.Struct("<IQQ")


class Range(NamedTuple):
    """Where a buffer lies in a file."""

    number: int  # of it among those of the value
    at: int
    size: int


class View(NamedTuple):
    """A value of which the big buffers lie in one file."""

    file: Lent
    ranges: list[Range]


def find_view(buffers: Sequence[memoryview], size: int, kept: KeptMappings) -> View | None:
    """Return where a value lies, nearly all of it, if it is as in the file; None: it does not.

    Args:
        buffers: of the value.
        size: of it, with its pickle.
        kept: the inputs that this process has.
    """
    file: Lent | None = None
    ranges: list[Range] = []
    for index, buffer in enumerate(buffers if kept.lent else ()):
        address = address_of_bytes(buffer)
        found = kept.find(address, buffer.nbytes)
        if found is not None and found is (file or found):
            file = found
            ranges.append(Range(index, address - found.address, buffer.nbytes))
    used = sum(one.size for one in ranges)
    if file is None or len(ranges) > RANGES_MAX or size - used > INLINE_BYTES_MAX:
        return None
    if used < file.size // USED_SHARE:
        return None
    if not all(is_as_in_file(file.address + one.at, one.size) for one in ranges):
        return None
    return View(file, ranges)


def refer_to_view(view: View, path: str, size: int, inline: bytes) -> bytes | None:
    """Return a reference to a value that lies in a file; None: the file is not where it was.

    Args:
        view: of a file that is locked.
        path: the name that the file gets, where nothing is yet.
        size: of the value.
        inline: the value without what lies in the file.
    """
    try:
        os.link(view.file.path, path)
    except OSError:  # all its outcomes have come before, or no file may have two names here
        return None
    status = os.stat(path)
    if (status.st_dev, status.st_ino) != view.file.key:
        os.unlink(path)
        return None
    ranges = (_RANGE.pack(*one) for one in view.ranges)
    told = [b"\0", _COUNT.pack(len(view.ranges)), *ranges, inline]
    return refer(VIEW, size, path) + b"".join(told)


def fetch_view(
    reference: Any, *, is_taken: bool = True
) -> tuple[memoryview, list[tuple[int, memoryview]]]:
    """Return what goes with a reference, and the other buffers, each with its index, ascending.

    What is written to them is seen by nobody else.

    Args:
        reference: as `refer_to_view` returned it.
        is_taken: nobody else will fetch it.

    Raises:
        OSError: it is not there (any more).
    """
    _, _, told = unpack(reference)
    path, _, told = told.partition(b"\0")
    (count,) = _COUNT.unpack_from(told)
    end = _COUNT.size + count * _RANGE.size
    file = os.open(path, os.O_RDONLY | OPEN_PRIVATELY)
    try:
        flock(file, LOCK_SH)  # waits while somebody finds out that it has two names
        found = [
            (index, map_region(file, at, size))
            for index, at, size in _RANGE.iter_unpack(told[_COUNT.size : end])
        ]
        if is_taken:
            with suppress(FileNotFoundError):
                os.unlink(path)
        return memoryview(bytearray(told[end:])), found
    finally:
        os.close(file)
