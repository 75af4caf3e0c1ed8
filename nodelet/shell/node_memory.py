"""How much memory the machine has, and what the control groups around us allow. Linux only."""

from pathlib import Path

from msgspec import Struct

from burla.nodelet.config import cgroup_directories
from burla.nodelet.core.events import Reading
from burla.nodelet.core.memory_policy import low

from .small_files import numbers_in, text_of

KB = 1024
WATCHED_SHARE = 0.5  # of the memory available: below, it matters what is used, and by whom


class NodeMemory:
    """What the machine has and what the cgroups around this process allow."""

    def __init__(self, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> None:
        """Find the groups with a limit; start to count what the kernel kills."""
        self._meminfo = str(proc / "meminfo")
        self._vmstat = str(proc / "vmstat")
        groups = list(cgroup_directories(text_of(str(proc / "self/cgroup")), cgroups, "memory"))
        self._groups = [g for g in map(_Group.find, groups) if g is not None]
        self._kills_file = self._vmstat
        for name in ("memory.events", "memory.oom_control"):  # versions 2 and 1
            if groups and "oom_kill" in numbers_in(str(groups[0] / name)):
                self._kills_file = str(groups[0] / name)
        self._oom_kills = self._count_kills()

    def read(self) -> Reading | None:
        """Return the memory of what is the tightest; None: it cannot be known."""
        machine = numbers_in(self._meminfo)
        total = machine.get("MemTotal", 0) * KB
        if not total or "MemAvailable" not in machine:
            return None
        swap = machine.get("SwapFree", 0) * KB
        tightest = Reading(total, min(total, machine["MemAvailable"] * KB), swap)
        for group in self._groups:
            reading = group.read(total)
            if reading is not None and margin(reading) < margin(tightest):
                tightest = reading
        before, self._oom_kills = self._oom_kills, self._count_kills()
        kills = max(0, self._oom_kills - before)
        return Reading(tightest.total, tightest.available, tightest.swap, kills)

    def _count_kills(self) -> int:
        return numbers_in(self._kills_file).get("oom_kill", 0)


class _Group(Struct, frozen=True):
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
        limit, usage = text_of(self.limit).strip(), text_of(self.usage).strip()
        if not (limit.isdigit() and usage.isdigit()) or int(limit) >= most:
            return None
        total, used = int(limit), int(usage)
        if total - used < WATCHED_SHARE * total:  # else it does not matter what could be dropped
            stat = numbers_in(self.stat)
            used -= sum(stat.get(name, 0) for name in self.reclaimable)
        return Reading(total, max(0, total - used))


def margin(reading: Reading) -> int:
    """Return the bytes that are available before memory is low."""
    return reading.available - low(reading.total)
