"""Big values on the same machine: put down in memory that the other side maps, not sent.

A private cluster shares its caller's machine and user. So the caller writes a big leaf into a file
on a memory file system and sends a reference (shared_memory.py); the worker maps it, and it is not
copied again. When all inputs in a file have outcomes it is written anew for a later leaf, also of a
next job: fresh memory costs four times as much as memory that is there. A worker does the same
with a big result; the caller maps it, and leaves the file to the workers when nobody refers to the
result any more. Of a result that lies in an input, unchanged, it says only where (views.py). All
files of a job lie in a directory of its own, which the caller removes with the job, so what comes
too late finds no place.
"""

import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar, overload

from .frames import Pieces
from .free_files import File, FreeFiles
from .free_results import FreeResults
from .shared_memory import INPUT, RESULT, SHARE_BYTES_MIN, create, kept, refer
from .views import find_view, refer_to_view

INPUTS_BYTES_MAX = 128 << 20  # of one job, besides the last leaf; as JOB_INPUT_WINDOW
# Of less than that only so many leaves wait as keep the slots busy: each more is a new file, which
# costs four times as much as one that is written anew, and is out of the processor's caches.
WAITING_BYTES_MIN = 64 << 20
WAITING_PER_SLOT = 6  # one that is worked on, one behind it; two under way, two not yet reported
# Of one job and not taken yet; more are sent, where windows hold back. Each worker looks for
# itself, so there may be one result more for each.
RESULTS_BYTES_MAX = 256 << 20
FREE_SHARE = 4  # of the file system one part is left free, for the caller's own shared memory
CLEAR_TRIES_MAX = 100  # against a worker that puts files down while we remove them

Cut = TypeVar("Cut")


def directory_of(memory: str, job: str) -> str:
    """Return the directory of a job's files, below that of its cluster."""
    return f"{memory}/{job}"


def parts_in(memory: str) -> str:
    """Return the directory of the parts of functions, likewise; no job is called so."""
    return f"{memory}/parts"


class SharedInputs:
    """The big leaves of one job that have no outcomes yet, and the place for its results."""

    def __init__(
        self, directory: str | None, free: FreeFiles | None = None, slots: int = 1
    ) -> None:
        """Take charge of `directory`, which `open` makes.

        Args:
            directory: of the job; None: nothing is shared.
            free: what its cluster has of files to be written anew; None: nothing yet.
            slots: how many calls may run at once.
        """
        self._directory = directory
        self._free = free or FreeFiles(os.path.dirname(directory or ""))
        self._waiting_max = WAITING_PER_SLOT * slots
        self._sharing = False
        self._pid = os.getpid()
        self._made = 0
        self._starts: list[int] = []  # of the leaves, ascending
        self._leaves: list[_Shared] = []
        self._bytes = 0  # of the leaves

    def open(self) -> None:
        """Make the directory, if that is possible; from now on leaves are put down."""
        if self._directory is not None:
            try:
                os.mkdir(self._directory, 0o700)
            except OSError:
                return
            self._sharing = True

    def has_room(self) -> bool:
        """Return whether one more leaf may be put down; one always may."""
        is_little = self._bytes < WAITING_BYTES_MIN or len(self._leaves) < self._waiting_max
        return is_little and self._bytes < INPUTS_BYTES_MAX

    @overload
    def put(self, start: int, count: int, leaf: Pieces) -> Sequence[bytes]: ...
    @overload
    def put(
        self, start: int, count: int, leaf: Pieces, cut: Callable[[Pieces], Cut]
    ) -> Sequence[bytes] | Cut: ...
    def put(self, start: int, count: int, leaf: Pieces, cut: Any = Pieces.cut) -> Any:
        """Return the frames to send for a leaf whose first input has index `start`.

        Or what `cut` makes of it, if it is not put down.
        """
        if not self._sharing:
            return cut(leaf)
        parts = leaf.lay_out()
        size = sum(map(len, parts))
        try:
            file = self._write(parts, size)
        except OSError:  # then they are sent
            self._sharing = False
            file = None
        if file is None:
            return cut(leaf)
        self._starts.append(start)
        self._leaves.append(_Shared(file, count))
        self._bytes += file.size
        return [refer(INPUT, size, file.path)]

    def release(self, lo: int, hi: int) -> None:
        """Take note that [lo, hi) have their outcomes, each told once."""
        at = max(0, bisect_right(self._starts, lo) - 1)
        while at < len(self._starts) and self._starts[at] < hi:
            start, leaf = self._starts[at], self._leaves[at]
            leaf.left -= max(0, min(hi, start + leaf.count) - max(lo, start))
            if leaf.left > 0:
                at += 1
                continue
            self._bytes -= leaf.file.size
            self._free.keep(leaf.file)
            del self._starts[at], self._leaves[at]

    def clear(self) -> None:
        """Remove all that is left, of the workers as well; in a forked child it is the parent's."""
        if self._directory is None or self._pid != os.getpid():
            return
        self._sharing = False
        self._starts, self._leaves = [], []
        _remove(self._directory)

    def _write(self, parts: Sequence[Any], size: int) -> "File | None":
        """Return a file of `parts`: a fitting one that nobody maps, or a new one if it has room."""
        assert self._directory is not None
        path = os.path.join(self._directory, str(self._made))
        self._made += 1
        if (file := self._free.write(path, parts, size)) is not None:
            return file
        if not _has_room(self._directory, size):
            return None
        create(path, parts)
        return File(path, size)


class _Shared:
    """One leaf in a file."""

    __slots__ = ("count", "file", "left")

    def __init__(self, file: File, count: int) -> None:
        self.file, self.count, self.left = file, count, count


class SharedResults:
    """Where a worker puts the big results of one job down."""

    def __init__(self, directory: str, free: FreeResults | None = None) -> None:
        """Put them into `directory`, which is there as long as the job is.

        Args:
            directory: of the job.
            free: what this process has of earlier results; None: it keeps nothing mapped.
        """
        self._directory, self._cluster = directory, os.path.dirname(directory)
        self._free, self._keep = free or FreeResults(), free is not None
        self._made = 0

    def put(
        self, result: Pieces, cut: Callable[[Pieces], Sequence[bytes]] = Pieces.cut
    ) -> Sequence[bytes]:
        """Return the frames to send for a result, which `cut` makes if it is not put down."""
        size = result.size
        if size < SHARE_BYTES_MIN:
            return cut(result)
        try:
            reference = self._view(result, size) or self._put_down(result)
        except OSError:  # it is full, or the job is over
            reference = None
        return cut(result) if reference is None else [reference]

    def _view(self, result: Pieces, size: int) -> bytes | None:
        """Return a reference to a result that lies in an input; None: it does not, or no more may.

        Raises:
            OSError: the job is over.
        """
        view = find_view(result.buffers, size, kept)
        if view is None or not self._may_wait(view.file.size):
            return None
        seen = {one.number for one in view.ranges}
        inline = Pieces()
        inline.data = result.written()
        inline.buffers = [one for at, one in enumerate(result.buffers) if at not in seen]
        path = self._next_path(view.file.size)
        return refer_to_view(view, path, size, b"".join(inline.lay_out()))

    def _put_down(self, result: Pieces) -> bytes | None:
        """Return a reference to a file of a result; None: there is no room for one.

        Raises:
            OSError: it cannot be written.
        """
        parts = result.lay_out()
        size = sum(map(len, parts))
        if not (self._may_wait(size) and _has_room(self._directory, size)):
            return None
        path = self._next_path(size)
        if not self._free.write(self._cluster, path, parts, size, keep=self._keep):
            create(path, parts)
        return refer(RESULT, size, path)

    def _next_path(self, size: int) -> str:
        """Return a name for a file: its size stands in it, so that nobody has to ask for it."""
        self._made += 1
        return os.path.join(self._directory, f"{os.getpid()}-{self._made}-{size}")

    def _may_wait(self, size: int) -> bool:
        """Return whether the caller has so few results to take that one more may wait."""
        waiting = sum(
            int(name.rpartition("-")[2]) for name in os.listdir(self._directory) if "-" in name
        )
        return not waiting or waiting + size <= RESULTS_BYTES_MAX


def _has_room(directory: str, size: int) -> bool:
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize - size > disk.f_blocks * disk.f_frsize // FREE_SHARE


def _remove(directory: str) -> None:
    for _ in range(CLEAR_TRIES_MAX):
        try:
            os.rmdir(directory)  # most jobs put nothing down
            return
        except FileNotFoundError:
            return
        except OSError:
            pass
        with suppress(OSError):
            for name in os.listdir(directory):
                with suppress(OSError):
                    os.unlink(os.path.join(directory, name))
