"""Landlock: a process without any privilege gives up most of the file system, for ever.

For machines that give neither root nor user namespaces. The zygote does it before it forks. What
runs below it can then read all but what is hidden, write only to its scratch, trace nobody outside,
and, where the kernel knows how to (6.12), neither signal anybody outside.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from glob import glob

from . import linux

# linux/landlock.h: rights on files
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_ALL = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}  # by version; later ones: 3
_NEWEST = 3
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | (1 << 14)  # truncate
_READ = _EXECUTE | _READ_FILE | _READ_DIR
ABSTRACT_SOCKETS, _SIGNALS = 1, 2  # scopes
_SCOPED_SINCE = 6
# Shared memory and semaphores of POSIX have no other place, and are what multiprocessing needs.
_SHARED = "/dev/shm"
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")


def is_there() -> bool:
    """Return whether the kernel has it."""
    try:
        return linux.landlock_version() >= 1
    except OSError:
        return False


def has_scopes() -> bool:
    """Return whether the kernel can keep abstract sockets and signals apart."""
    return is_there() and linux.landlock_version() >= _SCOPED_SINCE


def restrict(scratch: str, hidden: Iterable[str], needed: Iterable[str]) -> None:
    """Let this process and its children write to `scratch` only, and not read what is hidden.

    Args:
        scratch: a directory.
        hidden: files, and directories whose content is not to be read.
        needed: directories that are to be read even if they lie in a hidden one.

    Raises:
        OSError: the kernel cannot.
    """
    version = linux.landlock_version()
    handled = _ALL[min(version, _NEWEST)]
    scopes = ABSTRACT_SOCKETS | _SIGNALS if version >= _SCOPED_SINCE else 0
    ruleset = linux.landlock_ruleset(handled, 0, scopes)
    try:
        shut = sorted({os.path.realpath(path) for path in hidden})
        for top in ("/", *(os.path.realpath(path) for path in needed)):
            # what is needed is read though it lies in what is hidden, but not what is hidden in it
            for path in allowed([one for one in shut if one != top], top):
                _allow(ruleset, path, _READ)
        for path in (*DEVICES, *glob("/dev/nvidia*")):  # whose GPUs a worker sees, it is told
            _allow(ruleset, path, _READ | _WRITE_FILE)
        for path in (scratch, _SHARED):
            _allow(ruleset, path, handled)
        linux.set_no_new_privileges()
        linux.landlock_restrict(ruleset)
    finally:
        os.close(ruleset)


def allowed(hidden: list[str], top: str = "/") -> Iterator[str]:
    """Yield paths that together are all below `top` but what is hidden."""
    if top in hidden:
        return
    if not any(path.startswith(top.rstrip("/") + "/") for path in hidden):
        yield top
        return
    with suppress(OSError), os.scandir(top) as entries:
        for entry in entries:
            if not entry.is_symlink():
                yield from allowed(hidden, entry.path)


def _allow(ruleset: int, path: str, rights: int) -> None:
    with suppress(OSError):  # it is gone, or we may not open it: then nothing below us may either
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            mask = rights if os.path.isdir(path) else rights & _OF_FILES
            linux.landlock_allow(ruleset, fd, mask)
        finally:
            os.close(fd)
