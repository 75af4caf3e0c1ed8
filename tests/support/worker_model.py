"""A node that a test drives by hand: its workers load, run and die when they are told to."""

from collections import deque
from collections.abc import Sequence
from typing import Any

from doubles.node import ModelNode
from doubles.worker import ModelWorker
from msgspec.structs import replace
from network import Clock, Said
from opening import LEASE, node_hello, start_lease
from outcomes import runs_of

from burla.nodelet.core import effects as e
from burla.nodelet.core.events import (
    LoadFailed,
    NotCopied,
    Printed,
    Reading,
    TemplateServes,
    WorkerState,
)
from burla.nodelet.core.nodelet import Nodelet
from burla.protocol import messages as m
from burla.protocol.messages import Kind, Leaf, Span

MEMORY = 1000  # bytes of a node
SCHEDULER = b"S" * 16


def hello(cpus: int = 2) -> m.NodeHello:
    return node_hello(b"N" * 16, name="node", cpus=cpus)


def assign(
    *spans: tuple[int, int], left: int = 0, lease: bytes = LEASE, batch: int = 0
) -> tuple[m.Assign, list[bytes]]:
    """Return an Assign of ranges of one batch, with a leaf each."""
    leaves = tuple(Leaf(batch, lo, hi - lo, 1) for lo, hi in spans)
    parts = tuple(Span(batch, lo, hi) for lo, hi in spans)
    message = m.Assign(lease=lease, left=left, spans=parts, leaves=leaves, forget=())
    return message, [b"leaf"] * len(spans)


def ran(messages: list[m.Outcomes]) -> list[tuple[int, int]]:
    return [(run.lo, run.hi) for message in messages for run in runs_of(message.runs)]


class HandNode(ModelNode):
    """A node whose workers do what the test decides, when it does."""

    def __init__(self, cpus: int = 2) -> None:
        self.sent: list[m.Message] = []  # since the last `said`
        self.payload: dict[int, list[bytes]] = {}  # id of a sent message -> its frames
        self.notes: list[str] = []
        self.effects: list[e.Effect] = []  # all but Send, in order
        self._doomed: deque[e.Kill] = deque()  # to be killed when all that was asked for is done
        self._serving: deque[int] = deque()  # templates that were not told of yet
        super().__init__(Nodelet(hello(cpus)), Clock(), self._keep)

    def _keep(self, said: Said) -> None:
        message, payload = said
        self.sent.append(message)
        self.payload[id(message)] = payload

    # --- what the test does ---

    def said(self) -> list[m.Message]:
        """Return and forget what was sent to the scheduler, without beats."""
        sent, self.sent = self.sent, []
        return [message for message in sent if not isinstance(message, m.Heartbeat)]

    def outcomes(self) -> list[m.Outcomes]:
        """Return those that were sent, and forget all that was."""
        return [message for message in self.said() if isinstance(message, m.Outcomes)]

    def assigned(self) -> list[tuple[int, int]]:
        """Return all that was ever assigned to workers."""
        return [(x.span.lo, x.span.hi) for x in self.effects if isinstance(x, e.AssignSpan)]

    def hear(self, message: m.Message, payload: Sequence[bytes] = ()) -> None:
        """Let the scheduler say something."""
        self.feed(message, payload)
        self.settle()

    def print(self, worker: int, stream: int, data: bytes) -> None:
        """Let a worker write something."""
        self.tell(Printed(worker, stream, data))

    def leave(self) -> None:
        """Ask the node to leave."""
        self.core.leave()
        self.settle()

    def serve(self, slots: int = 2, **more: Any) -> None:
        """Connect, and begin a lease."""
        self.hear(m.Welcome(SCHEDULER, "0", "pub"))
        self.hear(start_lease(slots, **more), [b"function"])

    def pass_time(self, seconds: float) -> None:
        """Advance the clock, deadline by deadline."""
        clock = self.clock
        until_s = clock.now_s + seconds
        at_once = 0
        while (due_s := self.core.next_deadline_s()) <= until_s:
            at_once = at_once + 1 if due_s <= clock.now_s else 0
            assert at_once < 20, "the core spins"
            clock.now_s = max(clock.now_s, due_s)
            self.settle()
        clock.now_s = until_s

    def load(self, load_s: float = 0.001, *, may_fork: bool = True) -> None:
        """Let all workers that are made become ready, or the template."""
        making = (WorkerState.LOADING, WorkerState.COPYING)
        while waiting := [w for w in self.workers.values() if w.state in making]:
            for worker in waiting:
                self.ready(worker, load_s, may_fork=may_fork)

    def fail_to_load(self, worker: int, frames: list[bytes]) -> None:
        """Let a worker say that it cannot load the function, and end."""
        del self.workers[worker]
        self.tell(LoadFailed(worker, frames))

    def claim(self, worker: ModelWorker, calls: int = 1) -> tuple[int, int] | None:
        """Let a worker begin a stride; return it."""
        assert worker.running is None
        self.leave_empty(worker)
        return worker.claim(calls) if worker.cells else None

    def finish(
        self,
        worker: ModelWorker,
        seconds: float = 0.001,
        frames: Sequence[bytes] = (b"r",),
        kind: Kind = Kind.RESULTS,
    ) -> None:
        """Let a worker end the stride that it is in."""
        self.clock.now_s += seconds
        self.report(worker, seconds, frames, kind, is_over=worker.cells[0].is_empty)

    def run(self, calls: int = 1, seconds: float = 0.001) -> bool:
        """Let each worker run one stride; return whether anybody had one."""
        any_ran = False
        for worker in list(self.workers.values()):
            if worker.ready and (worker.running or self.claim(worker, calls)):
                self.finish(worker, seconds)
                any_ran = True
        return any_ran

    def finish_all(self, calls: int = 1, seconds: float = 0.001) -> None:
        """Let the workers run until nothing is left."""
        self.load()
        while self.run(calls, seconds):
            self.load()

    def kill(self, number: int, how: tuple[str, int] = ("signal", 9), why: str = "") -> None:
        """Let a worker die; `why`: the node kills it for that."""
        death = replace(self.workers.pop(number).die(how), killed_for=why)
        self.tell(death)
        if death.state is WorkerState.TEMPLATE:
            self._lose_copies()

    def show_memory(self, available: int, used: dict[int, int], **more: int) -> None:
        """Let the core see the memory of the node, which has MEMORY bytes."""
        self.tell(Reading(MEMORY, available, used=used, **more))

    # --- what the core asks for ---

    def settle(self) -> None:
        """Carry out what follows from what the core was fed with."""
        super().settle()
        while self._serving:
            self.tell(TemplateServes(self._serving.popleft()))
        while self._doomed:  # nothing is answered before its turn
            doomed = self._doomed.popleft()
            if doomed.worker in self.workers:
                self.kill(doomed.worker, why=doomed.why)

    def carry_out(self, effect: e.Effect) -> None:
        super().carry_out(effect)
        if not isinstance(effect, e.Send):
            self.effects.append(effect)
        match effect:
            case e.MakeTemplate():
                self._serving.append(effect.worker)
            case e.Kill():
                self._doomed.append(effect)
            case e.Note():
                self.notes.append(effect.text)
            case _:
                pass

    def _lose_copies(self) -> None:
        copies = [w for w in self.workers.values() if w.state is WorkerState.COPYING]
        for copy in copies:
            del self.workers[copy.number]
            self.tell(NotCopied())
