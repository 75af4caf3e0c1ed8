"""The nodelet's core, as conversations: the connection, and leases that begin and end."""

import json
from typing import Any

from opening import JOB, LEASE, start_lease
from worker_model import SCHEDULER, HandNode, assign, hello, ran

from burla.nodelet.core import effects as e
from burla.nodelet.core.effects import StoredLeaf
from burla.nodelet.core.nodelet import SILENCE_S, UNHEARD_S, Nodelet
from burla.protocol import messages as m
from burla.protocol.messages import Kind, Span

OTHER = b"O" * 16

# --- connection ---


def test_a_nodelet_says_hello_first_and_keeps_blanks() -> None:
    node = Nodelet(hello(cpus=3))
    node.start(0.0)
    assert node.settle(0.0) == [e.KeepBlanks(6), e.Send(hello(cpus=3))]


def test_it_beats_each_second() -> None:
    node = HandNode()
    node.pass_time(3.5)
    assert sum(isinstance(message, m.Heartbeat) for message in node.sent) == 3


def test_asked_to_introduce_itself_it_says_what_it_holds_once() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 4)))
    node.load()
    node.finish(next(w for w in node.workers.values() if node.claim(w)))
    node.pass_time(0.1)
    node.said()
    node.clock.now_s += 5
    for _ in range(3):
        node.hear(m.HelloRequired())
    (said,) = node.said()
    assert isinstance(said, m.NodeHello)
    held = m.Held(LEASE, JOB, 2, (Span(0, 0, 4),), False)
    assert said.held == (held,)
    node.hear(m.Welcome(SCHEDULER, "0", "pub"))
    assert ran(node.outcomes()) == [(0, 1)]  # again: it may be lost


def test_a_refusal_ends_the_nodelet() -> None:
    node = HandNode()
    node.hear(m.Refused("another protocol"))
    assert e.Quit("another protocol") in node.effects


def test_a_silent_scheduler_loses_its_leases() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 4)))
    node.load()
    node.pass_time(SILENCE_S + 3)
    assert node.ending
    node.end()
    assert node.core.leases == {}
    assert any("no answer" in note for note in node.notes)


# --- the end of a lease ---


def test_an_idle_lease_ends_at_once() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 2)))
    node.finish_all()
    node.said()
    node.hear(m.EndLease(LEASE, True))
    assert node.ending
    assert node.said() == []
    node.end()
    assert node.said() == [m.Stopped(LEASE)]
    assert node.core.leases == {}


def test_a_running_call_is_interrupted_and_then_killed() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 100)))
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


def test_who_could_not_write_an_outcome_may_do_so_before_its_call_is_taken_for_running() -> None:
    node = HandNode()
    node.serve(outcome_window=1)
    node.hear(*assign((0, 100)))
    node.load()
    first, second = node.workers.values()
    node.claim(first)
    node.claim(second)
    node.finish(first)
    assert e.PauseReading() in node.effects
    node.hear(m.EndLease(LEASE, False))
    assert e.ResumeReading() in node.effects
    node.pass_time(0.2)
    assert not second.interrupted
    assert not node.ending
    node.finish(second)  # it was in the pipe
    assert node.ending
    node.end()
    node.hear(m.AckOutcomes(LEASE, 1))
    node.hear(m.AckOutcomes(LEASE, 2))
    assert sum(hi - lo for lo, hi in ran(node.outcomes())) == 2


def test_a_call_that_runs_on_is_interrupted_though_a_window_was_full() -> None:
    node = HandNode()
    node.serve(outcome_window=1)
    node.hear(*assign((0, 100)))
    node.load()
    first, second = node.workers.values()
    node.claim(first)
    node.claim(second)
    node.finish(first)
    node.hear(m.EndLease(LEASE, False))
    node.pass_time(0.3)
    assert second.interrupted
    node.pass_time(0.9)
    assert not node.ending
    node.pass_time(0.2)
    assert node.ending


def test_outcomes_outlive_a_lease_until_they_are_acknowledged() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 2)))
    node.finish_all()
    node.said()
    node.hear(m.EndLease(LEASE, False))
    node.end()
    node.clock.now_s += 5
    node.hear(m.HelloRequired())
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


def test_a_lease_that_waits_for_the_last_one_to_end_gives_back_what_it_has_not_begun() -> None:
    """Else its work would wait here while other nodes are idle: nobody asks twice."""
    node = HandNode()
    node.serve()
    node.load()
    node.hear(m.EndLease(LEASE, True))
    node.hear(start_lease(lease=OTHER), [b"function"])
    node.hear(*assign((0, 60), lease=OTHER))
    node.said()
    node.hear(m.Retract(OTHER, 40))
    assert node.said() == [m.Retracted(OTHER, (Span(0, 20, 60),))]


def test_a_lease_waits_for_the_one_before_it() -> None:
    node = HandNode()
    node.serve()
    node.hear(m.EndLease(LEASE, True))
    node.hear(start_lease(lease=OTHER), [b"function"])
    node.hear(*assign((0, 1), lease=OTHER))
    assert sum(isinstance(x, e.BeginLease) for x in node.effects) == 1
    node.end()
    assert sum(isinstance(x, e.BeginLease) for x in node.effects) == 2
    node.finish_all()
    assert ran(node.outcomes()) == [(0, 1)]


def test_the_end_of_an_unknown_lease_is_confirmed() -> None:
    node = HandNode()
    node.said()
    node.hear(m.EndLease(OTHER, True))
    assert node.said() == [m.Stopped(OTHER)]


# --- leaving ---


def test_a_node_that_is_to_leave_finishes_what_it_was_given_and_ends_when_released() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 1)))
    node.load()
    node.said()
    node.leave()
    assert node.said() == [m.Drain()]
    node.hear(m.Drained())  # a slip of the scheduler: the lease is still here
    assert e.Leave() not in node.effects
    node.hear(m.EndLease(LEASE, discard=True))
    node.pass_time(3.0)
    node.end()
    assert e.Leave() in node.effects


def test_it_says_again_that_it_leaves_to_whoever_welcomes_it() -> None:
    node = HandNode()
    node.serve()
    node.leave()
    node.hear(m.HelloRequired())
    node.said()
    node.hear(m.Welcome(SCHEDULER, "0", "pub"))
    assert m.Drain() in node.said()


def test_it_leaves_at_once_if_no_scheduler_knows_it() -> None:
    node = Nodelet(hello(cpus=3))
    node.start(0.0)
    node.leave()
    assert node.settle(0.5)[-1] == e.Leave()


def test_it_leaves_soon_if_its_scheduler_is_silent_and_nothing_runs() -> None:
    """Such as one whose keys were made anew: it will not know this node again."""
    node = HandNode()
    node.hear(m.Welcome(SCHEDULER, "0", "pub"))
    node.leave()
    node.pass_time(UNHEARD_S - 1)
    assert e.Leave() not in node.effects
    node.pass_time(2.0)
    assert e.Leave() in node.effects


def test_a_lease_that_only_lingers_does_not_keep_it_from_leaving_a_silent_scheduler() -> None:
    node = HandNode()
    node.serve()
    node.hear(m.Linger(LEASE))
    node.leave()
    node.pass_time(UNHEARD_S + 1)
    node.end()
    assert e.Leave() in node.effects


def test_it_does_not_leave_a_call_that_runs_though_its_scheduler_is_silent() -> None:
    node = HandNode()
    node.serve()
    node.leave()
    node.pass_time(UNHEARD_S + 5)
    assert e.Leave() not in node.effects


def test_that_the_scheduler_answers_is_noted_now_and_then() -> None:
    node = HandNode()
    node.hear(m.Welcome(SCHEDULER, "0", "pub"))
    for _ in range(12):
        node.clock.now_s += 1
        node.hear(m.Heartbeat())
        node.pass_time(0.0)
    assert 2 <= node.effects.count(e.Heard()) <= 4


# --- for people ---


def test_its_state_is_plain_and_holds_neither_payloads_nor_secrets() -> None:
    node = HandNode()
    node.hear(m.Welcome(SCHEDULER, "0", "pub"))
    node.hear(start_lease(secret=b"a secret of 20 bytes"), [b"the function"])
    node.hear(*assign((0, 9)))
    node.load()
    first, second = node.workers.values()
    node.claim(first)
    node.print(first.number, 1, b"printed")
    node.claim(second)
    node.finish(second, 1.0, (b"an outcome",))
    node.pass_time(0.03)
    node.show_memory(700, {first.number: 100})
    state: Any = node.core.snapshot()
    text = json.dumps(state)
    assert not any(word in text for word in ("secret", "function", "leaf", "printed", 'outcome"'))
    lease = state["leases"][LEASE.hex()]
    assert [each["what"] for each in lease["life"]["past"]] == ["QUEUED", "SERVING"]
    assert lease["open"] == [(0, 1), (2, 9)]
    assert lease["workers"][str(first.number)]["cells"] == {"0": [0, 1, 1]}
    assert lease["unacknowledged"]["outcomes"]["messages_unacknowledged"] == 1
    assert lease["memory"]["available"] == 700


def test_what_became_of_a_lease_is_remembered_for_a_while() -> None:
    node = HandNode()
    node.serve()
    node.hear(m.EndLease(LEASE, True))
    node.end()
    state: Any = node.core.snapshot()
    (past,) = state["past"]
    assert (past["lease"], past["phase"]) == (LEASE.hex(), "STOPPED")
    names = [each["what"] for each in past["past"]]
    assert names == ["QUEUED", "SERVING", "STOPPING", "STOPPED"]


# --- one turn ---


def test_what_comes_in_one_turn_is_decided_once() -> None:
    node = HandNode()
    node.hear(m.Welcome(SCHEDULER, "0", "pub"))
    start = start_lease(slots=1)
    node.feed(start, [b"function"])
    node.feed(*assign((0, 3)))
    assert node.core.settle(0.0) == [e.BeginLease(start, [b"function"]), e.LoadWorker()]
    assert node.core.settle(0.0) == []


def test_outcomes_and_the_end_of_a_span_are_one_event() -> None:
    node = HandNode()
    node.serve(slots=1)
    node.hear(*assign((0, 2)))
    node.load()
    (worker,) = node.workers.values()
    node.claim(worker)
    node.said()
    node.effects.clear()
    node.finish(worker, 1.0)
    leaf = StoredLeaf(0, 0, 2, (b"leaf",))
    assert node.effects == [e.AssignSpan(1, 0, Span(0, 1, 2), [leaf], 0, 1, False)]
    node.pass_time(0.03)
    assert ran(node.outcomes()) == [(0, 1)]


def test_an_end_that_comes_with_a_retract_is_not_missed() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 20)))
    node.load()
    for _ in range(4):
        node.run(seconds=1e-4)
    for worker in node.workers.values():
        node.claim(worker)
    node.said()
    node.feed(m.Retract(LEASE, 100))
    node.feed(m.EndLease(LEASE, True))
    node.settle()
    assert m.Retracted(LEASE, ()) in node.said()
    assert all(worker.interrupted for worker in node.workers.values() if worker.running)
    node.pass_time(1.1)
    assert node.ending


def test_its_last_word_tells_a_scheduler_that_knows_it_that_it_does_not_die_of_a_call() -> None:
    node = HandNode()
    assert node.core.last_word() == []
    node.hear(m.Welcome(SCHEDULER, "0", "pub"))
    assert node.core.last_word() == [e.Send(m.Drain())]
