"""A node without processes: a nodelet's real core, and workers that only pretend to run.

Here is what the core asks for, and what it is told. When workers load, run and die is up to whoever
drives the node: a test by hand (worker_model.py), or a virtual clock (world.py).
"""

from collections.abc import Callable, Sequence

from network import Clock, Said

from burla.nodelet.core import effects as e
from burla.nodelet.core.events import (
    CellReport,
    Copied,
    Loaded,
    Reported,
    Stolen,
    WorkerEvent,
    WorkersEnded,
    WorkerState,
)
from burla.nodelet.core.nodelet import Nodelet
from burla.protocol import messages as m
from burla.protocol.messages import Kind
from burla.protocol.ranges import Ranges

from .worker import ModelWorker


def big_leaf(size: int) -> bytes:
    """Return what a leaf of this size consists of."""
    return bytes(at % 251 for at in range(size))


class ModelNode:
    """Carries out the effects of a core as far as they take no time."""

    def __init__(self, core: Nodelet, clock: Clock, say: Callable[[Said], None]) -> None:
        """Start `core`; `say` takes what it sends to the scheduler."""
        self.core, self.clock, self._say = core, clock, say
        self.workers: dict[int, ModelWorker] = {}
        self.kept: dict[int, bytes] = {}  # blobs and big inputs, by number
        self.paused = False
        self.ending = False
        self._made = 0
        self._job = b""
        self._unanswered = 0  # Retracts of leases that there are
        self.core.start(clock.now_s)
        self.settle()

    # --- what happens to it ---

    def feed(self, message: m.Message, payload: Sequence[bytes] = ()) -> None:
        """Let the scheduler say something, and more in the same turn."""
        if isinstance(message, m.Retract) and message.lease in self.core.leases:
            self._unanswered += 1
        self.core.receive(message, payload, self.clock.now_s)  # type: ignore[arg-type]

    def tell(self, *events: WorkerEvent) -> None:
        """Let things happen to workers, in one turn."""
        for event in events:
            self.core.take(event, self.clock.now_s)
        self.settle()

    def ready(self, worker: ModelWorker, load_s: float, *, may_fork: bool) -> None:
        """Let a worker that is made become ready."""
        is_copy = worker.state is WorkerState.COPYING
        worker.state = WorkerState.READY
        loaded = Loaded(worker.number, load_s, may_fork)
        self.tell(Copied(worker.number) if is_copy else loaded)

    def leave_empty(self, worker: ModelWorker) -> None:
        """Let a worker tell of the spans that ended before it came to them."""
        while (report := worker.leave_empty()) is not None:
            self.tell(Reported(worker.number, [report]))

    def report(
        self,
        worker: ModelWorker,
        seconds: float,
        frames: Sequence[bytes],
        kind: Kind = Kind.RESULTS,
        *,
        is_over: bool,
        retry_why: str | None = None,
    ) -> None:
        """Let a worker end its stride, and with it its span; if not `is_over`, that comes later."""
        report = worker.finish(seconds, frames, kind, is_over=is_over)
        report = report._replace(retry_why=retry_why)
        self.tell(Reported(worker.number, [report]))

    def end(self) -> None:
        """Say that the processes of the ending lease are gone."""
        assert self.ending
        self.ending = False
        self.workers.clear()
        self.tell(WorkersEnded())

    # --- what the core asks for ---

    def settle(self) -> None:
        """Carry out what follows from what the core was fed with."""
        while effects := self.core.settle(self.clock.now_s):
            for effect in effects:
                self.carry_out(effect)
        assert not self._unanswered, "a Retract is answered in the turn that it came in"

    def carry_out(self, effect: e.Effect) -> None:
        """Do what can be done at once; what takes time is for whoever drives the node."""
        match effect:
            case e.Send():
                self._unanswered -= isinstance(effect.message, m.Retracted)
                self._say((effect.message, list(effect.payload)))
            case e.BeginLease():
                self._job = effect.start.job
                for worker in self.workers.values() if effect.keep else ():
                    assert worker.running is None, "a kept worker is busy"
                    worker.job = self._job
            case e.LoadWorker():
                self._make(WorkerState.LOADING)
            case e.MakeTemplate():
                self.workers[effect.worker].state = WorkerState.TEMPLATE
            case e.ForkWorker():
                assert self.workers[effect.template].state is WorkerState.TEMPLATE
                self._make(WorkerState.COPYING)
            case e.KeepBlob():
                had = self.kept.get(effect.number, b"")
                assert len(had) == effect.start, "a piece that does not follow"
                self.kept[effect.number] = had + b"".join(effect.payload)
            case e.DropBlob():
                self.kept.pop(effect.number, None)
            case e.AssignSpan():
                big = [leaf for leaf in effect.leaves if leaf.size]
                assert [leaf.number for leaf in big] == list(effect.files)
                for leaf in big:
                    assert self.kept[leaf.number] == big_leaf(leaf.size), "a big input is not here"
                leaves = Ranges((leaf.lo, leaf.hi) for leaf in effect.leaves)
                assert leaves.covers(effect.span.lo, effect.span.hi), "a leaf is missing"
                self.workers[effect.worker].assign(effect)
            case e.Steal():
                lo, hi = self.workers[effect.worker].steal(effect.cell, effect.middle)
                self.core.take(Stolen(effect.worker, effect.cell, lo, hi), self.clock.now_s)
            case e.PauseReading():
                self._pause(effect.worker)
            case e.ResumeReading():
                self._resume(effect.worker)
            case e.Interrupt():
                self.workers[effect.worker].interrupted = True
            case e.EndWorkers():
                self.ending = True
            case _:
                pass

    def _pause(self, worker: int | None) -> None:
        assert worker is not None or not self.paused
        if worker is None:
            self.paused = True
        elif worker in self.workers:
            self.workers[worker].held = True

    def _resume(self, worker: int | None) -> None:
        assert worker is not None or self.paused
        if worker is None:
            self.paused = False
        elif worker in self.workers:
            assert self.workers[worker].held
            self.workers[worker].held = False

    def flow(self, worker: ModelWorker, data: bytes, at: int, size: int, seconds: float) -> bool:
        """Let a worker write a fragment of its only result; return whether that was the last one.

        Nothing of it is read while reading is paused.
        """
        assert worker.running is not None
        assert not self.paused
        assert not worker.held
        lo, hi = worker.running
        part = m.Fragment(lo, at, size)
        is_last = at + len(data) == size
        if is_last:
            report = worker.finish(seconds, [data], Kind.RESULT, is_over=False)
        else:
            cell = worker.cells[0].number
            report = CellReport(cell, lo, hi, Kind.RESULT, 0.0, [data])
        self.tell(Reported(worker.number, [report._replace(fragment=part)]))
        return is_last

    def _make(self, state: WorkerState) -> ModelWorker:
        self._made += 1
        worker = self.workers[self._made] = ModelWorker(self._made, state, self._job)
        return worker
