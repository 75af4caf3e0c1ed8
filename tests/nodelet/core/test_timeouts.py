"""Whose time is up: interrupted, then killed, and nobody else."""

from collections import deque

from msgspec.structs import replace
from opening import LEASE, start_lease
from worker_model import HandNode, assign, ran

from burla.nodelet.core.cells import Cell, Worker
from burla.nodelet.core.effects import Expire, Kill
from burla.nodelet.core.events import Looked, Stride
from burla.nodelet.core.timeouts import GRACE_S, Timeouts
from burla.protocol import messages as m
from burla.protocol.codec import unpack_runs
from burla.protocol.deaths import TIMEOUT, decode_death
from burla.protocol.ranges import Ranges

LIMIT = m.CallPolicy(goes_on=True, timeout_s=5)


def worker(lo: int = 0, hi: int = 100) -> dict[int, Worker]:
    return {1: Worker(1, 0.0, cells=deque([Cell(0, lo, hi, hi)]))}


def look(
    timeouts: Timeouts, now_s: float, stride: Stride, *, is_paused: bool = False
) -> list[Expire | Kill]:
    return list(timeouts.look(worker(), {1: stride}, now_s, [1] if is_paused else []))


def test_a_call_is_interrupted_then_killed() -> None:
    timeouts = Timeouts(5)
    stride = Stride(0, 3, 4)
    assert look(timeouts, 0, stride) == []
    assert look(timeouts, 4.9, stride) == []
    assert look(timeouts, 5.0, stride) == [Expire(1, 3)]
    assert look(timeouts, 5.5, stride) == []
    assert look(timeouts, 5.0 + GRACE_S, stride) == [Kill(1, TIMEOUT)]


def test_each_call_of_a_stride_has_its_own_time() -> None:
    timeouts = Timeouts(5)
    assert look(timeouts, 0, Stride(0, 0, 50, 50, at=0)) == []
    assert look(timeouts, 4, Stride(0, 0, 50, 50, at=7)) == []
    assert look(timeouts, 8, Stride(0, 0, 50, 50, at=7)) == []
    assert look(timeouts, 9, Stride(0, 0, 50, 50, at=7)) == [Expire(1, 7)]
    assert look(timeouts, 9.5, Stride(0, 0, 50, 50, at=8)) == []
    assert look(timeouts, 9 + GRACE_S, Stride(0, 0, 50, 50, at=8)) == []


def test_a_call_that_is_called_again_has_its_whole_time() -> None:
    timeouts = Timeouts(5)
    stride = Stride(0, 3, 4)
    assert look(timeouts, 0, stride) == []
    assert look(timeouts, 4, stride) == []
    timeouts.forget(3)
    assert look(timeouts, 5, stride) == []
    assert look(timeouts, 9.9, stride) == []
    assert look(timeouts, 10, stride) == [Expire(1, 3)]


def test_who_waits_until_its_outcomes_are_read_is_in_no_call() -> None:
    timeouts = Timeouts(5)
    stride = Stride(0, 3, 4)
    assert look(timeouts, 0, stride) == []
    assert look(timeouts, 60, stride, is_paused=True) == []
    assert look(timeouts, 64, stride) == []
    assert look(timeouts, 65, stride) == [Expire(1, 3)]


def test_between_two_strides_nobody_is_in_a_call() -> None:
    timeouts = Timeouts(5)
    for now_s in (0, 10, 20):
        assert look(timeouts, now_s, Stride(0, 3, 4, 4, at=4)) == []
        assert look(timeouts, now_s, Stride(1, 3, 4)) == []  # a cell that is over


def late(node: HandNode, number: int, stride: Stride, seconds: float) -> None:
    node.tell(Looked({number: stride}))
    node.clock.now_s += seconds
    node.tell(Looked({number: stride}))


def test_what_waits_behind_a_late_call_goes_to_others() -> None:
    node = HandNode()
    node.serve(policy=LIMIT)
    node.hear(*assign((0, 64)))
    node.load()
    slow, _ = node.workers.values()
    for _ in range(8):  # calls are known to be short: several are given at once
        node.run(seconds=0.0001)
    stride = node.claim(slow)
    assert stride is not None
    late(node, slow.number, Stride(slow.cells[0].number, *stride), 5)
    assert Expire(slow.number, stride[0]) in node.effects
    dispatcher = node.core.leases[LEASE].custody.dispatcher
    assert dispatcher.workers[slow.number].unstarted() == 0


def test_a_call_that_had_to_be_killed_is_its_own_outcome_at_once() -> None:
    node = HandNode()
    node.serve(slots=1, policy=LIMIT)
    node.hear(*assign((0, 1)))
    node.load()
    (slow,) = node.workers.values()
    stride = node.claim(slow)
    assert stride is not None
    for seconds in (5, GRACE_S):
        late(node, slow.number, Stride(slow.cells[0].number, *stride), seconds)
    (said,) = node.outcomes()
    ((run, frames),) = unpack_runs(said.runs, node.payload[id(said)])
    assert (run.lo, run.kind) == (0, m.Kind.DEATH)
    assert decode_death(frames[0]).killed_for == TIMEOUT
    assert not said.failed


def test_what_a_dead_worker_had_noted_is_done() -> None:
    node = HandNode()
    node.serve(slots=1, policy=LIMIT)
    node.hear(*assign((0, 6)))
    node.load()
    (one,) = node.workers.values()
    node.run(seconds=1e-6)
    lo, hi = one.claim(3)
    assert (lo, hi) == (1, 4)
    node.workers.pop(one.number)
    death = one.die(("signal", 11))  # in the call of index 3
    stride = death.stride._replace(at=3)
    node.tell(replace(death, stride=stride, notes=(0, [b"r0", b"r1", b"r2"])))
    assert node.core.leases[LEASE].custody.open == Ranges([(3, 6)])
    node.finish_all()
    assert node.assigned()[2:] == [(4, 6), (3, 4)]  # what died comes after some others
    assert Ranges(ran(node.outcomes())) == Ranges([(0, 6)])


def test_without_a_limit_nobody_is_looked_for() -> None:
    assert not Timeouts(0).has_limit()
    assert start_lease().policy is None
