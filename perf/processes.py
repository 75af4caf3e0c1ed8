"""What the processes of a cluster cost: memory, time on the processor, and whether they live.

Read from /proc: a sum over 500 processes must not cost more than what it measures.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


def descendants(pid: int) -> list[int]:
    """Return the processes that come from `pid`, itself first; those that have ended are left."""
    found = [pid]
    for parent in found:  # grows as it is walked
        found += _children(parent)
    return found


def _children(pid: int) -> Iterator[int]:
    for task in _listed(PROC / str(pid) / "task"):
        yield from map(int, _text(task / "children").split())


def alive(pids: Iterable[int]) -> list[int]:
    """Return those of `pids` that run; a zombie has ended."""
    return [pid for pid in pids if _state(pid) not in ("", "Z", "X")]


def _state(pid: int) -> str:
    return _text(PROC / str(pid) / "stat").rpartition(")")[2].strip()[:1]


def cpu_s(pid: int) -> float:
    """Return the seconds of processor time of `pid`, over all its threads."""
    words = _text(PROC / str(pid) / "stat").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) * TICK_S if words else 0.0


def ran_s(pid: int) -> float:
    """Return the same of the threads that live, exactly: `cpu_s` misses what is under a tick."""
    tasks = _listed(PROC / str(pid) / "task")
    return sum(int((_text(task / "schedstat") or "0").split()[0]) for task in tasks) / 1e9


def threads_s(pid: int) -> dict[int, float]:
    """Return for how long each thread of `pid` ran, or could have run had a core been free.

    The main thread comes first; the others of ours are libzmq's.
    """
    wanted = {}
    for task in sorted(_listed(PROC / str(pid) / "task"), key=lambda task: int(task.name)):
        ran, waited, *_ = map(int, (_text(task / "schedstat") or "0 0").split())
        wanted[int(task.name)] = (ran + waited) / 1e9
    return wanted


def pss_bytes(pid: int) -> int:
    """Return the memory of `pid`, where a page that n processes share counts for a part of n."""
    return _field(PROC / str(pid) / "smaps_rollup", "Pss:")


def rss_bytes(pid: int) -> int:
    """Return the memory that `pid` has in use, shared pages and all."""
    return _field(PROC / str(pid) / "status", "VmRSS:")


def peak_bytes(pid: int) -> int:
    """Return the most memory that `pid` had in use since its start or `forget_peak`."""
    return _field(PROC / str(pid) / "status", "VmHWM:")


def forget_peak(pid: int) -> None:
    """Let `peak_bytes` begin again from what `pid` uses now, if it is still there."""
    with suppress(FileNotFoundError, ProcessLookupError):
        (PROC / str(pid) / "clear_refs").write_text("5")  # proc(5)


def _field(path: Path, name: str) -> int:
    for line in _text(path).splitlines():
        if line.startswith(name):
            return int(line.split()[1]) << 10
    return 0


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # it has ended
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
