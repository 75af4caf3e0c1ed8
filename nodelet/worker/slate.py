"""The shared page of a worker: where it is, where it must stop.

A page is a header and a ring of cells, one for each span assigned and not over. Every word has
one writer: the agent writes `hi`, only downwards, and all of a cell before it sends the span; the
worker writes `pos`, the end of what it has claimed, and the header. That, and a memory barrier on
the side that steals, makes a steal exact without a lock (docs: "Stealing" in ARCHITECTURE.md).

What must never happen: `hi` raised, `pos` written by the agent after the span was sent, or a cell
used again before the worker's frame has said how far it ran.
"""

import contextlib
import ctypes
import mmap
import os
import time

WORD_BYTES = 8  # item assignment of a "q" view is one aligned 8-byte store on x86-64 and arm64
PAGE_BYTES = 4096
PAGES = 1024  # workers alive or dying at once on one machine
PAGES_BYTES = PAGES * PAGE_BYTES
CELL_WORDS = 8  # a cache line a cell: the worker's `pos` does not slow the agent's other cells
CELLS = 32  # spans of one worker that are not settled yet

# The header: which calls the worker is in. Written before the first of them begins.
_CELL, _BEGIN, _END = 0, 1, 2
# Likewise, where calls have a time limit: so many outcomes are noted, the first of this index.
_NOTED, _NOTED_FROM = 3, 4
_EXPIRED = 5  # written by the agent: 1 + the index of the call whose time is up; 0: of none
# Likewise: twice how many bytes it has read of stdout and of stderr, and 1 more while it reads.
_OUTPUT = 6
# A cell.
_HI, _POS = 0, 1

# Behind the cells: outcomes that are not written yet, each behind its length in two bytes. They
# survive the worker, which may be killed in the middle of a stride.
NOTES_AT = (1 + CELLS) * CELL_WORDS
NOTES_BYTES = PAGE_BYTES - NOTES_AT * WORD_BYTES

BARRIER_WAIT_S = 0.001  # without membarrier: any store is visible to other cores long before this

_SYSCALL_MEMBARRIER = {"x86_64": 324, "aarch64": 283}.get(os.uname().machine)
_GLOBAL_EXPEDITED, _REGISTER_GLOBAL_EXPEDITED = 2, 4  # linux/membarrier.h
_libc = ctypes.CDLL(None, use_errno=True)


def _membarrier(command: int) -> bool:
    if _SYSCALL_MEMBARRIER is None:
        return False
    return bool(_libc.syscall(_SYSCALL_MEMBARRIER, command, 0, 0) == 0)


def register() -> None:
    """Let `barrier` of another process order the memory accesses of this one."""
    _membarrier(_REGISTER_GLOBAL_EXPEDITED)


def barrier() -> None:
    """Return once every registered process has passed a full memory barrier.

    What we wrote before is then visible to it, and what it wrote before its next read, to us. The
    worker pays nothing for it; we pay about a microsecond.
    """
    if not _membarrier(_GLOBAL_EXPEDITED):
        time.sleep(BARRIER_WAIT_S)


def make_memory(behind: int = 0) -> int:
    """Return the descriptor of anonymous shared memory for PAGES pages; it takes room when used.

    Args:
        behind: so many bytes more, which are not mapped.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("burla-slates", os.MFD_CLOEXEC)
    else:
        import tempfile  # not Linux

        fd, path = tempfile.mkstemp(prefix="burla-slates-")
        os.unlink(path)
    os.ftruncate(fd, PAGES_BYTES + behind)
    return fd


class Memory:
    """All pages of a machine, mapped; both sides of every slate lie in it."""

    def __init__(self, fd: int) -> None:
        """Map the memory of `fd`, which belongs to this object from now on."""
        self.fd = fd
        self._map = mmap.mmap(fd, PAGES_BYTES)
        self._words = memoryview(self._map).cast("q")

    def page(self, number: int) -> memoryview:
        """Return the words of one page."""
        words = PAGE_BYTES // WORD_BYTES
        return self._words[number * words : (number + 1) * words]

    def close(self) -> None:
        """Unmap; pages handed out must be released before."""
        os.close(self.fd)
        self._words.release()
        with contextlib.suppress(BufferError):  # a page is still referred to: unmapped with it
            self._map.close()


def _cell(words: memoryview, cell: int) -> memoryview:
    begin = (1 + cell) * CELL_WORDS
    return words[begin : begin + CELL_WORDS]


_WIPED = memoryview(bytes(PAGE_BYTES)).cast("q")


class AgentSlate:
    """The agent's side: it opens cells, lowers `hi`, and looks."""

    def __init__(self, words: memoryview) -> None:
        """Take over a page, which is wiped: its last worker is gone."""
        self._words = words
        self._cells = [_cell(words, i) for i in range(CELLS)]
        words[:] = _WIPED
        self.output = words[_OUTPUT : _OUTPUT + 2]  # for who reads it

    def open(self, cell: int, lo: int, hi: int) -> None:
        """Prepare a cell for the span [lo, hi), before the span is sent."""
        words = self._cells[cell]
        words[_POS] = lo
        words[_HI] = hi
        if self._words[_EXPIRED] == lo + 1:  # of an earlier try
            self._words[_EXPIRED] = 0

    def steal(self, cell: int, middle: int) -> tuple[int, int]:
        """Take what the worker has not claimed of [middle, hi) away from it.

        Returns:
            [lo, hi): ours from now on, lo >= middle; empty (lo >= hi) if all of it is claimed. What
            is between `middle` and `lo` stays undecided until the worker says how far it ran.
        """
        words = self._cells[cell]
        hi: int = words[_HI]
        if middle >= hi:
            return hi, hi
        words[_HI] = middle
        barrier()
        return max(middle, words[_POS]), hi

    def claimed(self, cell: int) -> int:
        """Return the end of what the worker has claimed of this cell's span, as it says."""
        pos: int = self._words[(1 + cell) * CELL_WORDS + _POS]
        return pos

    def stride(self) -> tuple[int, int, int]:
        """Return cell, begin and end of the stride that the worker is in or was in last."""
        words = self._words
        return words[_CELL], words[_BEGIN], words[_END]

    def noted(self) -> tuple[int, int]:
        """Return [lo, hi), the calls whose outcomes are noted."""
        count, lo = self._words[_NOTED], self._words[_NOTED_FROM]
        return (lo, lo + count) if 0 <= count <= NOTES_BYTES // 2 and lo >= 0 else (0, 0)

    def notes(self) -> tuple[int, list[bytes]]:
        """Return the index of the first outcome that is noted, and all of them, as pickles."""
        lo, hi = self.noted()
        data = self._words[NOTES_AT:].tobytes()
        notes: list[bytes] = []
        at = 0
        for _ in range(lo, hi):
            end = at + 2 + int.from_bytes(data[at : at + 2], "little")
            if end > len(data):  # user code shares the page
                return lo, notes
            notes.append(data[at + 2 : end])
            at = end
        return lo, notes

    def expire(self, index: int | None) -> None:
        """Say that the time of the call of `index` is up; None: of no call any more."""
        self._words[_EXPIRED] = 0 if index is None else index + 1

    def release(self) -> None:
        """Let go of the page."""
        for cell in self._cells:
            cell.release()
        self.output.release()
        self._words.release()


class WorkerSlate:
    """The worker's side, for one span after the other."""

    def __init__(self, words: memoryview) -> None:
        """Use a page that the agent has wiped."""
        self._header = words
        self._cells = [_cell(words, i) for i in range(CELLS)]
        self._words = self._cells[0]
        self._room = words[NOTES_AT:].cast("B")
        self._noted = self._noted_from = self._noted_bytes = 0

    def enter(self, cell: int) -> None:
        """Turn to the span of this cell."""
        self._words = self._cells[cell]
        self._header[_CELL] = cell

    @property
    def hi(self) -> int:
        """Where the span ends as of now."""
        hi: int = self._words[_HI]
        return hi

    def claim(self, at: int, count: int) -> int:
        """Claim up to `count` calls from `at` on; return the end of what is ours now.

        The claim is published, then `hi` is read again: either we see that the agent has lowered it
        and step back, or the agent, whose barrier comes between its write and its read, sees the
        claim.
        """
        words = self._words
        hi: int = words[_HI]
        end = at + count
        if end > hi:
            end = hi
        if end <= at:
            return at
        words[_POS] = end
        hi = words[_HI]
        if hi < end:
            words[_POS] = end = max(hi, at)
        return end

    def begin(self, begin: int, end: int) -> None:
        """Say which calls come next: whom a death in them may be blamed on."""
        header = self._header
        header[_BEGIN] = begin
        header[_END] = end

    def read(self, stream: int) -> int:
        """Return twice how many bytes the agent has read of a stream, and 1 more while it reads."""
        count: int = self._header[_OUTPUT + stream - 1]
        return count

    # --- of calls with a time limit ---

    def begin_notes(self, index: int) -> None:
        """Forget what was noted, which is written now; `index` comes next."""
        self._header[_NOTED] = 0
        self._header[_NOTED_FROM] = index
        self._noted, self._noted_from, self._noted_bytes = 0, index, 0

    def note(self, index: int, outcome: bytes) -> bool:
        """Note the outcome of a call; return False if there is no room, or one before it is not."""
        at = self._noted_bytes
        end = at + 2 + len(outcome)
        if end > NOTES_BYTES or index != self._noted_from + self._noted:
            return False
        self._room[at:end] = len(outcome).to_bytes(2, "little") + outcome
        self._noted_bytes = end
        self._noted += 1
        self._header[_NOTED] = self._noted
        return True

    def has_expired(self, index: int) -> bool:
        """Return whether the time of this call is up."""
        return bool(self._header[_EXPIRED] == index + 1)
