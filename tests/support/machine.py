"""Drives the workers of one machine without a network: a small stand-in for the nodelet's core."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import psutil

from burla.nodelet.core.cells import CELLS_MAX, Worker
from burla.nodelet.core.effects import AssignSpan, StoredLeaf
from burla.nodelet.core.events import (
    CellReport,
    Copied,
    Died,
    Loaded,
    LoadFailed,
    Looked,
    NotCopied,
    Printed,
    Reading,
    Reported,
    Stolen,
    TemplateServes,
    WorkerEvent,
    WorkersEnded,
    WorkerState,
)
from burla.nodelet.core.spawn_policy import SpawnPolicy, Step
from burla.nodelet.core.watchdog import Watchdog
from burla.nodelet.shell.devices import Devices
from burla.nodelet.shell.launching import launch_module
from burla.nodelet.shell.worker_pool import WorkerPool
from burla.nodelet.worker.control import LoadSettings
from burla.nodelet.worker.pipes import CUT_SIGNAL
from burla.protocol.messages import Kind, Span
from burla.values import payloads

BATCH = 7  # the only batch
WAIT_S = 30.0  # nothing takes nearly as long, but on an overloaded machine


def leaves_of(inputs: Sequence[Any]) -> list[StoredLeaf]:
    """Return the leaves of all inputs of a job."""
    return [
        StoredLeaf(BATCH, lo, lo + leaf.count, [bytes(frame) for frame in leaf.frames])
        for batch in payloads.cut_batches(inputs)
        for lo, leaf in _places(batch)
    ]


def _places(batch: payloads.Batch) -> list[tuple[int, payloads.Leaf]]:
    places, at = [], batch.start
    for leaf in batch.leaves:
        places.append((at, leaf))
        at += leaf.count
    return places


HASH_SEED = 1  # of the zygote


def environment() -> bytes:
    """Return the environment of this process as a client packs it."""
    here: dict[str, Any] = {
        "path": sys.path,
        "directory": None,
        "shadowed": [],
        "argv": ["x"],
        "main": {},
        "surroundings": b"",
    }
    packed: bytes = msgpack.packb(here)
    return packed


@dataclass(frozen=True)
class Death:
    """How a worker ended, and what it had not finished."""

    how: tuple[str, int]
    ready: bool  # it had loaded the function
    lost: tuple[tuple[int, int], ...]  # assigned, not stolen, without outcome
    running: tuple[int, int] | None  # the stride that it was in


@dataclass
class Machine:
    """Takes note of all that happens, and waits for what a test expects.

    Workers are made, and custody is kept, by the same parts as in the core.
    """

    cuts: bool
    workers: WorkerPool = field(init=False)
    ready: list[int] = field(default_factory=list)
    load_s: list[float] = field(default_factory=list)  # 0: forked from a template
    outcomes: list[tuple[int, CellReport]] = field(default_factory=list)
    given_back: list[tuple[int, int, int, int]] = field(default_factory=list)
    settled: list[tuple[int, int, int, int]] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    deaths: list[tuple[int, Death]] = field(default_factory=list)
    load_failures: list[Sequence[Any]] = field(default_factory=list)
    output: dict[int, bytearray] = field(
        default_factory=lambda: {stream: bytearray() for stream in (1, 2, 3)}
    )
    told: list[str] = field(default_factory=list)  # what happened, in order
    zygote_is_dead: bool = False
    on_event: Callable[[], None] = field(default=lambda: None)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _spawn: SpawnPolicy = field(default_factory=SpawnPolicy)
    _custody: dict[int, Worker] = field(default_factory=dict)
    _watchdog: Watchdog = field(default_factory=Watchdog)

    # --- events ---

    def busy(self) -> list[int]:
        return [worker.number for worker in self._custody.values() if worker.cells]

    def tell(self, events: Sequence[WorkerEvent]) -> None:
        for event in events:
            self._take(event)
        self._make()

    def _tell(self, what: str) -> None:
        self.told.append(what)
        self._changed.set()
        self.on_event()

    def _take(self, event: WorkerEvent) -> None:
        match event:
            case Loaded():
                if self._spawn.loaded(event.worker, event.load_s, event.may_fork):
                    self.workers.make_template(event.worker)
                else:
                    self._admit(event.worker, event.load_s)
            case Copied():
                self._spawn.ready(WorkerState.COPYING)
                self._admit(event.worker, 0)
            case TemplateServes():
                self._spawn.template_serves(event.worker)
            case NotCopied():
                self._spawn.not_copied()
            case LoadFailed():
                self.load_failures.append(event.frames)
                self._tell("load failed")
            case Reported():
                for report in event.reports:
                    self._take_report(self._custody[event.worker], report)
            case Printed():
                self.output[event.stream] += event.data
                self._tell("output")
            case Died():
                self._take_death(event)
            case Looked() if self.cuts:
                for number in self._watchdog.look(self._custody, event.strides, time.monotonic()):
                    self.workers.signal(number, CUT_SIGNAL)
            case Reading():
                self.readings.append(event)
            case WorkersEnded() | Stolen() | Looked():
                pass

    def _admit(self, worker: int, load_s: float) -> None:
        self._custody[worker] = Worker(worker, 0.0)
        self.ready.append(worker)
        self.load_s.append(load_s)
        self._tell("ready")

    def _take_report(self, worker: Worker, report: CellReport) -> None:
        lo, hi = worker.take(report)
        if report.frames:
            self.outcomes.append((worker.number, report))
            self._tell("outcomes")
        if report.is_over:
            self.settled.append((worker.number, report.cell, lo, hi))
            self._tell("settled")
        elif lo < hi:
            self.given_back.append((worker.number, report.cell, lo, hi))
            self._tell("given back")

    def _take_death(self, event: Died) -> None:
        worker = self._custody.pop(event.worker, None)
        lost = tuple(worker.open_ranges()) if worker is not None else ()
        running = worker.running(event.stride) if worker is not None else None
        if event.state is WorkerState.TEMPLATE:
            self._spawn.drop_template()
        else:
            self.deaths.append((event.worker, Death(event.how, worker is not None, lost, running)))
            self._tell("death")

    def on_zygote_death(self) -> None:
        self.zygote_is_dead = True
        self._tell("zygote death")

    # --- making workers ---

    def add_workers(self, count: int) -> None:
        """Make so many more."""
        self._spawn.want(count)
        self._make()

    def drop_template(self) -> None:
        """Let each worker load the function from now on."""
        if self._spawn.template is not None:
            self.workers.kill(self._spawn.template)
        self._spawn.drop_template()
        self._make()

    def _make(self) -> None:
        for step in self._spawn.steps():
            if step is Step.FORK:
                assert self._spawn.template is not None
                self.workers.fork_worker(self._spawn.template)
            else:
                self.workers.load_worker()

    # --- what tests do ---

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def lease(
        self, function: Callable[..., Any], workers: int, *, use_template: bool = True, **how: Any
    ) -> list[int]:
        """Begin a lease and return its workers, once all are ready."""
        self.begin(function, use_template=use_template, **how)
        before = len(self.ready)
        self.add_workers(workers)
        await self.until(lambda: len(self.ready) == before + workers)
        return self.ready[before:]

    def begin(self, function: Callable[..., Any], *, use_template: bool = True, **how: Any) -> None:
        """Begin a lease without workers."""
        names = ("func_ram", "budget", "gpus")
        limits = {name: how.pop(name) for name in names if name in how}
        settings = LoadSettings(**{"environment": environment(), "node": "here"} | how)
        self._spawn = SpawnPolicy()
        if not use_template:
            self._spawn.drop_template()
        self.workers.begin_lease(payloads.dump_function(function), settings, **limits)

    def assign(
        self,
        worker: int,
        lo: int,
        hi: int,
        leaves: Sequence[StoredLeaf],
        *,
        left: int = 1 << 20,
        slots: int = 1,
        careful: bool = False,
    ) -> int:
        """Assign a span; return its cell."""
        covering = [leaf for leaf in leaves if leaf.lo < hi and leaf.hi > lo]
        cell = self._custody[worker].open(lo, hi).number
        self.workers.assign(
            AssignSpan(worker, cell, Span(BATCH, lo, hi), covering, left, slots, careful)
        )
        return cell

    def steal(self, worker: int, cell: int, middle: int) -> tuple[int, int] | None:
        """Take away what a worker has not claimed of a span from `middle` on."""
        of = self._custody[worker]
        mine = of.cell(cell)
        if mine is None or middle >= mine.stop:
            return None
        mine.stop = max(middle, mine.lo)
        return of.take_stolen(cell, *self.workers.steal(worker, cell, mine.stop))

    def progress(self, worker: int, cell: int) -> tuple[int, int] | None:
        """Return [lo, hi): what is not claimed of a span and could be stolen; None: it is over."""
        mine = self._custody[worker].cell(cell) if worker in self._custody else None
        if mine is None:
            return None
        claimed = self.workers._handles[worker].slate.claimed(cell)
        return min(max(claimed, mine.lo), mine.hi), mine.hi

    def free_cells(self, worker: int) -> int:
        """Return how many more spans a worker takes now."""
        return CELLS_MAX - len(self._custody[worker].cells)

    def results(self) -> dict[int, Any]:
        """Return all outcomes so far by index; a failure as its `payloads.Failure`."""
        found: dict[int, Any] = {}
        for _, outcome in self.outcomes:
            match outcome.kind:
                case Kind.RESULTS:
                    some = payloads.load_results(outcome.frames)
                case Kind.RESULT:
                    some = [payloads.load_result(outcome.frames)]
                case _:
                    some = [payloads.load_error(outcome.frames)]
            assert len(some) == outcome.hi - outcome.lo, outcome
            for index, one in enumerate(some, outcome.lo):
                assert index not in found, f"{index} came twice"
                found[index] = one
        return found

    def count(self) -> int:
        """Return how many outcomes have come."""
        return sum(outcome.hi - outcome.lo for _, outcome in self.outcomes)

    def assign_again(self, leaves: Sequence[StoredLeaf], **how: Any) -> None:
        """From now on assign what a worker gives back to it again."""
        seen = [0, 0]

        def look() -> None:
            for number, back in enumerate((self.given_back, self.settled)):
                while seen[number] < len(back):
                    worker, _, lo, hi = back[seen[number]]
                    seen[number] += 1
                    if lo < hi:
                        self.assign(worker, lo, hi, leaves, **how)

        self.on_event = look

    async def run(
        self, function: Callable[..., Any], inputs: Sequence[Any], workers: int, **how: Any
    ) -> list[Any]:
        """Run a whole job with stealing; return what came of each input."""
        ids = await self.lease(function, workers, **how)
        leaves = leaves_of(inputs)
        self.assign_again(leaves, slots=workers)
        share = -(-len(inputs) // workers)
        for number, worker in enumerate(ids):
            lo, hi = number * share, min(len(inputs), (number + 1) * share)
            if lo < hi:
                self.assign(worker, lo, hi, leaves, left=0, slots=workers)
        await self.until(lambda: self.count() == len(inputs))
        await self.workers.end_lease()
        results = self.results()
        return [results[index] for index in range(len(inputs))]


async def poll(condition: Callable[[], bool]) -> None:
    """Wait until something is true that nobody tells us of: a file, a process, a slate."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)


@asynccontextmanager
async def machine(
    blanks: int = 0,
    scratch: Path | None = None,
    devices: Devices | None = None,
    *,
    cuts: bool = False,
) -> AsyncIterator[Machine]:
    """Start the workers of a machine, and end them with all that is below.

    `cuts`: strides that last too long are cut, so that workers give back what they do not begin.
    On a busy machine that may be any.
    """
    one = Machine(cuts)
    launch = launch_module("zygote", HASH_SEED, str(scratch or ""))
    one.workers = WorkerPool(one, launch, devices=devices)
    await one.workers.start()
    try:
        one.workers.prepare(blanks)
        yield one
    finally:
        await one.workers.close()


def run(coroutine: Any) -> Any:
    """Run to its end, in a loop of its own."""
    return asyncio.run(coroutine)


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that nobody has reaped does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def gone(pid: int) -> None:
    """Wait until a process is gone."""
    await poll(lambda: not is_alive(pid))


class Slow:
    """Takes a while to be unpickled."""

    def __reduce__(self) -> Any:
        return time.sleep, (0.05,)


def slow_to_load(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function that does the same, but takes 50 ms to load."""
    slow = Slow()

    def call(x: Any) -> Any:
        return function(x) if slow is None else None

    return call


__all__ = [
    "BATCH",
    "Machine",
    "environment",
    "gone",
    "is_alive",
    "leaves_of",
    "machine",
    "poll",
    "run",
    "slow_to_load",
]
