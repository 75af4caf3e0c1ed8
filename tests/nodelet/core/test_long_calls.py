"""Which calls that last are told, how often, and what is never taken for one."""

import pytest
from opening import LEASE
from worker_model import HandNode, assign

from burla.nodelet.core.events import Looked, Stride
from burla.nodelet.core.long_calls import LONG_S, LOOK_S, STUCK_S, TELL_S
from burla.protocol import messages as m


def running(node: HandNode) -> list[m.Running]:
    """Return what was said of calls that last, and forget all that was said."""
    return [said for said in node.said() if isinstance(said, m.Running)]


def see(node: HandNode) -> None:
    """Let the strides of all workers be seen."""
    strides = {
        number: Stride(worker.cells[0].number, *worker.running, worker.cells[0].pos)
        for number, worker in node.workers.items()
        if worker.running is not None
    }
    node.tell(Looked(strides))


def begun(count: int = 2) -> HandNode:
    """Return a node on which a call runs on each of two workers, seen just now."""
    node = HandNode()
    node.serve()
    node.hear(*assign((0, count)))
    node.load()
    for worker in node.workers.values():
        node.claim(worker)
    see(node)
    node.said()
    return node


def ended_after(node: HandNode, seconds: float) -> None:
    """Let the first worker end its call."""
    first = next(iter(node.workers.values()))
    node.finish(first, seconds)


def test_calls_that_last_are_told_every_few_seconds_with_their_time() -> None:
    node = begun()
    node.pass_time(LONG_S - LOOK_S)
    assert running(node) == []
    node.pass_time(2 * LOOK_S)
    (said,) = running(node)
    assert (said.lease, said.loading_s) == (LEASE, 0.0)
    assert [(call.lo, call.hi) for call in said.calls] == [(0, 1), (1, 2)]
    assert all(LONG_S <= call.seconds <= LONG_S + LOOK_S for call in said.calls)
    node.pass_time(10 * TELL_S)
    said_again = running(node)
    assert len(said_again) == 10
    assert said_again[-1].calls[0].seconds > LONG_S + 9 * TELL_S


def test_that_they_are_over_is_told_once() -> None:
    node = begun()
    node.pass_time(LONG_S + 1)
    ended_after(node, 1.0)
    node.pass_time(TELL_S + LOOK_S)
    last = running(node)[-1]
    assert [(call.lo, call.hi) for call in last.calls] == [(1, 2)]
    node.finish(list(node.workers.values())[1], 1.0)
    node.pass_time(100.0)
    assert running(node) == [m.Running(LEASE, (), 0.0)]


def test_what_lasted_for_a_moment_is_over_when_it_is_told_of_next() -> None:
    """Else a job of calls of two seconds would have something to tell all the time."""
    node = HandNode(cpus=1)
    node.serve(slots=1)
    node.hear(*assign((0, 100)))
    node.load()
    (worker,) = node.workers.values()
    for _ in range(20):
        node.claim(worker)
        see(node)
        node.pass_time(2.0)
        node.finish(worker, 2.0)  # which takes as long again
    assert len(running(node)) <= 80.0 / TELL_S + 1


def test_what_was_stuck_is_told_to_be_over_at_once() -> None:
    node = begun()
    node.pass_time(STUCK_S + TELL_S + 1)
    node.said()
    for worker in list(node.workers.values()):
        node.finish(worker, 1.0)
    node.pass_time(2 * LOOK_S)
    assert running(node) == [m.Running(LEASE, (), 0.0)]


def test_short_calls_are_never_told() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 200)))
    node.load()
    for _ in range(100):
        for worker in list(node.workers.values()):
            if node.claim(worker):
                see(node)
                node.finish(worker, 0.3)
    assert running(node) == []


def test_of_a_stride_that_was_cut_only_the_call_that_runs_is_told() -> None:
    node = HandNode(cpus=1)
    node.serve(slots=1)
    node.hear(*assign((0, 100_000)))
    node.load()
    (worker,) = node.workers.values()
    node.run(calls=1, seconds=1e-5)
    node.run(calls=10, seconds=1e-4)
    stride = node.claim(worker, 10)
    assert stride is not None
    see(node)
    node.pass_time(LONG_S + 1)
    (said,) = running(node)
    assert [(call.lo, call.hi) for call in said.calls] == [stride]  # C code: it cannot be told


def test_at_most_so_many_are_told_the_oldest_first() -> None:
    node = HandNode(cpus=40)
    node.serve(slots=40)
    node.hear(*assign((0, 40)))
    node.load()
    for worker in node.workers.values():
        node.claim(worker)
        see(node)
        node.pass_time(0.01)
    node.said()
    node.pass_time(TELL_S + 2 * LONG_S)
    calls = running(node)[-1].calls
    assert [call.lo for call in calls] == list(range(m.LONG_CALLS_MAX))


def test_that_the_function_loads_for_long_is_told() -> None:
    node = HandNode()
    node.serve()
    node.pass_time(3 * LONG_S)
    assert running(node) == []  # nothing waits for it
    node.hear(*assign((0, 2)))
    node.pass_time(LONG_S + 3 * LOOK_S)
    (said,) = running(node)
    assert said.calls == ()
    assert said.loading_s == pytest.approx(LONG_S, abs=2 * LOOK_S)
    node.load()
    node.run(calls=2, seconds=0.1)
    node.pass_time(3 * LOOK_S)
    assert running(node) == [m.Running(LEASE, (), 0.0)]


def test_a_worker_of_an_earlier_lease_that_never_begins_is_loading() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 2)))
    node.load()
    node.said()
    node.pass_time(LONG_S + 3 * LOOK_S)  # nobody has begun
    (said,) = running(node)
    assert (said.calls, said.loading_s >= LONG_S) == ((), True)


def test_while_the_caller_reads_nothing_no_call_is_known_to_last() -> None:
    """A worker that cannot write its outcome looks like one whose call lasts."""
    node = HandNode()
    node.serve(outcome_window=10)
    node.hear(*assign((0, 3)))
    node.load()
    for worker in node.workers.values():
        node.claim(worker)
    see(node)
    first = next(iter(node.workers.values()))
    node.finish(first, 0.1, [b"more than the window"])
    assert node.paused
    node.pass_time(5 * LONG_S)
    assert running(node) == []


def test_what_is_ended_is_told_of_no_more() -> None:
    node = begun()
    node.pass_time(LONG_S + 1)
    node.said()
    node.hear(m.EndLease(LEASE, discard=False))
    node.pass_time(100.0)
    assert running(node) == [m.Running(LEASE, (), 0.0)]
