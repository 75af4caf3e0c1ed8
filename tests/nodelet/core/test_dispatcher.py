"""How much goes to whom, and from whom is taken."""

from burla.nodelet.core.cells import Worker
from burla.nodelet.core.dispatcher import (
    LOOK_S,
    RESCUE_S,
    STUCK_S,
    Assigned,
    Dispatcher,
    StealRequest,
)
from burla.nodelet.core.events import CellReport
from burla.nodelet.core.leaf_store import LeafStore
from burla.nodelet.core.work_queue import WorkQueue
from burla.protocol.messages import Leaf, Span


def dispatcher(slots: int, inputs: int, call_s: float = 0.0) -> Dispatcher:
    """Return one with as many workers as slots, and inputs that wait."""
    store = LeafStore()
    queue = WorkQueue(store)
    if inputs:
        store.add([Leaf(0, 0, inputs, 1)], [b"leaf"])
        store.claim(Span(0, 0, inputs))
        queue.add(0, inputs)
    one = Dispatcher(slots, queue)
    one.call_s = call_s
    one.workers |= {number: Worker(number, 0.0) for number in range(1, slots + 1)}
    return one


def assigned(worker: int, cell: int, lo: int, hi: int, *, careful: bool = False) -> Assigned:
    return Assigned(worker, cell, Span(0, lo, hi), careful)


def test_calls_of_unknown_length_go_one_to_each() -> None:
    one = dispatcher(2, 9)
    assert list(one.assign(0.0)) == [assigned(1, 0, 0, 1), assigned(2, 0, 1, 2)]
    assert list(one.assign(0.0)) == []
    one.check()


def test_behind_short_calls_more_of_them_wait_but_not_the_last_ones() -> None:
    one = dispatcher(2, 100, call_s=0.001)
    first, second, *behind = one.assign(0.0)
    assert (first, second) == (assigned(1, 0, 0, 12), assigned(2, 0, 12, 23))
    assert [(each.worker, each.cell) for each in behind] == [(1, 1), (2, 1)]
    last = dispatcher(2, 3, call_s=0.001)
    assert list(last.assign(0.0)) == [assigned(1, 0, 0, 1), assigned(2, 0, 1, 2)]


def test_a_doomed_worker_gets_nothing() -> None:
    one = dispatcher(2, 9)
    one.workers[1].is_doomed = True
    assert list(one.assign(0.0)) == [assigned(2, 0, 0, 1)]


def test_with_fewer_slots_fewer_run() -> None:
    one = dispatcher(4, 9)
    one.slots = 2
    assert [each.worker for each in one.assign(0.0)] == [1, 2]
    assert one.dry() == 0


def test_half_is_taken_from_who_would_finish_last() -> None:
    one = dispatcher(2, 0, call_s=0.01)
    one.workers[1].open(0, 21)
    assert one.steals(0.0) == [StealRequest(1, 0, 11)]
    assert one.workers[1].cells[0].stop == 11


def test_all_is_taken_from_who_is_stuck_while_another_is_dry() -> None:
    one = dispatcher(2, 0, call_s=1e-5)
    one.workers[1].open(0, 3)
    assert one.steals(0.0) == []  # it is done sooner than moved
    assert one.stuck_at_s() == STUCK_S
    assert one.steals(STUCK_S) == [StealRequest(1, 0, 1)]


def test_who_is_stuck_keeps_nothing_for_ever_though_nobody_is_dry() -> None:
    one = dispatcher(1, 0, call_s=1e-5)
    one.workers[1].open(0, 3)
    assert one.stuck_at_s() == RESCUE_S
    assert one.steals(RESCUE_S / 2) == []
    assert one.steals(RESCUE_S) == [StealRequest(1, 0, 1)]


def test_while_inputs_wait_workers_are_looked_at_now_and_then() -> None:
    one = dispatcher(1, 9, call_s=1e-5)
    one.workers[1].open(100, 103)
    assert one.steals(RESCUE_S) == [StealRequest(1, 0, 101)]
    one.workers[1].cells[0].stop = 103
    assert one.steals(RESCUE_S) == []
    assert one.stuck_at_s() == RESCUE_S + LOOK_S


def test_what_a_worker_gives_back_is_queued_and_its_duration_is_learnt() -> None:
    one = dispatcher(1, 0)
    one.workers[1].open(0, 10)
    one.take(
        one.workers[1], CellReport(0, 0, 4, seconds=0.4, frames=[b"r"], stop=4, is_over=True), 1.0
    )
    assert list(one.queue.ranges) == [(4, 10)]
    assert (one.call_s, one.workers[1].heard_s, one.busy()) == (0.1, 1.0, 0)


def test_one_call_that_ran_at_a_death_is_to_blame_and_several_are_run_with_care() -> None:
    one = dispatcher(2, 0)
    first, second = one.workers.values()
    first.open(0, 10)
    second.open(10, 20)
    assert one.bury(first, (3, 4)) == 3
    assert list(one.queue.ranges) == [(0, 3), (4, 10)]
    assert one.bury(second, (12, 15)) is None
    assert list(one.queue.ranges) == [(0, 3), (4, 20)]
    assert list(one.queue.careful) == [(12, 15)]
    one.check()
