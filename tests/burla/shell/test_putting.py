"""What of a batch is copied, and when."""

import gc

import numpy as np
import pytest

from burla.shell.putting import Aliased, put_down
from burla.values.frames import LaidOut
from burla.values.leaves import cut_batches
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
