"""User ids for leases: one at a time, never one that a living process has or another nodelet uses.

The range is one that no distribution gives to users, services or containers. Which of them are in
use on this machine is said by locked files in a directory of root's: a lock ends with its holder,
however that ends.
"""

import fcntl
import os
from contextlib import suppress

FIRST = 2_000_000_000  # beyond systemd's ranges (up to 1,879,048,191), below 2**31 - 1
COUNT = 10_000
DIRECTORY = "/run/burla"


class NoUidError(Exception):
    """All ids are in use."""


class Uids:
    """The ids of one nodelet."""

    def __init__(self, directory: str = DIRECTORY) -> None:
        """Keep the locks in `directory`, which is made, and must be root's alone."""
        os.makedirs(directory, 0o755, exist_ok=True)
        status = os.lstat(directory)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise PermissionError(f"{directory} can be written to by others")
        self._directory = directory
        self._locks: dict[int, int] = {}  # id -> descriptor of its locked file
        # not always the same first: what a file system still knows of an id fades meanwhile
        self._next = int.from_bytes(os.urandom(4), "big") % COUNT

    def take(self) -> int:
        """Return an id that is nobody's.

        Raises:
            NoUidError: there is none.
        """
        os.makedirs(self._directory, 0o755, exist_ok=True)  # a node that left may have removed it
        living = _living()
        for _ in range(COUNT):
            uid = FIRST + self._next
            self._next = (self._next + 1) % COUNT
            if uid not in living and uid not in self._locks and self._lock(uid):
                return uid
        raise NoUidError(f"all of {COUNT} user ids are in use")

    def give_back(self, uid: int) -> None:
        """Let others have an id; no process has it any more."""
        fd = self._locks.pop(uid)
        with suppress(OSError):
            os.unlink(self._path(uid))
        os.close(fd)

    def take_left(self) -> list[int]:
        """Return ids, ours from now on, whose holders were killed and could not clear up."""
        names = [name.removeprefix("uid-") for name in os.listdir(self._directory)]
        left = [int(name) for name in names if name.isdigit()]
        return [uid for uid in left if uid not in self._locks and self._lock(uid)]

    def _path(self, uid: int) -> str:
        return os.path.join(self._directory, f"uid-{uid}")

    def _lock(self, uid: int) -> bool:
        fd = os.open(self._path(uid), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(self._path(uid)).st_ino == os.fstat(fd).st_ino:
                self._locks[uid] = fd
                return True
        except OSError:  # locked, or its last holder has just removed it
            pass
        os.close(fd)
        return False


def _living() -> set[int]:
    """Return the users of all processes."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                found.add(os.stat(f"/proc/{name}").st_uid)
    return found
