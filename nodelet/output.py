"""The output of a worker, as the agent reads it: two pipes, drained before outcomes go on."""

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

STDOUT, STDERR = 1, 2


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

    def drain(self, take: Callable[[int, bytes], None]) -> list[int]:
        """Hand over all that is in the pipes now; return those that nobody can write to any more.

        Bounded: what comes while we read is left once as much as a pipe holds was read.
        """
        ended: list[int] = []
        if not self.fds:
            return ended
        for fd, _ in self._poller.poll(0):
            stream = STDOUT if fd == self.stdout else STDERR
            room = PIPE_BYTES
            while room > 0:
                try:
                    data = os.read(fd, READ_BYTES)
                except BlockingIOError:
                    break
                if not data:
                    ended.append(fd)
                    break
                take(stream, data)
                room -= len(data)
                if len(data) < READ_BYTES:
                    break
        return ended

    def close(self) -> None:
        """Close the reading ends."""
        for fd in list(self.fds):
            self.forget(fd)

    def forget(self, fd: int) -> None:
        """Close one of them."""
        self._poller.unregister(fd)
        self.fds.remove(fd)
        os.close(fd)
