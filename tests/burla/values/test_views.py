"""Results that lie in the file of an input."""

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from waiting import wait_until

from burla.values import shared_memory
from burla.values.frames import Pieces, load
from burla.values.free_files import FreeFiles
from burla.values.kept import kept_frames
from burla.values.kept_mappings import KeptMappings
from burla.values.payloads import (
    NotLoadableError,
    cut_batches,
    load_leaf,
    load_result,
    take_apart_result,
)
from burla.values.shared_memory import RESULT, VIEW, empty_and_remove, size_of
from burla.values.sharing import SharedInputs, SharedResults

MB = 1 << 20
FLOATS = 3 << 17  # of 3 MB
Array = np.ndarray[Any, Any]


class Loop:
    """A caller and a worker, both in this process."""

    def __init__(self, directory: Path) -> None:
        self.free = FreeFiles(str(directory))
        self.files = directory / "job"
        self.inputs = SharedInputs(str(self.files), self.free)
        self.inputs.open()
        self.results = SharedResults(str(self.files))
        self.at = 0

    def put(self, value: Any) -> Any:
        """Return the input that a worker has."""
        ((leaf,),) = [batch.leaves for batch in cut_batches([value])]
        assert isinstance(leaf.body, Pieces)
        frames = self.inputs.put(self.at, 1, leaf.body)
        self.at += 1
        return load_leaf(frames)[0]

    def give(self, result: Any) -> Any:
        """Return the frames of a result."""
        return self.results.put(take_apart_result(result))

    def call(self, function: Callable[[Any], Any], value: Any) -> Any:
        """Return the frames of the result of a call of which the outcome has come."""
        frames = self.give(function(self.put(value)))
        self.inputs.release(self.at - 1, self.at)
        return frames

    def numbers(self) -> set[int]:
        """Return which files there are."""
        every = [*self.files.parent.iterdir(), *self.files.iterdir()]
        return {file.stat().st_ino for file in every if file.is_file()}


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    kept = KeptMappings()
    kept.allow(64 * MB)
    monkeypatch.setattr(shared_memory, "kept", kept)
    monkeypatch.setattr("burla.values.sharing.kept", kept)
    yield Loop(tmp_path)
    gc.collect()


def numbers(start: int = 0) -> Array:
    return np.arange(start, start + FLOATS, dtype=float)


def wrote_elsewhere(x: Array) -> Array:
    x[0] = 7
    return x[1000:]


def wrote_and_undid(x: Array) -> Array:
    x[5] += 1
    x[5] -= 1
    return x


def changed(x: Array) -> Array:
    x[FLOATS // 2] = -1
    return x


def is_view(x: Array) -> Array:
    return x


def not_writeable(x: Array) -> Array:
    x.flags.writeable = False
    return x


SAME: dict[str, tuple[Callable[[Array], Any], bytes]] = {
    "itself": (is_view, VIEW),
    "a slice": (lambda x: x[1000:-1000], VIEW),
    "at no boundary of a word": (lambda x: x.view(np.uint8)[4001:-3], VIEW),
    "another shape": (lambda x: x.reshape(-1, 4).T, VIEW),
    "several parts": (lambda x: {"a": x[: FLOATS // 2], "b": x[FLOATS // 2 :]}, VIEW),
    "parts that overlap": (lambda x: [x[:-1], x[1:], x], VIEW),
    "with something small": (lambda x: (np.arange(3000), x, "text", np.ones(2500), x[5:]), VIEW),
    "that cannot be written to": (not_writeable, VIEW),
    "elsewhere written to": (wrote_elsewhere, VIEW),
    "written to": (changed, RESULT),
    "written to what was there": (wrote_and_undid, RESULT),
    "not contiguous": (lambda x: x[::2], RESULT),
    "new": (lambda x: x + 1, RESULT),
    "with something big": (lambda x: (x, x * 2), RESULT),
    "a small part": (lambda x: x[: FLOATS // 2 - 100], RESULT),
    "too many parts": (lambda x: np.split(x, 64), RESULT),
}


@pytest.mark.parametrize("name", SAME)
def test_a_result_is_what_the_function_returned(loop: Loop, name: str) -> None:
    function, tag = SAME[name]
    frames = loop.call(function, numbers())
    assert frames[0][:1] == tag
    expected = load(take_apart_result(function(numbers())).cut())
    assert size_of(frames) >= take_apart_result(expected).size
    got = load_result(frames)
    np.testing.assert_equal(got, expected)
    assert list(loop.files.iterdir()) == []
    for one, other in zip(arrays_in(got), arrays_in(expected), strict=True):
        assert (one.dtype, one.strides) == (other.dtype, other.strides)
        assert one.flags.writeable == other.flags.writeable


def arrays_in(value: Any) -> list[Array]:
    parts = value.values() if isinstance(value, dict) else value
    return [value] if isinstance(value, np.ndarray) else [x for x in parts if type(x) is not str]


def test_nobody_sees_what_another_writes(loop: Loop) -> None:
    mine = numbers()
    theirs = loop.put(mine)
    mine[:] = -1  # after the call began
    frames = loop.give([theirs, theirs[10:], theirs[:-10]])
    assert frames[0][:1] == VIEW
    theirs[:] = -2  # after the result was said
    one, two, three = load_result(frames)
    one[:] = -3
    two[0] = -4
    assert (two[1:] == numbers()[11:]).all()
    assert (three == numbers()[:-10]).all()
    del theirs, one
    loop.inputs.release(0, 1)
    again = loop.put(numbers(5))
    again[:] = -5
    assert (two[0], two[1], three[10]) == (-4, 11, 10)


def test_a_file_is_written_anew_as_soon_as_nobody_has_the_result(loop: Loop) -> None:
    awaited = loop.call(is_view, numbers())
    first = loop.numbers()
    value = load_result(loop.call(is_view, numbers(1)))
    both = loop.numbers()
    assert len(both) == 2
    for _ in range(10):
        assert loop.call(np.sum, numbers(2)) is not None
    assert len(loop.numbers()) == 3  # neither of the two
    assert (value == numbers(1)).all()
    assert (load_result(awaited) == numbers()).all()  # let go of at once
    loop.put(numbers(3))
    loop.put(numbers(4))
    assert len(loop.numbers()) == 3
    del value
    loop.put(numbers(5))
    assert len(loop.numbers()) == 3
    assert first < both


def test_a_loop_of_maps_makes_no_new_file(loop: Loop) -> None:
    held: list[Array] = []
    seen = None
    for turn in range(4):
        held.clear()  # what a loop of maps has of the last one
        frames = [loop.call(is_view, numbers(turn + at)) for at in range(12)]
        held += map(load_result, frames)
        assert all((value == numbers(turn + at)).all() for at, value in enumerate(held))
        seen = seen or loop.numbers()
        assert loop.numbers() == seen
    assert len(seen or ()) == 12


def test_what_is_had_of_an_earlier_call_is_copied(loop: Loop) -> None:
    """The caller knows its file by another name by then, and may have put another in its place."""
    before = loop.put(numbers())
    (path,) = loop.files.iterdir()
    loop.inputs.release(0, 1)
    frames = loop.give(before)
    assert frames[0][:1] == RESULT
    assert (load_result(frames) == numbers()).all()
    path.write_bytes(bytes(MB))
    frames = loop.give(before)
    assert frames[0][:1] == RESULT
    assert (load_result(frames) == numbers()).all()
    assert sorted(loop.files.iterdir()) == [path]


def test_it_is_copied_where_it_is_not_known_what_was_written_to(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("burla.values.views.is_as_in_file", lambda *_: False)
    assert loop.call(is_view, numbers())[0][:1] == RESULT


def test_it_is_copied_where_a_file_has_one_name(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    assert loop.call(is_view, numbers())[0][:1] == RESULT


def test_results_that_nobody_takes_are_bounded(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("burla.values.sharing.RESULTS_BYTES_MAX", 7 * MB)
    frames = [loop.call(is_view, numbers(at)) for at in range(4)]
    assert [one[0][:1] == VIEW for one in frames] == [True, True, False, False]
    assert len(frames[3]) > 1  # it is sent
    for at, one in enumerate(frames):
        assert (load_result(one) == numbers(at)).all()
    assert loop.call(is_view, numbers())[0][:1] == VIEW


def test_a_file_waits_as_long_as_a_result_lies_in_it_and_is_emptied_then(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("burla.values.free_files.FREE_S", 0.01)
    monkeypatch.setattr("burla.values.free_files.LOOK_S", 0.01)
    frames, other = loop.call(is_view, numbers()), loop.call(is_view, numbers(1))
    value = load_result(frames)
    descriptors = [os.open(path, os.O_RDONLY) for path in loop.files.parent.glob("free-*")]
    looks = _counted(monkeypatch, "burla.values.free_files.is_used")
    wait_until(lambda: len(looks) > 6, "it was looked at again and again")
    assert (value == numbers()).all()
    assert (load_result(other) == numbers(1)).all()
    del value
    wait_until(lambda: not list(loop.files.parent.glob("free-*")), "what waits is removed")
    assert [os.fstat(file).st_size for file in descriptors] == [0, 0]
    for file in descriptors:
        os.close(file)


def _counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """Return what a function of paths is called with from now on."""
    calls: list[str] = []

    def note(path: str) -> bool:
        calls.append(path)
        return shared_memory.is_used(path)

    monkeypatch.setattr(name, note)
    return calls


def test_beyond_a_number_of_files_with_results_these_are_not_written_anew(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("burla.values.free_files.USED_COUNT_MAX", 2)
    values = [load_result(loop.call(is_view, numbers(at))) for at in range(4)]
    assert len(list(loop.files.parent.glob("free-*"))) == 2
    assert all((value == numbers(at)).all() for at, value in enumerate(values))


def test_what_is_removed_is_emptied_unless_somebody_is_about_to_map_it(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"abc")
    os.link(one, two)
    empty_and_remove(str(one))
    assert two.read_bytes() == b"abc"
    with two.open("rb") as file:
        empty_and_remove(str(two))
        assert file.read() == b""


def test_a_result_that_went_with_its_job_is_an_error(loop: Loop) -> None:
    frames = loop.call(is_view, numbers())
    loop.inputs.clear()
    with pytest.raises(NotLoadableError):
        load_result(frames)
    assert loop.put(numbers(1)) is not None  # by then it is nobody's


def test_a_child_that_has_the_result_keeps_it(loop: Loop) -> None:
    value = load_result(loop.call(is_view, numbers()))
    (go, told), (says, saying) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.close(told)
        os.read(go, 1)
        os.write(saying, str(value.sum()).encode())
        os._exit(0)
    del value
    loop.put(numbers(7))
    assert len(loop.numbers()) == 2
    os.close(told)
    assert float(os.read(says, 100)) == numbers().sum()
    os.waitpid(child, 0)
    for file in (go, says, saying):
        os.close(file)


def test_a_result_is_kept_for_another_process_and_left_for_the_caller(loop: Loop) -> None:
    frames = loop.call(lambda x: [x[:-5], "text"], numbers())
    kept = kept_frames(frames, many=False)
    assert kept is not None
    assert max(map(len, kept)) < FLOATS * 8
    assert (load(kept)[0] == numbers()[:-5]).all()
    assert (load_result(frames)[0] == numbers()[:-5]).all()
    assert kept_frames(frames, many=False) is None


def test_beyond_a_number_of_mappings_they_are_copies(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = loop.call(is_view, numbers())
    monkeypatch.setattr(shared_memory, "MAPPINGS_MAX", 0)
    value = load_result(frames)
    assert (value == numbers()).all()
    assert list(loop.files.iterdir()) == []
    loop.put(numbers(1))
    assert len(loop.numbers()) == 1  # nothing of it is used any more
