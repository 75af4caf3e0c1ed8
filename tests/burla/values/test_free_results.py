"""Files of results, from the worker to the caller and back."""

import fcntl
import gc
import os
import pickle
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from waiting import wait_until

from burla.values import free_results, shared_memory
from burla.values.free_results import FreeResults, HeldResults, memory_bytes
from burla.values.payloads import load_result, take_apart_result
from burla.values.shared_memory import RESULT
from burla.values.sharing import SharedResults

FLOATS = 1 << 18  # 2 MiB


class Cluster:
    """The memory of a cluster, with a caller and a worker in this process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.job = directory / "job"
        self.job.mkdir()
        self.kept = FreeResults()
        self.worker = SharedResults(str(self.job), self.kept)
        self.free, self.held = directory / "free", directory / "held"

    def result(self, value: Any) -> Any:
        """Return what the caller has of a result."""
        frames = self.worker.put(take_apart_result(value))
        assert frames[0][:1] == RESULT
        return load_result(frames)

    def number(self) -> int:
        """Return the inode of the only result that was put down and not taken."""
        (file,) = self.job.iterdir()
        return file.stat().st_ino


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    held = shared_memory.keepers[str(tmp_path)] = HeldResults(str(tmp_path))
    yield Cluster(tmp_path)
    held.end()
    del shared_memory.keepers[str(tmp_path)]


def test_a_file_is_written_anew_when_nobody_refers_to_the_result(cluster: Cluster) -> None:
    numbers = set()
    for n in range(5):
        frames = cluster.worker.put(take_apart_result(np.full(FLOATS, n)))
        numbers.add(cluster.number())
        array = load_result(frames)
        assert (array == n).all()
        assert len(list(cluster.held.iterdir())) == 1
        assert list(cluster.job.iterdir()) == []
        array += 1  # it is the caller's own
        part = array[5:10]
        del array
        assert list(cluster.free.iterdir()) == []
        assert (part == n + 1).all()
        del part
        assert len(list(cluster.free.iterdir())) == 1
        assert list(cluster.held.iterdir()) == []
    assert len(numbers) == 1


def test_results_that_are_held_never_change(cluster: Cluster) -> None:
    held = []
    for n in range(30):
        held.append(cluster.result(np.full(FLOATS, n)))
        if n % 3 == 0:
            held[-1] += 1000
        if n % 4 == 0:
            del held[n // 4]  # the later ones come from what was there
    gc.collect()
    seen = {int(array[0]) % 1000 for array in held}
    assert len(seen) == len(held)
    assert all((array == array[0]).all() for array in held)


class Memory:
    """What arrives as a view of memory that it had."""

    def __init__(self, content: bytes) -> None:
        self._content = content * FLOATS * 8

    def __reduce_ex__(self, protocol: object) -> tuple[object, tuple[object]]:
        return memoryview, (pickle.PickleBuffer(self._content),)


def test_who_ends_in_a_cycle_has_its_result_until_nothing_refers_to_it(cluster: Cluster) -> None:
    """Else a worker writes the next result into the one that the end of something still uses."""
    saved, seen = list[memoryview](), list[list[Path]]()

    class Ends:
        def __init__(self) -> None:
            self.value, self.itself = cluster.result(Memory(b"a")), self

        def __del__(self) -> None:
            seen.append(sorted(cluster.free.glob("*")))
            saved.append(self.value)

    Ends()
    gc.collect()
    assert seen == [[]]
    cluster.result(Memory(b"b"))
    assert saved == [b"a" * FLOATS * 8]
    saved.clear()
    gc.collect()
    assert len(list(cluster.free.iterdir())) == 2


def open_files() -> set[str]:
    """Return what this process has open; its other threads open and close meanwhile."""
    found = set[str]()
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/self/fd/{number}"))
    return found


def test_ten_results_take_no_descriptor(cluster: Cluster) -> None:
    held = [cluster.result(np.ones(FLOATS)) for _ in range(10)]
    files = {str(path) for path in cluster.held.iterdir()}
    assert len(files) == 10
    assert not open_files() & files
    with open(min(files), "rb"):  # which would be seen
        assert open_files() & files == {min(files)}
    del held


def test_a_file_that_a_forked_child_still_has_is_left_alone(cluster: Cluster) -> None:
    array = cluster.result(np.full(FLOATS, 7))
    (go, told), (says, saying) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.close(told)
        os.read(go, 1)
        os.write(saying, bytes([int(array.min()), int(array.max())]))
        os._exit(0)
    del array
    frames = cluster.worker.put(take_apart_result(np.full(FLOATS, 8)))
    (file,) = cluster.free.iterdir()
    assert file.stat().st_ino != cluster.number()
    os.close(told)
    assert os.read(says, 2) == bytes([7, 7])
    os.waitpid(child, 0)
    for end in (go, says, saying):
        os.close(end)
    load_result(frames)


def test_a_child_that_lets_go_of_a_result_gives_nothing_back(cluster: Cluster) -> None:
    array = cluster.result(np.full(FLOATS, 7))
    child = os.fork()
    if not child:
        del array
        os._exit(0)
    os.waitpid(child, 0)
    assert list(cluster.free.iterdir()) == []
    assert (array == 7).all()


def test_only_what_fits_is_written_anew(cluster: Cluster) -> None:
    cluster.result(np.ones(FLOATS * 2))
    for floats in (FLOATS - 1000, FLOATS * 2 + 1000):  # it would waste most of it; it is too big
        held = cluster.result(np.ones(floats))
        assert len(list(cluster.free.iterdir())) == 1
        del held
        (cluster.free / max(os.listdir(cluster.free))).unlink()
    cluster.worker.put(take_apart_result(np.ones(FLOATS * 3 // 2)))
    assert list(cluster.free.iterdir()) == []


def test_a_worker_prefers_what_it_has_written_itself(cluster: Cluster) -> None:
    one, two = cluster.result(np.ones(FLOATS)), cluster.result(np.ones(FLOATS))
    del one, two
    mine, other = cluster.free.iterdir()
    until_ms, number, _, size = other.name.split("-")
    other.rename(cluster.free / f"{int(until_ms) + 1000}-{number}-1-{size}")
    stays = mine.stat().st_ino
    cluster.worker.put(take_apart_result(np.ones(FLOATS)))
    assert cluster.number() == stays


def test_a_file_that_another_worker_takes_first_is_passed_over(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.result(np.ones(FLOATS))
    found = free_results._fitting(str(cluster.free), 100)
    assert found == []
    monkeypatch.setattr(free_results, "_fitting", lambda free, size: ["1-2-3-4"])
    assert (cluster.result(np.full(FLOATS, 3)) == 3).all()


def test_a_stranger_s_file_is_passed_over(cluster: Cluster) -> None:
    cluster.result(np.ones(FLOATS))
    (cluster.free / "what").write_text("?")
    (cluster.free / "1-2-x-4").write_text("?")
    cluster.worker.put(take_apart_result(np.ones(FLOATS)))
    assert sorted(os.listdir(cluster.free)) == ["1-2-x-4", "what"]


def test_what_waits_for_too_long_is_removed(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free_results, "FREE_S", 0.02)
    monkeypatch.setattr(free_results, "LOOK_S", 0.01)
    array = cluster.result(np.ones(FLOATS))
    mapped = os.open(next(cluster.held.iterdir()), os.O_RDONLY)
    del array
    wait_until(lambda: not list(cluster.free.iterdir()), "it is removed")
    wait_until(lambda: os.fstat(mapped).st_size == 0, "its memory is free wherever it is mapped")
    os.close(mapped)
    array = cluster.result(np.ones(FLOATS))
    del array
    wait_until(lambda: not list(cluster.free.iterdir()), "so is the next, after all were gone")
    expected = ["free", "held", "job"]  # what is removed has a name of its own for a moment
    wait_until(lambda: sorted(os.listdir(cluster.directory)) == expected, "nothing else is there")


def test_what_waits_is_bounded(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_results, "FREE_BYTES_MAX", 5 << 20)
    monkeypatch.setattr(free_results, "LOOK_S", 0.01)
    held = [cluster.result(np.ones(FLOATS)) for _ in range(6)]
    held.clear()
    wait_until(lambda: len(list(cluster.free.iterdir())) == 2, "two fit")


def test_what_is_removed_is_emptied_only_if_no_value_lies_in_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        shared_memory.empty_and_remove(str(path))
        assert file.read() == b"abc"
    assert not path.exists()


def test_beyond_a_number_of_mappings_the_file_is_free_at_once(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    gc.collect()
    monkeypatch.setattr(shared_memory, "MAPPINGS_MAX", len(shared_memory._mappings))
    array = cluster.result(np.full(FLOATS, 4))
    assert len(list(cluster.free.iterdir())) == 1
    cluster.result(np.full(FLOATS, 5))
    assert (array == 4).all()


def test_without_a_thread_or_a_place_results_are_taken_as_ever(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refuse)
    array = cluster.result(np.full(FLOATS, 4))
    assert (array == 4).all()
    assert list(cluster.held.iterdir()) == []
    assert list(cluster.job.iterdir()) == []


def test_a_worker_with_little_memory_keeps_nothing_mapped(cluster: Cluster) -> None:
    for worker, count in ((SharedResults(str(cluster.job)), 0), (cluster.worker, 1)):
        frames = worker.put(take_apart_result(np.ones(FLOATS)))
        load_result(frames)
        frames = worker.put(take_apart_result(np.full(FLOATS, 2)))
        maps = Path("/proc/self/maps").read_text()
        assert maps.count(str(cluster.directory)) == count
        assert (load_result(frames) == 2).all()


def test_what_a_worker_keeps_mapped_is_bounded(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free_results, "WINDOWS_BYTES_MAX", 5 << 20)
    for n in range(2):
        held = [cluster.result(np.full(FLOATS, n)) for _ in range(5)]
        assert all((array == n).all() for array in held)
        held.clear()
    assert len(cluster.kept._windows) == 2
    monkeypatch.setattr(free_results, "FREE_S", -1.0)
    held = [cluster.result(np.full(FLOATS, 9)) for _ in range(5)]
    assert all((array == 9).all() for array in held)
    assert 1 <= len(cluster.kept._windows) <= 2


def test_a_file_that_cannot_be_written_leaves_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.result(np.ones(FLOATS))

    def no_room(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(free_results, "write_into", no_room)
    pieces = take_apart_result(np.ones(FLOATS))
    assert cluster.worker.put(pieces) == pieces.cut()
    assert list(cluster.free.iterdir()) == list(cluster.job.iterdir()) == []


@pytest.mark.parametrize(
    ("groups", "files", "size"),
    [
        ("0::/\n", {"sys/fs/cgroup/memory.max": "5000\n"}, 5000),
        ("0::/a/b\n", {"sys/fs/cgroup/a/memory.max": "6000\n"}, 6000),
        ("0::/a/b\n", {"sys/fs/cgroup/a/memory.max": "max\n"}, None),
        ("4:cpu:/a\n5:memory:/x\n", {"sys/fs/cgroup/memory/x/memory.limit_in_bytes": "7\n"}, 7),
    ],
)
def test_memory_is_what_control_groups_leave(
    groups: str, files: dict[str, str], size: int | None, tmp_path: Path
) -> None:
    for name, text in ({"proc/self/cgroup": groups} | files).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    memory_bytes.cache_clear()
    assert memory_bytes(str(tmp_path)) == (size or memory_bytes(str(tmp_path / "nothing")))
    memory_bytes.cache_clear()
