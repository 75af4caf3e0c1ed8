"""Big inputs on the same machine: put down in memory that the worker maps, instead of being sent.

A private cluster shares its caller's machine and user. So the caller writes the frames of a big
leaf into a file on a memory file system and sends one small frame that says where they are; the
worker maps them, privately, and nobody copies them again. The caller removes each file when all
inputs in it have their outcomes; what it leaves behind goes with the cluster's directory.
"""

import mmap
import os
import pickle
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress

SHARED = b"\x02"  # tag of a frame that says where the frames are
ALIGN = 64  # bytes; arrays are as fast as if they had been allocated here
SHARE_BYTES_MIN = 1 << 20  # a leaf below it is sent: a file costs 0.1 ms
SHELF_BYTES = 128 << 20  # of one job, besides the last leaf; as JOB_INPUT_WINDOW


class Shelf:
    """The big leaves of one job that have no outcomes yet."""

    def __init__(self, name: str) -> None:
        """Call the files after `name`; nothing is shared before `open`."""
        self._directory: str | None = None
        self._name = name
        self._pid = os.getpid()
        self._made = 0
        self._starts: list[int] = []  # of the leaves, ascending
        self._leaves: list[_Shared] = []
        self._bytes = 0

    def open(self, directory: str | None) -> None:
        """Put files into `directory` from now on; None: share nothing."""
        self._directory = directory

    def has_room(self) -> bool:
        """Return whether one more leaf may be put down; one always may."""
        return self._bytes < SHELF_BYTES

    def put(self, start: int, count: int, frames: Sequence[bytes]) -> Sequence[bytes]:
        """Return the frames to send for a leaf whose first input has index `start`."""
        size = sum(map(len, frames))
        if self._directory is None or size < SHARE_BYTES_MIN:
            return frames
        path = os.path.join(self._directory, f"{self._name}-{self._made}")
        self._made += 1
        try:
            spans = _write(path, frames)
        except OSError:  # it is full: then they are sent
            with suppress(OSError):
                os.unlink(path)
            self._directory = None
            return frames
        self._starts.append(start)
        self._leaves.append(_Shared(path, size, count))
        self._bytes += size
        return [SHARED + pickle.dumps((path, spans), 5)]

    def release(self, lo: int, hi: int) -> None:
        """Take note that [lo, hi) have their outcomes, each told once."""
        at = max(0, bisect_right(self._starts, lo) - 1)
        while at < len(self._starts) and self._starts[at] < hi:
            start, leaf = self._starts[at], self._leaves[at]
            leaf.left -= max(0, min(hi, start + leaf.count) - max(lo, start))
            if leaf.left > 0:
                at += 1
                continue
            self._remove(leaf)
            del self._starts[at], self._leaves[at]

    def clear(self) -> None:
        """Remove all that is left; in a forked child it is the parent's."""
        if self._pid != os.getpid():
            return
        for leaf in self._leaves:
            self._remove(leaf)
        self._starts, self._leaves, self._directory = [], [], None

    def _remove(self, leaf: "_Shared") -> None:
        self._bytes -= leaf.size
        with suppress(OSError):  # with the cluster's directory, perhaps
            os.unlink(leaf.path)


class _Shared:
    """One leaf in a file."""

    __slots__ = ("count", "left", "path", "size")

    def __init__(self, path: str, size: int, count: int) -> None:
        self.path, self.size, self.count, self.left = path, size, count, count


def _write(path: str, frames: Sequence[bytes]) -> list[tuple[int, int]]:
    """Write each frame so that a run of full ones is aligned and whole; return where they are."""
    spans = []
    at = 0
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for number, frame in enumerate(frames):
            if number == 1:  # behind the first, which is of any length, the buffers begin
                at += -at % ALIGN
                os.lseek(file, at, os.SEEK_SET)
            spans.append((at, len(frame)))
            view = memoryview(frame)
            while view:
                view = view[os.write(file, view) :]
            at += len(frame)
    finally:
        os.close(file)
    return spans


def fetch(
    reference: bytes | bytearray | memoryview,
) -> tuple[memoryview, list[tuple[int, int]]]:
    """Return the memory that a shared frame tells of, and where in it each frame lies: at, size.

    What is written to it is seen by nobody else.

    Raises:
        OSError: they are not there (any more).
    """
    path, spans = pickle.loads(memoryview(reference)[len(SHARED) :])
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        mapped = memoryview(mmap.mmap(file, 0, access=mmap.ACCESS_COPY))
    finally:
        os.close(file)
    return mapped, spans
