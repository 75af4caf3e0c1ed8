"""Calls that want GPUs: each has its own, on nodes that have some. Devices are stand-ins."""

import os
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from clusters import Cluster, cluster

from burla import Unsatisfiable, remote_parallel_map as rpm

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes over TCP with keys, shut in as far as can be; one has four GPUs."""
    folder = tmp_path_factory.mktemp("gpus")
    with cluster(folder, 2, bind="tcp://127.0.0.1:0", isolation="best") as one:
        one.add_node(8, "--gpus", "4")
        yield one


def see(x: int) -> tuple[str, str, float, float]:
    """Return the devices of this call, where it ran, and when."""
    begun_s = time.monotonic()
    time.sleep(0.1)
    own = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return own, os.environ["BURLA_NODE"], begun_s, time.monotonic()


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize(("func_gpu", "sets"), [(1, {"0", "1", "2", "3"}), (2, {"0,1", "2,3"})])
def test_no_two_calls_share_a_device_at_one_time(func_gpu: int, sets: set[str]) -> None:
    seen = rpm(see, range(12), func_gpu=func_gpu)
    assert {own for own, *_ in seen} == sets
    assert {node for _, node, *_ in seen} == {"node1"}
    for own in sets:
        times = sorted((begun_s, ended_s) for each, _, begun_s, ended_s in seen if each == own)
        assert all(a[1] <= b[0] for a, b in pairwise(times))


@pytest.mark.usefixtures("made")
def test_the_callers_own_choice_of_devices_does_not_count() -> None:
    env = {"CUDA_VISIBLE_DEVICES": "7"}
    assert {own for own, *_ in rpm(see, range(4), func_gpu=4, env=env)} == {"0,1,2,3"}


@pytest.mark.usefixtures("made")
def test_what_no_node_has_is_an_error_at_once() -> None:
    with pytest.raises(Unsatisfiable, match=r"func_gpu=5 cannot be satisfied") as caught:
        rpm(see, [1], func_gpu=5)
    assert "node0 has no GPUs" in str(caught.value)
    assert "node1 has 4 GPUs" in str(caught.value)


@pytest.mark.usefixtures("made")
def test_a_worker_that_dies_gives_its_devices_back() -> None:
    def die_once(x: int) -> str:
        gate = os.path.join(os.environ["BURLA_JOB_DIR"], "died")
        if not os.path.exists(gate):
            with open(gate, "x"):
                os._exit(1)
        return os.environ["CUDA_VISIBLE_DEVICES"]

    assert set(rpm(die_once, range(8), func_gpu=4)) == {"0,1,2,3"}
