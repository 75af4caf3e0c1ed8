"""The nodelet's core under any order of events: nothing is lost, nothing is run twice."""

import contextlib
from random import Random

import pytest
from doubles.worker import ModelWorker
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from opening import JOB, LEASE
from outcomes import runs_of
from worker_model import SCHEDULER, HandNode, assign

from burla.nodelet.core import effects as e
from burla.nodelet.core.events import CellReport, Reported
from burla.protocol import messages as m
from burla.protocol.codec import unpack_runs
from burla.protocol.deaths import decode_death
from burla.protocol.messages import Kind
from burla.protocol.ranges import Ranges

WINDOW = 50  # bytes: full after a few outcomes


class NodeletMachine(RuleBasedStateMachine):
    """A scheduler that keeps the protocol, and workers that do as they like."""

    def __init__(self) -> None:
        super().__init__()
        self.node = HandNode(cpus=3)
        self.node.serve(slots=3, outcome_window=WINDOW)
        self.assigned = Ranges()
        self.returned = Ranges()
        self.done = Ranges()  # by outcomes that arrived
        self.seqs: set[int] = set()
        self.acked = 0
        self.chunks = 0
        self.printed = 0
        self.failed = False
        self.deaths: dict[int, int] = {}
        self.kills: dict[int, int] = {}  # for memory
        self.hear_node()

    def hear_node(self) -> None:
        """Take what the nodelet said since the last time."""
        for said in self.node.said():
            match said:
                case m.Outcomes():
                    assert said.output <= self.chunks, "outcomes came before their output"
                    if said.seq in self.seqs:
                        continue
                    assert said.seq == len(self.seqs) + 1
                    self.seqs.add(said.seq)
                    for run, (first, *_) in unpack_runs(said.runs, self.node.payload[id(said)]):
                        assert self.done.add(run.lo, run.hi) == run.hi - run.lo
                        assert self.assigned.covers(run.lo, run.hi)
                        if run.kind is Kind.DEATH:
                            self.failed = True
                            self.check_death(run.lo, first)
                case m.Output():
                    assert said.number <= self.chunks + 1, "a gap"
                    self.chunks = max(self.chunks, said.number + len(said.streams) - 1)
                case m.Retracted():
                    for span in said.spans:
                        assert not self.done.common(span.lo, span.hi)
                        assert self.returned.add(span.lo, span.hi) == span.hi - span.lo
                case _:
                    pass

    def check_death(self, index: int, frame: bytes) -> None:
        """Assert that an index is named only for good reason."""
        death = decode_death(frame)
        assert death.deaths == (self.kills if death.memory else self.deaths)[index]
        assert death.memory or death.deaths == 3

    def workers(self) -> list[ModelWorker]:
        return [worker for worker in self.node.workers.values() if worker.ready]

    @rule(count=st.integers(1, 60), gap=st.integers(0, 2), left=st.integers(0, 100))
    def give(self, count: int, gap: int, left: int) -> None:
        lo = max((hi for _, hi in self.assigned), default=0) + gap
        self.assigned.add(lo, lo + count)
        # a batch each: spans must not cross batches
        message, payload = assign((lo, lo + count), left=left, batch=lo)
        self.node.hear(message, payload)

    @rule()
    def assign_again_what_was_returned(self) -> None:
        for lo, hi in list(self.returned):
            for span in self.node.core.leases[LEASE].custody.store.spans(lo, hi):
                again = m.Assign(lease=LEASE, left=0, spans=(span,), leaves=(), forget=())
                self.returned.remove(span.lo, span.hi)
                self.node.hear(again)

    @rule()
    def load(self) -> None:
        self.node.load()

    @rule(pick=st.integers(0, 9), calls=st.integers(1, 20))
    def claim(self, pick: int, calls: int) -> None:
        idle = [worker for worker in self.workers() if worker.running is None]
        if idle:
            self.node.claim(idle[pick % len(idle)], calls)

    @rule(pick=st.integers(0, 9), seconds=st.sampled_from([1e-6, 1e-3, 0.01]))
    def finish(self, pick: int, seconds: float) -> None:
        running = [worker for worker in self.workers() if worker.running]
        if running and not self.node.paused:
            self.node.finish(running[pick % len(running)], seconds)

    @rule(pick=st.integers(0, 9))
    def kill(self, pick: int) -> None:
        if self.node.workers and not self.failed:
            worker = list(self.node.workers.values())[pick % len(self.node.workers)]
            if worker.running and worker.running[1] - worker.running[0] == 1:
                index = worker.running[0]
                self.deaths[index] = self.deaths.get(index, 0) + 1
            if worker.ready:
                self.node.kill(worker.number, ("exit", 1))

    @rule(
        available=st.sampled_from([0, 30, 70, 150, 500]),
        used=st.lists(st.sampled_from([0, 5, 50, 300, 800]), min_size=9, max_size=9),
    )
    def see_memory(self, available: int, used: list[int]) -> None:
        workers = {w.number: w for w in self.workers()}
        sizes = dict(zip(workers, used, strict=False))
        before = set(self.node.workers)
        self.node.show_memory(available, sizes)
        for number in before - set(self.node.workers):
            running = workers[number].running
            if running and running[1] - running[0] == 1:
                index = running[0]
                self.kills[index] = self.kills.get(index, 0) + 1

    @rule(pick=st.integers(0, 9), size=st.integers(1, 300_000))
    def show(self, pick: int, size: int) -> None:
        if self.workers() and not self.node.paused:
            worker = self.workers()[pick % len(self.workers())]
            self.node.print(worker.number, 1, b"x" * size)

    @rule(count=st.integers(1, 100))
    def retract(self, count: int) -> None:
        before = self.returned.total
        self.node.hear(m.Retract(LEASE, count))
        self.hear_node()
        assert self.returned.total - before <= count

    @rule()
    def acknowledge(self) -> None:
        self.hear_node()
        self.acked = len(self.seqs)
        self.node.hear(m.AckOutcomes(LEASE, self.acked))
        self.node.hear(m.AckOutput(LEASE, self.chunks))

    @rule(count=st.integers(1, 60), left=st.integers(0, 9), again=st.integers(1, 50))
    def retract_twice_and_give_in_one_turn(self, count: int, left: int, again: int) -> None:
        self.hear_node()
        lo = max((hi for _, hi in self.assigned), default=0)
        self.assigned.add(lo, lo + count)
        before = self.returned.total
        message, payload = assign((lo, lo + count), left=left, batch=lo)
        self.node.feed(m.Retract(LEASE, again))
        self.node.feed(message, payload)
        self.node.feed(m.AckOutcomes(LEASE, self.acked))
        self.node.feed(m.Retract(LEASE, again))
        self.node.settle()
        self.hear_node()
        assert self.returned.total - before <= 2 * again

    @rule(pick=st.integers(0, 9), number=st.integers(0, 3))
    def contradict(self, pick: int, number: int) -> None:
        """Let a worker say what cannot be: it is killed, and what it had is run by others."""
        busy = [worker for worker in self.workers() if worker.cells]
        if not busy or self.node.paused or self.failed:
            return
        worker = busy[pick % len(busy)]
        cell = worker.cells[0]
        if worker.running and worker.running[1] - worker.running[0] == 1:
            index = worker.running[0]
            self.deaths[index] = self.deaths.get(index, 0) + 1
        junk = (
            CellReport(9, 0, 1, frames=[b"x"]),
            CellReport(cell.number, cell.ran + 1, cell.ran + 2, frames=[b"x"]),
            CellReport(cell.number, cell.ran, cell.ran, stop=cell.ran + 1, is_over=True),
            CellReport(cell.number, cell.ran, cell.hi + 1, frames=[b"x"]),
        )
        again = CellReport(cell.number, cell.ran, cell.ran, stop=cell.ran, is_over=True)
        self.node.tell(Reported(worker.number, [junk[number], again]))
        assert worker.number not in self.node.workers

    @rule(seconds=st.sampled_from([0.001, 0.03, 0.2]))
    def wait(self, seconds: float) -> None:
        self.node.pass_time(seconds)

    @rule()
    def reconnect(self) -> None:
        self.hear_node()
        self.node.clock.now_s += 3
        self.node.hear(m.HelloRequired())
        (hello,) = (s for s in self.node.said() if isinstance(s, m.NodeHello))
        (held,) = hello.held
        has = Ranges((span.lo, span.hi) for span in held.spans)
        for lo, hi in self.assigned:
            for part in self.done.missing(lo, hi):
                for open_ in self.returned.missing(*part):
                    assert has.covers(*open_)
        self.node.hear(m.Welcome(SCHEDULER, "0", "pub"))

    @rule()
    def replay(self) -> None:
        self.node.hear(m.ReplayOutput(JOB, LEASE, 0))

    @invariant()
    def nothing_is_in_two_places(self) -> None:
        self.hear_node()
        self.node.core.check()

    def teardown(self) -> None:
        """One healthy machine finishes everything."""
        if not self.failed:
            for _ in range(2000):
                self.acknowledge()
                self.node.pass_time(0.03)
                self.node.load()
                if not self.node.paused:
                    self.node.run(calls=5)
                if self.done.total + self.returned.total == self.assigned.total:
                    break
            assert self.done.total + self.returned.total == self.assigned.total
        self.node.hear(m.EndLease(LEASE, True))
        self.node.pass_time(1.5)
        self.node.end()
        assert self.node.core.leases == {}


TestNodelet = NodeletMachine.TestCase
TestNodelet.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True
)


@pytest.mark.parametrize("seed", range(30))
def test_random_kills_never_name_an_index_that_did_not_die_three_times(seed: int) -> None:
    random = Random(seed)
    node = HandNode(cpus=4)
    node.serve(slots=4)
    node.hear(*assign((0, 5000)))
    deaths: dict[int, int] = {}
    done = 0
    while done < 5000:
        node.load()
        for worker in list(node.workers.values()):
            stride = worker.running or node.claim(worker, random.randint(1, 20))
            if stride and random.random() < 0.05:
                if stride[1] - stride[0] == 1:
                    deaths[stride[0]] = deaths.get(stride[0], 0) + 1
                node.kill(worker.number)
            elif stride and random.random() < 0.8:
                node.finish(worker, 1e-4)
        node.pass_time(0.001)
        for said in node.said():
            if isinstance(said, m.Outcomes):
                for run in runs_of(said.runs):
                    done += run.hi - run.lo
                    if run.kind is Kind.DEATH:
                        assert deaths[run.lo] >= 3
                        return
    assert max(deaths.values(), default=0) < 3
    with contextlib.suppress(StopIteration):
        assert not next(x for x in node.effects if isinstance(x, e.Kill))
