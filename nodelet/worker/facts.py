"""What a worker knows of a call that has ended, besides its outcome. For calls that last: it costs.

How much its process had in memory at most; and where its output ends, so that it can be told from
that of the next call. What is written to a pipe cannot be counted there, as children and C code
write, too: it is what the agent has read, which is in the slate, and what is still in the pipe.
"""

import fcntl
import os
import resource
import struct
import termios
from contextlib import suppress

from .pipes import FACTS
from .slate import WorkerSlate

UNKNOWN = -1
TRIES_MAX = 5  # to see both figures while the agent does not read just then
STDOUT, STDERR = 1, 2
_NOTHING = b"\0\0\0\0"


class Facts:
    """Looks at this process."""

    def __init__(self, slate: WorkerSlate, fds: tuple[int, int] = (1, 2)) -> None:
        """Remember which pipes are those of the agent: a function may put others there.

        `fds`: of stdout and stderr.
        """
        self._slate, self._fds = slate, fds
        self._pipes = [_inode(fd) for fd in fds]

    def begin(self) -> None:
        """Begin to look for the highest figure of memory anew."""
        with suppress(OSError):  # it may not, or this kernel cannot: then it is that of all calls
            fd = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, b"5")
            finally:
                os.close(fd)

    def packed(self) -> bytes:
        """Return what is known now, at the end of a call, as a frame."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        return FACTS.pack(peak, self._written(STDOUT), self._written(STDERR))

    def _written(self, stream: int) -> int:
        """Return how many bytes were written to one of the pipes; -1: not known."""
        fd = self._fds[stream - 1]
        if _inode(fd) != self._pipes[stream - 1]:
            return UNKNOWN
        for _ in range(TRIES_MAX):
            before = self._slate.read(stream)
            try:
                unread = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, _NOTHING))[0]
            except OSError:
                return UNKNOWN
            if not before & 1 and self._slate.read(stream) == before:
                return int((before >> 1) + unread)
        return UNKNOWN


def _inode(fd: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino
