"""What is taken back from workers, for whom, and in which order."""

import pytest

from burla.nodelet.core.cells import BrokenWorkerError, Worker
from burla.nodelet.core.custody import Custody
from burla.nodelet.core.effects import Effect, Send, Steal
from burla.nodelet.core.events import Stolen
from burla.nodelet.core.steals import Steals
from burla.protocol.messages import Assign, Leaf, Retract, Retracted, Span
from burla.protocol.ranges import Ranges

LEASE = b"L" * 16


def custody() -> Custody:
    """Return one worker with [0, 10) and [10, 20), and a queue with [20, 30)."""
    one = Custody(2)
    message = Assign(
        lease=LEASE, left=0, spans=(Span(0, 0, 30),), leaves=(Leaf(0, 0, 30, 1),), forget=()
    )
    one.add_leaves(message, [b"leaf"])
    one.assign(message.spans, Ranges())
    worker = one.dispatcher.workers[1] = Worker(1, 0.0)
    for lo in (0, 10):
        one.queue.take(10)
        worker.open(lo, lo + 10)
    one.check(Ranges())
    return one


def returned(*spans: Span) -> Send:
    return Send(Retracted(LEASE, spans))


def test_the_scheduler_gets_the_end_of_the_queue_first() -> None:
    effects: list[Effect] = []
    steals = Steals(LEASE, custody(), effects)
    steals.retract(Retract(LEASE, 4))
    steals.retract(Retract(LEASE, 4))
    assert steals.settle()
    assert effects == [returned(Span(0, 26, 30)), returned(Span(0, 22, 26))]


def test_then_the_ends_of_the_workers_spans_and_one_retract_after_the_other() -> None:
    effects: list[Effect] = []
    one = custody()
    steals = Steals(LEASE, one, effects)
    steals.retract(Retract(LEASE, 25))
    steals.retract(Retract(LEASE, 1))
    assert not steals.settle()
    assert effects == [Steal(1, 1, 10), Steal(1, 0, 5)]
    effects.clear()
    steals.answer(Stolen(1, 1, 10, 20))
    assert effects == []
    steals.answer(Stolen(1, 0, 7, 10))  # [5, 7) was claimed
    assert effects == [returned(Span(0, 7, 30))]
    effects.clear()
    assert not steals.settle()
    assert effects == [Steal(1, 0, 4)]
    one.check(Ranges())


def test_what_is_taken_for_others_is_queued() -> None:
    effects: list[Effect] = []
    one = custody()
    one.queue.clear()
    one.open.remove(20, 30)
    one.dispatcher.call_s = 0.01
    steals = Steals(LEASE, one, effects)
    steals.balance(0.0)
    assert effects == [Steal(1, 1, 10)]
    steals.answer(Stolen(1, 1, 10, 20))
    assert list(one.queue.ranges) == [(10, 20)]
    one.check(Ranges())


def test_whose_slate_lies_keeps_what_it_has_until_it_is_dead() -> None:
    effects: list[Effect] = []
    one = custody()
    steals = Steals(LEASE, one, effects)
    steals.retract(Retract(LEASE, 15))
    assert not steals.settle()
    effects.clear()
    with pytest.raises(BrokenWorkerError):
        steals.answer(Stolen(1, 1, 3, 17))
    assert effects == [returned(Span(0, 20, 30))]
    one.check(Ranges())


def test_a_lease_that_is_over_gives_nothing() -> None:
    effects: list[Effect] = []
    steals = Steals(LEASE, custody(), effects)
    steals.retract(Retract(LEASE, 5))
    steals.refuse()
    assert effects == [returned()]
    assert steals.settle()
