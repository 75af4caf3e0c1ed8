"""A nodelet's shell without processes: workers that keep the slate's rules and run when told to."""

from collections import deque
from dataclasses import dataclass, field

from outcomes import runs_of

from burla.nodelet.core import effects as e
from burla.nodelet.core.memory_policy import Reading
from burla.nodelet.core.nodelet import Nodelet
from burla.protocol import messages as m
from burla.protocol.messages import Kind, Leaf, Run, Span
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


def deal(
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
    hi: int  # lowered by thieves
    ran: int  # end of what was run and told
    careful: bool


@dataclass
class ModelWorker:
    """One worker; `running` is the stride that it is in."""

    number: int
    ready: bool = False
    cells: deque[ModelCell] = field(default_factory=deque)
    running: tuple[int, int] | None = None
    interrupted: bool = False


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
        self._doing = 0  # calls of `do` that are not over
        self._doomed: deque[int] = deque()  # to be killed when they are
        self.do(self.core.start(0.0))

    # --- what the test does ---

    def said(self) -> list[m.Message]:
        """Return and forget what was sent to the scheduler, without beats."""
        sent, self.sent = self.sent, []
        return [message for message in sent if not isinstance(message, m.Heartbeat)]

    def outcomes(self) -> list[m.Outcomes]:
        """Return those that were sent, and forget all that was."""
        return [message for message in self.said() if isinstance(message, m.Outcomes)]

    def dealt(self) -> list[tuple[int, int]]:
        """Return all that was ever dealt to workers."""
        return [(x.span.lo, x.span.hi) for x in self.effects if isinstance(x, e.DealSpan)]

    def hear(self, message: m.Message, payload: list[bytes] | None = None) -> None:
        """Let the scheduler say something."""
        self.do(self.core.receive(message, payload or [], self.now_s))  # type: ignore[arg-type]

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
            self.do(self.core.expire(self.now_s))
        self.now_s = until

    def load(self, *, is_copy: bool = False) -> None:
        """Let all workers that are loading become ready."""
        while waiting := [w for w in self.workers.values() if not w.ready]:
            for worker in waiting:
                worker.ready = True
                self.do(self.core.ready(worker.number, self.now_s, is_copy=is_copy))

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
            self.do(self.core.settled(worker.number, cell.number, self.now_s))
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
        run = Run(lo, hi, kind, len(frames))
        self.do(self.core.ran(worker.number, cell.number, run, frames, seconds, self.now_s))
        if worker.number in self.workers and cell.pos >= cell.hi:
            worker.cells.popleft()
            self.do(self.core.settled(worker.number, cell.number, self.now_s))

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
        args = (number, how, worker.ready, worker.running, self.now_s)
        self.do(self.core.died(*args))

    def show_memory(self, available: int, used: dict[int, int], **more: int) -> None:
        """Let the core see the memory of the node, which has MEMORY bytes."""
        reading = Reading(MEMORY, available, used=used, **more)
        self.do(self.core.memory(reading, self.now_s))

    def end(self) -> None:
        """Say that the processes of the ending lease are gone."""
        assert self.ending
        self.ending = False
        self.workers.clear()
        self.do(self.core.ended(self.now_s))

    # --- what the core asks for ---

    def do(self, effects: list[e.Effect]) -> None:
        self._doing += 1
        for effect in effects:
            self._carry_out(effect)
            if not isinstance(effect, e.Send):
                self.effects.append(effect)
        self._doing -= 1
        while self._doomed and not self._doing:  # nothing is answered before its turn
            self.kill(self._doomed.popleft())

    def _carry_out(self, effect: e.Effect) -> None:
        match effect:
            case e.Send():
                self.sent.append(effect.message)
                self.payload[id(effect.message)] = list(effect.payload)
            case e.AddWorkers():
                for _ in range(effect.count):
                    self._made += 1
                    self.workers[self._made] = ModelWorker(self._made)
            case e.DealSpan():
                leaves = Ranges((leaf.start, leaf.start + leaf.count) for leaf, _ in effect.leaves)
                assert leaves.covers(effect.span.lo, effect.span.hi)
                lo, hi = effect.span.lo, effect.span.hi
                cell = ModelCell(effect.cell, lo, hi, lo, effect.careful)
                self.workers[effect.worker].cells.append(cell)
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
        self.do(self.core.stolen(effect.worker, effect.cell, lo, hi, self.now_s))
