"""Nodelets that are told to leave: what runs is finished, what was not begun goes to others."""

import signal
from collections import Counter
from pathlib import Path

import pytest
from marked import marked_cluster
from seen import in_background, lines, slow_and_logged
from waiting import wait_until

from burla import remote_parallel_map

pytestmark = pytest.mark.slow


def test_a_node_drained_in_the_middle_of_a_job_ends_and_no_call_runs_twice(tmp_path: Path) -> None:
    with marked_cluster(tmp_path, 2, 2) as (made, _):
        with in_background(
            lambda: remote_parallel_map(slow_and_logged(tmp_path, 0.02), range(300))
        ) as result:
            wait_until(lambda: len(lines(tmp_path)) > 50, "50 calls begun")
            made.nodelets[0].send_signal(signal.SIGUSR1)
            assert made.nodelets[0].wait(20) == 0
            assert len(lines(tmp_path)) < 300  # it did not wait for the job
            assert result() == list(range(300))
        assert Counter(map(int, lines(tmp_path))) == Counter(range(300))


def test_an_idle_node_leaves_at_once_and_its_ready_file_with_it(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    with marked_cluster(tmp_path) as (made, _):
        nodelet = made.add_node(1, "--ready-file", str(ready))
        wait_until(ready.exists, "the scheduler answers")
        nodelet.send_signal(signal.SIGUSR1)
        assert nodelet.wait(20) == 0
        assert not ready.exists()
