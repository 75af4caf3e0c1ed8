"""A nodelet's shell without processes: workers that keep the slate's rules and run when told to."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from outcomes import runs_of

from burla.nodelet.core import effects as e
from burla.nodelet.core.events import (
    CellReport,
    Copied,
    Died,
    Loaded,
    LoadFailed,
    NotCopied,
    Printed,
    Reading,
    Reported,
    Stolen,
    Stride,
    TemplateServes,
    WorkerEvent,
    WorkersEnded,
    WorkerState,
)
from burla.nodelet.core.nodelet import Nodelet
from burla.protocol import messages as m
from burla.protocol.messages import Kind, Leaf, Span
from burla.protocol.ranges import Ranges

MEMORY = 1000  # bytes of a node
LEASE, JOB, SCHEDULER = b"L" * 16, b"J" * 16, b"S" * 16


def hello(cpus: int = 2) -> m.NodeHello:
    return m.NodeHello(m.PROTOCOL, "0", "3.11", b"N" * 16, "node", cpus, 1 << 30, ())


def start_lease(
    slots: int = 2,
    lease: bytes = LEASE,
    report_s: float = 0.02,
    window: int = 32 << 20,
    func_ram: int | None = None,
) -> m.StartLease:
    return m.StartLease(
        lease=lease,
        job=JOB,
        slots=slots,
        func_cpu=1,
        unpack=False,
        environment=b"",
        outcome_window=window,
        report_s=report_s,
        func_ram=func_ram,
    )


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


@dataclass
class ModelCell:
    number: int
    pos: int  # end of what is claimed
    hi: int  # lowered by steals
    ran: int  # end of what was run and told
    careful: bool


@dataclass
class ModelWorker:
    """One worker; `running` is the stride that it is in."""

    number: int
    state: WorkerState
    cells: deque[ModelCell] = field(default_factory=deque)
    running: tuple[int, int] | None = None
    interrupted: bool = False

    @property
    def ready(self) -> bool:
        return self.state is WorkerState.READY

    def stride(self) -> Stride:
        if self.running is None:
            return Stride(0, 0, 0)
        return Stride(self.cells[0].number, *self.running, claimed=self.cells[0].pos)


class ModelNode:
    """Carries out the effects of a core; what workers do is decided by the test."""

    def __init__(self, cpus: int = 2) -> None:
        self.core = Nodelet(hello(cpus))
        self.now_s = 0.0
        self.workers: dict[int, ModelWorker] = {}
        self.sent: list[m.Message] = []  # since the last `said`
        self.payload: dict[int, list[bytes]] = {}  # id of a sent message -> its frames
        self.notes: list[str] = []
        self.effects: list[e.Effect] = []  # all but Send, in order
        self.paused = False
        self.ending = False
        self._made = 0
        self._doomed: deque[int] = deque()  # to be killed when all that was asked for is done
        self._serving: deque[int] = deque()  # templates that were not told of yet
        self.core.start(0.0)
        self.settle()

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

    def hear(self, message: m.Message, payload: list[bytes] | None = None) -> None:
        """Let the scheduler say something."""
        self.feed(message, payload)
        self.settle()

    def feed(self, message: m.Message, payload: list[bytes] | None = None) -> None:
        """Let the scheduler say something, and more in the same turn."""
        self.core.receive(message, payload or [], self.now_s)  # type: ignore[arg-type]

    def tell(self, *events: WorkerEvent) -> None:
        """Let things happen to workers, in one turn."""
        for event in events:
            self.core.take(event, self.now_s)
        self.settle()

    def print(self, worker: int, stream: int, data: bytes) -> None:
        """Let a worker write something."""
        self.tell(Printed(worker, stream, data))

    def leave(self) -> None:
        """Ask the node to leave."""
        self.core.leave()
        self.settle()

    def serve(self, slots: int = 2, **options: float) -> None:
        """Connect, and begin a lease."""
        self.hear(m.Welcome(SCHEDULER, "0", "pub"))
        self.hear(start_lease(slots, **options), [b"function"])  # type: ignore[arg-type]

    def pass_time(self, seconds: float) -> None:
        """Advance the clock, deadline by deadline."""
        until = self.now_s + seconds
        at_once = 0
        while (due_s := self.core.next_deadline_s()) <= until:
            at_once = at_once + 1 if due_s <= self.now_s else 0
            assert at_once < 20, "the core spins"
            self.now_s = max(self.now_s, due_s)
            self.settle()
        self.now_s = until

    def load(self, load_s: float = 0.001, *, may_fork: bool = True) -> None:
        """Let all workers that are made become ready, or the template."""
        making = (WorkerState.LOADING, WorkerState.COPYING)
        while waiting := [w for w in self.workers.values() if w.state in making]:
            for worker in waiting:
                is_copy = worker.state is WorkerState.COPYING
                worker.state = WorkerState.READY
                loaded = Loaded(worker.number, load_s, may_fork)
                self.tell(Copied(worker.number) if is_copy else loaded)

    def fail_to_load(self, worker: int, frames: list[bytes]) -> None:
        """Let a worker say that it cannot load the function, and end."""
        del self.workers[worker]
        self.tell(LoadFailed(worker, frames))

    def claim(self, worker: ModelWorker, calls: int = 1) -> tuple[int, int] | None:
        """Let a worker begin a stride; return it."""
        assert worker.running is None
        while worker.cells:
            cell = worker.cells[0]
            end = min(cell.pos + (1 if cell.careful else calls), cell.hi)
            if end > cell.pos:
                worker.running = (cell.pos, end)
                cell.pos = end
                return worker.running
            worker.cells.popleft()
            self._report(worker, CellReport(cell.number, cell.ran, cell.ran, **_over(cell.ran)))
        return None

    def finish(
        self,
        worker: ModelWorker,
        seconds: float = 0.001,
        frames: tuple[bytes, ...] = (b"r",),
        kind: Kind = Kind.RESULTS,
    ) -> None:
        """Let a worker end the stride that it is in."""
        assert worker.running is not None
        (lo, hi), worker.running = worker.running, None
        cell = worker.cells[0]
        cell.ran = hi
        self.now_s += seconds
        is_over = cell.pos >= cell.hi
        if is_over:
            worker.cells.popleft()
        end = _over(hi) if is_over else {}
        self._report(worker, CellReport(cell.number, lo, hi, kind, seconds, frames, **end))

    def _report(self, worker: ModelWorker, report: CellReport) -> None:
        self.tell(Reported(worker.number, [report]))

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

    def kill(self, number: int, how: tuple[str, int] = ("signal", 9)) -> None:
        """Let a worker die."""
        worker = self.workers.pop(number)
        self.tell(Died(number, how, worker.state, worker.stride()))
        if worker.state is WorkerState.TEMPLATE:
            self._lose_copies()

    def show_memory(self, available: int, used: dict[int, int], **more: int) -> None:
        """Let the core see the memory of the node, which has MEMORY bytes."""
        self.tell(Reading(MEMORY, available, used=used, **more))

    def end(self) -> None:
        """Say that the processes of the ending lease are gone."""
        assert self.ending
        self.ending = False
        self.workers.clear()
        self.tell(WorkersEnded())

    # --- what the core asks for ---

    def settle(self) -> None:
        """Carry out what follows from what the core was fed with."""
        while effects := self.core.settle(self.now_s):
            for effect in effects:
                self._carry_out(effect)
                if not isinstance(effect, e.Send):
                    self.effects.append(effect)
        while self._serving:
            self.tell(TemplateServes(self._serving.popleft()))
        while self._doomed:  # nothing is answered before its turn
            doomed = self._doomed.popleft()
            if doomed in self.workers:
                self.kill(doomed)

    def _lose_copies(self) -> None:
        copies = [w for w in self.workers.values() if w.state is WorkerState.COPYING]
        for copy in copies:
            del self.workers[copy.number]
            self.tell(NotCopied())

    def _make(self, state: WorkerState) -> None:
        self._made += 1
        self.workers[self._made] = ModelWorker(self._made, state)

    def _carry_out(self, effect: e.Effect) -> None:
        match effect:
            case e.Send():
                self.sent.append(effect.message)
                self.payload[id(effect.message)] = list(effect.payload)
            case e.LoadWorker():
                self._make(WorkerState.LOADING)
            case e.MakeTemplate():
                self.workers[effect.worker].state = WorkerState.TEMPLATE
                self._serving.append(effect.worker)
            case e.ForkWorker():
                assert self.workers[effect.template].state is WorkerState.TEMPLATE
                self._make(WorkerState.COPYING)
            case e.AssignSpan():
                leaves = Ranges((leaf.lo, leaf.hi) for leaf in effect.leaves)
                assert leaves.covers(effect.span.lo, effect.span.hi)
                lo, hi = effect.span.lo, effect.span.hi
                worker = self.workers[effect.worker]
                assert all(cell.number != effect.cell for cell in worker.cells), "used too early"
                worker.cells.append(ModelCell(effect.cell, lo, hi, lo, effect.careful))
            case e.Steal():
                self._steal(effect)
            case e.PauseReading():
                assert not self.paused
                self.paused = True
            case e.ResumeReading():
                assert self.paused
                self.paused = False
            case e.Interrupt():
                self.workers[effect.worker].interrupted = True
            case e.Kill():
                self._doomed.append(effect.worker)
            case e.EndWorkers():
                self.ending = True
            case e.Note():
                self.notes.append(effect.text)
            case _:
                pass

    def _steal(self, effect: e.Steal) -> None:
        cell = next(c for c in self.workers[effect.worker].cells if c.number == effect.cell)
        lo, hi = max(effect.middle, cell.pos), cell.hi
        cell.hi = min(cell.hi, effect.middle) if cell.pos <= effect.middle else cell.pos
        self.core.take(Stolen(effect.worker, effect.cell, lo, hi), self.now_s)


def _over(at: int) -> dict[str, Any]:
    """Return what a report says of a span that is over."""
    return {"stop": at, "is_over": True}
