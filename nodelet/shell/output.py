"""The output of a worker, as the agent reads it: two pipes, drained before outcomes go on.

What is read goes on as it is: lines are kept whole by the core (streams.py), which knows whether
more of one can come.
"""

import fcntl
import os
import select
from collections.abc import MutableSequence
from contextlib import suppress

PIPE_BYTES = 256 << 10  # of each pipe; a worker that prints more than that meanwhile waits
READ_BYTES = 64 << 10  # of one read
# After output was read it is looked at again this much later, unless outcomes come: a worker that
# prints line by line would wake us with each. Far below the 100 ms that a print may take.
OUTPUT_PAUSE_S = 0.01

STDOUT, STDERR = 1, 2


class OutputPipes:
    """The reading ends of a worker's stdout and stderr."""

    def __init__(self) -> None:
        """Open both pipes; `writers` are to be given to the worker, and closed here."""
        self.stdout, out = os.pipe()
        self.stderr, err = os.pipe()
        self.writers = (out, err)
        self.fds = [self.stdout, self.stderr]  # those that somebody may still write to
        self.totals = [0, 0]  # bytes that were read of stdout and stderr
        self.shown: MutableSequence[int] | memoryview = [0, 0]  # likewise, for the worker to see
        self._poller = select.poll()
        for fd in self.fds:
            os.set_blocking(fd, False)
            with suppress(OSError):  # the user's share of pipe memory is used up: smaller pipes do
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            self._poller.register(fd, select.POLLIN)

    def drain(self) -> list[tuple[int, bytes]]:
        """Return what is in the pipes now, as streams and bytes.

        No bytes: nobody can write to this stream any more. Bounded: what comes while we read is
        left once as much as a pipe holds was read.
        """
        got: list[tuple[int, bytes]] = []
        for fd, _ in self._poller.poll(0):
            stream = STDOUT if fd == self.stdout else STDERR
            at = stream - STDOUT
            self.shown[at] = 2 * self.totals[at] + 1
            data, is_open = _read(fd)
            self.totals[at] += len(data)
            self.shown[at] = 2 * self.totals[at]
            if data:
                got.append((stream, data))
            if not is_open:
                got.append((stream, b""))
        return got

    def close(self) -> None:
        """Close the reading ends."""
        for fd in list(self.fds):
            self._forget(fd)

    def forget(self, stream: int) -> int:
        """Close one of them; return the descriptor that it was."""
        fd = self.stdout if stream == STDOUT else self.stderr
        self._forget(fd)
        return fd

    def _forget(self, fd: int) -> None:
        self._poller.unregister(fd)
        self.fds.remove(fd)
        os.close(fd)


def _read(fd: int) -> tuple[bytes, bool]:
    """Return what is there, up to what a pipe holds, and whether more can come."""
    parts: list[bytes] = []
    room = PIPE_BYTES
    while room > 0:
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            break
        if not data:
            return b"".join(parts), False
        parts.append(data)
        room -= len(data)
        if len(data) < READ_BYTES:
            break
    return b"".join(parts), True
