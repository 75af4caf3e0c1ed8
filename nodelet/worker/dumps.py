"""Where a worker's crash is described: behind the slates, in memory that the agent can read.

Not on stderr: a call that crashed is tried again, and what it crashed in belongs into its error.
`faulthandler` writes to a descriptor, so each worker opens the memory anew and has a position of
its own in it. A function may use `faulthandler` for itself as ever.
"""

import faulthandler
import fcntl
import os

from .slate import PAGES, PAGES_BYTES

ROOM_BYTES = 16 << 10  # of each worker: a hundred frames; more runs into a neighbour's, no further
READ_BYTES = 4 << 10  # the beginning, where the crash is
BYTES = PAGES * ROOM_BYTES


def _place(page: int) -> int:
    return PAGES_BYTES + page * ROOM_BYTES


def describe_crashes(memory: int, page: int, above: int) -> int:
    """Have faulthandler describe a crash of this process in the room of `page`.

    Args:
        memory: descriptor of the slates, or what this returned in the process that forked us.
        page: of our slate.
        above: the least number that our descriptor may have.

    Returns:
        Our descriptor; -1: there is no /proc, and crashes are not described.
    """
    try:
        own = os.open(f"/proc/self/fd/{memory}", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return -1
    fd = fcntl.fcntl(own, fcntl.F_DUPFD_CLOEXEC, above)
    os.close(own)
    os.lseek(fd, _place(page), os.SEEK_SET)
    faulthandler.enable(fd, all_threads=False)
    return fd


def take_dump(memory: int, page: int) -> str:
    """Return the beginning of what was written there, and wipe it."""
    data = os.pread(memory, READ_BYTES, _place(page)).partition(b"\0")[0]
    if data:
        os.pwrite(memory, bytes(READ_BYTES), _place(page))
    return data.decode("ascii", "replace")
