"""Calls that need more memory than they may, or than there is."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from cgroups import Group, memory_group
from clusters import Cluster, wait_for_zygote
from marked import marked_cluster

import burla
from burla import remote_parallel_map

pytestmark = pytest.mark.slow

MB = 1 << 20
NODE = 800 * MB  # the memory of a node that runs out of it
SOON_S = 15.0  # a call for memory is ended in a fraction of it


def hold(megabytes: int) -> int:
    """Take memory step by step, use it for a moment, and return how much it was."""
    import time

    held = []
    for _ in range(megabytes // 10):
        held.append(b"x" * (10 << 20))
        time.sleep(0.005)
    time.sleep(0.3)
    return sum(map(len, held)) >> 20


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of one node with four slots and all of this machine's memory."""
    with marked_cluster(tmp_path_factory.mktemp("c"), 4) as (made, _):
        wait_for_zygote(made, made.nodelets[0])
        yield made


@pytest.fixture(params=["cgroup", "ram"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Cluster, Group | None]]:
    """One node with four slots and NODE bytes: by a cgroup, or because its nodelet is told so."""
    if request.param == "ram":
        with marked_cluster(tmp_path) as (made, _):
            made.add_node(4, "--ram", str(NODE / (1 << 30)))
            yield made, None
        return
    with memory_group(NODE) as group:
        if group is None:
            pytest.skip("this system does not let us limit memory; the other half of the test ran")
        with marked_cluster(tmp_path) as (made, _):
            made.add_node(4, prefix=group.prefix())
            yield made, group


def nodelet_lives(made: Cluster) -> bool:
    return made.nodelets[0].poll() is None


def test_a_call_that_uses_more_than_func_ram_is_named_and_the_next_job_works(node: Cluster) -> None:
    def f(x: int) -> int:
        return hold(600 if x == 5 else 20)

    begun_s = time.monotonic()
    with pytest.raises(burla.OutOfMemory, match=r"func_ram=0\.25") as caught:
        remote_parallel_map(f, range(8), func_ram=0.25)
    assert time.monotonic() - begun_s < SOON_S
    error = caught.value
    assert error.burla_input_index == 5
    assert error.limit == 256 * MB
    assert 256 * MB < error.used < 600 * MB
    assert "input 5 = 5" in str(error)
    assert remote_parallel_map(f, range(5), func_ram=0.25) == [20] * 5


def test_memory_of_processes_below_the_call_counts(node: Cluster) -> None:
    def f(x: int) -> list[int]:
        import multiprocessing

        with multiprocessing.get_context("fork").Pool(3) as pool:
            return pool.map(hold, [100] * 3)

    with pytest.raises(burla.OutOfMemory):
        remote_parallel_map(f, [1], func_ram=0.25)


def test_memory_that_came_with_the_function_is_not_charged_to_each_call(node: Cluster) -> None:
    class Model:
        """Slow to load, so that the workers are forked from the one that has it."""

        def __reduce__(self) -> tuple[object, ...]:
            return load_model, (300,)

    model = Model()

    def f(x: int) -> int:
        hold(20)
        return len(model)  # type: ignore[arg-type]  # what it is loaded as

    assert remote_parallel_map(f, range(12), func_ram=0.25) == [300 * MB] * 12


def load_model(megabytes: int) -> bytes:
    import time

    time.sleep(0.05)
    return b"m" * (megabytes << 20)


def test_a_worker_that_keeps_what_its_calls_leave_is_replaced(node: Cluster) -> None:
    def f(x: int) -> int:
        import sys

        kept = sys.__dict__.setdefault("kept", [])
        kept.append(b"x" * (40 << 20))
        import time

        time.sleep(0.1)
        return x

    assert remote_parallel_map(f, range(60), func_ram=0.25) == list(range(60))


def test_calls_that_do_not_fit_beside_each_other_all_finish(
    small: tuple[Cluster, Group | None],
) -> None:
    made, _ = small
    assert remote_parallel_map(hold, [300] * 8) == [300] * 8
    assert nodelet_lives(made)
    assert remote_parallel_map(abs, range(100)) == list(range(100))


def test_a_call_that_does_not_fit_alone_is_reported_with_the_figures(
    small: tuple[Cluster, Group | None],
) -> None:
    made, group = small
    begun_s = time.monotonic()
    with pytest.raises(burla.OutOfMemory, match="no other call ran there") as caught:
        remote_parallel_map(hold, [20, 20, 1200, 20, 20, 20])
    assert time.monotonic() - begun_s < SOON_S
    error = caught.value
    assert (error.burla_input_index, error.limit) == (2, None)
    assert error.total == NODE
    assert error.used < NODE * 1.1
    if group is None or not group.oom_kills():  # else the kernel was quicker than our last look
        assert error.used > NODE / 2
    assert nodelet_lives(made)
    assert remote_parallel_map(hold, [20] * 8) == [20] * 8


@contextmanager
def resuming(made: Cluster, group: Group) -> Iterator[None]:
    """Let a nodelet that was stopped go on each time the kernel has killed."""
    over = threading.Event()

    def look() -> None:
        known = 0
        while not over.wait(0.01):
            if (kills := group.oom_kills()) > known:
                known = kills
                made.nodelets[0].send_signal(signal.SIGCONT)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        made.nodelets[0].send_signal(signal.SIGCONT)


def test_when_the_kernel_is_quicker_it_comes_to_the_same(tmp_path: Path) -> None:
    with memory_group(NODE) as group:
        if group is None:
            pytest.skip("this system does not let us limit memory")
        with marked_cluster(tmp_path) as (made, _):
            nodelet = made.add_node(4, prefix=group.prefix()).pid

            def grab(megabytes: int) -> int:
                """Take memory while nobody but the kernel looks."""
                import os
                import signal

                if megabytes > 100:
                    os.kill(nodelet, signal.SIGSTOP)
                return len(bytearray(b"x") * (megabytes << 20)) >> 20

            with resuming(made, group), pytest.raises(burla.OutOfMemory) as caught:
                remote_parallel_map(grab, [20, 20, 1200, 20, 20, 20])
            assert caught.value.burla_input_index == 2
            assert group.oom_kills() > 0
            assert nodelet_lives(made)
            assert remote_parallel_map(grab, [20] * 8) == [20] * 8


def test_workers_are_offered_to_the_kernel_before_the_daemons(node: Cluster) -> None:
    def f(x: int) -> int:
        return int(Path("/proc/self/oom_score_adj").read_text())

    assert remote_parallel_map(f, [1, 2]) == [500, 500]
    daemon = psutil.Process(node.nodelets[0].pid)
    for process in (daemon, *daemon.children()):
        assert int(Path(f"/proc/{process.pid}/oom_score_adj").read_text()) < 500
