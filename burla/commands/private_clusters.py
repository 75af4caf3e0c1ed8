"""Private clusters of this user that run now: for those who look into them from outside."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from burla.private_cluster import DIRECTORY, SOCKET, address_in, bases
from burla.system.owner import Owner, this_host

WORDS_CHARS_MAX = 200


@dataclass(frozen=True)
class PrivateCluster:
    """A private cluster, and the process that it belongs to."""

    address: str
    directory: str
    owner: Owner

    def program(self) -> str:
        """Return the command line of its owner; empty: it has ended."""
        with contextlib.suppress(OSError), open(f"/proc/{self.owner.pid}/cmdline", "rb") as file:
            words = file.read().decode(errors="replace").split("\0")
            line = " ".join(word for word in words if word)
            return "".join(c if c.isprintable() else "?" for c in line)[:WORDS_CHARS_MAX]
        return ""

    def why_gone(self) -> str | None:
        """Return why nothing answers there any more; None: its owner lives."""
        if self.owner.alive():
            return None
        return f"process {self.owner.pid}, whose private cluster it was, has ended"


def running() -> list[PrivateCluster]:
    """Return those that listen, the newest first."""
    found = {one.directory: one for base in bases() for one in _in(base)}
    return sorted(found.values(), key=lambda one: -(one.owner.started or 0))


def _in(base: str) -> Iterator[PrivateCluster]:
    with contextlib.suppress(OSError), os.scandir(base) as entries:
        for entry in entries:
            name = DIRECTORY.fullmatch(entry.name)
            if name is None or name[3] != this_host() or not name[2]:
                continue
            with contextlib.suppress(OSError):  # it ends just now
                status = entry.stat(follow_symlinks=False)
                path = os.path.realpath(entry.path)
                owner = Owner(int(name[1]), int(name[2]))
                listens = os.path.exists(os.path.join(path, SOCKET))
                if status.st_uid == os.getuid() and listens and owner.alive():
                    yield PrivateCluster(address_in(entry.path), path, owner)
