"""Values that are bigger than what may be held of them on the way."""

import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from clusters import Cluster
from marked import marked_cluster
from seen import in_background

from burla import remote_parallel_map
from perf.processes import forget_peak, peak_bytes, rss_bytes

pytestmark = pytest.mark.slow

MB = 1 << 20
SIZE = 96 * MB
BESIDE = 64 * MB  # of a value that passes through, and what a process takes besides


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with marked_cluster(tmp_path_factory.mktemp("big"), 2, bind="tcp://127.0.0.1:0") as (made, _):
        assert remote_parallel_map(abs, [-1, -2]) == [1, 2]
        yield made


def make(kind: str) -> Any:
    import numpy as np

    if kind == "array":
        return np.arange(SIZE // 8, dtype=float)
    if kind == "bytes":
        return bytes(range(256)) * (SIZE // 256)
    return {"a": np.ones(SIZE // 16), "b": [bytes(SIZE // 4), bytearray(SIZE // 4)]}


@pytest.mark.parametrize("kind", ["array", "bytes", "both"])
def test_a_big_result_is_held_by_nobody_between_and_once_at_the_ends(
    made: Cluster, kind: str
) -> None:
    pids = [made.scheduler.pid, made.nodelets[0].pid, os.getpid()]
    before = [rss_bytes(pid) for pid in pids]
    for pid in pids:
        forget_peak(pid)
    (result,) = remote_parallel_map(make, [kind])
    scheduler, nodelet, client = (
        peak_bytes(pid) - size for pid, size in zip(pids, before, strict=True)
    )
    assert (scheduler < BESIDE, nodelet < BESIDE) == (True, True), (scheduler, nodelet)
    assert client < 1.1 * SIZE + BESIDE / 4
    if kind == "array":
        assert (result == np.arange(SIZE // 8, dtype=float)).all()
    elif kind == "bytes":
        assert result == bytes(range(256)) * (SIZE // 256)
    else:
        assert float(result["a"].sum()) == SIZE // 16
        assert [len(part) for part in result["b"]] == [SIZE // 4, SIZE // 4]


@pytest.mark.parametrize("kind", ["array", "bytes", "both"])
def test_a_big_input_is_held_by_nobody_between_and_once_by_its_caller(
    made: Cluster, kind: str
) -> None:
    value = make(kind)
    pids = [made.scheduler.pid, made.nodelets[0].pid, os.getpid()]
    before = [rss_bytes(pid) for pid in pids]
    for pid in pids:
        forget_peak(pid)

    def size_of(value: Any) -> float:
        if isinstance(value, dict):
            return float(value["a"].sum()) + sum(map(len, value["b"]))
        return float(value[-1]) + len(value)

    assert remote_parallel_map(size_of, [value]) == [size_of(value)]
    scheduler, nodelet, client = (
        peak_bytes(pid) - size for pid, size in zip(pids, before, strict=True)
    )
    assert (scheduler < BESIDE, nodelet < BESIDE) == (True, True), (scheduler, nodelet)
    assert client < 0.1 * SIZE + BESIDE / 4


def test_big_inputs_of_all_kinds_are_what_they_were_and_each_worker_has_its_own(
    made: Cluster,
) -> None:
    def use(array: Any) -> tuple[float, float]:
        first = float(array[0])
        array += 1
        return first, float(array.sum())

    shared = np.zeros(1 << 18)

    def reuse(n: int) -> Any:
        shared[:] = n
        return shared

    wanted = [(float(n), (n + 1.0) * (1 << 18)) for n in range(8)]
    assert remote_parallel_map(use, [np.full(1 << 18, float(n)) for n in range(8)]) == wanted
    assert remote_parallel_map(use, map(reuse, range(8))) == wanted
    arrays = [np.full(1 << 18, float(n)) for n in range(8)]
    seen = []
    for first, total in remote_parallel_map(use, arrays, generator=True):
        seen.append((first, total))
        for array in arrays:
            array[:] = -1  # they were handed over
    assert sorted(seen) == wanted
    buffers = [bytearray(1 << 21) for _ in range(3)]
    for _ in remote_parallel_map(len, buffers, generator=True):
        for buffer in buffers:
            buffer.append(0)  # as nothing of ours refers to it any more


def test_others_come_through_beside_it(made: Cluster) -> None:
    big = threading.Event()

    def give(n: int) -> Any:
        import numpy as np

        return np.full(8 * (1 << 20), n) if n % 2 else n

    with in_background(lambda: remote_parallel_map(give, range(6))) as result:
        assert remote_parallel_map(abs, range(-100, 0)) == list(range(100, 0, -1))
        big.set()
        for n, got in enumerate(result()):
            assert (got == n).all() if n % 2 else got == n


def test_a_generator_takes_one_after_the_other(made: Cluster) -> None:
    seen = []
    for array in remote_parallel_map(
        lambda n: __import__("numpy").full(1 << 22, n), range(5), generator=True
    ):
        assert (array == array[0]).all()
        array += 1
        seen.append(int(array[0]) - 1)
    assert sorted(seen) == list(range(5))
