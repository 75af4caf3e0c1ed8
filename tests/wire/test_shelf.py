"""Big inputs that are put down in memory instead of being sent."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from burla.wire.shelf import SHARE_BYTES_MIN, SHARED, Shelf
from burla.wire.values import NotLoadableError, cut_batches, load_leaf


def shelf(directory: Path) -> Shelf:
    made = Shelf("job")
    made.open(str(directory))
    return made


def leaf_of(value: Any) -> Any:
    ((leaf,),) = [batch.leaves for batch in cut_batches([value])]
    return leaf


@pytest.mark.parametrize(
    "value",
    [
        np.arange(1 << 20, dtype=float),
        np.arange(3 << 18, dtype=np.int64).reshape(3, -1),
        "x" * (3 << 20),
        b"y" * (1 << 20),
        [np.ones(1 << 17), np.zeros(1 << 18), "between", np.arange(1 << 16)],
        {"a": bytes(5 << 20), "b": np.full(12345, 7)},
    ],
)
def test_what_is_put_down_comes_back_and_may_be_written_to(value: Any, tmp_path: Path) -> None:
    leaf = leaf_of(value)
    frames = shelf(tmp_path).put(0, 1, leaf.frames)
    assert len(frames) == 1
    assert frames[0][:1] == SHARED
    assert len(frames[0]) < 1000
    (got,) = load_leaf(frames)[0:1]
    np.testing.assert_equal(got, value)
    if isinstance(got, np.ndarray):
        assert got.flags.writeable
        assert got.flags.aligned
        got += 1
        (again,) = load_leaf(frames)[0:1]
        np.testing.assert_equal(again, value)  # nobody else sees what one writes


def test_a_file_is_removed_when_all_its_inputs_have_outcomes(tmp_path: Path) -> None:
    on = shelf(tmp_path)
    frames = leaf_of(bytes(SHARE_BYTES_MIN)).frames
    on.put(0, 4, frames)
    on.put(4, 1, frames)
    on.release(0, 3)
    assert len(list(tmp_path.iterdir())) == 2
    on.release(4, 5)
    on.release(3, 4)
    assert list(tmp_path.iterdir()) == []


def test_all_files_are_removed_at_the_end(tmp_path: Path) -> None:
    on = shelf(tmp_path)
    on.put(0, 1, leaf_of(bytes(SHARE_BYTES_MIN)).frames)
    on.clear()
    assert list(tmp_path.iterdir()) == []


def test_small_leaves_are_sent(tmp_path: Path) -> None:
    frames = leaf_of(b"x").frames
    assert shelf(tmp_path).put(0, 1, frames) is frames


def test_it_has_room_until_its_bytes_are_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("burla.wire.shelf.SHELF_BYTES", 3 << 20)
    on = shelf(tmp_path)
    frames = leaf_of(bytes(2 << 20)).frames
    for index in range(2):
        assert on.has_room()
        on.put(index, 1, frames)
    assert not on.has_room()
    on.release(0, 1)
    assert on.has_room()


def test_a_directory_that_takes_nothing_is_given_up(tmp_path: Path) -> None:
    on = shelf(tmp_path / "missing")
    frames = leaf_of(bytes(2 << 20)).frames
    assert on.put(0, 1, frames) is frames


def test_what_is_gone_is_an_error_of_the_input(tmp_path: Path) -> None:
    on = shelf(tmp_path)
    frames = on.put(0, 1, leaf_of(bytes(2 << 20)).frames)
    on.clear()
    with pytest.raises(NotLoadableError):
        load_leaf(frames)
