import copyreg
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from burla.values.leaves import (
    BATCH_BYTES_MAX,
    BATCH_INPUTS_FIRST,
    BATCH_INPUTS_FIRST_LAZY,
    BATCH_INPUTS_MAX,
    BATCH_WAIT_S,
    LEAF_ATOMS_MAX,
    LEAF_BYTES_MAX,
    LEAF_INPUTS_MAX,
    AtomsPickler,
    Batch,
    InputNotLoadableError,
    are_atoms,
    cut_batches,
    is_lazy,
    load_leaf,
)
from burla.values.shared_memory import SHARE_BYTES_MIN


class Unloadable:
    def __reduce__(self) -> Any:
        return explode, ()


class Registered:
    def __init__(self, how: str = "by itself") -> None:
        self.how = how


def explode() -> None:
    raise RuntimeError("boom")


def inputs_of(batches: list[Batch]) -> list[Any]:
    inputs: list[Any] = []
    for batch in batches:
        assert batch.start == len(inputs)
        assert batch.count == sum(leaf.count for leaf in batch.leaves)
        assert batch.bytes == sum(leaf.bytes for leaf in batch.leaves)
        for leaf in batch.leaves:
            loaded = load_leaf(leaf.frames)
            assert len(loaded) == leaf.count
            inputs += loaded[:]
    return inputs


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    st.lists(
        st.integers() | st.text() | st.tuples(st.integers()) | st.lists(st.integers())
        | st.integers(0, 100_000).map(bytes) | st.integers(0, 100_000).map(bytearray),
        max_size=600,
    ),
    st.sampled_from([list, tuple, iter]),
)  # fmt: skip
def test_all_inputs_come_back_in_order(values: list[Any], kind: Any) -> None:
    assert inputs_of(list(cut_batches(kind(values)))) == values


@pytest.mark.parametrize("values", [range(0), range(1), range(5, 100_000, 7), range(10, -9000, -1)])
def test_a_range_is_sliced_and_never_unrolled(values: range) -> None:
    batches = list(cut_batches(values))
    assert inputs_of(batches) == list(values)
    assert all(batch.bytes < 100 and len(batch.leaves) == 1 for batch in batches)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(30_000),
        np.arange(30_000.0).reshape(3000, 10)[::2],
        np.zeros((3, 200_000)),
        np.arange(100).astype("datetime64[s]"),
        np.zeros((5, 0)),
        np.array([(1, 2.5)] * 50, dtype=[("a", int), ("b", float)]),
        np.asfortranarray(np.arange(6000).reshape(60, 100)),
    ],
)
def test_an_array_is_sliced_into_what_iterating_it_gives(array: Any) -> None:
    inputs: list[Any] = []
    for batch in cut_batches(array):
        assert batch.start == len(inputs)
        for leaf in batch.leaves:
            inputs += list(load_leaf(leaf.frames)[:])
    assert len(inputs) == len(array)
    for ours, theirs in zip(inputs, array, strict=True):
        assert type(ours) is type(theirs)
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)


def test_an_array_of_objects_is_pickled_one_by_one() -> None:
    array = np.array([[1], {"a": 2}, "x"], dtype=object)
    assert inputs_of(list(cut_batches(array))) == [[1], {"a": 2}, "x"]


def test_leaves_and_batches_are_bounded() -> None:
    batches = list(cut_batches([*range(200_000), *("x" * 3000 for _ in range(2000))]))
    assert batches[0].count == BATCH_INPUTS_FIRST
    for batch in batches:
        assert batch.count <= BATCH_INPUTS_MAX
        assert batch.bytes <= BATCH_BYTES_MAX + LEAF_INPUTS_MAX * LEAF_BYTES_MAX
        for leaf in batch.leaves:
            assert leaf.count <= LEAF_ATOMS_MAX
            assert leaf.bytes <= LEAF_BYTES_MAX + 100


@pytest.mark.parametrize("big", [b"x" * 3_000_000, np.ones(1_000_000), {"a": bytearray(100_000)}])
def test_a_big_input_is_alone_in_its_leaf(big: Any) -> None:
    (batch,) = cut_batches([[1], big, [2]])
    assert [leaf.count for leaf in batch.leaves] == [1, 1, 1]
    assert type(load_leaf(batch.leaves[1].frames)[0]) is type(big)


@pytest.mark.parametrize("make", [np.ones, bytes, lambda n: "x" * n, lambda n: [np.ones(n)]])
@pytest.mark.parametrize("lazy", [False, True])
def test_inputs_that_are_big_are_sent_one_by_one(make: Any, lazy: bool) -> None:
    bigs = [make(2 << 20) for _ in range(14)]
    batches = cut_batches(iter(bigs) if lazy else bigs)
    counts = [(batch.count, len(batch.leaves)) for batch in batches]
    first = 1 if lazy or not isinstance(bigs[0], list) else BATCH_INPUTS_FIRST
    assert counts[0] == (first, first)  # who knows what is in a list
    assert set(counts[1:]) == {(1, 1)}


@pytest.mark.parametrize("lazy", [False, True])
def test_who_has_let_go_of_a_batch_holds_nothing_of_its_inputs(lazy: bool) -> None:
    values = [bytearray(SHARE_BYTES_MIN + 1) for _ in range(2)]
    batches = cut_batches(iter(values) if lazy else values)
    batch = next(batches)
    with pytest.raises(BufferError):
        values[0].append(1)
    del batch
    values[0].append(1)
    batches.close()  # type: ignore[attr-defined]  # a generator, which has not ended


def test_inputs_that_are_mutable_share_nothing() -> None:
    shared = [1]
    (batch,) = cut_batches([shared, shared, {"k": shared}])
    first, second, third = load_leaf(batch.leaves[0].frames)[:]
    first.append(2)
    assert (second, third) == ([1], {"k": [1]})


def test_an_iterator_is_pulled_no_further_than_its_batch() -> None:
    pulled = itertools.count()
    batches = cut_batches(next(pulled) for _ in range(10**9))
    next(batches)
    assert next(pulled) == BATCH_INPUTS_FIRST_LAZY == 1  # its call may be what gives the second


def test_a_slow_iterator_has_its_inputs_sent_at_once() -> None:
    now_s = [0.0]

    def slow() -> Iterator[int]:
        for number in range(4):
            now_s[0] += 1
            yield number

    batches = cut_batches(slow(), clock_s=lambda: now_s[0])
    assert [batch.count for batch in batches] == [1, 1, 1, 1]


def test_an_iterator_that_becomes_slow_holds_nothing_back() -> None:
    now_s = [0.0]

    def slowing() -> Iterator[int]:
        for number in range(100):
            now_s[0] += 0 if number < 50 else BATCH_WAIT_S * 2
            yield number

    counts = [batch.count for batch in cut_batches(slowing(), clock_s=lambda: now_s[0])]
    assert counts[:3] == [1, 8, 42]  # 41 that were quick, and the one that was being waited for
    assert set(counts[3:]) == {1}


def reused(make: Any, change: Any, among: int) -> Iterator[Any]:
    """Yield one object again and again, changed each time; an atom instead at each `among`-th."""
    one = make()
    for number in range(700):
        change(one, number)
        yield number if number % among == 0 else one


@pytest.mark.parametrize("among", [2, 7, 10_000])
@pytest.mark.parametrize(
    ("make", "change", "number_of"),
    [
        (lambda: [0], lambda one, n: one.__setitem__(0, n), lambda one: one[0]),
        (dict, lambda one, n: one.update(n=n), lambda one: one["n"]),
        (lambda: np.zeros(3), lambda one, n: one.fill(n), lambda one: one[0]),
        (lambda: np.zeros(1 << 16), lambda one, n: one.fill(n), lambda one: one[0]),
        (lambda: np.zeros(1 << 18), lambda one, n: one.fill(n), lambda one: one[0]),
        (lambda: ([0],), lambda one, n: one[0].__setitem__(0, n), lambda one: one[0][0]),
        (
            lambda: bytearray(8),
            lambda one, n: one.__setitem__(slice(None), n.to_bytes(8, "big")),
            lambda one: int.from_bytes(one, "big"),
        ),
        (Registered, lambda one, n: setattr(one, "how", n), lambda one: one.how),
    ],
    ids=[
        "list",
        "dict",
        "array",
        "array of 0.5 MB",
        "array of 2 MB",
        "tuple",
        "bytearray",
        "object",
    ],
)
def test_an_object_that_is_yielded_again_was_taken_before(
    make: Any, change: Any, number_of: Any, among: int
) -> None:
    inputs: list[Any] = []
    count = 700 if getattr(make(), "nbytes", 0) < 1 << 19 else 40
    batches = cut_batches(itertools.islice(reused(make, change, among), count))
    for batch in batches:  # a big one may be looked at before the next batch only
        inputs += inputs_of([Batch(0, batch.count, batch.leaves, batch.bytes)])
    found = [one if type(one) is int else int(number_of(one)) for one in inputs]
    assert found == list(range(count))


def test_an_input_is_checked_before_it_is_pickled_and_the_next_is_pulled() -> None:
    pulled = []

    def inputs() -> Iterator[Any]:
        for value in (1, [2], [3], 4, [5]):
            pulled.append(value)
            yield value

    seen: list[tuple[list[Any], int, int]] = []
    batches = cut_batches(inputs(), check=lambda v, at: seen.append((list(v), at, len(pulled))))
    assert inputs_of(list(batches)) == [1, [2], [3], 4, [5]]
    assert seen == [([1], 0, 1), ([[2]], 1, 2), ([[3]], 2, 3), ([4], 3, 4), ([[5]], 4, 5)]


def test_what_the_iterator_raises_comes_out_as_it_is() -> None:
    def failing() -> Iterator[int]:
        yield from range(20)
        raise LookupError("mine")

    batches = cut_batches(failing())
    assert [next(batches).count, next(batches).count] == [1, 8]
    with pytest.raises(LookupError, match="mine"):
        list(batches)


def test_an_input_that_cannot_be_pickled_is_named_by_its_index_and_path() -> None:
    inputs = [{"a": [1]} for _ in range(20)] + [{"a": [threading.Lock()]}]
    with pytest.raises(
        TypeError, match=r"^input 20 cannot be sent: input 20\['a'\]\[0\] is a _thr"
    ):
        list(cut_batches(inputs))


def test_an_input_that_is_nested_too_deeply_is_named() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(TypeError, match=r"input 1 cannot be sent: .* nested too deeply"):
        list(cut_batches([1, deep]))


def test_an_input_that_cannot_be_unpickled_fails_alone() -> None:
    (batch,) = cut_batches([[1], Unloadable(), [3]])
    inputs = load_leaf(batch.leaves[0].frames)
    assert inputs[0] == [1]
    assert inputs[2:] == [[3]]
    with pytest.raises(InputNotLoadableError, match="RuntimeError: boom") as caught:
        inputs[0:3]
    assert caught.value.offset == 1


def test_each_look_at_an_input_gives_a_fresh_one() -> None:
    (batch,) = cut_batches([[1], [2]])
    inputs = load_leaf(batch.leaves[0].frames)
    inputs[0].append(9)
    assert inputs[0] == [1]
    assert inputs[-1] == [2]


def test_the_check_sees_every_input_with_its_index() -> None:
    seen: list[tuple[Any, int]] = []

    def check(inputs: Any, start: int) -> None:
        seen.extend(zip(inputs, range(start, start + len(inputs)), strict=True))

    list(cut_batches([(i,) for i in range(1000)], check=check))
    assert seen == [((i,), i) for i in range(1000)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2.5, True, None, "x", b"x", 1j], True),
        ([(1, "a"), (), 3], True),
        ([[1]], False),
        ([1, [1]], False),
        ([1, bytearray(1)], False),
        ([((1,),)], False),
        ([1, np.int64(1)], False),
        ([True, {1}], False),
        ([10**400, 1.5], True),
        ([], True),
    ],
)
def test_what_counts_as_atoms(values: list[Any], expected: bool) -> None:
    assert are_atoms(values) is expected
    assert (AtomsPickler().dump(values) is not None) is expected


def test_what_is_registered_with_copyreg_while_inputs_are_made_counts() -> None:
    def registering() -> Iterator[Registered]:
        yield from (Registered() for _ in range(BATCH_INPUTS_FIRST_LAZY))
        copyreg.pickle(Registered, lambda one: (Registered, ("by copyreg",)))
        yield Registered()

    try:
        ways = [one.how for one in inputs_of(list(cut_batches(registering())))]
    finally:
        del copyreg.dispatch_table[Registered]
    assert ways == ["by itself"] * BATCH_INPUTS_FIRST_LAZY + ["by copyreg"]


def test_no_more_is_pulled_from_an_iterator_than_there_is_room_for() -> None:
    room, pulled = 3, itertools.count()
    batches = cut_batches((next(pulled) for _ in range(10**9)), room=lambda: room)
    assert [next(batches).count for _ in range(3)] == [1, 3, 3]
    room = 0
    assert next(batches).count == 1  # who asks for a batch gets one
    assert next(pulled) == 8
    room = 2
    assert [batch.count for batch in cut_batches([1, 2, 3], room=lambda: room)] == [2, 1]


def test_what_is_lazy() -> None:
    known: list[Any] = [[1], (1,), range(3), np.zeros(3)]
    assert not any(map(is_lazy, known))
    lazy: list[Any] = [iter([1]), {1: 2}, {1}, "ab", map(abs, [1]), np.array([None])]
    assert all(map(is_lazy, lazy))
