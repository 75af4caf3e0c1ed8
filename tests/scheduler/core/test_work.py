"""Where every index of a job is, in any order of what happens to it."""

import pytest
from cluster_model import ident

from burla.protocol import messages as m
from burla.protocol.ranges import Range
from burla.scheduler.core.batch import Batch
from burla.scheduler.core.lease import Lease
from burla.scheduler.core.quotas import Charge, Usage
from burla.scheduler.core.work import Work

LEAF = 4  # inputs


def batch(number: int, start: int, stop: int) -> Batch:
    leaves = tuple(m.Leaf(number, at, min(LEAF, stop - at), 1) for at in range(start, stop, LEAF))
    said = m.Inputs(job=bytes(16), batch=number, start=start, leaves=leaves)
    return Batch.from_inputs(said, [b"%d" % leaf.start for leaf in leaves])


def work_of(*batches: Batch, done: tuple[Range, ...] = (), resumed: bool = False) -> Work:
    work = Work(Charge(Usage()), done, resumed=resumed)
    for each in batches:
        work.enter(each)
    work.check()
    return work


def lease_of(work: Work, number: int = 1, slots: int = 2) -> Lease:
    lease = Lease(ident(number), ident(90), ident(91), slots)
    work.add_lease(lease)
    return lease


def test_who_is_assigned_some_hears_of_inputs_that_are_to_come() -> None:
    work = work_of(batch(0, 0, 8))
    work.coming = 100
    message, _ = work.assign(lease_of(work), 3, 0.02)
    assert message.left == 5 + 100
    work.coming = m.NUMBER_MAX  # as somebody may say who is up to no good
    assert work.assign(lease_of(work, 2), 3, 0.02)[0].left == m.NUMBER_MAX


def test_what_is_assigned_comes_with_its_leaves_once() -> None:
    work = work_of(batch(0, 0, 8))
    lease = lease_of(work)
    first = work.assign(lease, 3, 0.02)
    assert first == (
        m.Assign(
            lease=ident(1),
            left=5,
            spans=(m.Span(0, 0, 3),),
            leaves=(m.Leaf(0, 0, 4, 1),),
            forget=(),
            report_s=0.02,
        ),
        [b"0"],
    )
    message, payload = work.assign(lease, 3, 0.02)
    assert (message.spans, message.leaves) == ((m.Span(0, 3, 6),), (m.Leaf(0, 4, 4, 1),))
    assert payload == [b"4"]
    work.check()


def test_spans_end_where_batches_do() -> None:
    work = work_of(batch(0, 0, 4), batch(1, 4, 9))
    message, _ = work.assign(lease_of(work), 9, 0.0)
    assert message.spans == (m.Span(0, 0, 4), m.Span(1, 4, 9))


def test_a_batch_that_is_done_is_dropped_and_named_to_those_who_have_it() -> None:
    work = work_of(batch(0, 0, 4), batch(1, 4, 8))
    lease = lease_of(work)
    work.assign(lease, 4, 0.0)
    work.finish(lease, 0, 4)
    assert list(work.batches.kept) == [1]
    message, _ = work.assign(lease, 4, 0.0)
    assert message.forget == (0,)
    work.check()


def test_what_is_given_back_is_assigned_again_to_anyone() -> None:
    work = work_of(batch(0, 0, 4))
    first, second = lease_of(work, 1), lease_of(work, 2)
    work.assign(first, 4, 0.0)
    work.give_back(first, 2, 9)
    work.check()
    message, payload = work.assign(second, 4, 0.0)
    assert (message.spans, payload) == ((m.Span(0, 2, 4),), [b"0"])
    assert (work.held, work.unstarted, work.empty) == (4, 0, 0)


def test_a_late_outcome_is_taken_from_whoever_has_its_input_now() -> None:
    work = work_of(batch(0, 0, 4))
    first, second = lease_of(work, 1), lease_of(work, 2)
    work.assign(first, 2, 0.0)
    work.drop_lease(first)
    work.assign(second, 1, 0.0)
    work.finish(None, 0, 2)  # from the first, which has ended
    assert (list(work.done), list(work.pending), list(second.held)) == ([(0, 2)], [(2, 4)], [])
    work.finish(second, 0, 2)  # repeated
    assert work.done.total == 2
    work.check()


def test_outcomes_of_what_was_never_sent_change_nothing() -> None:
    work = work_of(batch(0, 0, 4))
    work.finish(None, 0, 1 << 40)
    assert list(work.done) == [(0, 4)]
    work.check()


def test_a_client_that_lacks_outcomes_waits_for_them_and_then_they_are_run_again() -> None:
    work = work_of(batch(0, 0, 4))
    work.finish(None, 0, 2)
    work.undo(((0, 1),))
    assert (list(work.done), list(work.limbo), list(work.pending)) == ([(0, 1)], [(1, 2)], [(2, 4)])
    work.check()
    work.release_limbo()
    assert (list(work.limbo), list(work.pending)) == ([], [(1, 4)])
    work.check()


def test_a_resumed_job_is_adopted_before_its_batches_come() -> None:
    work = work_of(resumed=True)
    lease = lease_of(work)
    work.adopt(lease, 2, 4)
    work.enter(batch(0, 0, 8))
    assert (list(lease.held), list(work.pending)) == ([(2, 4)], [(0, 2), (4, 8)])
    work.check()


def test_one_index_is_on_one_lease_whoever_claims_it() -> None:
    work = work_of(batch(0, 0, 4))
    first, second = lease_of(work, 1), lease_of(work, 2)
    work.adopt(first, 0, 3)
    work.adopt(second, 2, 4)
    assert (list(first.held), list(second.held)) == ([(0, 2)], [(2, 4)])
    work.check()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (batch(1, 5, 8), "starts at 5, not 4"),
        (batch(0, 4, 8), "batch 0 comes after batch 0"),
        (batch(0, 0, 3), "not the one"),
        (batch(1, 0, 4), "not the one"),
        (batch(0, 1, 4), "not the one"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_and_changes_nothing(wrong: Batch, why: str) -> None:
    work = work_of(batch(0, 0, 4))
    with pytest.raises(ValueError, match=why):
        work.enter(wrong)
    assert (work.batches.entered, list(work.pending)) == (4, [(0, 4)])
    work.check()


def test_leases_with_room_are_counted_along() -> None:
    work = work_of(batch(0, 0, 8))
    lease = lease_of(work, slots=3)
    assert (work.slots, work.empty, list(work.idle)) == (3, 1, [lease.id])
    work.assign(lease, 5, 0.0)
    assert (work.held, work.unstarted, work.empty, list(work.idle)) == (5, 2, 0, [])
    work.drop_lease(lease)
    assert (work.held, work.unstarted, work.slots, work.pending.total) == (0, 0, 0, 8)
    work.check()


def test_a_batch_before_one_that_was_never_sent_may_come_again() -> None:
    """A client that goes on does not send what was done; its outcomes before may be lost later."""
    work = work_of(batch(0, 0, 8), batch(2, 12, 20), done=((8, 12),), resumed=True)
    lease = lease_of(work)
    work.assign(lease, 8, 0.02)
    work.finish(lease, 0, 8)
    work.undo(((8, 12),))
    work.enter(batch(0, 0, 8))
    work.check()
    work.release_limbo()
    assert list(work.pending) == [(0, 8), (12, 20)]
    work.check()
