"""How much a lease gets, and who gives some back: pure policy."""

import pytest
from cluster_model import ident

from burla.protocol import messages as m
from burla.scheduler.core.allocation import (
    ASSIGN_BYTES_MAX,
    LEASE_BYTES,
    REPORT_MAX_S,
    REPORT_MIN_S,
    in_one_message,
    is_hungry,
    portion,
    report_s,
    to_retract,
)
from burla.scheduler.core.batch import Batch
from burla.scheduler.core.lease import Lease
from burla.scheduler.core.quotas import Charge, Usage
from burla.scheduler.core.work import Work


def work_of(inputs: int, leases: int, slots: int = 2, size: int = 1) -> tuple[Work, list[Lease]]:
    """Return a job with inputs of `size` bytes, all pending, and leases that hold nothing."""
    work = Work(Charge(Usage()), (), resumed=False)
    if inputs:
        leaf = m.Leaf(0, 0, inputs, 1)
        said = m.Inputs(job=bytes(16), batch=0, start=0, leaves=(leaf,))
        work.enter(Batch.from_inputs(said, [bytes(size * inputs)]))
    made = [Lease(ident(number), ident(90), ident(91), slots) for number in range(leases)]
    for lease in made:
        work.add_lease(lease)
    return work, made


def hold(work: Work, lease: Lease, count: int, call_s: float = 0.0) -> None:
    work.assign(lease, count, 0.0)
    lease.call_s = call_s


@pytest.mark.parametrize(
    ("nodes", "seconds"), [(1, REPORT_MIN_S), (40, 0.1), (10_000, REPORT_MAX_S)]
)
def test_many_nodes_report_more_seldom(nodes: int, seconds: float) -> None:
    assert report_s(nodes) == seconds


def test_the_only_lease_gets_all_there_is() -> None:
    work, (lease,) = work_of(1000, 1)
    assert portion(work, lease) == 1000


def test_four_inputs_go_to_four_leases_one_each() -> None:
    work, leases = work_of(4, 4, slots=32)
    for lease in leases:
        assert portion(work, lease) == 1
        hold(work, lease, 1)


def test_who_runs_short_calls_gets_enough_for_two_reports() -> None:
    work, (lease, _) = work_of(100_000, 2)
    hold(work, lease, 2, call_s=0.001)
    assert portion(work, lease) == 2 * 2 * REPORT_MIN_S / 0.001
    lease.call_s = 10.0
    assert portion(work, lease) == 1  # one call ahead


def test_near_the_end_nobody_gets_more_than_half_of_a_fair_share() -> None:
    work, (first, second) = work_of(104, 2)
    hold(work, first, 2, call_s=0.0001)
    hold(work, second, 2, call_s=0.0001)
    assert portion(work, first) == 25


def test_big_inputs_are_held_by_bytes_but_each_slot_has_one() -> None:
    work, (lease,) = work_of(4, 1, slots=2, size=LEASE_BYTES)
    assert portion(work, lease) == 2
    hold(work, lease, 2)
    assert portion(work, lease) == 0


def test_inputs_that_are_large_together_go_with_several_messages() -> None:
    work, _ = work_of(0, 1)
    large = bytes(ASSIGN_BYTES_MAX // 2 - 9)
    for number in range(5):
        leaf = m.Leaf(number, number, 1, 1)
        said = m.Inputs(job=bytes(16), batch=number, start=number, leaves=(leaf,))
        work.enter(Batch.from_inputs(said, [large if number < 4 else bytes(2 * len(large) + 99)]))
    parts = []
    while work.pending:
        parts.append(in_one_message(work, work.pending.total))
        work.pending.pop_front(parts[-1])
    assert parts == [2, 2, 1]


def test_a_lease_is_hungry_while_it_holds_less_than_it_should() -> None:
    work, (lease, _) = work_of(3, 2, slots=1)
    hold(work, lease, 1)
    assert is_hungry(work, lease)  # its second call ahead
    hold(work, lease, 1)
    assert not is_hungry(work, lease)


def test_who_would_finish_last_gives_the_idle_ones_their_share() -> None:
    work, (quick, slow, _idle) = work_of(20, 3, slots=2)
    hold(work, quick, 10, call_s=0.1)
    hold(work, slow, 10, call_s=1.0)
    assert to_retract(work) == (slow, 4)  # half of the eight that wait, for two slots and two
    slow.is_retracting = True
    assert to_retract(work) == (quick, 4)
    quick.had_nothing = True
    assert to_retract(work) is None


def test_nobody_gives_what_is_done_sooner_than_it_could_be_moved() -> None:
    work, (busy, _idle) = work_of(10, 2, slots=2)
    hold(work, busy, 10, call_s=0.0001)
    assert to_retract(work) is None


def test_nobody_gives_where_no_slot_is_idle_or_nothing_waits() -> None:
    work, (only,) = work_of(10, 1, slots=2)
    hold(work, only, 10, call_s=1.0)
    assert to_retract(work) is None
    work, (busy, _idle) = work_of(2, 2, slots=2)
    hold(work, busy, 2, call_s=1.0)
    assert to_retract(work) is None
