"""What is read of memory: of machines and cgroups as files, and of real processes."""

import mmap
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from burla.nodelet.core.events import Reading
from burla.nodelet.shell.memory_reader import COST_SHARE, LOOK_S, MemoryReader
from burla.nodelet.shell.node_memory import NodeMemory
from burla.nodelet.shell.worker_memory import PATROL_S

MB = 1 << 20
MEMINFO = "MemTotal: 8000 kB\nMemFree: 100 kB\nMemAvailable: 3000 kB\nSwapFree: 700 kB\n"
KB = 1024


def machine(root: Path, memberships: str, files: dict[str, str]) -> NodeMemory:
    """Return the memory of a machine that says this in its files."""
    proc = {"proc/meminfo": MEMINFO, "proc/vmstat": "oom_kill 4\n", "proc/self/cgroup": memberships}
    for name, text in (proc | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return NodeMemory(root / "proc", root / "cg")


def test_a_machine_without_limits(tmp_path: Path) -> None:
    node = machine(tmp_path, "0::/\n", {})
    assert node.read() == Reading(8000 * KB, 3000 * KB, 700 * KB)
    (tmp_path / "proc/vmstat").write_text("oom_kill 6\n")
    assert node.read() == Reading(8000 * KB, 3000 * KB, 700 * KB, oom_kills=2)
    assert node.read() == Reading(8000 * KB, 3000 * KB, 700 * KB)


def test_a_group_of_version_2_that_is_tighter_than_the_machine(tmp_path: Path) -> None:
    files = {
        "cg/a/b/memory.max": "max\n",
        "cg/a/b/memory.current": "0\n",
        "cg/a/b/memory.events": "low 0\noom_kill 1\n",
        "cg/a/memory.max": "1000000\n",
        "cg/a/memory.current": "950000\n",
        "cg/a/memory.stat": "anon 1\ninactive_file 20000\nactive_file 10000\n",
    }
    node = machine(tmp_path, "0::/a/b\n", files)
    assert node.read() == Reading(1000000, 80000)
    (tmp_path / "cg/a/b/memory.events").write_text("low 0\noom_kill 2\n")
    assert node.read() == Reading(1000000, 80000, oom_kills=1)


def test_a_group_of_version_1(tmp_path: Path) -> None:
    files = {
        "cg/memory/a/memory.limit_in_bytes": "1000000\n",
        "cg/memory/a/memory.usage_in_bytes": "950000\n",
        "cg/memory/a/memory.stat": "total_inactive_file 20000\ntotal_active_file 10000\n",
        "cg/memory/a/memory.oom_control": "oom_kill_disable 0\noom_kill 1\n",
        "cg/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "cg/memory/memory.usage_in_bytes": "950000\n",
    }
    node = machine(tmp_path, "4:memory:/a\n", files)
    assert node.read() == Reading(1000000, 80000)


def test_a_group_with_more_to_spare_than_the_machine_says_nothing(tmp_path: Path) -> None:
    files = {"cg/a/memory.max": str(7000 * KB), "cg/a/memory.current": "10\n"}
    node = machine(tmp_path, "0::/a\n", files)
    assert node.read() == Reading(8000 * KB, 3000 * KB, 700 * KB)


def test_a_system_that_tells_nothing_has_no_readings(tmp_path: Path) -> None:
    assert NodeMemory(tmp_path, tmp_path).read() is None
    assert MemoryReader(NodeMemory(tmp_path, tmp_path)).read({1: os.getpid()}, [], 0.0) is None


# --- real processes ---


def pages(megabytes: int) -> mmap.mmap:
    """Return new memory; an allocator may give what was written before the fork."""
    fresh = mmap.mmap(-1, megabytes * MB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for _ in range(megabytes):
        fresh.write(b"x" * MB)
    return fresh


@contextmanager
def child(work: Callable[[], object]) -> Iterator[int]:
    """Fork a process that holds what `work` returns; yield its pid once it does."""
    ours, theirs = multiprocessing.Pipe()
    pid = os.fork()
    if pid == 0:
        held = work()
        theirs.send_bytes(b"ready")
        ours.close()
        theirs.recv_bytes()
        os._exit(0 if held else 1)
    try:
        assert ours.poll(20)
        ours.recv_bytes()
        yield pid
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        ours.close()
        theirs.close()


def used(meter: MemoryReader, pid: int, now_s: float = 0.0) -> int:
    """Return what the process uses; both ways of knowing are tried if the limit is small."""
    reading = meter.read({1: pid}, [], now_s)
    assert reading is not None
    return reading.used[1]


@pytest.mark.parametrize("func_ram", [MB, 1 << 40], ids=["exactly", "cheaply"])
def test_what_a_process_shares_with_its_parent_is_not_its_own(func_ram: int) -> None:
    shared = pages(100)
    meter = MemoryReader()
    meter.limit(func_ram, 0)
    with child(lambda: pages(40)) as pid:
        assert 39 * MB < used(meter, pid) < 60 * MB
    assert shared


@pytest.mark.parametrize("func_ram", [MB, 1 << 40], ids=["exactly", "cheaply"])
def test_the_children_of_a_process_count(func_ram: int) -> None:
    def hold() -> object:
        inner = child(lambda: pages(40))
        inner.__enter__()
        return inner

    meter = MemoryReader()
    meter.limit(func_ram, 0)
    with child(hold) as pid:
        (below,) = (int(p) for p in children(pid))
        assert used(meter, pid) > 39 * MB
        os.kill(below, 9)


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_process_that_is_gone_uses_nothing() -> None:
    with child(lambda: True) as pid:
        pass
    for func_ram in (1, 1 << 40):
        meter = MemoryReader()
        meter.limit(func_ram, 0)
        assert used(meter, pid) == 0


def test_a_budget_is_what_all_workers_together_may_use() -> None:
    meter = MemoryReader()
    meter.limit(0, 100 * MB)
    with child(lambda: pages(40)) as pid:
        reading = meter.read({1: pid}, [], 0.0)
    assert reading is not None
    assert reading.total == 100 * MB
    assert 40 * MB < reading.available < 61 * MB


def test_what_only_an_exact_figure_shows_is_looked_for_now_and_then() -> None:
    meter = MemoryReader()
    meter.limit(60 * MB, 0)
    ballast = pages(80)

    def write_all() -> object:
        for at in range(0, len(ballast), 4096):
            ballast[at] = ord("y")  # what was shared is its own now
        return ballast

    with child(write_all) as pid:
        assert used(meter, pid, 1.0) < 60 * MB
        assert used(meter, pid, 2.0) < 60 * MB
        assert used(meter, pid, 2.0 + PATROL_S) >= 80 * MB


def test_nobody_uses_more_than_the_limit_by_a_guess() -> None:
    meter = MemoryReader()
    meter.limit(30 * MB, 0)
    with child(lambda: pages(40)) as pid:
        assert used(meter, pid, 1.0) >= 40 * MB
        meter._workers._seen[pid].exact = 29 * MB
        meter._workers._seen[pid].resident -= 2 * MB  # it has grown by as much
        meter._workers._seen[pid].suspect_s = 2.0
        assert used(meter, pid, 1.5) == 30 * MB
        assert used(meter, pid, 2.0) >= 40 * MB


def test_readings_are_so_rare_that_they_cost_little() -> None:
    meter = MemoryReader()
    meter.limit(1 << 40, 0)
    begun_s = time.thread_time()
    meter.read(dict.fromkeys(range(200), os.getpid()), [], 50.0)
    cost_s = time.thread_time() - begun_s
    assert meter.due_s - 50.0 >= LOOK_S
    assert meter.due_s - 50.0 <= max(LOOK_S, cost_s / COST_SHARE)
