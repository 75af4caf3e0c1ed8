"""The workers of one lease: how they come, and what follows from their ends. Pure."""

from collections.abc import Mapping
from typing import assert_never

from msgspec.structs import replace

from burla.protocol.deaths import BROKEN, TIMEOUT, Death
from burla.protocol.ranges import Range, Ranges

from .cells import BrokenWorkerError, Worker
from .dispatcher import Dispatcher
from .effects import CutStride, Effect, ForkWorker, Kill, LoadWorker, MakeTemplate, Note
from .events import (
    NOBODY,
    CellReport,
    Copied,
    Died,
    Loaded,
    LoadFailed,
    NotCopied,
    Printed,
    Reading,
    Stride,
    TemplateServes,
    WorkerState,
)
from .last_words import LastWords
from .memory_policy import DEATHS_MAX, KILLED, MemoryPolicy
from .spawn_policy import SpawnPolicy, Step
from .timeouts import running
from .watchdog import Watchdog

LifeEvent = Loaded | LoadFailed | TemplateServes | Copied | NotCopied

BY_US = ("killed", 0)  # how one ends whose call had its time: nobody's memory is to blame
CRASHED = "signal"  # how a copy dies that does not bear having been forked


class LeaseWorkers:
    """Those that are ready (the dispatcher's), those that are made, and the template."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        func_ram: int | None,
        effects: list[Effect],
        *,
        is_noted: bool = False,
        deaths: int = 0,
        may_fork: bool = True,
    ) -> None:
        """Start without workers.

        Args:
            dispatcher: of the lease.
            func_ram: bytes that one call may use; None: no limit.
            effects: where all that is asked for is put.
            is_noted: slates say which call of a stride it is, not only which stride.
            deaths: that a call may have before it is given up, if that is more than usual.
            may_fork: what has loaded the function may be forked.
        """
        self._is_noted = is_noted
        self.spawn = SpawnPolicy()
        if not may_fork:
            self.spawn.drop_template()
        self.words = LastWords()
        self.watchdog = Watchdog()
        self._dispatcher = dispatcher
        self._effects = effects
        self._memory = MemoryPolicy(dispatcher, func_ram, max(DEATHS_MAX, deaths))

    @property
    def ready(self) -> Mapping[int, Worker]:
        """Return those that have loaded the function."""
        return self._dispatcher.workers

    def whose(self, event: Printed) -> Range:
        """Return the inputs that something printed may be of, as far as its worker has told."""
        lo, hi = event.of
        worker = self._dispatcher.workers.get(event.worker)
        for cell in () if worker is None else worker.cells:
            if cell.lo <= lo < cell.hi:
                return cell.lo, min(hi, cell.hi)  # what ended lately is not told yet
        return (lo, hi) if 0 <= lo < hi else NOBODY

    def take_report(self, worker: Worker, report: CellReport, now_s: float) -> None:
        """Take what a worker says of a cell.

        Raises:
            BrokenWorkerError: that cannot be.
        """
        self._dispatcher.take(worker, report, now_s)

    # --- making them ---

    def want(self, count: int) -> None:
        """Make so many more."""
        self.spawn.want(count)
        self._spawn()

    def want_for_waiting(self) -> None:
        """Make as many more as there are slots, and inputs waiting, for."""
        dispatcher, unready = self._dispatcher, self.spawn.unready
        room = dispatcher.slots - len(dispatcher.workers) - unready
        count = min(room, len(dispatcher.queue) - unready)
        if count > 0 and self.spawn.may_want():
            self.want(count)

    def may_adopt(self, old: "LeaseWorkers") -> bool:
        """Return whether the workers of `old` can go on here: one is there, or will be."""
        slots, ready = self._dispatcher.slots, len(old._dispatcher.workers)
        fits = 0 < ready + old.spawn.unready <= slots + max(0, ready - 1)
        return fits and old.spawn.no_worker is None

    def adopt(self, old: "LeaseWorkers", now_s: float) -> None:
        """Go on with the workers of a lease that is over, and with those that it still makes.

        They load the function when it is needed; so do those that its template forks. Who was just
        robbed of all it had says so in a moment: until then it keeps its cells, which are empty.
        """
        workers = list(old._dispatcher.workers.values())
        kept = self._dispatcher.slots - old.spawn.unready
        for worker in workers[:kept]:
            worker.heard_s = now_s
            self._dispatcher.workers[worker.number] = worker
        self._effects += [Kill(worker.number) for worker in workers[kept:]]
        old._dispatcher.workers.clear()
        self.spawn, old.spawn = old.spawn, self.spawn
        self.spawn.renew()
        self._dispatcher.expect(old._dispatcher)

    def _spawn(self) -> None:
        for step in self.spawn.steps():
            if step is Step.LOAD:
                self._effects.append(LoadWorker())
            else:
                assert self.spawn.template is not None
                self._effects.append(ForkWorker(self.spawn.template))

    # --- how they come ---

    def take(self, event: LifeEvent, now_s: float) -> None:
        """Take what became of workers that were made."""
        match event:
            case Loaded():
                if self.spawn.loaded(event.worker, event.load_s, event.may_fork):
                    self._effects.append(MakeTemplate(event.worker))
                else:
                    self._admit(Worker(event.worker, now_s))
            case Copied():
                self.spawn.ready(WorkerState.COPYING)
                self._admit(Worker(event.worker, now_s, is_copy=True))
            case TemplateServes():
                self.spawn.template_serves(event.worker)
            case NotCopied():
                self._drop_template()
                self.spawn.not_copied()
            case LoadFailed():
                self._load_failed(event)
            case _:
                assert_never(event)
        self._spawn()

    def _admit(self, worker: Worker) -> None:
        self._dispatcher.workers[worker.number] = worker

    def _load_failed(self, event: LoadFailed) -> None:
        workers = self._dispatcher.workers
        if (worker := workers.get(event.worker)) is not None:
            self._dispatcher.bury(worker, None)
        else:
            self.spawn.leave(WorkerState.LOADING)
        self.spawn.load_failed(event.frames, bool(workers))

    def _drop_template(self) -> None:
        if self.spawn.template is not None:
            self._effects.append(Kill(self.spawn.template))
        self.spawn.drop_template()

    # --- how they are ---

    def kill_broken(self, worker: Worker, error: BrokenWorkerError) -> None:
        """Kill a worker that contradicts what it was assigned."""
        worker.is_broken = worker.is_doomed = True
        self._effects += [
            Note(
                f"killing worker {worker.number}, which contradicts what it was assigned: {error}"
            ),
            Kill(worker.number),
        ]

    def look(self, strides: Mapping[int, Stride], now_s: float) -> None:
        """Cut strides that last too long."""
        workers = self._dispatcher.workers
        self._effects += map(CutStride, self.watchdog.look(workers, strides, now_s))

    def read_memory(self, reading: Reading, open_: Ranges, now_s: float) -> None:
        """Kill workers for which there is no memory. `open_`: not run yet."""
        for number, why in self._memory.look(reading, open_, now_s):
            self._effects += [Note(why), Kill(number)]

    # --- how they end ---

    def died(self, event: Died, now_s: float) -> tuple[int, Death] | None:
        """Take an end; return the index that is to be given up for it, and what is to be said."""
        words = self.words.take(event.worker)
        match event.state:
            case WorkerState.LOADING | WorkerState.COPYING:
                self.spawn.died(event, words, bool(self._dispatcher.workers))
            case WorkerState.TEMPLATE if event.worker == self.spawn.template:
                self.spawn.drop_template()
            case _:
                if (worker := self._dispatcher.workers.get(event.worker)) is not None:
                    return self._bury(worker, event, words, now_s)
        self._spawn()
        return None

    def _bury(
        self, worker: Worker, event: Died, words: str, now_s: float
    ) -> tuple[int, Death] | None:
        dispatcher = self._dispatcher
        seen = self._memory.seen(worker)
        is_timeout = event.killed_for == TIMEOUT and not worker.is_broken
        figures = self._memory.died(worker, BY_US if is_timeout else event.how, now_s)
        running = self._running(worker, event.stride)
        is_fresh_copy = worker.is_copy and not worker.has_run and not is_timeout
        if figures is None and is_fresh_copy and event.how[0] == CRASHED:
            running = None  # what it was forked from is to blame, not a call
            self._drop_template()
        index = dispatcher.bury(worker, running)
        if not dispatcher.workers:
            self.spawn.all_gone()
        self._spawn()
        if index is None:
            return None
        if is_timeout:
            return index, Death(*event.how, 1, last_words=words, killed_for=TIMEOUT)
        death = self._memory.judge(index, event.how, figures, worker)
        if death is None:
            dispatcher.try_again(index)
            return None
        killed_for = BROKEN if worker.is_broken else event.killed_for
        is_unexplained = event.how == KILLED and death.memory is None and not killed_for
        return index, replace(
            death,
            last_words=words,
            killed_for=killed_for,
            seen=seen if is_unexplained else None,
            dump=event.dump,
        )

    def _running(self, worker: Worker, stride: Stride) -> Range | None:
        """Return the calls that a dead worker was in, one of which it died in."""
        if not self._is_noted:
            return worker.running(stride)
        index = running(worker, stride)
        return None if index is None else (index, index + 1)

    def snapshot(self) -> dict[str, object]:
        """Return what is made, and the memory last seen, for people."""
        return {"spawn": self.spawn.snapshot(), "memory": self._memory.snapshot()}
