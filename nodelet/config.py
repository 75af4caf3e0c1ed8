"""The nodelet's settings, and what this machine has to offer.

A container's limits count: what the kernel would refuse to give is not offered.
"""

import math
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from burla.nodelet.core.sources import Sources
from burla.nodelet.isolation.sandbox import Confinement
from burla.nodelet.isolation.tier import Tier
from burla.system.hash_seed import seed_of
from burla.transport.addresses import connect_address, ipc_path, take_apart
from burla.transport.keys import ClientCurve, KeyPair
from burla.transport.server_keys import ServerKeys

from .gpus import Gpu, counted, found_gpus

GB = 1 << 30  # bytes
STATE_FILE = "nodelet-state.json"
GPUS_MAX = 64  # protocol.messages.Gpus
CPUS_MAX = 8192  # as Linux has at most; each becomes a process, and a typing error should not
NAME_CHARACTERS_MAX = 256  # protocol.messages.Word


def _temporary_directory() -> str:
    """Return where temporary files go, as `tempfile` has it, but without its trial.

    That writes a file and removes it again: a nodelet that is killed in between leaves it behind.
    """
    named = [os.environ.get(name, "") for name in ("TMPDIR", "TEMP", "TMP")]
    for path in filter(None, [*named, "/tmp", "/var/tmp", "/usr/tmp"]):
        if os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK):
            return os.path.abspath(path)
    return os.getcwd()


@dataclass(frozen=True)
class NodeletConfig:
    """What a nodelet is told at its start."""

    scheduler: str  # its address
    cpus: int  # of this machine, as the scheduler shall count them
    ram: int  # bytes
    name: str  # for people
    ready_file: Path | None = None  # touched while the scheduler answers
    # Where the agent may make a directory of its own. Never to be wiped itself: a private
    # cluster's socket and logs lie here, or everybody's temporary files.
    scratch: str = field(default_factory=_temporary_directory)
    reconnect_timeout_s: float = 600.0  # so long leases go on while the scheduler is silent
    state_file: Path | None = None  # where SIGUSR2 lets it write what it knows; None: nowhere
    pair: KeyPair | None = None  # this node's keys, for a burla:// address
    key_file: str | None = None  # where they are kept; None: in memory only
    server_keys: ServerKeys = field(default_factory=ServerKeys)  # what replaced which
    tier: Tier = Tier.PROCESS  # how far each lease is shut in
    confinement: Confinement | None = None  # None: workers are as we are
    gpus: tuple[Gpu, ...] = ()
    hash_seed: int | None = None  # of jobs that have none of their own; None: that of the cluster
    packages: str = ""  # where environments of packages are made; empty: none are
    # beside it, in a directory of the same name and "-cache", is what they are made of
    sources: Sources = field(default_factory=Sources)  # where packages come from
    standing: tuple[str, ...] = ()  # requirements that are there for all jobs
    standing_place: str = ""  # where these are found; empty: nowhere
    is_private: bool = False  # all jobs are those of one program
    # the program that fetches container images; beside `packages`, in a directory of the same name
    # and "-images", are their files; empty: no job runs in one
    runtime: str = ""

    def __post_init__(self) -> None:
        """Check the settings and bring the address to its normal form.

        Raises:
            ValueError: one of them is out of range; an `AddressError` for the address.
        """
        object.__setattr__(self, "scheduler", connect_address(self.scheduler))
        if not 1 <= self.cpus <= CPUS_MAX:
            raise ValueError(f"cpus={self.cpus}: from 1 to {CPUS_MAX}")
        if len(self.gpus) > GPUS_MAX:
            raise ValueError(f"gpus={len(self.gpus)}: at most {GPUS_MAX}")
        if self.ram < 1:
            raise ValueError(f"ram={self.ram}: more than 0")
        if not 0 < self.reconnect_timeout_s < 1e9:  # also false for nan
            raise ValueError(f"reconnect_timeout_s={self.reconnect_timeout_s}: more than 0 s")
        if not 0 < len(self.name) <= NAME_CHARACTERS_MAX or not self.name.isprintable():
            raise ValueError(f"name={self.name!r}: 1 to {NAME_CHARACTERS_MAX} printable characters")

    def endpoint(self) -> str:
        """Return where to connect to."""
        return take_apart(self.scheduler).endpoint

    def hash_seed_of_workers(self) -> int:
        """Return the seed of `hash()` that the workers of all nodes have."""
        if self.hash_seed is not None:
            return self.hash_seed
        key = take_apart(self.scheduler).key
        if key is not None:
            return seed_of(self.server_keys.first(key).hex())
        return seed_of(os.path.realpath(ipc_path(self.scheduler) or ""))

    def curve(self) -> ClientCurve | None:
        """Return the keys of the connection; None: it needs none."""
        key = take_apart(self.scheduler).key
        if key is None:
            return None
        assert self.pair is not None, "cli.py sees to that"
        return ClientCurve(self.pair, key, self.server_keys)


def usable_cpus() -> int:
    """Return how many CPUs this process may use: by affinity and by its cgroup's quota."""
    cpus = [os.cpu_count() or 1, *map(math.ceil, cpu_quotas(*_cgroup()))]
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        cpus.append(len(os.sched_getaffinity(0)))
    return max(1, min(cpus))


def usable_ram() -> int:
    """Return how many bytes of memory this process and its children may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([total, *memory_limits(*_cgroup())])


def usable_gpus(count: int | None = None) -> tuple[Gpu, ...]:
    """Return the GPUs that this process may use; `count`: as many as somebody says."""
    return counted(found_gpus(), count)


def host_name() -> str:
    """Return the name of this machine."""
    return socket.gethostname()[:NAME_CHARACTERS_MAX] or "localhost"


def cpu_quotas(memberships: str, root: Path) -> Iterator[float]:
    """Yield the CPUs that each cgroup around a process allows it.

    Args:
        memberships: the text of /proc/self/cgroup.
        root: where cgroups are mounted.
    """
    for directory in cgroup_directories(memberships, root, "cpu"):
        words = _read(directory / "cpu.max").split()  # version 2: "QUOTA|max PERIOD"
        if len(words) != 2:  # version 1
            words = [_read(directory / f"cpu.cfs_{word}_us") for word in ("quota", "period")]
        quota, period = words
        if quota.isdigit() and period.isdigit() and int(quota) and int(period):
            yield int(quota) / int(period)


def memory_limits(memberships: str, root: Path) -> Iterator[int]:
    """Yield the bytes of memory that each cgroup around a process allows it; see `cpu_quotas`."""
    for directory in cgroup_directories(memberships, root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):  # versions 2 and 1
            limit = _read(directory / name)
            if limit.isdigit() and int(limit):
                yield int(limit)


def _cgroup() -> tuple[str, Path]:
    return _read(Path("/proc/self/cgroup")), Path("/sys/fs/cgroup")


def cgroup_directories(memberships: str, root: Path, controller: str) -> Iterator[Path]:
    """Yield the cgroup directories of a process, from its own up to the root, both versions.

    Inside a container its path is often not there, but then the root is its own group.
    """
    for line in memberships.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            top = root
        elif controller in controllers.split(","):
            top = root / controllers if (root / controllers).is_dir() else root / controller
        else:
            continue
        directory = top / path.lstrip("/")
        while directory != top:
            yield directory
            directory = directory.parent
        yield top


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
