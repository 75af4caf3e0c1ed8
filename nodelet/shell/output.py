"""The output of a worker, as the agent reads it: two pipes, drained before outcomes go on.

Lines are not torn: what comes after the last newline is held until the rest of the line comes, or
nothing came for a moment, because another worker's output would go between.
"""

import fcntl
import os
import select
from collections.abc import Callable
from contextlib import suppress

PIPE_BYTES = 256 << 10  # of each pipe; a worker that prints more than that meanwhile waits
READ_BYTES = 64 << 10  # of one read
# After output was read it is looked at again this much later, unless outcomes come: a worker that
# prints line by line would wake us with each. Far below the 100 ms that a print may take.
OUTPUT_PAUSE_S = 0.01
# Writers split only what is longer than this (C's stdout; Python's is twice that) over several
# writes, of which we may see the first alone; what is shorter and has no newline was meant so.
SPLIT_BYTES = 4096
LINE_WAIT_MS = 5  # for the rest of such a line when an outcome waits; its writer is in the middle
LINE_READS_MAX = 16  # of such waits for one line
LINE_BYTES_MAX = 256 << 10  # a longer line is handed over in pieces

STDOUT, STDERR = 1, 2

Take = Callable[[int, bytes], None]


class OutputPipes:
    """The reading ends of a worker's stdout and stderr."""

    def __init__(self) -> None:
        """Open both pipes; `writers` are to be given to the worker, and closed here."""
        self.stdout, out = os.pipe()
        self.stderr, err = os.pipe()
        self.writers = (out, err)
        self.fds = [self.stdout, self.stderr]  # those that somebody may still write to
        self._poller = select.poll()
        for fd in self.fds:
            os.set_blocking(fd, False)
            with suppress(OSError):  # the user's share of pipe memory is used up: smaller pipes do
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            self._poller.register(fd, select.POLLIN)
        self._held: dict[int, bytes] = {}  # beginnings of lines
        self._seen: dict[int, int] = {}  # how long they were when `release` looked last

    def drain(self, take: Take, *, settle: bool = False) -> list[int]:
        """Hand over what is in the pipes now; return those that nobody can write to any more.

        Bounded: what comes while we read is left once as much as a pipe holds was read.

        Args:
            take: is given a stream and bytes, whole lines if possible.
            settle: an outcome waits: hold nothing back that can belong to its call.
        """
        ended = [fd for fd, _ in self._poller.poll(0) if self._read(fd, take) is None]
        if settle:
            for fd in list(self._held):
                self._settle(fd, take)
        return ended

    def release(self, take: Take) -> bool:
        """Hand over what was held at the last call already; return whether something is held."""
        for fd, held in list(self._held.items()):
            if self._seen.get(fd) == len(held):
                self._give(fd, take)
        self._seen = {fd: len(held) for fd, held in self._held.items()}
        return bool(self._held)

    @property
    def holds(self) -> bool:
        """Whether the beginning of a line is held back."""
        return bool(self._held)

    def _read(self, fd: int, take: Take) -> bool | None:
        """Read all that is there; return whether a line ended in it, None at the end."""
        parts = [self._held.pop(fd, b"")]
        room, is_open = PIPE_BYTES, True
        while room > 0:
            try:
                data = os.read(fd, READ_BYTES)
            except BlockingIOError:
                break
            parts.append(data)
            room -= len(data)
            is_open = bool(data)
            if len(data) < READ_BYTES:
                break
        whole = b"".join(parts)
        end = whole.rfind(b"\n") + 1
        if not is_open or len(whole) - end > LINE_BYTES_MAX:
            end = len(whole)
        if end:
            take(self._stream(fd), whole[:end])
        if end < len(whole):
            self._held[fd] = whole[end:]
        return end > 0 if is_open else None

    def _settle(self, fd: int, take: Take) -> None:
        """Hand over the beginning of a line, with its rest if that is on its way."""
        if len(self._held[fd]) >= SPLIT_BYTES:
            alone = select.poll()
            alone.register(fd, select.POLLIN)
            for _ in range(LINE_READS_MAX):
                if not alone.poll(LINE_WAIT_MS):
                    break
                if self._read(fd, take) is not False:
                    return  # what is held now is of a later line, and of a later call
        self._give(fd, take)

    def _give(self, fd: int, take: Take) -> None:
        if held := self._held.pop(fd, b""):
            take(self._stream(fd), held)

    def _stream(self, fd: int) -> int:
        return STDOUT if fd == self.stdout else STDERR

    def close(self) -> None:
        """Close the reading ends."""
        for fd in list(self.fds):
            self.forget(fd)

    def forget(self, fd: int) -> None:
        """Close one of them."""
        self._poller.unregister(fd)
        self.fds.remove(fd)
        os.close(fd)
