"""What of a batch is copied, and when."""

import gc
import itertools
from pathlib import Path

import numpy as np
import pytest

from burla.shell.putting import TOGETHER_BYTES, Aliased, Put, put_down, put_down_together
from burla.values.frames import LaidOut
from burla.values.leaves import cut_batches, load_leaf
from burla.values.sharing import SharedInputs


def put(value: object, aliased: Aliased) -> LaidOut:
    """Return a big input as it is kept to be asked for."""
    (batch,) = cut_batches([value])
    ((count, leaf),), size, has_written = put_down(batch, SharedInputs(None), aliased.add)
    assert isinstance(leaf, LaidOut)
    assert (count, size, has_written) == (1, leaf.size, False)
    return leaf


@pytest.mark.parametrize("is_allowed", [True, False])
def test_a_big_input_is_copied_when_others_may_change_it(is_allowed: bool) -> None:
    array, aliased = np.zeros(1 << 18), Aliased()
    aliased.is_allowed = is_allowed
    leaf = put(array, aliased)
    before = leaf.read(0, leaf.size)
    array[:] = 1
    assert (leaf.read(0, leaf.size) == before) is not is_allowed
    array[:] = 0
    aliased.settle()
    array[:] = 1
    assert leaf.read(0, leaf.size) == before


def test_what_is_done_is_not_kept() -> None:
    array, aliased = np.zeros(1 << 18), Aliased()
    aliased.is_allowed = True
    for _ in range(10):
        put(array, aliased)
    gc.collect()
    leaf = put(array, aliased)
    assert [one() for one in aliased._leaves] == [leaf]


def test_what_is_small_is_sent() -> None:
    (batch,) = cut_batches([1, 2, 3])
    leaves, size, _ = put_down(batch, SharedInputs(None), Aliased().add)
    assert [(count, type(body)) for count, body in leaves] == [(3, tuple)]
    assert size == batch.bytes


def all_put(values: list[object], shared: SharedInputs, room: int = 99) -> list[Put]:
    """Return what is sent, message by message, of which each has so many batches at most."""
    batches, puts = cut_batches(values), list[Put]()
    while (batch := next(batches, None)) is not None:
        left = itertools.chain([True] * (room - 1), itertools.repeat(False))
        puts.append(put_down_together(batch, batches, left.__next__, shared, Aliased().add))
    return puts


@pytest.fixture
def shared(tmp_path: Path) -> SharedInputs:
    made = SharedInputs(str(tmp_path / "job"))
    made.open()
    return made


def test_big_inputs_in_files_are_sent_a_few_at_a_time(shared: SharedInputs) -> None:
    arrays = [np.full(TOGETHER_BYTES // 24, float(n)) for n in range(8)]  # a third each
    puts = all_put([*arrays], shared)
    assert [put.end for put in puts] == [3, 6, 8]
    assert [len(put.leaves) for put in puts] == [3, 3, 2]
    assert all(put.has_written and put.size < 2000 for put in puts)
    values = [load_leaf(body) for put in puts for _, body in put.leaves]  # type: ignore[arg-type]
    assert [value[0] for (value,) in values] == list(range(8))


def test_no_more_are_put_down_together_than_there_is_room_for(shared: SharedInputs) -> None:
    arrays = [np.zeros(1 << 17) for _ in range(6)]
    assert [put.end for put in all_put([*arrays], shared, room=2)] == [2, 4, 6]
    assert [put.end for put in all_put([*arrays], shared, room=1)] == [1, 2, 3, 4, 5, 6]


def test_what_is_not_in_a_file_ends_a_message(shared: SharedInputs) -> None:
    big = np.zeros(1 << 17)
    puts = all_put([big, *range(64), big], shared)  # 64 are as many as go in the second batch
    assert [(put.end, put.has_written) for put in puts] == [(65, True), (66, True)]
    assert [put.end for put in all_put([big, big], SharedInputs(None))] == [1, 2]
