"""Who owns a private daemon: the process it must not outlive, and the directory they share.

A process is named by its id and its start time, since ids are used again.
"""

import contextlib
import os
import time
import zlib
from typing import NamedTuple

from .procfs import HAS_PROC, process_started

MEMORY = "/dev/shm"  # a file system in memory, on Linux
REMOVE_S = 2.0  # a worker that is just being killed may still write while its scratch is removed
REMOVE_RETRY_S = 0.05


def this_host() -> str:
    """Return a word that differs between machines, boots and pid namespaces that share a /tmp."""
    words = []
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            if os.path.islink(path):
                words.append(os.readlink(path))
            else:
                with open(path) as file:
                    words.append(file.read())
        except OSError:
            words.append("")
    return f"{zlib.crc32(repr((os.uname().nodename, words)).encode()):08x}"


class Owner(NamedTuple):
    """The process that a daemon ends with."""

    pid: int
    started: int | None = None  # as `process_started` said; None: not known
    directory: str | None = None  # private to it and its daemons; removed when all have ended

    def __str__(self) -> str:
        """Return the text that `parse` takes."""
        return f"{self.pid}:{self.started or ''}:{self.directory or ''}"

    @classmethod
    def parse(cls, text: str) -> "Owner":
        """Return the owner written as `PID[:START[:DIRECTORY]]`.

        Raises:
            ValueError: it is not written so.
        """
        pid, _, rest = text.partition(":")
        started, _, directory = rest.partition(":")
        return cls(int(pid), int(started) if started else None, directory or None)

    def alive(self) -> bool:
        """Return whether the process still runs. Without /proc only a parent can be an owner."""
        if not HAS_PROC:
            return os.getppid() == self.pid
        started = process_started(self.pid)
        return started is not None and self.started in (None, started)


def memory_of(directory: str) -> str:
    """Return the name of the directory of big inputs that goes with a private cluster's own."""
    return os.path.join(MEMORY, os.path.basename(directory))


def remove_directory(directory: str) -> None:
    """Remove a directory with all that is in it, also while others put things into it or take.

    Not by shutil, which the end of a process would have to import: it calls `eval`, upon which
    CPython forgets that it ends by Ctrl-C, and gives 1 as exit status.
    """
    with contextlib.suppress(OSError):  # a stranger may have made one of this name
        if os.lstat(memory_of(directory)).st_uid == os.geteuid():
            _remove_tree(memory_of(directory))
    until = time.monotonic() + REMOVE_S
    while not os.path.islink(directory):
        _remove_tree(directory)
        if not os.path.lexists(directory) or time.monotonic() > until:
            return
        time.sleep(REMOVE_RETRY_S)


def _remove_tree(directory: str) -> None:
    """Remove what can be removed; links are not followed."""
    for parent, directories, files in os.walk(directory, topdown=False):
        for name in (*files, *directories):  # of directories only links are left, which end here
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(parent, name))
        with contextlib.suppress(OSError):
            os.rmdir(parent)
