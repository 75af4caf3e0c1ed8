"""Inputs that take their node with them: named after three, while all others are served."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from marked import marked_cluster
from seen import in_background
from waiting import wait_until

from burla import NodeLost, remote_parallel_map

pytestmark = pytest.mark.slow


def killer(bad: int, seconds: float, sent: int = signal.SIGKILL) -> Callable[[int], int]:
    """Return a function that ends its nodelet on one input."""

    def f(x: int) -> int:
        import time

        import psutil

        time.sleep(seconds)
        if x == bad:
            nodelets = [p for p in psutil.Process().parents() if "burla.nodelet" in p.cmdline()]
            os.kill(nodelets[-1].pid, sent)
            time.sleep(60)
        return -x

    return f


def test_it_is_named_after_three_nodes_and_the_job_of_another_has_all_its_results(
    tmp_path: Path,
) -> None:
    def calm(x: int) -> int:
        import time

        time.sleep(0.05)
        return x + 1

    with marked_cluster(tmp_path, 2, 2, 2, 2) as (made, _):
        with in_background(lambda: remote_parallel_map(calm, range(400))) as others:
            with pytest.raises(NodeLost, match="input 23 = 23 · node node") as raised:
                remote_parallel_map(killer(23, 0.01), range(100))
            assert others() == [x + 1 for x in range(400)]
        assert raised.value.burla_input_index == 23
        assert len(set(raised.value.nodes)) == 3
        dead = [nodelet for nodelet in made.nodelets if nodelet.poll() is not None]
        assert len(dead) == 3
        assert remote_parallel_map(calm, range(3)) == [1, 2, 3]


def test_a_cluster_of_one_node_that_comes_back_each_time_ends_with_the_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with marked_cluster(tmp_path, 2) as (made, _):

        def call() -> None:
            with pytest.raises(NodeLost, match="input 50 ") as raised:
                remote_parallel_map(killer(50, 0.0), range(1_000))
            assert raised.value.nodes == ("node0", "node1", "node2")

        with in_background(call) as result:
            for number in range(2):
                wait_until(lambda n=number: made.nodelets[n].poll() is not None, "it died")  # type: ignore[misc]
                made.add_node(2)
            result()


def test_nodes_that_are_stopped_and_killed_all_the_time_are_nobodys_fault(tmp_path: Path) -> None:
    def f(x: int) -> int:
        import time

        (tmp_path / f"begun{x}").touch()
        time.sleep(0.1)
        return x

    def begun() -> int:
        return len(list(tmp_path.glob("begun*")))

    with (
        marked_cluster(tmp_path, 1, 1) as (made, _),
        in_background(lambda: remote_parallel_map(f, range(160))) as result,
    ):
        for number in range(6):
            wait_until(lambda n=number: begun() > 25 * (n + 1), "some more calls begun")  # type: ignore[misc]
            if number % 2:
                made.nodelets[number].kill()
            else:
                made.nodelets[number].terminate()
            made.add_node(1)
        assert result() == list(range(160))
