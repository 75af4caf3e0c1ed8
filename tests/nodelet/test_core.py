"""The nodelet's core, as conversations with a scheduler and workers."""

import msgpack
import pytest
from worker_model import JOB, LEASE, SCHEDULER, ModelNode, deal, hello, start_lease

from burla.nodelet import effects as e
from burla.nodelet.core import SILENCE_S, Nodelet
from burla.wire import messages as m
from burla.wire.messages import Kind, Run, Span

OTHER = b"O" * 16


def outcomes(node: ModelNode) -> list[m.Outcomes]:
    return [message for message in node.said() if isinstance(message, m.Outcomes)]


def ran(messages: list[m.Outcomes]) -> list[tuple[int, int]]:
    return [(run.lo, run.hi) for message in messages for run in message.runs]


def dealt(node: ModelNode) -> list[tuple[int, int]]:
    return [(x.span.lo, x.span.hi) for x in node.effects if isinstance(x, e.DealSpan)]


# --- connection ---


def test_a_nodelet_says_hello_first_and_keeps_blanks() -> None:
    node = Nodelet(hello(cpus=3))
    assert node.start(0.0) == [e.KeepBlanks(3), e.Send(hello(cpus=3))]


def test_it_beats_each_second() -> None:
    node = ModelNode()
    node.pass_time(3.5)
    assert sum(isinstance(message, m.Beat) for message in node.sent) == 3


def test_asked_to_introduce_itself_it_says_what_it_holds_once() -> None:
    node = ModelNode()
    node.serve()
    node.hear(*deal((0, 4)))
    node.load()
    node.finish(next(w for w in node.workers.values() if node.claim(w)))
    node.pass_time(0.1)
    node.said()
    node.now_s += 5
    for _ in range(3):
        node.hear(m.Introduce())
    (said,) = node.said()
    assert isinstance(said, m.NodeHello)
    held = m.Held(LEASE, JOB, 2, (Span(0, 0, 4),), False)
    assert said.held == (held,)
    node.hear(m.Welcome(SCHEDULER, "0", "pub"))
    assert ran(outcomes(node)) == [(0, 1)]  # again: it may be lost


def test_a_refusal_ends_the_nodelet() -> None:
    node = ModelNode()
    node.hear(m.Refused("another protocol"))
    assert e.Quit("another protocol") in node.effects


def test_a_silent_scheduler_loses_its_leases() -> None:
    node = ModelNode()
    node.serve()
    node.hear(*deal((0, 4)))
    node.load()
    node.pass_time(SILENCE_S + 3)
    assert node.ending
    node.end()
    assert node.core.leases == {}
    assert any("no word" in note for note in node.notes)


# --- dealing ---


def test_one_input_loads_one_worker() -> None:
    node = ModelNode(cpus=8)
    node.serve(slots=8)
    node.hear(*deal((0, 1)))
    node.finish_all()
    assert [x for x in node.effects if isinstance(x, e.AddWorkers)] == [e.AddWorkers(1)]
    assert ran(outcomes(node)) == [(0, 1)]


def test_as_many_workers_load_as_there_are_inputs_or_slots() -> None:
    node = ModelNode(cpus=8)
    node.serve(slots=4)
    node.hear(*deal((0, 3)))
    assert len(node.workers) == 3
    node.hear(*deal((3, 100)))
    assert len(node.workers) == 4


def test_two_inputs_run_at_the_same_time() -> None:
    node = ModelNode()
    node.serve()
    node.hear(*deal((0, 2)))
    node.load()
    assert [node.claim(worker) for worker in node.workers.values()] == [(0, 1), (1, 2)]


def test_long_calls_are_dealt_one_at_a_time_and_in_order() -> None:
    node = ModelNode()
    node.serve()
    node.hear(*deal((0, 8)))
    node.finish_all(seconds=0.5)
    assert dealt(node) == [(i, i + 1) for i in range(8)]


def test_a_million_tiny_calls_take_few_messages() -> None:
    node = ModelNode()
    node.serve()
    batches = [deal((lo, lo + 65536), batch=lo >> 16) for lo in range(0, 1 << 20, 65536)]
    for message in batches:
        node.hear(*message)
    node.load()
    while node.run(calls=8192, seconds=8192 * 60e-9):
        pass
    assert sum(hi - lo for lo, hi in ran(outcomes(node))) == 1 << 20
    assert len(dealt(node)) < 80


def test_a_dry_worker_takes_what_is_behind_a_stuck_call() -> None:
    node = ModelNode()
    node.serve()
    node.hear(*deal((0, 64)))
    node.load()
    stuck, quick = node.workers.values()
    for _ in range(8):  # calls are known to be short
        node.run(seconds=0.0001)
    assert node.claim(stuck)
    for _ in range(100):
        node.pass_time(0.01)
        if node.claim(quick):
            node.finish(quick, 0.0001)
    node.pass_time(1)
    assert sum(hi - lo for lo, hi in ran(outcomes(node))) == 63
    assert stuck.running is not None


def test_inputs_behind_a_stuck_call_go_back_even_if_nobody_is_dry() -> None:
    node = ModelNode()
    node.serve()
    node.hear(*deal((0, 100_000)))
    node.load()
    stuck, quick = node.workers.values()
    for _ in range(8):
        node.run(calls=10, seconds=1e-5)
    assert node.claim(stuck)
    first = stuck.running
    assert first is not None
    behind = sum(cell.hi - cell.pos for cell in stuck.cells)
    assert behind
    for _ in range(30):
        if node.claim(quick, 100):
            node.finish(quick, 0.01)
    assert sum(cell.hi - cell.pos for cell in stuck.cells) == 0


def test_what_is_shed_comes_from_the_end_and_was_not_begun() -> None:
    node = ModelNode()
    node.serve()
    node.hear(*deal((0, 10)))
    node.load()
    running = [node.claim(worker) for worker in node.workers.values()]
    assert running == [(0, 1), (1, 2)]
    node.said()
    node.hear(m.Shed(LEASE, 3))
    assert node.said() == [m.Returned(LEASE, (Span(0, 7, 10),))]
    node.hear(m.Shed(LEASE, 100))
    assert node.said() == [m.Returned(LEASE, (Span(0, 2, 7),))]
    node.hear(m.Shed(LEASE, 1))
    assert node.said() == [m.Returned(LEASE, ())]
    node.finish_all()
    assert sorted(ran(outcomes(node))) == [(0, 1), (1, 2)]


def test_what_is_shed_is_taken_from_workers_too() -> None:
    node = ModelNode()
    node.serve(slots=1)
    node.hear(*deal((0, 40)))
    node.load()
    (worker,) = node.workers.values()
    for _ in range(3):
        node.run(seconds=1e-4)
    node.claim(worker)
    done = worker.cells[0].pos
    assert sum(cell.hi - cell.pos for cell in worker.cells) > 0
    node.said()
    node.hear(m.Shed(LEASE, 1000))
    assert node.said() == [m.Returned(LEASE, (Span(0, done, 40),))]


def test_work_that_is_known_already_changes_nothing() -> None:
    node = ModelNode()
    node.serve()
    node.hear(*deal((0, 4)))
    node.hear(*deal((0, 4)))
    node.finish_all()
    node.hear(*deal((0, 4)))  # the outcomes are not acknowledged
    node.finish_all()
    assert sorted(ran(outcomes(node))) == [(0, 1), (1, 2), (2, 3), (3, 4)]


@pytest.mark.parametrize(
    "message",
    [
        (m.Deal(lease=LEASE, left=0, spans=(Span(0, 0, 2),), leaves=(), forget=()), []),
        (m.Deal(lease=LEASE, left=0, spans=(Span(0, 4, 4),), leaves=(), forget=()), []),
        (deal((0, 2))[0], []),
        (m.Shed(b"?" * 16, 5), []),
        (m.AckOutcomes(LEASE, 77), []),
        (m.AckOutput(LEASE, 77), []),
        (m.ReplayOutput(LEASE, 77), []),
    ],
)
def test_nonsense_is_ignored(message: tuple[m.Message, list[bytes]]) -> None:
    node = ModelNode()
    node.serve()
    node.said()
    node.hear(*message)
    assert node.said() == []
    node.hear(*deal((10, 11)))
    node.finish_all()
    assert ran(outcomes(node)) == [(10, 11)]


# --- deaths ---


def test_an_index_that_kills_three_workers_is_named() -> None:
    node = ModelNode()
    node.serve()
    node.hear(*deal((0, 3)))
    deaths = 0
    messages: list[m.Outcomes] = []
    while not any(run.kind is Kind.DEATH for message in messages for run in message.runs):
        node.load()
        for worker in list(node.workers.values()):
            if node.claim(worker) == (1, 2):
                deaths += 1
                node.kill(worker.number, ("exit", 7))
            elif worker.running:
                node.finish(worker)
        messages += outcomes(node)
        assert deaths <= 3
    assert deaths == 3
    last = messages[-1]
    assert last.runs[-1] == Run(1, 2, Kind.DEATH, 1)
    assert msgpack.unpackb(node.payload[id(last)][-1]) == ["exit", 7, 3]


def test_a_death_in_a_stride_of_several_blames_nobody() -> None:
    node = ModelNode()
    node.serve(slots=1)
    node.hear(*deal((0, 1000)))
    node.load()
    node.run(seconds=1e-5)
    for _ in range(4):
        node.load()
        (worker,) = node.workers.values()
        lo, hi = node.claim(worker, 10) or (0, 0)
        if hi - lo == 1:
            break  # they are run one by one now
        node.kill(worker.number)
    assert hi - lo == 1
    node.finish(worker)
    node.finish_all(calls=10)
    assert sorted(ran(outcomes(node)))[-1][1] == 1000


def test_outcomes_before_a_death_count() -> None:
    node = ModelNode()
    node.serve(slots=1)
    node.hear(*deal((0, 3)))
    node.load()
    node.run()
    (worker,) = node.workers.values()
    node.claim(worker)
    node.kill(worker.number)
    node.finish_all()
    assert sorted(ran(outcomes(node))) == [(0, 1), (1, 2), (2, 3)]


def test_a_function_that_cannot_be_loaded_is_an_error_of_the_first_input() -> None:
    node = ModelNode()
    node.serve()
    (worker,) = node.workers
    del node.workers[worker]
    node.do(node.core.load_failed(worker, [b"why"], 0.0))
    node.hear(*deal((5, 9)))
    (message,) = outcomes(node)
    assert message.runs == (Run(5, 6, Kind.ERROR, 1),)
    assert node.payload[id(message)] == [b"why"]
    assert dealt(node) == []


def test_a_function_that_kills_whoever_loads_it_is_an_error() -> None:
    node = ModelNode()
    node.serve()
    node.hear(*deal((0, 1)))
    for _ in range(3):
        node.kill(next(iter(node.workers)), ("exit", 1))
    (message,) = outcomes(node)
    assert message.runs == (Run(0, 1, Kind.DEATH, 1),)


def test_copies_that_die_at_once_are_not_made_again_and_blame_nobody() -> None:
    node = ModelNode()
    node.serve()
    node.hear(*deal((0, 2)))
    for _ in range(5):
        node.load(is_copy=True)
        worker = next(iter(node.workers.values()))
        node.claim(worker)
        node.kill(worker.number, ("signal", 11))
    assert e.DropTemplate() in node.effects
    node.finish_all()
    assert sorted(ran(outcomes(node))) == [(0, 1), (1, 2)]


# --- reports, windows, output ---


def test_outcomes_are_gathered_for_the_report_interval() -> None:
    node = ModelNode()
    node.serve(report_s=0.1)
    node.hear(*deal((0, 100), left=1000))
    node.load()
    node.said()
    for _ in range(5):
        node.run(seconds=0.006)
    assert outcomes(node) == []
    node.pass_time(0.05)
    (message,) = outcomes(node)
    assert len(message.runs) == 10
    assert message.dry == 0
    assert message.call_s == pytest.approx(0.006)


def test_a_slot_that_runs_dry_is_reported_at_once() -> None:
    node = ModelNode()
    node.serve(report_s=10)
    node.hear(*deal((0, 2)))
    node.load()
    one, two = node.workers.values()
    node.claim(one)
    node.claim(two)
    node.said()
    node.finish(one)
    (message,) = outcomes(node)
    assert (message.seq, message.dry) == (1, 1)
    node.finish(two)
    (message,) = outcomes(node)
    assert (message.seq, message.dry) == (2, 2)


def test_a_full_window_stops_the_workers_until_it_is_acknowledged() -> None:
    node = ModelNode()
    node.serve(slots=1, window=1000)
    node.hear(*deal((0, 5)))
    node.load()
    (worker,) = node.workers.values()
    for size in (600, 600):
        node.claim(worker)
        node.finish(worker, 0.1, (b"x" * size,))
        node.pass_time(0.1)
    assert node.paused
    assert ran(outcomes(node)) == [(0, 1), (1, 2)]
    assert node.claim(worker) is None
    node.hear(m.AckOutcomes(LEASE, 1))
    assert not node.paused
    node.finish_all()
    assert ran(outcomes(node))[-1] == (4, 5)


def test_output_goes_ahead_of_the_outcomes_that_it_belongs_to() -> None:
    node = ModelNode()
    node.serve()
    node.hear(*deal((0, 1)))
    node.load()
    node.said()
    (worker,) = node.workers.values()
    node.claim(worker)
    node.do(node.core.printed(worker.number, 1, b"hel", node.now_s))
    node.do(node.core.printed(worker.number, 1, b"lo\n", node.now_s))
    node.do(node.core.printed(worker.number, 2, b"oh\n", node.now_s))
    node.finish(worker)
    output, outcome = node.said()
    assert output == m.Output(LEASE, 1, (1, 2))
    assert node.payload[id(output)] == [b"hello\n", b"oh\n"]
    assert isinstance(outcome, m.Outcomes)
    assert outcome.output == 2


def test_output_of_a_running_call_goes_soon() -> None:
    node = ModelNode()
    node.serve()
    node.hear(*deal((0, 1)))
    node.load()
    node.said()
    node.do(node.core.printed(1, 1, b"x", node.now_s))
    node.pass_time(0.06)
    assert node.said() == [m.Output(LEASE, 1, (1,))]


def test_the_beginning_of_a_line_waits_for_its_rest() -> None:
    node = ModelNode()
    node.serve()
    node.said()
    node.do(node.core.printed(1, 1, b"one\ntw", node.now_s))
    node.do(node.core.printed(2, 1, b"three\n", node.now_s))
    node.do(node.core.printed(1, 1, b"o\n", node.now_s))
    node.pass_time(0.03)
    (said,) = node.said()
    assert node.payload[id(said)] == [b"one\n", b"three\n", b"two\n"]
    node.do(node.core.printed(1, 1, b"> ", node.now_s))
    node.pass_time(0.03)
    assert node.said() == []
    node.pass_time(0.03)
    (said,) = node.said()
    assert node.payload[id(said)] == [b"> "]


def test_the_beginning_of_a_line_goes_ahead_of_its_outcome() -> None:
    node = ModelNode()
    node.serve()
    node.hear(*deal((0, 1)))
    node.load()
    node.said()
    (worker,) = node.workers.values()
    node.claim(worker)
    node.do(node.core.printed(worker.number, 1, b"> ", node.now_s))
    node.do(node.core.printed(99, 1, b"of another", node.now_s))
    node.finish(worker)
    output, outcome = node.said()
    assert node.payload[id(output)] == [b"> "]
    assert isinstance(outcome, m.Outcomes)


def test_missed_output_is_replayed_until_it_is_acknowledged() -> None:
    node = ModelNode()
    node.serve()
    for number in range(4):
        node.do(node.core.printed(1, 1 + number % 2, b"%d\n" % number, node.now_s))
    node.pass_time(0.05)
    node.said()
    node.hear(m.ReplayOutput(LEASE, 2))
    assert node.said() == [m.Output(LEASE, 3, (1, 2), replay=True)]
    node.hear(m.AckOutput(LEASE, 3))
    node.hear(m.ReplayOutput(LEASE, 0))
    assert node.said() == [m.Output(LEASE, 4, (2,), replay=True)]


def test_much_output_stops_the_workers_and_none_is_lost() -> None:
    node = ModelNode()
    node.serve()
    node.hear(*deal((0, 1)))
    node.load()
    (worker,) = node.workers.values()
    node.claim(worker)
    node.said()
    while not node.paused:
        node.do(node.core.printed(worker.number, 1, b"x" * 100_000, node.now_s))
    node.do(node.core.printed(worker.number, 2, b"end", node.now_s))
    node.pass_time(1)
    node.finish(worker)
    assert outcomes(node) == []  # its output has no room yet
    node.hear(m.AckOutput(LEASE, 1000))  # never sent: changes nothing
    assert node.paused
    lease = node.core.leases[LEASE]
    node.hear(m.AckOutput(LEASE, lease.report.output.number))
    assert not node.paused
    *_, outcome = node.said()
    assert isinstance(outcome, m.Outcomes)
    assert outcome.output == lease.report.output.number


# --- the end of a lease ---


def test_an_idle_lease_ends_at_once() -> None:
    node = ModelNode()
    node.serve()
    node.hear(*deal((0, 2)))
    node.finish_all()
    node.said()
    node.hear(m.EndLease(LEASE, True))
    assert node.ending
    assert node.said() == []
    node.end()
    assert node.said() == [m.Stopped(LEASE)]
    assert node.core.leases == {}


def test_a_running_call_is_interrupted_and_then_killed() -> None:
    node = ModelNode()
    node.serve()
    node.hear(*deal((0, 100)))
    node.load()
    workers = list(node.workers.values())
    for worker in workers:
        node.claim(worker)
    node.hear(m.EndLease(LEASE, True))
    assert all(worker.interrupted for worker in workers)
    node.finish(workers[0], kind=Kind.ERROR)
    node.pass_time(0.5)
    assert not node.ending
    node.pass_time(0.6)
    assert node.ending


def test_outcomes_outlive_a_lease_until_they_are_acknowledged() -> None:
    node = ModelNode()
    node.serve()
    node.hear(*deal((0, 2)))
    node.finish_all()
    node.said()
    node.hear(m.EndLease(LEASE, False))
    node.end()
    node.now_s += 5
    node.hear(m.Introduce())
    stopped, said = node.said()
    assert stopped == m.Stopped(LEASE)
    assert isinstance(said, m.NodeHello)
    assert said.held == (m.Held(LEASE, JOB, 2, (Span(0, 0, 2),), True),)
    node.hear(m.Welcome(SCHEDULER, "0", "pub"))
    first, *again = node.said()
    assert first == m.Stopped(LEASE)
    assert len(again) == 2
    node.hear(m.AckOutcomes(LEASE, 2))
    assert node.core.leases == {}


def test_a_lease_waits_for_the_one_before_it() -> None:
    node = ModelNode()
    node.serve()
    node.hear(m.EndLease(LEASE, True))
    node.hear(start_lease(lease=OTHER), [b"function"])
    node.hear(*deal((0, 1), lease=OTHER))
    assert sum(isinstance(x, e.BeginLease) for x in node.effects) == 1
    node.end()
    assert sum(isinstance(x, e.BeginLease) for x in node.effects) == 2
    node.finish_all()
    assert ran(outcomes(node)) == [(0, 1)]


def test_the_end_of_an_unknown_lease_is_confirmed() -> None:
    node = ModelNode()
    node.said()
    node.hear(m.EndLease(OTHER, True))
    assert node.said() == [m.Stopped(OTHER)]
