"""Control groups of a lease, of either version: made, limited, ended. As far as we may write there.

A group lies in our own one, or in the nearest one above it that can have groups with limits: in
version 2 a group that holds processes, as our own does, cannot.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

ROOT = "/sys/fs/cgroup"
CONTROLLERS = ("memory", "pids")
UNIFIED = ("", "unified")  # where version 2 is mounted, below ROOT: alone, or beside version 1


@dataclass(slots=True)
class Group:
    """The control groups of one lease, one for each hierarchy that we could use."""

    directories: list[str] = field(default_factory=list)
    limits: dict[str, int] = field(default_factory=dict)  # by controller, as far as they hold

    def enter(self) -> None:
        """Put this process, and what it will fork, into the groups."""
        for directory in self.directories:
            _write(os.path.join(directory, "cgroup.procs"), "0")

    def unified(self) -> str | None:
        """Return the group of version 2."""
        return next(
            (d for d in self.directories if os.path.exists(f"{d}/cgroup.controllers")), None
        )

    def remove(self) -> bool:
        """Kill what is left (version 2 can) and remove the groups; return whether all are gone."""
        for directory in list(self.directories):
            with suppress(OSError):
                _write(os.path.join(directory, "cgroup.kill"), "1")
            try:
                _remove(directory)
            except FileNotFoundError:
                pass
            except OSError:  # EBUSY: somebody is still dying
                continue
            self.directories.remove(directory)
        return not self.directories


def make(name: str, ram: int, processes: int, root: str = ROOT, memberships: str = "") -> Group:
    """Make groups called `name` that limit memory and processes.

    Args:
        name: of the directories.
        ram: bytes.
        processes: threads count too.
        root: where control groups are mounted.
        memberships: the text of /proc/self/cgroup; empty: that file is read.
    """
    group = Group()
    if not memberships:
        with suppress(OSError), open("/proc/self/cgroup") as file:
            memberships = file.read()
    for number, controllers, path in _hierarchies(memberships):
        if number == "0":
            tops = [os.path.join(root, name) for name in UNIFIED]
        else:
            tops = [os.path.join(root, name) for name in (",".join(controllers), *controllers)]
        top = next((one for one in tops if os.path.exists(f"{one}/cgroup.procs")), None)
        if top is None:
            continue
        wanted = [one for one in CONTROLLERS if one not in group.limits]
        if number != "0" and not set(wanted) & set(controllers):
            continue
        if directory := _make(top.rstrip("/"), path, name):
            group.directories.append(directory)
            for one in wanted:
                if _limit(directory, one, ram if one == "memory" else processes):
                    group.limits[one] = ram if one == "memory" else processes
    return group


def find(name: str, root: str = ROOT) -> Group:
    """Return what there is of groups called `name` in our own groups and those around them."""
    with open("/proc/self/cgroup") as file:
        memberships = file.read()
    found: dict[str, None] = {}
    for number, controllers, path in _hierarchies(memberships):
        for kind in UNIFIED if number == "0" else (",".join(controllers), *controllers):
            place = os.path.join(root, kind) + path
            while len(place) > len(root):
                if os.path.isdir(os.path.join(place, name)):
                    found[os.path.join(place, name)] = None
                place = os.path.dirname(place)
    return Group(list(found))


def _hierarchies(memberships: str) -> Iterator[tuple[str, list[str], str]]:
    """Yield number, controllers and our path of each hierarchy."""
    for line in memberships.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        yield number, [one for one in controllers.split(",") if one], path


def _make(top: str, path: str, name: str) -> str | None:
    """Make a group with limits as deep as possible; return its directory, None: none can be had."""
    parent = top + path.rstrip("/")
    while True:
        is_v2 = os.path.exists(f"{parent}/cgroup.controllers")
        if os.path.isdir(parent) and (not is_v2 or _delegate(parent) or parent == top):
            directory = os.path.join(parent, name)
            with suppress(OSError):
                if os.path.isdir(
                    directory
                ):  # of a supervisor that was killed: the name is ours now
                    _remove(directory)
                os.mkdir(directory)
                if os.access(os.path.join(directory, "cgroup.procs"), os.W_OK):
                    return directory
                os.rmdir(directory)
        if len(parent) <= len(top):
            return None
        parent = os.path.dirname(parent)


def _delegate(parent: str) -> bool:
    """Return whether the groups in this one have limits, which may have to be switched on."""
    control = os.path.join(parent, "cgroup.subtree_control")
    with suppress(OSError):
        if set(CONTROLLERS) <= set(_read(control).split()):
            return True
        _write(control, " ".join(f"+{one}" for one in CONTROLLERS))
        return True
    return False


def _limit(directory: str, controller: str, limit: int) -> bool:
    names = {"memory": ("memory.max", "memory.limit_in_bytes"), "pids": ("pids.max",)}
    for name in names[controller]:
        path = os.path.join(directory, name)
        if os.path.exists(path):  # else opening it for writing would be refused as a new file
            try:
                _write(path, str(limit))
            except OSError:
                return False
            if controller == "memory":
                _limit_swap(directory, limit)
            return True
    return False


def _limit_swap(directory: str, limit: int) -> None:
    """Have the lease killed and not swapped, which would slow everybody on the machine."""
    for name, value in (("memory.swap.max", 0), ("memory.memsw.limit_in_bytes", limit)):
        with suppress(OSError):
            if os.path.exists(os.path.join(directory, name)):
                _write(os.path.join(directory, name), str(value))


def _remove(directory: str) -> None:
    """Remove a group, and those that were made in it."""
    for parent, _, _ in os.walk(directory, topdown=False):
        os.rmdir(parent)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
