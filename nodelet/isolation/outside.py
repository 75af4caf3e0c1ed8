"""What a sandbox does not show of the machine around it: sockets, terminals and files of others.

A read-only mount keeps nobody from connecting to a socket or typing into a terminal. So the places
where services listen are covered, what listens elsewhere is hidden by itself, and the terminals in
a sandbox are its own.
"""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress

from . import landlock, linux

CLOSED = ("/run", "/var/run")  # where services listen, and containers are given their secrets
# What programs need of it: names of hosts and users, and where NixOS keeps what is installed.
_SHOWN = ("/run/nscd", "/run/shm", "/run/current-system", "/run/opengl-driver")
_RESOLVER = "/etc/resolv.conf"
_TERMINAL = re.compile(r"console|hvc\d+|tty.+|vcs.*")  # /dev/tty is whatever one's own is


def shown() -> list[str]:
    """Return what of `CLOSED` is to be shown again."""
    return [path for path in (os.path.realpath(_RESOLVER), *_SHOWN) if os.path.lexists(path)]


def is_below(path: str, others: Sequence[str]) -> bool:
    """Return whether `path` is one of the others or lies below one."""
    return any(path == other or path.startswith(other.rstrip("/") + "/") for other in others)


def sockets() -> Iterator[str]:
    """Yield the sockets on which somebody listens, by the names that they were bound to."""
    with open("/proc/net/unix", errors="surrogateescape") as file:
        for line in file:
            words = line.rstrip("\n").split(maxsplit=7)  # the last one is the name
            if len(words) == 8 and words[7].startswith("/"):
                with suppress(OSError):
                    path = os.path.realpath(words[7])
                    if stat.S_ISSOCK(os.lstat(path).st_mode):
                        yield path


def terminals() -> Iterator[str]:
    """Yield the terminals of the machine that this user may read from or write to."""
    for name in os.listdir("/dev"):
        path = f"/dev/{name}"
        if _TERMINAL.fullmatch(name) and (os.access(path, os.R_OK) or os.access(path, os.W_OK)):
            yield path


def mount_terminals() -> None:
    """Have pseudo terminals of our own."""
    if not os.path.isdir("/dev/pts"):
        return
    flags = linux.MS_NOSUID | linux.MS_NOEXEC
    try:
        linux.mount("devpts", "/dev/pts", "devpts", flags, "newinstance,ptmxmode=0666,mode=600")
    except OSError:  # a kernel without: then none at all
        linux.mount("tmpfs", "/dev/pts", "tmpfs", flags, "size=4096,mode=755")


def blank(path: str) -> None:
    """Show nothing where a file, socket or device is."""
    with suppress(FileNotFoundError):  # a socket may be gone by now
        linux.mount("/dev/null", path, "", linux.MS_BIND)


def shut_abstract_sockets() -> None:
    """Have no process from here on connect to a socket without a file that is not from here.

    Where the kernel cannot do that, `landlock.has_scopes` says so.
    """
    if landlock.has_scopes():
        ruleset = linux.landlock_ruleset(0, 0, landlock.ABSTRACT_SOCKETS)
        try:
            linux.landlock_restrict(ruleset)
        finally:
            os.close(ruleset)
