"""Scheduler, nodelets and clients together: the three real cores on a virtual clock.

What is modelled lies around the cores: the network (network.py), the workers, and the caller.
Every result is a function of its index, so that a wrong, missing or doubled one shows.
"""

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import assert_never

import pytest
from doubles.node import ModelNode, big_leaf
from doubles.worker import ModelWorker
from msgspec.structs import replace
from network import Clock, DirectWire, Faults, Said, Wire
from opening import client_hello, node_hello, open_job

from burla.core import batches, effects as c
from burla.core.commands import AddBatch, Command, EndInputs, Written
from burla.core.connection import Connection
from burla.core.session import Session
from burla.nodelet.core import big_inputs, effects as n
from burla.nodelet.core.events import Printed, WorkerState
from burla.nodelet.core.nodelet import Nodelet
from burla.protocol import arriving, messages as m
from burla.protocol.fields import FOLLOWS, POLICIES
from burla.protocol.input_messages import INPUTS
from burla.scheduler.core import big_inputs as asked_inputs, effects as s, input_table
from burla.scheduler.core.scheduler import Scheduler
from burla.transport.clock import LEAP_S

STEPS_MAX = 400_000  # of the clock; a run that takes more does not end
LEAF_INPUTS = 8
FLOW_S = 0.002  # mean, between two fragments of a big result
ROUNDING_S = 1e-6  # a timer that rings too early by this rings for ever
CONNECTION_S = 20.0  # libzmq ends a connection on which nothing was heard for so long


def result_of(job: bytes, index: int) -> bytes:
    return job[:4] + index.to_bytes(4, "big")


class BigLeaf:
    """A leaf that nodes ask for, in pieces of some bytes: see `small_pieces`."""

    def __init__(self, size: int) -> None:
        self.size = size

    def read(self, start: int, stop: int) -> list[bytes]:
        return [big_leaf(self.size)[start:stop]]

    def frames(self) -> list[bytes]:
        return [b"le", b"af"]


def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let big inputs be of bytes where they are of megabytes."""
    for module in (arriving, big_inputs, m):
        monkeypatch.setattr(module, "BLOB_PIECE_BYTES", 4)
    for module in (batches, big_inputs, asked_inputs):
        monkeypatch.setattr(module, "INPUT_WINDOW", 12)
    monkeypatch.setattr(big_inputs, "ASKED_MIN", 5)
    monkeypatch.setattr(input_table, "UNDER_WAY_BYTES", 30)


class SimNode(ModelNode):
    """A node whose workers load, run and die by the virtual clock."""

    def __init__(self, world: "World", name: str, cpus: int) -> None:
        self.world, self.name, self.cpus = world, name, cpus
        self.alive = True
        self.born_s, self.died_s = world.clock.now_s, float("inf")
        self._timer_s: float | None = None
        core = world.new_nodelet(name, cpus)
        self.wire = world.new_wire_of_node(self.heard)
        super().__init__(core, world.clock, self.wire.say)

    def heard(self, said: Said) -> None:
        if self.alive:
            self.feed(*said)
            if self.world.random.random() < 0.3:
                self.clock.after(0.0, self.settle)  # with what comes in the same turn
            else:
                self.settle()

    def settle(self) -> None:
        if not self.alive:
            return
        super().settle()
        if self.world.is_check_due():
            self.core.check()
        self._set_timer()

    def carry_out(self, effect: n.Effect) -> None:
        super().carry_out(effect)
        match effect:
            case n.AssignSpan():
                worker = self.workers[effect.worker]
                self.clock.after(0.0, lambda: self._go_on(worker))
            case n.Kill() | n.Interrupt():
                if effect.worker in self.workers:
                    self.worker_dies(self.workers[effect.worker])
            case n.EndWorkers():
                self._end_workers()
                self.clock.after(0.002, self._ended)
            case _:
                pass

    def _make(self, state: WorkerState) -> ModelWorker:
        worker = super()._make(state)
        self.clock.after(0.003, lambda: self._loaded(worker))
        return worker

    def _loaded(self, worker: ModelWorker) -> None:
        if worker.alive:
            self.ready(worker, 0.001, may_fork=True)

    def _go_on(self, worker: ModelWorker) -> None:
        """Let a worker begin its next stride, if it is idle and there is one."""
        if not worker.alive or worker.running:
            return
        self.leave_empty(worker)
        if not worker.alive or not worker.cells:
            return
        stride_max = 1 if worker.job in self.world.flaky else self.world.stride_max
        lo, hi = worker.claim(self.world.random.randint(1, stride_max))
        seconds = sum(self.world.call_s(worker.job, i) for i in range(lo, hi))
        self.clock.after(seconds, lambda: self._ran(worker, seconds))

    def _ran(self, worker: ModelWorker, seconds: float) -> None:
        if not worker.alive:
            return
        assert worker.running is not None
        world, job = self.world, worker.job
        lo, hi = worker.running
        if any((job, i) in world.node_poison for i in range(lo, hi)):
            self.die()
            world.deaths += 1
            world.clock.after(world.random.uniform(0.1, 3.0), self._start_again)
            return
        if any(world.kills(job, i) for i in range(lo, hi)):
            self.worker_dies(worker)
            return
        if world.fails(job, lo):
            is_over = worker.cells[0].is_empty
            self.report(
                worker, seconds, [b"failed"], m.Kind.ERROR, is_over=is_over, retry_why="Flaky"
            )
            self._go_on(worker)
            return
        if world.random.random() < 0.3:
            data = b"".join(b"%d\n" % i for i in range(lo, hi))
            world.printed[job] += data
            self.tell(Printed(worker.number, 1, data))
        world.ran.setdefault(job, []).extend(range(lo, hi))
        if hi - lo == 1 and world.big and world.random.random() < world.big:
            self._flow(worker, result_of(job, lo), 0, seconds)
            return
        frames = [b"".join(result_of(job, i) for i in range(lo, hi))]
        is_over = worker.cells[0].is_empty and world.random.random() < 0.5  # else told by itself
        self.report(worker, seconds, frames, is_over=is_over)
        self._go_on(worker)

    def _flow(self, worker: ModelWorker, result: bytes, at: int, seconds: float) -> None:
        """Let a result come in fragments of two bytes, while it is read."""
        if not worker.alive:
            return
        if not self.paused and not worker.held:
            if self.flow(worker, result[at : at + 2], at, len(result), seconds):
                self._go_on(worker)
                return
            at += 2
        delay_s = self.world.random.expovariate(1 / FLOW_S)
        self.clock.after(delay_s, lambda: self._flow(worker, result, at, seconds))

    def worker_dies(self, worker: ModelWorker) -> None:
        """End a worker; its death is told a moment later."""
        if not worker.alive:
            return
        death = worker.die(("signal", 9))

        def tell() -> None:
            if self.alive and self.workers.pop(worker.number, None) is not None:
                self.tell(death)

        self.clock.after(0.001, tell)

    def _start_again(self) -> None:
        self.world.add_node(self.cpus)

    def die(self) -> None:
        self.alive, self.died_s = False, self.clock.now_s
        self._end_workers()
        self.wire.close()

    def _end_workers(self) -> None:
        for worker in self.workers.values():
            worker.state = WorkerState.GONE
        self.workers.clear()

    def _ended(self) -> None:
        if self.alive:
            assert not self.workers, "made before the last ones were gone"
            self.end()

    def _set_timer(self) -> None:
        due_s = self.core.next_deadline_s()
        if self._timer_s is not None and self._timer_s <= due_s:
            return
        self._timer_s = due_s

        def ring() -> None:
            if self._timer_s == due_s:  # else an earlier one took its place
                self._timer_s = None
                self.settle()

        self.clock.at(due_s, ring)


@dataclass
class Caller:
    """What one remote_parallel_map call has got so far."""

    job: bytes
    inputs: int
    results: dict[int, bytes] = field(default_factory=dict)
    stdout: bytearray = field(default_factory=bytearray)
    finished: bool = False
    error: str = ""
    dead_index: int | None = None
    failed_index: int | None = None  # of the input for which the job failed
    lost_nodes: tuple[str, ...] = ()
    user: str = ""
    cap: int | None = None  # of the calls that run at once
    started_s: float = 0.0
    first_s: float = float("inf")  # when its first result came
    ended_s: float = 0.0


class SimClient:
    """A client process: the connection and its sessions, and callers that consume at once."""

    def __init__(self, world: "World", user: str) -> None:
        self.world, self.user = world, user
        self.callers: dict[bytes, Caller] = {}
        self.alive = True
        self._timer_s: float | None = None
        self._backlog: list[Callable[[], None]] | None = None  # what comes while it stands still
        self._stood_s = 0.0  # of its life, which its clock leaves out
        hello = client_hello(world.random.randbytes(16), user=user)
        self.connection = Connection(hello, 10.0, self.now_s)
        self.wire = world.new_wire(self.heard)
        self.do(self.connection.start())

    def call(
        self,
        inputs: int,
        max_parallelism: int | None = None,
        mean_s: float | None = None,
        policy: m.CallPolicy | None = None,
        detached: bytes | None = None,
    ) -> Caller:
        world = self.world
        job, now_s = world.random.randbytes(16), self.now_s
        caller = self.callers[job] = Caller(
            job, inputs, user=self.user, cap=max_parallelism, started_s=world.clock.now_s
        )
        if mean_s is not None:
            world.means_s[job] = mean_s
        world.printed[job] = bytearray()
        world.topics[job] = self
        spec = open_job(
            *(job, job), max_parallelism=max_parallelism, policy=policy, detached=detached
        )
        session = Session(spec, [b"function"], True)
        self.do(self.connection.open(session, now_s))
        self._feed(caller, 0)
        return caller

    def _feed(self, caller: Caller, at: int) -> None:
        """Hand in the inputs, a batch at a time."""
        world = self.world
        if self._backlog is not None:
            self._backlog.append(lambda: self._feed(caller, at))
            return
        if at >= caller.inputs:
            self.tell(EndInputs(caller.job))
            return
        stop = min(caller.inputs, at + world.random.randint(1, 60))
        leaves: list[tuple[int, c.Frames | c.Content]] = []
        for lo in range(at, stop, LEAF_INPUTS):
            is_big = world.big_inputs and world.random.random() < world.big_inputs
            body = BigLeaf(world.random.randint(1, 30)) if is_big else [b"leaf"]
            leaves.append((min(LEAF_INPUTS, stop - lo), body))
        self.tell(AddBatch(caller.job, leaves, len(b"leaf") * len(leaves)))
        world.clock.after(0.0005, lambda: self._feed(caller, stop))

    def tell(self, command: Command) -> None:
        if self.alive:
            self.do(self.connection.handle(command, self.now_s))

    def heard(self, said: Said) -> None:
        if self._backlog is not None:
            self._backlog.append(lambda: self.heard(said))
        elif self.alive:
            self.do(self.connection.receive(*said, self.now_s))  # type: ignore[arg-type]

    def published(self, said: Said) -> None:
        if self._backlog is not None:
            self._backlog.append(lambda: self.published(said))
        elif self.alive:
            self.do(self.connection.hear_of_job(*said, self.now_s))  # type: ignore[arg-type]

    # --- standing still ---

    @property
    def now_s(self) -> float:
        """Return the time by its own clock."""
        return self.world.clock.now_s - self._stood_s

    def stand_still(self, seconds: float) -> None:
        """Do nothing for a while, as when it is stopped; its connection ends as libzmq ends it."""
        if self._backlog is not None or not self.alive:
            return
        self._backlog = []
        clock = self.world.clock
        clock.after(seconds, lambda: self._go_on(seconds))
        if seconds > CONNECTION_S:
            clock.after(CONNECTION_S, self.wire.cut)

    def _go_on(self, seconds: float) -> None:
        self._stood_s += max(0.0, seconds - LEAP_S)
        backlog, self._backlog = self._backlog or [], None
        for happen in backlog:  # what the kernel had for it
            happen()
        self._timer_s = None
        if self.alive:
            self.do(self.connection.expire(self.now_s))

    def do(self, effects: list[c.Effect]) -> None:
        now_s = self.now_s
        for effect in effects:
            match effect:
                case c.Send():
                    self.wire.say((effect.message, list(effect.payload)))
                case c.Forget():
                    self.wire.forget()
                case c.Subscribe():
                    pass
                case _:
                    self._tell_caller(self.callers[effect.job], effect)
        self.connection.check()
        due_s = self.connection.next_deadline_s()
        if self._timer_s is None or due_s < self._timer_s:
            self._timer_s = due_s

            def ring() -> None:
                is_current = self._timer_s == due_s  # else an earlier one took its place
                if is_current:
                    self._timer_s = None
                if is_current and self.alive and self._backlog is None:
                    self.do(self.connection.expire(self.now_s))

            stood_s = self._stood_s and self._stood_s + ROUNDING_S
            self.world.clock.at(max(due_s, now_s) + stood_s, ring)

    def _tell_caller(self, caller: Caller, effect: c.ForCaller) -> None:
        match effect:
            case c.Deliver():
                for part in effect.parts:
                    self._take(caller, part)
            case c.Write():
                caller.stdout += b"".join(effect.chunks)
                self.tell(Written(caller.job, effect.lease, effect.number))
            case c.Finish():
                caller.finished, caller.ended_s = True, self.world.clock.now_s
            case c.Fail():
                caller.error = effect.text
                caller.failed_index, caller.lost_nodes = effect.index, effect.nodes
            case c.Broken() | c.Rejected():
                caller.error = str(effect)
            case c.Warn():
                self.world.lost_output.add(caller.job)
            case c.Lacking():
                caller.error = effect.text
            case c.ReportWaiting() | c.ReportHanging() | c.ReportRetried():
                pass
            case c.Slots() | c.Status() | c.DetachWanted() | c.Held():
                pass
            case _:
                assert_never(effect)

    def _take(self, caller: Caller, part: c.Part) -> None:
        if part.run.kind is m.Kind.DEATH:
            caller.dead_index = part.run.lo
            return
        if part.run.kind is m.Kind.ERROR:
            assert part.run.lo not in caller.results, "delivered twice"
            caller.results[part.run.lo] = b"failed"
            return
        data = part.frames[0]
        for lo, hi in part.fresh:
            for index in range(lo, hi):
                assert index not in caller.results, f"index {index} delivered twice"
                at = 8 * (index - part.run.lo)
                caller.results[index] = data[at : at + 8]
                caller.first_s = min(caller.first_s, self.world.clock.now_s)

    def die(self) -> None:
        self.alive = False
        self.wire.close()


class World:
    """All of it, from one seed."""

    features: tuple[str, ...] = (POLICIES, INPUTS)  # of the scheduler

    def __init__(
        self,
        seed: int,
        faults: Faults | None = None,
        check_every: int = 0,
        *,
        is_private: bool = False,
    ) -> None:
        self._is_private = is_private  # the one node has a direct line
        # 0: checks after each event are more than half of the work, so one seed of five has them.
        self._check_every = check_every or (1 if seed % 5 == 1 else 4)
        self._checks = 0
        self.random = random.Random(seed)
        self.clock = Clock()
        self.faults = faults or Faults()
        self.nodes: list[SimNode] = []
        self.clients: list[SimClient] = []
        self.topics: dict[bytes, SimClient] = {}
        self.printed: dict[bytes, bytearray] = {}
        self.ran: dict[bytes, list[int]] = {}
        self.lost_output: set[bytes] = set()
        self.poison: set[tuple[bytes, int]] = set()
        self.node_poison: set[tuple[bytes, int]] = set()  # inputs that take their node with them
        self.deaths = 0  # of nodes, by such an input
        self.flaky: dict[bytes, dict[int, int]] = {}  # job -> index -> how many tries fail
        self.failed: Counter[tuple[bytes, int]] = Counter()  # how many have
        self.killings = 0  # of all workers at once
        self.mean_s = 0.005  # of a call
        self.big_inputs = 0.0  # the part of leaves that nodes ask for
        self.old_nodes = 0.0  # the part of nodes that cannot
        self.big = 0.0  # the part of results, of calls that ran alone, that come in fragments
        self.stride_max = 4  # calls that a worker runs before it says so
        self.means_s: dict[bytes, float] = {}  # of a call of some jobs
        self._wires: dict[bytes, Wire | DirectWire] = {}
        self._timer_s: float | None = None
        self.start_scheduler()

    # --- parts ---

    def start_scheduler(self) -> None:
        """Start a scheduler, or replace one that was killed: all connections are new."""
        self.core = Scheduler(self.random.randbytes(16), "0", "pub", is_private=self._is_private)
        for wire in list(self._wires.values()):
            wire.cut()
        self._schedule()

    def new_wire(self, to_dealer: Callable[[Said], None]) -> Wire:
        register = self._wires.__setitem__
        return Wire(self.clock, self.random, self.faults, self._to_scheduler, to_dealer, register)

    def new_wire_of_node(self, to_dealer: Callable[[Said], None]) -> Wire | DirectWire:
        if not self._is_private:
            return self.new_wire(to_dealer)
        return DirectWire(self.clock, self._to_scheduler, to_dealer, self._wires.__setitem__)

    def new_nodelet(self, name: str, cpus: int) -> Nodelet:
        node = self.random.randbytes(16)
        is_old = self.random.random() < self.old_nodes if self.old_nodes else False
        features = (POLICIES,) if is_old else (POLICIES, INPUTS, FOLLOWS)
        return Nodelet(node_hello(node, name=name, cpus=cpus, ram=8 << 30, features=features))

    def add_node(self, cpus: int = 4) -> SimNode:
        node = SimNode(self, f"n{len(self.nodes)}", cpus)
        self.nodes.append(node)
        return node

    def add_client(self, user: str = "u") -> SimClient:
        client = SimClient(self, user)
        self.clients.append(client)
        return client

    def call_s(self, job: bytes, index: int) -> float:
        return random.Random(job + index.to_bytes(8, "big")).expovariate(
            1 / self.means_s.get(job, self.mean_s)
        )

    def is_check_due(self) -> bool:
        """Return whether a core should be checked now."""
        self._checks += 1
        return self._checks % self._check_every == 0

    def fails(self, job: bytes, index: int) -> bool:
        """Return whether this try fails, and count it."""
        if self.failed[job, index] >= self.flaky.get(job, {}).get(index, 0):
            return False
        self.failed[job, index] += 1
        return True

    def kills(self, job: bytes, index: int) -> bool:
        return (job, index) in self.poison

    # --- the scheduler's shell ---

    def _to_scheduler(self, peer: bytes, said: Said) -> None:
        self._do(self.core.receive(peer, *said, self.clock.now_s))

    def _do(self, effects: list[s.Effect]) -> None:
        for effect in effects:
            match effect:
                case s.Send():
                    wire, said = self._wires.get(effect.peer), effect.message
                    if isinstance(said, m.Welcome):  # as its shell does it
                        said = replace(said, features=self.features)
                    sent = wire and wire.answer(effect.peer, (said, list(effect.payload)))
                    if not sent:
                        self._do(self.core.unreachable(effect.peer, self.clock.now_s))
                case s.Publish():
                    self._publish(effect)
                case _:
                    pass
        if self.is_check_due():
            self.core.check()
        self._schedule()

    def _publish(self, effect: s.Publish) -> None:
        if self.random.random() < self.faults.drop_published:
            return
        client = self.topics[effect.topic]
        said = (effect.message, list(effect.payload))
        delay_s = self.random.expovariate(1 / self.faults.delay_s)
        self.clock.after(delay_s, lambda: client.published(said))

    def _schedule(self) -> None:
        due_s = self.core.next_deadline_s()
        if self._timer_s is not None and self._timer_s <= due_s:
            return
        self._timer_s = due_s

        def ring() -> None:
            if self._timer_s == due_s:  # else an earlier one took its place
                self._timer_s = None
                self._do(self.core.expire(self.clock.now_s))

        self.clock.at(due_s, ring)

    # --- running ---

    def run_until(self, true: Callable[[], bool], limit_s: float = 300.0) -> None:
        """Let time pass until `true()`."""
        for _ in range(STEPS_MAX):
            if true():
                self.check()
                return
            assert self.clock.step(), "nothing will ever happen again"
            assert self.clock.now_s < limit_s, self.report()
        raise AssertionError(f"no end after {STEPS_MAX} steps: {self.report()}")

    def check(self) -> None:
        """Check the cores of the scheduler and of all nodes."""
        self.core.check()
        for node in self.nodes:
            if node.alive:
                node.core.check()

    def run_for(self, seconds: float) -> None:
        """Let `seconds` pass."""
        until_s = self.clock.now_s + seconds
        self.run_until(lambda: self.clock.now_s >= until_s, until_s + 10)

    def callers(self) -> list[Caller]:
        return [caller for client in self.clients for caller in client.callers.values()]

    def report(self) -> str:
        lines = [f"t={self.clock.now_s:.2f} s"]
        for caller in self.callers():
            lines.append(
                f"job {caller.job[:4].hex()}: {len(caller.results)}/{caller.inputs}, "
                f"{caller.finished=} {caller.error=}"
            )
        lines.append(json.dumps(self.core.snapshot(self.clock.now_s)))
        return "\n".join(lines)

    def check_call(self, caller: Caller) -> None:
        """Assert that the call got all results, each its own, and what was printed."""
        assert not caller.error, caller.error
        assert caller.finished
        for index in range(caller.inputs):
            assert caller.results[index] == result_of(caller.job, index), index
        assert len(caller.results) == caller.inputs
