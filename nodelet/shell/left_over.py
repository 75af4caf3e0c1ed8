"""Names of what a process makes, which tell others whether it is left of one that is gone."""

import functools
import os
import zlib
from contextlib import suppress
from typing import NamedTuple


class Place(NamedTuple):
    """Where a process id names one process."""

    host: str  # tells machines apart, and on each the pid namespaces, as of containers
    boot: str  # likewise, from one start of the machine to the next


def own_name(mark: str) -> str:
    """Return a new name that begins with `mark`."""
    return f"{mark}{'-'.join(here())}-{os.getpid()}-{os.urandom(4).hex()}"


def is_left(name: str, mark: str) -> bool | None:
    """Return whether who has made `name` by `own_name(mark)` is gone; None: it is not known here.

    That is so of what other machines and containers make, with whom a disk may be shared.
    """
    host, boot, pid, *_ = (*name.removeprefix(mark).split("-"), "", "", "")
    if not name.startswith(mark) or host != here().host or not pid.isdigit():
        return None
    return boot != here().boot or not os.path.exists(f"/proc/{pid}")


@functools.cache
def here() -> Place:
    """Return where we are."""
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    told = os.uname().nodename, _text_of("/etc/machine-id"), namespace
    boot = _text_of("/proc/sys/kernel/random/boot_id").replace("-", "")
    return Place(f"{zlib.crc32(repr(told).encode()):08x}", boot[:12])


def _text_of(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
