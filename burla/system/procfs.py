"""What Linux says about processes in /proc. Nothing else parses these files."""

import os
from collections.abc import Iterator
from typing import NamedTuple

HAS_PROC = os.path.exists("/proc/self/stat")

_STATE, _PARENT, _STARTED = 0, 1, 19  # places in /proc/PID/stat behind the name; see proc(5)


class Membership(NamedTuple):
    """That this process is in a control group of one hierarchy."""

    hierarchy: int  # 0: version 2
    controllers: tuple[str, ...]  # of version 1
    path: str  # of the group, below where the hierarchy is mounted


def process_started(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot; None: it has ended, or no /proc."""
    fields = _stat(pid)
    return int(fields[_STARTED]) if fields and fields[_STATE] not in (b"Z", b"X") else None


def parent_of(pid: int) -> int:
    """Return the process that a process belongs to; 0: it has ended or is hidden, or no /proc."""
    try:
        fields = _stat(pid)
    except PermissionError:  # /proc is mounted so that the processes of others are hidden
        return 0
    return int(fields[_PARENT]) if fields else 0


def memberships(text: str | None = None) -> Iterator[Membership]:
    """Yield the control groups of this process.

    Args:
        text: what stands in /proc/self/cgroup; None: it is read.
    """
    if text is None:
        try:
            with open("/proc/self/cgroup") as file:
                text = file.read()
        except OSError:
            text = ""
    for line in text.splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        yield Membership(int(hierarchy), tuple(filter(None, controllers.split(","))), path)


def _stat(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text[text.rindex(b")") + 2 :].split()  # the name before may contain anything
