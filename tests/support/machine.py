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

from burla.nodelet.core.memory_policy import Reading
from burla.nodelet.shell.worker_pool import Death, Leaf, LoadSettings, Outcomes, Span, WorkerPool
from burla.nodelet.worker.pipes import Kind
from burla.nodelet.worker.slate import CELLS
from burla.values import payloads

BATCH = 7  # the only batch
WAIT_S = 30.0  # nothing takes nearly as long, but on an overloaded machine


def leaves_of(inputs: Sequence[Any]) -> list[Leaf]:
    """Return the leaves of all inputs of a job."""
    return [
        Leaf(BATCH, batch.start + at, batch.start + at + leaf.count, tuple(leaf.frames))
        for batch in payloads.cut_batches(inputs)
        for at, leaf in _places(batch)
    ]


def _places(batch: payloads.Batch) -> list[tuple[int, payloads.Leaf]]:
    places, at = [], 0
    for leaf in batch.leaves:
        places.append((at, leaf))
        at += leaf.count
    return places


def environment() -> bytes:
    """Return the environment of this process as a client packs it."""
    here: dict[str, Any] = {
        "path": sys.path,
        "directory": None,
        "shadowed": [],
        "argv": ["x"],
        "main": {},
    }
    packed: bytes = msgpack.packb(here)
    return packed


@dataclass
class Machine:
    """Takes note of all that happens, and waits for what a test expects."""

    workers: WorkerPool = field(init=False)
    ready: list[int] = field(default_factory=list)
    load_s: list[float] = field(default_factory=list)
    outcomes: list[tuple[int, Outcomes]] = field(default_factory=list)
    given_back: list[tuple[int, int, int, int]] = field(default_factory=list)
    settled: list[tuple[int, int, int, int]] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    deaths: list[tuple[int, Death]] = field(default_factory=list)
    load_failures: list[Sequence[Any]] = field(default_factory=list)
    output: dict[int, bytearray] = field(default_factory=lambda: {1: bytearray(), 2: bytearray()})
    told: list[str] = field(default_factory=list)  # what happened, in order
    zygote_is_dead: bool = False
    on_event: Callable[[], None] = field(default=lambda: None)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _cells: int = 0

    # --- events ---

    def _tell(self, what: str) -> None:
        self.told.append(what)
        self._changed.set()
        self.on_event()

    def on_ready(self, worker: int, load_s: float) -> None:
        self.ready.append(worker)
        self.load_s.append(load_s)
        self._tell("ready")

    def on_load_failed(self, worker: int, frames: Sequence[Any]) -> None:
        self.load_failures.append(frames)
        self._tell("load failed")

    def on_outcomes(self, worker: int, outcomes: Outcomes) -> None:
        self.outcomes.append((worker, outcomes))
        self._tell("outcomes")

    def on_given_back(self, worker: int, cell: int, lo: int, hi: int) -> None:
        self.given_back.append((worker, cell, lo, hi))
        self._tell("given back")

    def on_settled(self, worker: int, cell: int, lo: int, hi: int) -> None:
        self.settled.append((worker, cell, lo, hi))
        self._tell("settled")

    def on_output(self, worker: int, stream: int, data: bytes) -> None:
        self.output[stream] += data
        self._tell("output")

    def on_death(self, worker: int, death: Death) -> None:
        self.deaths.append((worker, death))
        self._tell("death")

    def on_memory(self, reading: Reading) -> None:
        self.readings.append(reading)

    def on_zygote_death(self) -> None:
        self.zygote_is_dead = True
        self._tell("zygote death")

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
        settings = LoadSettings(environment=environment(), node="here", **how)
        frames = payloads.dump_function(function)
        self.workers.begin_lease(frames, settings, use_template=use_template)
        before = len(self.ready)
        self.workers.add_workers(workers)
        await self.until(lambda: len(self.ready) == before + workers)
        return self.ready[before:]

    def deal(
        self,
        worker: int,
        lo: int,
        hi: int,
        leaves: Sequence[Leaf],
        *,
        left: int = 1 << 20,
        slots: int = 1,
        careful: bool = False,
    ) -> int:
        """Assign a span; return its cell."""
        self._cells += 1
        covering = [leaf for leaf in leaves if leaf.lo < hi and leaf.hi > lo]
        self.workers.deal(
            worker,
            self._cells,
            Span(BATCH, lo, hi),
            covering,
            left=left,
            slots=slots,
            careful=careful,
        )
        return self._cells

    def progress(self, worker: int, cell: int) -> tuple[int, int] | None:
        """Return [lo, hi): what is not claimed of a span and could be stolen; None: it is over."""
        link = self.workers._links.get(worker)
        if link is None or (number := link.cells.get(cell)) is None:
            return None
        dealt = link.dealt[number]
        return min(max(link.slate.claimed(number), dealt.ran), dealt.end), dealt.end

    def free_cells(self, worker: int) -> int:
        """Return how many more spans a worker takes now."""
        return CELLS - len(self.workers._links[worker].dealt)

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

    def deal_again(self, leaves: Sequence[Leaf], **how: Any) -> None:
        """From now on deal what a worker gives back to it again."""
        seen = [0, 0]

        def look() -> None:
            for number, back in enumerate((self.given_back, self.settled)):
                while seen[number] < len(back):
                    worker, _, lo, hi = back[seen[number]]
                    seen[number] += 1
                    if lo < hi:
                        self.deal(worker, lo, hi, leaves, **how)

        self.on_event = look

    async def run(
        self, function: Callable[..., Any], inputs: Sequence[Any], workers: int, **how: Any
    ) -> list[Any]:
        """Run a whole job with stealing; return what came of each input."""
        ids = await self.lease(function, workers, **how)
        leaves = leaves_of(inputs)
        self.deal_again(leaves, slots=workers)
        share = -(-len(inputs) // workers)
        for number, worker in enumerate(ids):
            lo, hi = number * share, min(len(inputs), (number + 1) * share)
            if lo < hi:
                self.deal(worker, lo, hi, leaves, left=0, slots=workers)
        missing = len(inputs)
        await self.until(lambda: sum(o.hi - o.lo for _, o in self.outcomes) == missing)
        await self.workers.end_lease()
        results = self.results()
        return [results[index] for index in range(len(inputs))]


async def poll(condition: Callable[[], bool]) -> None:
    """Wait until something is true that nobody tells us of: a file, a process, a slate."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)


@asynccontextmanager
async def machine(blanks: int = 0, scratch: Path | None = None) -> AsyncIterator[Machine]:
    """Start the workers of a machine, and end them with all that is below."""
    one = Machine()
    one.workers = WorkerPool(one, scratch)
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
