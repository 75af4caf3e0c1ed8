import pytest

from burla.core.batches import Window
from burla.core.effects import Deliver, Slots
from burla.core.read_ahead import (
    AHEAD_S,
    FIRST,
    GROW_AHEAD_S,
    ORDERED_BYTES,
    ORDERED_FIRST,
    PER_SLOT,
    InOrder,
    ReadAhead,
)
from burla.protocol.messages import JOB_INPUT_COUNT

JOB = b"j" * 16


def delivered(inputs: int, call_s: float) -> Deliver:
    return Deliver(JOB, b"l" * 16, 1, "n", (), inputs, 0, call_s)


@pytest.mark.parametrize(
    ("slots", "call_s", "most"),
    [
        (0, 0.0, FIRST),  # no node serves the job yet
        (2, 0.0, 2 * PER_SLOT),  # none has said how long a call takes
        (512, 0.0, 512 * PER_SLOT),
        (2, 60.0, 2 * PER_SLOT + 1),
        (2, AHEAD_S, 2 * (PER_SLOT + 1)),
        (2, 1e-7, JOB_INPUT_COUNT),
    ],
)
def test_so_far_is_read_ahead(slots: int, call_s: float, most: int) -> None:
    assert ReadAhead(slots=slots, call_s=call_s).most() == most


def test_where_machines_are_made_for_what_waits_more_is_read_for_them_to_see() -> None:
    assert ReadAhead(GROW_AHEAD_S, slots=2, call_s=1.0).most() == 2 * (PER_SLOT + 120)


def test_a_window_follows_what_is_told_of_slots_and_of_the_speed_of_calls() -> None:
    window = Window(ReadAhead())
    assert window.room() == FIRST
    assert not window.knows_slots()
    window.add(FIRST, 100)
    assert not window.has_room()
    window.note(Slots(JOB, 4))
    assert window.knows_slots()
    assert window.room() == 4 * PER_SLOT - FIRST
    window.note(Slots(JOB, 8))  # another node has joined
    assert window.room() == 8 * PER_SLOT - FIRST
    window.free(delivered(FIRST, AHEAD_S / 10))
    assert window.room() == 8 * (PER_SLOT + 10)
    window.note(Slots(JOB, 0))  # all nodes are lost
    assert window.room() == FIRST


def test_inputs_that_are_known_beforehand_are_sent_as_far_as_there_is_room() -> None:
    window = Window()
    assert window.knows_slots()
    window.note(Slots(JOB, 1))
    assert window.room() == JOB_INPUT_COUNT


def test_what_waits_for_an_earlier_one_is_bounded_in_memory() -> None:
    in_order = InOrder()
    assert in_order.room() == ORDERED_FIRST  # who knows how big they are
    in_order.feed(ORDERED_FIRST)
    assert in_order.room() == 0
    in_order.take(10, 10 << 20)  # a MiB each
    assert in_order.room() == (ORDERED_BYTES >> 20) - ORDERED_FIRST
    in_order.hand_over(10)
    assert in_order.room() == (ORDERED_BYTES >> 20) - ORDERED_FIRST + 10


def test_every_slot_has_something_however_big_results_are() -> None:
    in_order = InOrder(slots=100)
    assert in_order.room() == 100 * PER_SLOT
    in_order.feed(1)
    in_order.take(1, 10 << 30)
    in_order.hand_over(1)
    assert in_order.room() == 100 * PER_SLOT


def test_small_results_let_calls_go_ahead_but_not_for_ever() -> None:
    in_order = InOrder()
    in_order.feed(1)
    in_order.take(1, 5)
    in_order.hand_over(1)
    assert in_order.room() == ORDERED_FIRST + 2  # the first may have been small by chance
    in_order.feed(100_000)
    in_order.take(100_000, 500_000)
    in_order.hand_over(100_000)
    assert in_order.room() == ORDERED_FIRST + 2 * 100_001
