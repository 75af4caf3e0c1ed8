"""When outcomes and output go to the scheduler, and who waits for whom, as conversations."""

import pytest
from opening import JOB, LEASE
from outcomes import runs_of
from worker_model import HandNode, assign, ran

from burla.nodelet.core.reporting import PROMPT_S, patience_s
from burla.protocol import messages as m

UNKNOWN = (0, 0)  # of which inputs it is


def test_outcomes_are_gathered_for_the_report_interval() -> None:
    node = HandNode()
    node.serve(report_s=0.1)
    node.hear(*assign((0, 100), left=1000))
    node.load()
    node.said()
    for _ in range(5):
        node.run(seconds=0.006)
    assert node.outcomes() == []
    node.pass_time(0.05)
    (message,) = node.outcomes()
    assert len(runs_of(message.runs)) == 10
    assert message.call_s == pytest.approx(0.006)


def test_a_slot_that_runs_dry_is_reported_at_once() -> None:
    node = HandNode()
    node.serve(report_s=PROMPT_S)
    node.hear(*assign((0, 2)))
    node.load()
    one, two = node.workers.values()
    node.claim(one)
    node.claim(two)
    node.said()
    node.finish(one)
    (message,) = node.outcomes()
    assert message.seq == 1
    node.finish(two)
    (message,) = node.outcomes()
    assert message.seq == 2


def test_with_many_nodes_dry_slots_are_told_together() -> None:
    node = HandNode()
    node.serve(report_s=10)
    node.hear(*assign((0, 2)))
    node.load()
    for worker in node.workers.values():
        node.claim(worker)
    node.said()
    one, two = node.workers.values()
    node.finish(one)
    assert len(node.outcomes()) == 1
    node.finish(two)
    assert node.outcomes() == []
    node.pass_time(patience_s(10))
    (message,) = node.outcomes()
    assert message.seq == 2


def test_a_full_window_stops_the_workers_until_it_is_acknowledged() -> None:
    node = HandNode()
    node.serve(slots=1, outcome_window=1000)
    node.hear(*assign((0, 5)))
    node.load()
    (worker,) = node.workers.values()
    for size in (600, 600):
        node.claim(worker)
        node.finish(worker, 0.1, (b"x" * size,))
        node.pass_time(0.1)
    assert node.paused
    assert ran(node.outcomes()) == [(0, 1), (1, 2)]
    assert node.claim(worker) is None
    node.hear(m.AckOutcomes(LEASE, 1))
    assert not node.paused
    node.finish_all()
    assert ran(node.outcomes())[-1] == (4, 5)


def test_the_last_words_of_a_dead_worker_go_before_what_others_say_then() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 2)))
    node.load()
    one, two = node.workers.values()
    node.claim(one)
    node.said()
    node.print(one.number, 1, b"half a line")
    node.kill(one.number)
    node.print(two.number, 1, b"later\n")
    node.pass_time(0.03)
    (said,) = [one for one in node.said() if isinstance(one, m.Output)]
    assert node.payload[id(said)] == [b"half a line", b"later\n"]


def test_output_goes_ahead_of_the_outcomes_that_it_belongs_to() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 1)))
    node.load()
    node.said()
    (worker,) = node.workers.values()
    node.claim(worker)
    node.print(worker.number, 1, b"hel")
    node.print(worker.number, 1, b"lo\n")
    node.print(worker.number, 2, b"oh\n")
    node.finish(worker)
    output, outcome = node.said()
    assert output == m.Output(LEASE, 1, (1, 2), inputs=(UNKNOWN, UNKNOWN))
    assert node.payload[id(output)] == [b"hello\n", b"oh\n"]
    assert isinstance(outcome, m.Outcomes)
    assert outcome.output == 2


def test_output_of_a_running_call_goes_soon() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 1)))
    node.load()
    node.said()
    node.print(1, 1, b"x")
    node.pass_time(0.06)
    assert node.said() == [m.Output(LEASE, 1, (1,), inputs=(UNKNOWN,))]


def test_the_beginning_of_a_line_waits_for_its_rest() -> None:
    node = HandNode()
    node.serve()
    node.said()
    node.print(1, 1, b"one\ntw")
    node.print(2, 1, b"three\n")
    node.print(1, 1, b"o\n")
    node.pass_time(0.03)
    (said,) = node.said()
    assert node.payload[id(said)] == [b"one\n", b"three\n", b"two\n"]
    node.print(1, 1, b"> ")
    node.pass_time(0.03)
    assert node.said() == []
    node.pass_time(0.03)
    (said,) = node.said()
    assert node.payload[id(said)] == [b"> "]


def test_the_beginning_of_a_line_goes_ahead_of_its_outcome() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 1)))
    node.load()
    node.said()
    (worker,) = node.workers.values()
    node.claim(worker)
    node.print(worker.number, 1, b"> ")
    node.print(99, 1, b"of another")
    node.finish(worker)
    output, outcome = node.said()
    assert node.payload[id(output)] == [b"> "]
    assert isinstance(outcome, m.Outcomes)


def test_missed_output_is_replayed_until_it_is_acknowledged() -> None:
    node = HandNode()
    node.serve()
    for number in range(4):
        node.print(1, 1 + number % 2, b"%d\n" % number)
    node.pass_time(0.05)
    node.said()
    node.hear(m.ReplayOutput(JOB, LEASE, 2))
    assert node.said() == [m.Output(LEASE, 3, (1, 2), replay=True, inputs=(UNKNOWN, UNKNOWN))]
    node.hear(m.AckOutput(LEASE, 3))
    node.hear(m.ReplayOutput(JOB, LEASE, 0))
    assert node.said() == [m.Output(LEASE, 4, (2,), replay=True, inputs=(UNKNOWN,))]


def test_much_output_stops_the_workers_and_none_is_lost() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 1)))
    node.load()
    (worker,) = node.workers.values()
    node.claim(worker)
    node.said()
    while not node.paused:
        node.print(worker.number, 1, b"x" * 100_000)
    node.print(worker.number, 2, b"end")
    node.pass_time(1)
    node.finish(worker)
    assert node.outcomes() == []  # its output has no room yet
    node.hear(m.AckOutput(LEASE, 1000))  # never sent: changes nothing
    assert node.paused
    lease = node.core.leases[LEASE]
    node.hear(m.AckOutput(LEASE, lease.report.output.number))
    assert not node.paused
    *_, outcome = node.said()
    assert isinstance(outcome, m.Outcomes)
    assert outcome.output == lease.report.output.number
