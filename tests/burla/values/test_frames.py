import math
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from burla.limits import FRAME_BYTES_MAX
from burla.values.frames import (
    OUT_OF_BAND_BYTES_MIN,
    LaidOut,
    NotLoadableError,
    TooLargeError,
    cut,
    join,
    take_apart_plain,
)
from burla.values.pickling import dumps, loads, take_apart_any
from burla.values.rooms import rooms
from burla.values.shared_memory import ALIGN

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(derandomize=True, max_examples=100)
@given(PLAIN)
def test_plain_values_come_back_equal_in_one_frame(value: object) -> None:
    frames = dumps(value)
    assert len(frames) == 1
    assert loads(frames) == value


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 3 * FRAME_BYTES_MAX), min_size=1, max_size=4),
    st.lists(st.integers(0, 3 * FRAME_BYTES_MAX), max_size=3),
)
def test_any_pickle_and_buffers_are_joined_as_they_were_cut(
    data_sizes: list[int], buffer_sizes: list[int]
) -> None:
    data = [b"\x80" + bytes([65 + i]) * size for i, size in enumerate(data_sizes)]
    buffers = [bytes([97 + i]) * size for i, size in enumerate(buffer_sizes)]
    frames = cut(data, [memoryview(buffer) for buffer in buffers])
    assert all(0 < len(frame) <= FRAME_BYTES_MAX for frame in frames)
    whole, back = join(frames)
    assert bytes(whole) == b"".join(data)
    assert back == buffers


@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_values_around_the_size_of_a_frame(shift: int) -> None:
    value = b"x" * (FRAME_BYTES_MAX + shift)
    assert loads(dumps(value)) == value
    array = np.ones(FRAME_BYTES_MAX + shift, np.uint8)
    assert loads(dumps(array)).sum() == array.size


def test_arrays_come_back_writable_and_apart_from_the_original() -> None:
    array = np.arange(1_000_000, dtype=float)
    frames = dumps({"array": array, "small": array[:3]})
    array[:] = 0
    back = loads(frames)
    assert back["array"].flags.writeable
    assert back["small"].flags.writeable
    assert math.fsum(back["array"]) == 999_999 * 500_000
    back["array"][0] = 7


def test_an_array_costs_frames_of_its_size_and_no_more() -> None:
    frames = dumps(np.zeros(8 << 20, np.uint8))
    assert len(frames) == 1 + 8
    assert len(frames[0]) < 1000


def test_small_buffers_stay_in_the_pickle() -> None:
    small = [np.zeros(OUT_OF_BAND_BYTES_MIN - 1, np.uint8) for _ in range(10)]
    assert len(dumps(small)) == 1


def test_arrays_that_are_not_contiguous_come_back_equal() -> None:
    array = np.arange(200_000.0).reshape(400, 500)
    for part in (array.T, array[::2, ::3], array[:, 100:], np.asfortranarray(array)):
        assert (loads(dumps(part)) == part).all()


def test_a_big_bytearray_is_copied_when_it_is_dumped() -> None:
    value = bytearray(b"a" * 3_000_000)
    frames = dumps(value)
    value[:] = b"b" * 3_000_000
    assert loads(frames) == b"a" * 3_000_000


def test_frames_may_be_any_kind_of_buffer() -> None:
    frames = dumps({"x": np.ones(100_000)})
    assert loads([memoryview(frame) for frame in frames])["x"].sum() == 100_000


@pytest.mark.parametrize("spoil", [lambda f: f[:-1], lambda f: [f[0], f[2]], lambda f: [f[0][:7]]])
def test_frames_that_do_not_belong_together_are_refused(spoil: object) -> None:
    frames = dumps(np.zeros(3 << 20, np.uint8))
    with pytest.raises(NotLoadableError):
        join(spoil(frames))  # type: ignore[operator]  # a lambda


def test_a_single_frame_is_the_pickle_itself() -> None:
    (frame,) = dumps([1, 2])
    assert pickle.loads(frame) == [1, 2]


def gathered(value: object) -> memoryview:
    """Return what a client has when all fragments of a value are there."""
    flow = take_apart_any(value).flow()
    assert all(0 < len(frame) <= FRAME_BYTES_MAX for frame in flow)
    room = rooms.make(sum(map(len, flow)))
    assert room is not None
    at = 0
    for frame in flow:
        room[at : at + len(frame)] = frame
        at += len(frame)
    return room


@pytest.mark.parametrize(
    "value",
    [
        bytes(9 << 20),
        "\N{SNOWMAN}" * (5 << 20),
        bytearray(9 << 20),
        list(range(1 << 20)),
        [bytes([n]) * (3 << 20) for n in range(4)],
        {str(n): [n] * 20 for n in range(200_000)},
        (b"x" * (6 << 20), np.arange(1 << 20), b"y", np.ones(1 << 18), [np.zeros(3)] * 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_flows_comes_back_as_it_was(value: object) -> None:
    back = loads([gathered(value)])
    assert pickle.dumps(back) == pickle.dumps(value)


def test_arrays_lie_aligned_in_what_was_gathered_and_may_be_written_to() -> None:
    arrays = [np.arange(n, dtype=float) for n in (200_001, 3, 300_007)]
    room = gathered(("x" * 100_003, arrays))
    _, back = loads([room])
    for array, original in zip(back, arrays, strict=True):
        array += 1
        assert (array == original + 1).all()
    assert all(array.ctypes.data % ALIGN == 0 for array in back if array.size > 3)
    assert np.shares_memory(back[0], np.frombuffer(room, np.uint8))


def test_what_is_unpickled_is_not_there_twice() -> None:
    room = gathered(b"x" * (64 << 20))
    back = loads([room])
    assert back == b"x" * (64 << 20)
    assert bytes(room[: 56 << 20]) == bytes(56 << 20), "its pages were given back"


def test_what_flows_is_no_copy_and_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.zeros(1 << 20)
    flow = take_apart_any(array).flow()
    assert sum(len(frame) for frame in flow if isinstance(frame, bytes)) < 1000
    monkeypatch.setattr("burla.values.frames.VALUE_BYTES_MAX", 1 << 20)
    with pytest.raises(TooLargeError):
        take_apart_any(array).flow()


def test_a_value_for_which_there_is_no_memory_says_so() -> None:
    with pytest.raises(NotLoadableError, match="not enough memory"):
        loads([b""])


def laid_out(value: object) -> tuple[LaidOut, bytes]:
    """Return a big value, and how it lies in memory."""
    pieces = take_apart_any(value)
    return LaidOut(pieces), b"".join(map(bytes, pieces.lay_out()))


@pytest.mark.parametrize("step", [1 << 20, 12_345, 1])
def test_parts_of_a_big_value_are_what_lies_there(step: int) -> None:
    size = 1 << 20 if step > 1 else 40
    value = {"a": np.arange(size, dtype=np.uint8), "b": b"text" * (size // 4), "c": [1, 2]}
    one, whole = laid_out(value)
    assert one.size == len(whole)
    parts = [one.read(at, min(one.size, at + step)) for at in range(0, one.size, step)]
    assert b"".join(b"".join(part) for part in parts) == whole
    if size > 40:
        memory = rooms.make(len(whole))
        assert memory is not None
        memory[:] = whole
        loaded = loads([memory])
        assert (loaded["a"] == value["a"]).all()
        assert (loaded["b"], loaded["c"]) == (value["b"], [1, 2])
        again = loads(one.frames())
        assert again["b"] == value["b"]


def test_a_big_value_that_is_settled_does_not_change_with_its_owner() -> None:
    array, text = np.zeros(1 << 18), b"x" * (2 << 20)
    one, before = laid_out([array, text])
    array[:] = 1
    assert b"".join(one.read(0, one.size)) != before, "it aliases the array"
    array[:] = 0
    one.settle()
    array[:] = 1
    assert b"".join(one.read(0, one.size)) == before
    settled = loads(one.frames())
    assert (settled[0] == 0).all()
    assert settled[1] == text


def test_bytes_are_never_copied_to_be_settled() -> None:
    text = bytes(8 << 20)
    pieces = take_apart_plain([text])
    one = LaidOut(pieces)
    tracemalloc.start()
    one.settle()
    grown = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert grown < 1 << 20
