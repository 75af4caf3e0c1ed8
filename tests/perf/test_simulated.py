"""The simulated nodelet: its calls end by the clock, each is told of once, and slots stay busy."""

import os
import subprocess

import pytest
from opening import JOB, LEASE, start_lease

from burla.nodelet.core.reporting import patience_s
from burla.protocol import messages as m
from burla.protocol.ranges import Ranges
from perf.balance import orders
from perf.processes import (
    alive,
    cpu_s,
    descendants,
    peak_bytes,
    pss_bytes,
    ran_s,
    rss_bytes,
    threads_s,
)
from perf.shares import fair_s
from perf.simulated import SimulatedNode, done_in, outcomes

REPORT_S = 0.25


def leased(slots: int, call_s: float) -> SimulatedNode:
    node = SimulatedNode(slots, call_s)
    node.begin(start_lease(slots, report_s=REPORT_S))
    return node


def told(node: SimulatedNode, now_s: float) -> list[tuple[int, int]]:
    """Return the ranges that the client would learn of, were it told at `now_s`."""
    done = Ranges()
    for said, _ in node.report(now_s):
        as_passed_on = m.JobOutcomes(
            job=JOB, lease=LEASE, seq=said.seq, node="n", runs=said.runs, output=said.output
        )
        for lo, hi in done_in(as_passed_on):
            assert done.add(lo, hi) == hi - lo
    return list(done)


def test_calls_end_by_the_clock_and_the_next_begin_at_the_same_moment() -> None:
    node = leased(2, 1.0)
    node.assign([m.Span(0, 0, 5)], 0.0, 0.0)
    assert node.busy_until(0.5) == pytest.approx(1.0)
    assert node.busy_until(2.5) == pytest.approx(4.5)  # looked at late: nothing was idle
    assert node.busy_until(9.0) == pytest.approx(5.0)


def test_outcomes_are_gathered_and_go_at_once_when_a_slot_runs_dry() -> None:
    node = leased(2, 0.1)
    node.assign([m.Span(0, 0, 8)], 0.0, 0.0)
    assert told(node, 0.1) == []
    assert node.wake_s() <= 0.1 + REPORT_S
    assert told(node, 0.1 + REPORT_S) == [(0, 6)]
    assert told(node, 0.4) == []  # soon after the last report a dry slot waits
    prompt_s = 0.1 + REPORT_S + patience_s(REPORT_S)
    assert node.wake_s() == pytest.approx(prompt_s)
    assert told(node, prompt_s) == [(6, 8)]
    assert node.wake_s() == float("inf")


def test_what_is_not_begun_can_be_taken_back_from_the_end() -> None:
    node = leased(2, 1.0)
    node.assign([m.Span(0, 0, 4), m.Span(1, 4, 8)], 0.0, 0.0)
    assert node.retract(5, 0.5) == [m.Span(1, 4, 8), m.Span(0, 3, 4)]
    assert node.retract(5, 0.5) == [m.Span(0, 2, 3)]
    assert node.retract(5, 0.5) == []
    assert told(node, 1.0) == [(0, 2)]


def test_what_one_end_says_of_outcomes_the_other_reads() -> None:
    said, payload = outcomes(LEASE, 1, Ranges([(3, 7), (9, 10)]), 0.05)
    assert payload
    as_passed_on = m.JobOutcomes(
        job=JOB, lease=LEASE, seq=1, node="n", runs=said.runs, output=said.output
    )
    assert list(done_in(as_passed_on)) == [(3, 7), (9, 10)]


def test_a_fair_split_gives_half_to_each_while_there_are_two() -> None:
    first_s, second_s = fair_s(calls=160, later_s=0.5, slots=16)  # 1 s of work each
    assert (first_s, second_s) == (1.5, 1.5)
    assert fair_s(calls=160, later_s=2.0, slots=16) == (1.0, 1.0)


def test_the_same_calls_come_in_every_order() -> None:
    longest_last, *others = orders(100).values()
    assert all(sorted(order) == sorted(longest_last) for order in others)
    assert len({tuple(order) for order in orders(100).values()}) == 4


def test_this_process_has_a_size_and_a_clock() -> None:
    pid = os.getpid()
    assert descendants(pid)[0] == pid
    assert alive([pid]) == [pid]
    assert 0 < pss_bytes(pid) <= rss_bytes(pid) <= peak_bytes(pid)
    assert cpu_s(pid) > 0
    assert ran_s(pid) > 0
    assert pid in threads_s(pid)


def test_a_process_that_has_ended_has_neither() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert alive([process.pid]) == []
    assert (cpu_s(process.pid), pss_bytes(process.pid)) == (0.0, 0)
