"""Clusters of several nodes: nodelets that die, hang and join, and several callers at once."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from clusters import wait_for_zygote
from marked import caller, marked_cluster
from seen import in_background, lines, slow_and_logged
from waiting import wait_gone, wait_until

from burla import remote_parallel_map

pytestmark = pytest.mark.slow

GONE_S = 2.0  # after its nodelet's death no worker is alive: promised


# --- nodelets that end ---


@pytest.mark.parametrize("cpus", [(2, 2), (1, 2, 3, 2)])
def test_a_nodelet_is_killed_in_the_middle_and_the_list_is_complete(
    tmp_path: Path, cpus: tuple[int, ...]
) -> None:
    with marked_cluster(tmp_path, *cpus) as (made, _):
        for nodelet in made.nodelets:
            wait_for_zygote(made, nodelet)
        with in_background(
            lambda: remote_parallel_map(slow_and_logged(tmp_path, 0.02), range(300))
        ) as result:
            wait_until(lambda: len(lines(tmp_path)) > 50, "50 calls begun")
            workers = made.workers(made.nodelets[0])
            made.nodelets[0].kill()
            wait_gone(workers, GONE_S)
            assert result() == list(range(300))
        ran = Counter(map(int, lines(tmp_path)))
        assert set(ran) == set(range(300))
        assert max(ran.values()) <= 2


def test_all_nodelets_are_killed_and_another_one_finishes_the_job(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    f, stderr = slow_and_logged(tmp_path, 0.02), ""

    def says_so() -> bool:
        nonlocal stderr
        stderr += capfd.readouterr().err
        return "no node is connected" in stderr

    with (
        marked_cluster(tmp_path, 2, 1) as (made, _),
        in_background(lambda: remote_parallel_map(f, range(100))) as result,
    ):
        wait_until(lambda: len(lines(tmp_path)) > 30, "30 calls begun")
        for nodelet in made.nodelets:
            nodelet.kill()
        wait_until(says_so, "the caller is told that no node is there")
        made.add_node(2)
        assert result() == list(range(100))


def test_a_nodelet_that_hangs_for_a_moment_goes_on(tmp_path: Path) -> None:
    with marked_cluster(tmp_path, 2, 2) as (made, _):
        with in_background(
            lambda: remote_parallel_map(slow_and_logged(tmp_path, 0.02), range(200))
        ) as result:
            wait_until(lambda: len(lines(tmp_path)) > 40, "40 calls begun")
            made.nodelets[0].send_signal(signal.SIGSTOP)
            time.sleep(1.5)  # shorter than any silence that counts
            made.nodelets[0].send_signal(signal.SIGCONT)
            assert result() == list(range(200))
        assert max(Counter(lines(tmp_path)).values()) == 1


def test_a_nodelet_that_hangs_too_long_is_given_up_and_taken_back(tmp_path: Path) -> None:
    with marked_cluster(tmp_path, 2, 2) as (made, _):
        with in_background(
            lambda: remote_parallel_map(slow_and_logged(tmp_path, 0.02), range(200))
        ) as result:
            wait_until(lambda: len(lines(tmp_path)) > 40, "40 calls begun")
            made.nodelets[0].send_signal(signal.SIGSTOP)
            try:
                assert result() == list(range(200))  # 15 s later, without it
            finally:
                made.nodelets[0].send_signal(signal.SIGCONT)
        wait_until(lambda: names_of_nodes(4) == {"node0", "node1"}, "it takes part again")


def names_of_nodes(calls: int) -> set[str]:
    """Return which nodes run calls that all run at the same time."""

    def f(x: int) -> str:
        import time

        time.sleep(0.05)
        return os.environ["BURLA_NODE"]

    return set(remote_parallel_map(f, range(calls)))


# --- nodelets that join ---


def meet(directory: Path, count: int) -> Callable[[int], str]:
    """Return a function whose calls return their node once `count` calls run at the same time."""

    def f(x: int) -> str:
        import time

        (directory / f"here{x}").touch()
        while sum(path.name.startswith("here") for path in directory.iterdir()) < count:
            time.sleep(0.01)
        return os.environ["BURLA_NODE"]

    return f


def test_nodelets_that_join_while_a_job_runs_get_work(tmp_path: Path) -> None:
    with marked_cluster(tmp_path, 2) as (made, _):
        with in_background(lambda: remote_parallel_map(meet(tmp_path, 6), range(6))) as result:
            wait_until(lambda: (tmp_path / "here1").exists(), "the first node runs two calls")
            made.add_node(3)
            made.add_node(1)
            nodes = Counter(result())
        assert nodes == {"node0": 2, "node1": 3, "node2": 1}


def test_32_workers_on_one_machine_all_run_at_the_same_time(tmp_path: Path) -> None:
    with marked_cluster(tmp_path, 32):
        assert remote_parallel_map(meet(tmp_path, 32), range(32)) == ["node0"] * 32
        assert remote_parallel_map(lambda x: x * x, range(10_000)) == [x * x for x in range(10_000)]
        numpy_sums = remote_parallel_map(sum_of_ones, range(64))
        assert numpy_sums == [float(x) for x in range(64)]


def sum_of_ones(x: int) -> float:
    import numpy

    return float(numpy.ones(x).sum())


def test_max_parallelism_holds_over_all_nodes(tmp_path: Path) -> None:
    def f(x: int) -> int:
        import time

        mine = tmp_path / f"running{x}"
        mine.touch()
        count = sum(path.name.startswith("running") for path in tmp_path.iterdir())
        time.sleep(0.02)
        os.unlink(mine)
        return count

    with marked_cluster(tmp_path, 2, 2):
        for cap in (1, 3):
            assert max(remote_parallel_map(f, range(40), max_parallelism=cap)) <= cap


# --- several callers ---

CALLER = """
import fcntl, os, time
from burla import remote_parallel_map

who, locks = "{who}", "{locks}"

def alone(x):
    # every process locks a file of its own while it is in a call; those of other jobs are free
    node, job = os.environ["BURLA_NODE"], os.environ["BURLA_JOB_ID"]
    mine = open(f"{{locks}}/{{node}}.{{job}}.{{os.getpid()}}", "w")
    fcntl.flock(mine, fcntl.LOCK_EX)
    for name in os.listdir(locks):
        if name.startswith(node + ".") and job not in name:
            with open(f"{{locks}}/{{name}}") as other:
                fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)  # raises if it is held
    print(f"{{who}} {{x}}")
    time.sleep(0.01)
    mine.close()
    return f"{{who}}{{x}}"

for job in range(4):
    inputs = range(job * 1000, job * 1000 + 60)
    assert remote_parallel_map(alone, inputs) == [f"{{who}}{{x}}" for x in inputs]
"""


@pytest.mark.parametrize("bind", ["ipc", "tcp://127.0.0.1:0"])
def test_callers_at_the_same_time_get_exactly_their_own_and_nodes_alone(
    tmp_path: Path, bind: str
) -> None:
    locks = tmp_path / "locks"
    locks.mkdir()
    with marked_cluster(tmp_path, 2, 2, bind=bind.removeprefix("ipc")) as (made, _):
        with ExitStack() as stack:
            scripts = {}
            for who in ("anna", "bert", "cleo"):
                home = tmp_path / who
                home.mkdir()
                source = CALLER.format(who=who, locks=locks)
                scripts[who] = stack.enter_context(caller(source, home, cluster=made.address))
            for who, script in scripts.items():
                status, out, err = script.wait_end(50)
                assert status == 0, err
                wanted = [f"{who} {job * 1000 + x}" for job in range(4) for x in range(60)]
                assert sorted(out.splitlines()) == sorted(wanted)
        nodes = {path.name.partition(".")[0] for path in locks.iterdir()}
        assert nodes == {"node0", "node1"}


def test_threads_of_one_caller_get_exactly_their_own(tmp_path: Path) -> None:
    with marked_cluster(tmp_path, 2, 2), ThreadPoolExecutor(6) as pool:

        def call(k: int) -> bool:
            inputs = range(k * 100, k * 100 + 100)
            return remote_parallel_map(lambda x: (k, x), inputs) == [(k, x) for x in inputs]

        assert all(pool.map(call, range(24)))
