"""Memory of big values that come in fragments: used again, given back, never under a value."""

import gc
import mmap
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from set_clock import SetClock

from burla.values.free_results import FREE_S
from burla.values.kept import kept_frames
from burla.values.payloads import load_result
from burla.values.pickling import take_apart_any
from burla.values.rooms import FIT_PART, IDLE_MAX, TWICE_BYTES_MAX, Rooms

SIZE = 1 << 20


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def rooms(clock: SetClock) -> Rooms:
    return Rooms(clock, 16 * SIZE)


def made(rooms: Rooms, size: int = SIZE) -> memoryview:
    room = rooms.make(size)
    assert room is not None
    assert len(room) == size
    return room


def gathered(rooms: Rooms, flow: Sequence[Any]) -> memoryview:
    """Return a value as it is when all its fragments have come."""
    room, at = made(rooms, sum(map(len, flow))), 0
    for frame in flow:
        room[at : at + len(frame)] = frame
        at += len(frame)
    return room


def put_together(rooms: Rooms, value: object) -> object:
    """Return a value as a caller has it then."""
    flow = take_apart_any(value).flow()
    return load_result([gathered(rooms, flow)])


def address(array: object) -> int:
    assert isinstance(array, np.ndarray)
    return array.ctypes.data


def test_what_nobody_refers_to_any_more_is_used_again(rooms: Rooms) -> None:
    first = put_together(rooms, np.ones(SIZE // 8))
    at = address(first)
    assert rooms.idle == 0
    del first
    assert rooms.idle == 1
    second = put_together(rooms, np.arange(SIZE // 8))
    assert rooms.idle == 0
    assert address(second) == at
    assert np.array_equal(second, np.arange(SIZE // 8))  # type: ignore[arg-type]


def test_what_somebody_refers_to_stays_as_it_is(rooms: Rooms) -> None:
    value = put_together(rooms, {"a": np.full(SIZE // 8, 7.0), "b": np.zeros(SIZE // 8)})
    assert isinstance(value, dict)
    part = value["a"][5:9]
    del value
    others = [put_together(rooms, np.ones(SIZE // 4)) for _ in range(3)]
    assert (part == 7.0).all()
    assert len({address(one) for one in others}) == 3


def test_an_array_may_be_written_to(rooms: Rooms) -> None:
    array = put_together(rooms, np.ones(SIZE))
    assert isinstance(array, np.ndarray)
    array += 1
    assert (array == 2).all()


def test_a_value_leaves_little_of_its_room_empty(rooms: Rooms) -> None:
    made(rooms)
    assert rooms.idle == 1
    small = made(rooms, SIZE - SIZE // FIT_PART - 1)
    assert rooms.idle == 1
    close = made(rooms, SIZE - SIZE // FIT_PART + SIZE // 60)
    assert rooms.idle == 0
    bigger = made(rooms, SIZE + 1)
    del small, close, bigger
    assert rooms.idle == 3


def test_free_ones_are_bounded_in_bytes_and_number_the_oldest_go_first(rooms: Rooms) -> None:
    many = [made(rooms, SIZE + 4096 * at) for at in range(20)]
    while many:
        many.pop(0)
    assert 10 < rooms.idle < 17
    before = rooms.idle
    made(rooms, SIZE + 4096 * 19)  # the last one is there still
    assert rooms.idle == before
    few = [made(rooms, 4096 * (at + 1)) for at in range(2 * IDLE_MAX)]
    few.clear()
    assert rooms.idle <= IDLE_MAX


def test_one_that_is_more_than_all_may_have_is_not_kept(rooms: Rooms) -> None:
    made(rooms, 16 * SIZE + 1)
    assert rooms.idle == 0


def test_free_ones_make_way_for_a_value_that_none_of_them_fits(rooms: Rooms) -> None:
    several = [made(rooms) for _ in range(3)]
    several.clear()
    big = made(rooms, 15 * SIZE)
    assert rooms.idle == 1, "free ones and it have 16 together"
    bigger = made(rooms, 40 * SIZE)
    assert rooms.idle == 0
    del big, bigger
    assert rooms.idle == 1


def test_free_ones_go_when_they_have_waited(rooms: Rooms, clock: SetClock) -> None:
    one, two = made(rooms), made(rooms)
    del one
    clock.now_s += FREE_S - 1
    del two
    rooms.drop_old()
    assert rooms.idle == 2
    clock.now_s += 2
    rooms.drop_old()
    assert rooms.idle == 1
    rooms.clear()
    assert rooms.idle == 0


def test_memory_that_was_given_back_while_it_was_read_is_not_kept(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("burla.values.frames.TWICE_BYTES_MAX", SIZE)
    value = os.urandom(6 * SIZE)
    assert put_together(rooms, value) == value
    assert rooms.idle == 0
    assert TWICE_BYTES_MAX > SIZE


def test_a_small_pickle_leaves_its_room_at_once(rooms: Rooms) -> None:
    value = list(range(SIZE))
    assert put_together(rooms, value) == value
    assert rooms.idle == 1
    assert put_together(rooms, value) == value
    assert rooms.idle == 1


def test_a_forked_child_has_its_values_and_keeps_none_of_its_parent(rooms: Rooms) -> None:
    array = put_together(rooms, np.full(SIZE, 3))
    assert isinstance(array, np.ndarray)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.read(read, 1)  # the parent has written to its memory
            is_as_it_was = bool((array == 3).all())
            del array
            status = 0 if is_as_it_was and rooms.idle == 0 else 2
        finally:
            os._exit(status)
    del array
    other = put_together(rooms, np.full(SIZE, 4))
    os.write(write, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (other == 4).all()  # type: ignore[attr-defined]
    os.close(read)
    os.close(write)


def test_rooms_come_back_from_cycles_that_the_collector_finds_in_any_thread(rooms: Rooms) -> None:
    class Node:
        def __init__(self, value: object) -> None:
            self.value, self.me = value, self

    failed: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for at in range(15):
                whole = np.full(SIZE // 4, seed * 1000 + at)
                node = Node(put_together(rooms, [whole, [{} for _ in range(50)]]))
                assert (node.value[0] == seed * 1000 + at).all()  # type: ignore[index]
                del node
        except BaseException as error:
            failed.append(error)

    before = gc.get_threshold()
    gc.set_threshold(20)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.set_threshold(*before)
    assert not failed
    gc.collect()
    assert 0 < rooms.idle <= IDLE_MAX


@pytest.mark.parametrize("error", [OSError, MemoryError, OverflowError])
def test_where_there_is_no_memory_that_is_said(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch, error: Callable[[], BaseException]
) -> None:
    def none(*_: object, **__: object) -> mmap.mmap:
        raise error()

    monkeypatch.setattr("burla.values.rooms.mmap.mmap", none)
    assert rooms.make(SIZE) is None


def test_what_is_kept_of_a_result_leaves_it_to_who_loads_it(rooms: Rooms) -> None:
    value = [b"_known_class", [float(one) for one in range(TWICE_BYTES_MAX // 8)]]
    room = gathered(rooms, take_apart_any(value).flow())
    kept = kept_frames([room], many=False)
    assert kept is not None
    assert load_result(kept) == value
    assert load_result([room]) == value
