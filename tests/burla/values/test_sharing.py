"""Big values that are put down in memory instead of being sent."""

import gc
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from waiting import wait_until

from burla.values import shared_memory
from burla.values.frames import Pieces
from burla.values.free_files import FreeFiles
from burla.values.kept_mappings import KeptMappings
from burla.values.payloads import (
    NotLoadableError,
    cut_batches,
    load_leaf,
    load_result,
    load_results,
    take_apart_result,
    take_apart_results,
)
from burla.values.shared_memory import INPUT, MAPPINGS_MAX, RESULT, SHARE_BYTES_MIN, refer, rewrite
from burla.values.sharing import SharedInputs, SharedResults

MB = 1 << 20
VALUES: Sequence[Any] = [
    np.arange(1 << 20, dtype=float),
    np.arange(3 << 18, dtype=np.int64).reshape(3, -1),
    np.asfortranarray(np.arange(3 << 18).reshape(3, -1)),
    np.arange(1 << 20)[::2],
    "x" * (3 << 20),
    "ä" * (3 << 20),
    b"y" * (1 << 20),
    bytearray(b"z") * (1 << 21),
    [np.ones(1 << 17), np.zeros(1 << 18), "between", np.arange(1 << 16)],
    {"a": bytes(5 << 20), "b": np.full(12345, 7)},
    [float(x) for x in range(200_000)],
    [np.full(1 << 11, x) for x in range(700)],  # more buffers than one system call takes
]


@pytest.fixture
def on(tmp_path: Path) -> SharedInputs:
    made = SharedInputs(str(tmp_path / "job"))
    made.open()
    return made


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path / "job"


def kept_of(files: Path) -> list[Path]:
    """Return the files that wait to be written anew."""
    return [file for file in files.parent.iterdir() if file.is_file()]


def assert_same(got: Any, value: Any) -> None:
    if type(value) is list and type(value[0]) is float:
        assert got == value  # 200,000 numbers: the other way takes seconds
    else:
        np.testing.assert_equal(got, value)


def pieces_of(value: Any) -> Pieces:
    ((leaf,),) = [batch.leaves for batch in cut_batches([value])]
    assert isinstance(leaf.body, Pieces)
    return leaf.body


def maps_of(directory: Path) -> int:
    return Path("/proc/self/maps").read_text().count(f"{directory}/")


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_an_input_that_is_put_down_comes_back_and_may_be_written_to(
    value: Any, on: SharedInputs
) -> None:
    frames = on.put(0, 1, pieces_of(value))
    assert len(frames) == 1
    assert frames[0][:1] == INPUT
    assert len(frames[0]) < 1000
    got = load_leaf(frames)[0]
    assert_same(got, value)
    assert type(got) is type(value)
    if isinstance(got, np.ndarray):
        assert got.flags.writeable
        assert got.flags.aligned
        got += 1
        np.testing.assert_equal(load_leaf(frames)[0], value)  # nobody else sees what one writes


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_result_is_put_down_and_given_away(value: Any, on: SharedInputs, files: Path) -> None:
    results = SharedResults(str(files))
    frames = results.put(take_apart_result(value))
    assert [frames[0][:1], len(frames)] == [RESULT, 1]
    assert len(list(files.iterdir())) == 1
    got = load_result(frames)
    assert list(files.iterdir()) == []
    assert_same(got, value)
    assert type(got) is type(value)
    if isinstance(got, np.ndarray):
        got += 1
        again = load_result(results.put(take_apart_result(got)))  # it is itself a mapping
        np.testing.assert_equal(again, got)


def test_results_in_one_pickle_are_given_away_together(on: SharedInputs, files: Path) -> None:
    values = [bytes(MB), "x" * MB, 5, (b"y" * MB, None)]
    frames = SharedResults(str(files)).put(take_apart_results(values))
    assert frames[0][:1] == RESULT
    assert load_results(frames) == values


def test_what_is_written_in_part_is_written_on(
    on: SharedInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = [np.arange(1 << 16), np.arange(1 << 17), b"x" * 100_000]

    def write_a_part(file: int, parts: Sequence[memoryview]) -> int:
        return os.write(file, parts[0][:99_999])

    monkeypatch.setattr(os, "writev", write_a_part)
    np.testing.assert_equal(load_leaf(on.put(0, 1, pieces_of(value)))[0], value)


def test_an_input_is_what_it_was_when_it_was_put_down(on: SharedInputs) -> None:
    array = np.zeros(1 << 18)
    frames = on.put(0, 1, pieces_of(array))
    array += 1
    assert load_leaf(frames)[0].sum() == 0


def test_a_file_is_written_anew_for_the_next_leaf_that_fits(on: SharedInputs, files: Path) -> None:
    frames = on.put(0, 1, pieces_of(np.ones(1 << 20)))
    (first,) = files.iterdir()
    number = first.stat().st_ino
    assert load_leaf(frames)[0].sum() == 1 << 20
    on.release(0, 1)
    assert not first.exists()  # so that who opens it late finds nothing
    frames = on.put(1, 1, pieces_of(np.full(900_000, 2.0)))
    (second,) = files.iterdir()
    assert second.stat().st_ino == number
    assert second != first
    assert load_leaf(frames)[0].sum() == 1_800_000
    on.release(1, 2)
    on.put(2, 1, pieces_of(np.ones(1 << 18)))  # would waste most of it
    on.put(3, 1, pieces_of(np.ones(1 << 21)))  # does not fit
    assert len(list(files.iterdir())) == 2
    assert len(kept_of(files)) == 1


def test_a_file_is_written_anew_for_a_later_job(tmp_path: Path) -> None:
    free = FreeFiles(str(tmp_path))
    numbers = []
    for name in ("one", "two", "three"):
        job = SharedInputs(str(tmp_path / name), free)
        job.open()
        frames = job.put(0, 1, pieces_of(np.ones(1 << 18)))
        numbers += [file.stat().st_ino for file in (tmp_path / name).iterdir()]
        assert load_leaf(frames)[0].sum() == 1 << 18
        job.release(0, 1)
        job.clear()
        assert not (tmp_path / name).exists()
    assert len(set(numbers)) == 1
    assert len(kept_of(tmp_path / "any")) == 1


def test_threads_that_share_free_files_never_write_the_same(tmp_path: Path) -> None:
    free = FreeFiles(str(tmp_path))

    def run(number: int) -> bool:
        job = SharedInputs(str(tmp_path / str(number)), free)
        job.open()
        right = True
        for index in range(40):
            frames = job.put(index, 1, pieces_of(np.full(1 << 17, number * 1000 + index)))
            right = right and bool((load_leaf(frames)[0] == number * 1000 + index).all())
            job.release(index, index + 1)
        job.clear()
        return right

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(run, range(4)))
    assert len(list(tmp_path.iterdir())) == len(kept_of(tmp_path / "any"))


def test_a_free_file_is_removed_when_nobody_needs_it(
    on: SharedInputs, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on.put(0, 1, pieces_of(np.ones(1 << 18)))
    on.put(1, 1, pieces_of(np.ones(1 << 18)))
    monkeypatch.setattr("burla.values.free_files.FREE_S", 0.01)
    on.release(0, 1)
    on.release(1, 2)
    assert kept_of(files)
    wait_until(lambda: not kept_of(files), "free files are removed")
    assert len(list(files.iterdir())) == 0


def test_a_free_file_that_somebody_removed_is_passed_over(on: SharedInputs, files: Path) -> None:
    on.put(0, 2, pieces_of(np.ones(1 << 18)))
    on.release(0, 2)
    for kept in kept_of(files):
        kept.unlink()
    frames = on.put(2, 1, pieces_of(np.ones(1 << 18)))
    assert load_leaf(frames)[0].sum() == 1 << 18


def test_few_leaves_wait_that_are_bigger_than_the_caches(tmp_path: Path) -> None:
    job = SharedInputs(str(tmp_path / "job"), slots=3)
    job.open()
    for index in range(18):
        assert job.has_room()
        job.put(index, 1, pieces_of(np.ones(6 << 17)))
    assert not job.has_room()
    job.release(0, 1)
    assert job.has_room()


def test_a_file_that_is_mapped_is_left_alone(on: SharedInputs, files: Path) -> None:
    held = []
    descriptors = len(os.listdir("/proc/self/fd"))
    for index in range(20):
        frames = on.put(index, 1, pieces_of(np.full(1 << 18, index)))
        held.append(load_leaf(frames)[0])
        held[-1][0] += 1000
        on.release(index, index + 1)
    assert [array[0] - 1000 for array in held] == list(range(20))
    assert [array[-1] for array in held] == list(range(20))
    assert maps_of(files.parent) == 20
    assert len(os.listdir("/proc/self/fd")) == descriptors  # none is kept for a mapping
    held.clear()
    gc.collect()
    assert maps_of(files.parent) == 0
    on.put(20, 1, pieces_of(np.full(1 << 18, 20)))
    assert len(list(files.iterdir())) == 1
    assert len(kept_of(files)) == 19


def test_who_opens_a_file_late_finds_nothing_rather_than_other_data(
    on: SharedInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = on.put(0, 1, pieces_of(np.ones(1 << 18)))
    on.release(0, 1)
    real = os.open

    def open_and_be_overtaken(path: Any, *rest: Any, **more: Any) -> int:
        file = real(path, *rest, **more)
        monkeypatch.setattr(os, "open", real)
        on.put(1, 1, pieces_of(np.zeros(1 << 18)))
        return file

    monkeypatch.setattr(os, "open", open_and_be_overtaken)
    with pytest.raises(NotLoadableError):
        load_leaf(late)
    with pytest.raises(NotLoadableError):
        load_leaf(late)


def test_a_file_is_free_when_all_its_inputs_have_outcomes(on: SharedInputs, files: Path) -> None:
    pieces = pieces_of(bytes(SHARE_BYTES_MIN))
    on.put(0, 4, pieces)
    on.put(4, 1, pieces)
    on.release(0, 3)
    on.put(5, 1, pieces)
    assert len(list(files.iterdir())) == 3
    assert len(kept_of(files)) == 0
    on.release(4, 5)
    on.release(3, 4)
    assert len(kept_of(files)) == 2
    for index in (6, 7, 8):
        on.put(index, 1, pieces)
    assert len(list(files.iterdir())) == 4
    assert len(kept_of(files)) == 0


def test_files_that_wait_are_bounded(
    on: SharedInputs, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("burla.values.free_results.FREE_BYTES_MAX", 5 << 20)
    for index in range(10):
        on.put(index, 1, pieces_of(np.ones(1 << 18)))
    on.release(0, 10)
    assert len(list(files.iterdir())) == 0
    assert len(kept_of(files)) == 2


def test_all_files_are_removed_at_the_end_and_what_comes_late_is_sent(
    on: SharedInputs, files: Path
) -> None:
    on.put(0, 1, pieces_of(bytes(SHARE_BYTES_MIN)))
    results = SharedResults(str(files))
    pieces = take_apart_result(np.ones(1 << 18))
    results.put(pieces)
    on.clear()
    assert not files.exists()
    assert results.put(pieces) == pieces.cut()


def test_a_child_removes_nothing(on: SharedInputs, files: Path) -> None:
    on.put(0, 1, pieces_of(bytes(SHARE_BYTES_MIN)))
    child = os.fork()
    if not child:
        on.clear()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(list(files.iterdir())) == 1


def test_small_results_are_sent(on: SharedInputs, files: Path) -> None:
    assert SharedResults(str(files)).put(take_apart_result([1])) == take_apart_result([1]).cut()


def test_it_has_room_until_its_bytes_are_down(
    on: SharedInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("burla.values.sharing.INPUTS_BYTES_MAX", 3 << 20)
    pieces = pieces_of(bytes(2 << 20))
    for index in range(2):
        assert on.has_room()
        on.put(index, 1, pieces)
    assert not on.has_room()
    on.release(0, 1)
    assert on.has_room()


def test_results_that_nobody_takes_are_sent_beyond_a_bound(
    on: SharedInputs, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("burla.values.sharing.RESULTS_BYTES_MAX", 5 << 20)
    results = SharedResults(str(files))
    pieces = take_apart_result(np.ones(1 << 18))
    put = [results.put(pieces) for _ in range(4)]
    assert [frames[0][:1] == RESULT for frames in put] == [True, True, False, False]
    assert load_result(put[0]).sum() == 1 << 18
    assert results.put(pieces)[0][:1] == RESULT


def test_a_part_of_the_file_system_is_left_free(
    on: SharedInputs, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = pieces_of(np.ones(1 << 18))
    with monkeypatch.context() as patched:
        patched.setattr("burla.values.sharing.FREE_SHARE", 1)
        assert SharedResults(str(files)).put(pieces) == pieces.cut()
        assert on.put(0, 1, pieces) == pieces.cut()
    assert on.put(1, 1, pieces)[0][:1] == INPUT  # as soon as there is room again


def test_a_place_that_takes_nothing_is_given_up(tmp_path: Path) -> None:
    pieces = pieces_of(bytes(2 << 20))
    for directory in (None, str(tmp_path / "missing" / "job")):
        nowhere = SharedInputs(directory)
        nowhere.open()
        assert nowhere.put(0, 1, pieces) == pieces.cut()
        nowhere.clear()


def test_a_directory_that_is_gone_is_given_up(on: SharedInputs, files: Path) -> None:
    files.rmdir()
    pieces = pieces_of(bytes(2 << 20))
    assert on.put(0, 1, pieces) == pieces.cut()
    on.clear()


def test_what_is_gone_is_an_error_of_the_input(on: SharedInputs) -> None:
    frames = on.put(0, 1, pieces_of(bytes(2 << 20)))
    on.clear()
    with pytest.raises(NotLoadableError):
        load_leaf(frames)


@pytest.mark.parametrize("data", [b"", bytes(8), bytes(2 * MB)])
def test_what_is_not_whole_is_an_error(data: bytes, on: SharedInputs, files: Path) -> None:
    path = files / "1-0-1"
    path.write_bytes(data)
    with pytest.raises(NotLoadableError):
        load_result([refer(RESULT, 2 * MB, str(path))])


def test_beyond_a_number_of_mappings_they_are_copies(
    on: SharedInputs, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAPPINGS_MAX > 100
    gc.collect()
    monkeypatch.setattr(shared_memory, "MAPPINGS_MAX", len(shared_memory._mappings) + 2)
    results = SharedResults(str(files))
    arrays = [load_result(results.put(take_apart_result(np.full(1 << 18, n)))) for n in range(4)]
    assert maps_of(files) == 2
    for n, array in enumerate(arrays):
        assert (array == n).all()
        array += 1
    assert list(files.iterdir()) == []


def test_what_a_worker_keeps_mapped_is_an_input_like_any(
    on: SharedInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "kept", KeptMappings())
    shared_memory.kept.allow(64 * MB)
    seen = []
    for index in range(20):
        array = load_leaf(on.put(index, 1, pieces_of(np.full(1 << 18, index))))[0]
        assert (array == index).all()
        if index % 3 == 0:
            array += 1000
        if index % 4 == 0:
            seen.append((index + 1000 * (index % 3 == 0), array))
        del array
        on.release(index, index + 1)
    assert all((array == value).all() for value, array in seen)
    assert shared_memory.kept.lent == len(seen)
    monkeypatch.setattr(shared_memory, "MAPPINGS_MAX", len(shared_memory._mappings) + len(seen))
    array = load_leaf(on.put(20, 1, pieces_of(np.full(1 << 18, 20))))[0]
    assert shared_memory.kept.lent == len(seen)  # it is a copy
    assert (array == 20).all()


def test_a_file_that_cannot_be_written_anew_is_removed(
    on: SharedInputs, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on.put(0, 1, pieces_of(bytes(SHARE_BYTES_MIN)))
    (old,) = files.iterdir()

    def no_room(file: int, parts: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "writev", no_room)
    with pytest.raises(OSError, match="No space"):
        rewrite(str(old), str(files / "new"), [b"x"])
    assert list(files.iterdir()) == []
