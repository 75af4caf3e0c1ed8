"""Files of results that are kept by the content of their inputs: written, and read again.

A file is a row of records, each with one result, or a list of them from one pickle:

    magic (4), kind (4), inputs (4), frames (4), bytes of the body (8), checksum of the body (8),
    sizes of the frames (8 each), digests of the inputs (16 each), checksum of all before (8), body

little-endian; checksums are XXH3 of 64 bits. Body and end are aligned, so that arrays may lie in
the file. One process appends, and holds a lock on the file; any number read. So what a kill leaves
is a torn end, which is not read, and cut by who appends next.
"""

import contextlib
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from burla.values.contents import DIGEST_BYTES
from burla.values.file_locks import LOCK_EX, LOCK_NB, OPEN_PRIVATELY, flock
from burla.values.shared_memory import ALIGN, map_region, write

ONE, MANY = 1, 2  # kinds of records
MAP_BYTES_MIN = 1 << 20  # a bigger body is mapped, and takes no memory until it is looked at
READ_BYTES = 64 << 10  # of heads, at a time
INPUTS_MAX = 1 << 20  # of one record
FRAMES_MAX = 1 << 20

_MAGIC = b"brk1"
_HEAD = struct.Struct("<4sIIIQQ")
_CHECK = struct.Struct("<Q")


class Record(NamedTuple):
    """Where a record lies."""

    at: int
    kind: int
    sizes: tuple[int, ...]  # of the frames
    digests: bytes
    body_at: int
    body_bytes: int
    check: int

    @property
    def end(self) -> int:
        """Return where the next one begins."""
        return _aligned(self.body_at + self.body_bytes)


class ResultsFile:
    """One such file."""

    def __init__(self, path: Path) -> None:
        """Name a file; it need not be there."""
        self.path = path
        self.size = 0  # all whole records are before
        self._file: int | None = None  # open for writing, and ours alone

    # --- writing ---

    def try_lock(self) -> bool:
        """Make the file ours, to append to; return False if it is another's.

        Raises:
            OSError: it cannot be opened.
        """
        flags = os.O_RDWR | os.O_CREAT | OPEN_PRIVATELY
        file = os.open(self.path, flags, 0o600)
        try:
            flock(file, LOCK_EX | LOCK_NB)
            if not os.path.samestat(os.fstat(file), os.stat(self.path)):
                raise FileNotFoundError(self.path)  # it has just been deleted
        except (BlockingIOError, FileNotFoundError):
            os.close(file)
            return False
        except BaseException:
            os.close(file)
            raise
        self._file = file
        return True

    def append(self, kind: int, digests: bytes, frames: Sequence[Any]) -> int:
        """Write a record; return its bytes.

        Raises:
            OSError: it cannot be written; nothing is left of it.
        """
        assert self._file is not None
        body = xxhash.xxh3_64()
        sizes = []
        for frame in frames:
            view = memoryview(frame).cast("B")
            sizes.append(len(view))
            body.update(view)
        count = len(digests) // DIGEST_BYTES
        head = _HEAD.pack(_MAGIC, kind, count, len(sizes), sum(sizes), body.intdigest())
        head += struct.pack(f"<{len(sizes)}Q", *sizes) + digests
        head += _CHECK.pack(xxhash.xxh3_64_intdigest(head))
        head += bytes(_aligned(len(head)) - len(head))
        size = _aligned(len(head) + sum(sizes))
        try:
            os.lseek(self._file, self.size, os.SEEK_SET)
            write(self._file, [head, *frames, bytes(size - len(head) - sum(sizes))])
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.size)
            raise
        self.size += size
        return size

    def cut(self) -> None:
        """Cut off what is no whole record, before the first `append`."""
        assert self._file is not None
        if os.fstat(self._file).st_size > self.size:
            os.ftruncate(self._file, self.size)

    def sync(self) -> None:
        """Let what was written survive that the machine stops."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                if sys.platform == "linux":
                    os.fdatasync(self._file)
                else:
                    os.fsync(self._file)

    def close(self) -> None:
        """Let others append."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    # --- reading ---

    def scan(self) -> Iterator[Record]:
        """Yield the whole records; of each only the head is read.

        Raises:
            OSError: it cannot be read.
        """
        with open(self.path, "rb", buffering=0) as file:
            end = os.fstat(file.fileno()).st_size
            heads = _Heads(file.fileno())
            at = 0
            while (record := heads.read(at)) is not None and record.end <= end:
                yield record
                at = record.end
        self.size = at

    def load(self, record: Record) -> list[Any] | None:
        """Return the frames of a record; None: they are not what was written.

        Raises:
            OSError: it cannot be read.
        """
        size = record.body_bytes
        with open(self.path, "rb", buffering=0) as file:
            if size >= MAP_BYTES_MIN:
                body = map_region(file.fileno(), record.body_at, size)
            else:
                file.seek(record.body_at)
                body = memoryview(bytearray(file.read(size)))
        if len(body) != size or xxhash.xxh3_64_intdigest(body) != record.check:
            return None
        frames, at = [], 0
        for one in record.sizes:
            part = body[at : at + one]
            frames.append(part if size >= MAP_BYTES_MIN else bytes(part))
            at += one
        return frames


def _aligned(at: int) -> int:
    return at + -at % ALIGN


class _Heads:
    """Reads heads of records."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._at, self._read = 0, b""

    def read(self, at: int) -> Record | None:
        """Return the record that begins at a place; None: there is no whole one."""
        first = self._take(at, _HEAD.size)
        if len(first) < _HEAD.size:
            return None
        magic, kind, count, frames, size, check = _HEAD.unpack(first)
        if magic != _MAGIC or count > INPUTS_MAX or frames > FRAMES_MAX:
            return None
        rest = 8 * frames + DIGEST_BYTES * count
        head = self._take(at, _HEAD.size + rest + _CHECK.size)
        known, found = head[: _HEAD.size + rest], head[_HEAD.size + rest :]
        if len(found) < _CHECK.size or _CHECK.unpack(found)[0] != xxhash.xxh3_64_intdigest(known):
            return None
        sizes = struct.unpack_from(f"<{frames}Q", known, _HEAD.size)
        body_at = at + _aligned(len(head))
        digests = known[_HEAD.size + 8 * frames :]
        return Record(at, kind, sizes, digests, body_at, size, check)

    def _take(self, at: int, size: int) -> bytes:
        start = at - self._at
        if not 0 <= start <= start + size <= len(self._read):
            self._at, start = at, 0
            os.lseek(self._file, at, os.SEEK_SET)
            self._read = os.read(self._file, max(size, READ_BYTES))
        return self._read[start : start + size]
