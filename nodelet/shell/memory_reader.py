"""Reads how much memory the node and its workers have, as cheaply as it can be known. Linux only.

Elsewhere there are no readings, and nothing is limited. What a worker uses is what it has of its
own: memory that it shares with the process it was forked from is there once, not once per worker.
The exact answer makes the kernel walk the page tables (18 ms per GB), so it is asked only of whom
the cheap one, resident memory, makes a suspect.
"""

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from burla.nodelet.config import cgroup_directories
from burla.nodelet.core.events import Reading
from burla.nodelet.core.memory_policy import low
from burla.nodelet.worker.processes import children_of

PAGE = os.sysconf("SC_PAGE_SIZE")
KB = 1024
LOOK_S = 0.1  # between two readings; 1 GB is written in about half a second
LOOK_NEAR_S = 0.02  # when memory is nearly short
LOOK_MAX_S = 2.0  # however much a reading costs
COST_SHARE = 0.005  # of a core, for reading; what follows from it costs as much at most
COST_SHARE_NEAR = 0.01  # when memory is nearly short
COST_SHARE_SUSPECT = 0.05  # for exact figures of one worker that seems to use too much
NEAR = 0.5  # of `func_ram`: from here on it is looked at closely
WATCHED_SHARE = 0.5  # of the node's memory available: below, it is known what each worker uses
EXACT_S = 5.0  # what only an exact figure would show is looked for this often, or less
FILE_BYTES_MAX = 1 << 16  # of a file in /proc or of a cgroup


class NodeMemory:
    """What the machine has and what the cgroups around this process allow."""

    def __init__(self, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> None:
        """Find the groups with a limit; start to count what the kernel kills."""
        self._meminfo = str(proc / "meminfo")
        self._vmstat = str(proc / "vmstat")
        groups = list(cgroup_directories(_text(str(proc / "self/cgroup")), cgroups, "memory"))
        self._groups = [g for g in map(_Group.find, groups) if g is not None]
        self._kills_file = self._vmstat
        for name in ("memory.events", "memory.oom_control"):  # versions 2 and 1
            if groups and "oom_kill" in _numbers(str(groups[0] / name)):
                self._kills_file = str(groups[0] / name)
        self._oom_kills = self._count_kills()

    def read(self) -> Reading | None:
        """Return the memory of what is the tightest; None: it cannot be known."""
        machine = _numbers(self._meminfo)
        total = machine.get("MemTotal", 0) * KB
        if not total or "MemAvailable" not in machine:
            return None
        swap = machine.get("SwapFree", 0) * KB
        tightest = Reading(total, min(total, machine["MemAvailable"] * KB), swap)
        for group in self._groups:
            reading = group.read(total)
            if reading is not None and _margin(reading) < _margin(tightest):
                tightest = reading
        before, self._oom_kills = self._oom_kills, self._count_kills()
        kills = max(0, self._oom_kills - before)
        return Reading(tightest.total, tightest.available, tightest.swap, kills)

    def _count_kills(self) -> int:
        return _numbers(self._kills_file).get("oom_kill", 0)


@dataclass(frozen=True, slots=True)
class _Group:
    """The files of one cgroup that can be limited."""

    limit: str
    usage: str
    stat: str
    reclaimable: tuple[str, ...]

    @classmethod
    def find(cls, directory: Path) -> "_Group | None":
        """Return the group at `directory`; None: its memory cannot be limited."""
        if (directory / "memory.max").exists():
            names, files = ("memory.max", "memory.current"), ("inactive_file", "active_file")
        elif (directory / "memory.limit_in_bytes").exists():
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            files = ("total_inactive_file", "total_active_file")
        else:
            return None
        limit, usage = (str(directory / name) for name in names)
        return cls(limit, usage, str(directory / "memory.stat"), files)

    def read(self, most: int) -> Reading | None:
        """Return what it allows; None: as much as the machine has, `most`, or more."""
        limit, usage = _text(self.limit).strip(), _text(self.usage).strip()
        if not (limit.isdigit() and usage.isdigit()) or int(limit) >= most:
            return None
        total, used = int(limit), int(usage)
        if total - used < WATCHED_SHARE * total:  # else it does not matter what could be dropped
            stat = _numbers(self.stat)
            used -= sum(stat.get(name, 0) for name in self.reclaimable)
        return Reading(total, max(0, total - used))


@dataclass(slots=True)
class _Seen:
    """What is known of a worker's memory; bytes."""

    base: int  # that came with the fork
    again_s: float  # when it may be looked at exactly, although the cheap figure is no reason
    exact: int = 0
    resident: int = 0  # when `exact` was found
    confirm_s: float = 0.0  # when it may be looked at exactly, since the cheap figure is one


class MemoryReader:
    """Takes readings, and says when the next one is due."""

    def __init__(self, node: NodeMemory | None = None) -> None:
        """Read nothing yet."""
        self.func_ram = 0  # bytes that one call may use; 0: no limit
        self.budget = 0  # bytes for all workers together; 0: what there is
        self.due_s = 0.0  # when to read next
        self._node = NodeMemory() if node is None else node
        self._seen: dict[int, _Seen] = {}  # by pid
        self._exact_s = 0.0  # of this thread's time, for exact figures in this reading

    def read(
        self, workers: Mapping[int, int], templates: Iterable[int], now_s: float
    ) -> Reading | None:
        """Return a reading; None: this system tells nothing.

        Args:
            workers: number -> pid, of those that have the function.
            templates: pids of processes that only fork.
            now_s: on the caller's clock.
        """
        begun_s = time.thread_time()
        self._exact_s = 0.0  # it has a share of its own
        reading = self._node.read()
        near = False
        if reading is not None:
            watched = reading.available < WATCHED_SHARE * reading.total
            if watched or self.func_ram or self.budget:
                reading = self._look_at(workers, templates, reading, now_s)
            near = self._is_near(reading)
        cost_s = time.thread_time() - begun_s - self._exact_s
        look_s, share = (LOOK_NEAR_S, COST_SHARE_NEAR) if near else (LOOK_S, COST_SHARE)
        self.due_s = now_s + min(LOOK_MAX_S, max(look_s, cost_s / share))
        return reading

    def _is_near(self, reading: Reading) -> bool:
        if self.func_ram and any(u > NEAR * self.func_ram for u in reading.used.values()):
            return True
        return reading.available < 2 * low(reading.total)

    def _look_at(
        self, workers: Mapping[int, int], templates: Iterable[int], reading: Reading, now_s: float
    ) -> Reading:
        self._seen = {pid: self._seen[pid] for pid in workers.values() if pid in self._seen}
        used = {number: self._used(pid, now_s) for number, pid in workers.items()}
        total, available, swap = reading.total, reading.available, reading.swap
        if 0 < self.budget < total:
            left = self.budget - sum(used.values()) - sum(_statm(pid)[0] for pid in templates)
            within = Reading(self.budget, max(0, left))
            if _margin(within) < _margin(reading):
                total, available, swap = within.total, within.available, 0
        return Reading(total, available, swap, reading.oom_kills, used)

    def _used(self, pid: int, now_s: float) -> int:
        """Return the bytes that a worker and its descendants have of their own."""
        tree = _tree(pid)
        seen = self._seen.get(pid)
        if seen is None:
            seen = self._seen[pid] = _Seen(_anonymous(_parent(pid)), now_s + EXACT_S)
        sizes = [_statm(one) for one in tree]
        resident = sum(size for size, _ in sizes)
        cheap = max(0, sum(size - shared for size, shared in sizes) - seen.base)
        limit = self.func_ram
        # a child shares what it had when it was forked; the sum for all workers must not be wrong
        many = len(tree) > 1 and self.budget > 0
        if not many and (not limit or resident <= limit):
            return cheap
        guess = seen.exact + max(0, resident - seen.resident) if seen.exact else cheap
        is_suspect = 0 < limit < guess
        if now_s >= (seen.confirm_s if is_suspect or (not seen.exact and many) else seen.again_s):
            return self._look_exactly(seen, tree, resident, now_s)
        return limit if is_suspect else guess  # nobody is killed for a guess

    def _look_exactly(self, seen: _Seen, tree: list[int], resident: int, now_s: float) -> int:
        begun_s = time.thread_time()
        seen.exact, seen.resident = _exact(tree), resident
        cost_s = time.thread_time() - begun_s
        self._exact_s += cost_s
        seen.confirm_s = now_s + cost_s / COST_SHARE_SUSPECT
        later_s = now_s + max(EXACT_S, cost_s / COST_SHARE)
        for one in self._seen.values():  # of all of them, one at a time
            one.again_s = max(one.again_s, now_s + cost_s / COST_SHARE)
        seen.again_s = later_s
        return seen.exact


def _margin(reading: Reading) -> int:
    return reading.available - low(reading.total)


def _tree(pid: int) -> list[int]:
    found = [pid]
    for one in found:  # it grows meanwhile
        found += children_of(one)
    return found


def _statm(pid: int) -> tuple[int, int]:
    """Return the resident bytes of a process, and how many of them are of files or shared memory.

    Both 0: it is gone.
    """
    words = _text(f"/proc/{pid}/statm").split()
    return (int(words[1]) * PAGE, int(words[2]) * PAGE) if len(words) > 2 else (0, 0)


def _anonymous(pid: int) -> int:
    resident, shared = _statm(pid)
    return resident - shared


def _parent(pid: int) -> int:
    """Return the process that forked `pid`; 0: it is gone."""
    words = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()  # the name may hold anything
    return int(words[1]) if len(words) > 1 else 0


def _exact(tree: list[int]) -> int:
    """Return what processes have that no process beside them has; bytes."""
    total = 0
    for pid in tree:
        sizes = _numbers(f"/proc/{pid}/smaps_rollup")
        if not sizes:  # an old kernel, or it is gone
            total += _anonymous(pid) // KB
        elif len(tree) == 1:
            total += sizes.get("Private_Clean", 0) + sizes.get("Private_Dirty", 0)
        else:  # what they share with each other counts, once
            total += sizes.get("Pss", 0)
    return total * KB


def _numbers(path: str) -> dict[str, int]:
    """Return the lines "name number" or "name: number kB" of a file; none: it cannot be read."""
    found = {}
    for line in _text(path).splitlines():
        words = line.split()
        if len(words) > 1 and words[1].isdigit():
            found[words[0].rstrip(":")] = int(words[1])
    return found


def _text(path: str) -> str:
    """Return what a small file says; "": it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, FILE_BYTES_MAX).decode("utf-8", "replace")
    except OSError:  # the process ended meanwhile
        return ""
    finally:
        os.close(fd)
