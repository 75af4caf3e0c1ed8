"""Which span goes to which worker of a lease, and from whom is stolen when another runs dry. Pure.

Earlier inputs go first, in chunks that shrink towards the end of the work. Unless calls are long,
one chunk waits behind the running one, but not of the last ones.
"""

from collections.abc import Iterator
from math import ceil

from msgspec import Struct

from burla.protocol.messages import Span
from burla.protocol.ranges import Range, Ranges

from .cells import Worker
from .events import CellReport
from .work_queue import WorkQueue

CHUNK_S = 0.02  # of calls in one chunk: its turnaround, 0.2 ms of our CPU, is 1 % of it
CHUNK_MIN_S = 0.0005  # less is not worth a turnaround, not even at the end
LONG_CALL_S = 0.005  # from here on a chunk is one call
BEHIND_S = 0.05  # up to here a chunk waits behind the running one: a turnaround takes up to 1 ms
CHUNKS_PER_SLOT = 4  # that the rest of the work is cut into: what the end is uneven by
MEMORY_CALLS = 32  # that the mean duration looks back on
STEAL_MIN_S = 0.0002  # of calls: what is done sooner than it is moved
STUCK_CALLS = 4  # mean durations without a word: whoever takes so long is stuck in a call
STUCK_S = 0.002  # at least, for a worker that is stolen from because another is dry
LOOK_S = 0.05  # while inputs wait, stuck workers are looked for this often, not at each event
RESCUE_S = 0.1  # at least, for one whose inputs go back to the queue although nobody is dry


class Assigned(Struct, frozen=True):
    """A span for a worker."""

    worker: int
    cell: int
    span: Span
    careful: bool


class StealRequest(Struct, frozen=True):
    """Take [middle, ...) of a cell, as far as it is not begun."""

    worker: int
    cell: int
    middle: int


class Dispatcher:
    """What the workers of a lease have, and what they get next."""

    def __init__(self, slots: int, queue: WorkQueue) -> None:
        """Start without workers.

        Args:
            slots: calls of the lease that may run at once.
            queue: what no worker has.
        """
        self.slots_max = slots
        self.slots = slots  # that may run at once now: fewer, down to one, while memory is short
        self.left = 0  # inputs of the job that no node was assigned
        self.queue = queue
        self.workers: dict[int, Worker] = {}
        self.call_s = 0.0  # mean duration of recent calls; 0: not known
        self._weight = 0.0  # calls that `call_s` is the mean of, at most MEMORY_CALLS
        self._look_s = 0.0  # when workers are looked at again although inputs wait

    def busy(self) -> int:
        """Return how many workers have something to run."""
        busy = 0
        for worker in self.workers.values():
            if worker.cells and worker.is_busy():
                busy += 1
        return busy

    def occupied(self) -> list[int]:
        """Return the workers that have a span."""
        return [worker.number for worker in self.workers.values() if worker.cells]

    def dry(self) -> int:
        """Return how many slots have nothing to run, now or soon."""
        free = self.slots - len(self.queue)
        return 0 if free <= 0 else max(0, free - self.busy())

    # --- assigning ---

    def assign(self, now_s: float) -> Iterator[Assigned]:
        """Yield what goes to whom now: first to who has nothing, then behind running chunks."""
        if not len(self.queue):
            return
        room = self._room()
        for worker in self.workers.values():
            if room > 0 and not worker.cells and not worker.is_doomed:
                assigned = self._assign_to(worker, now_s)
                if assigned is None:
                    return
                room -= 1
                yield assigned
        is_short = 0 < self.call_s < BEHIND_S
        if is_short and self.slots == self.slots_max and len(self.queue):
            yield from self._assign_behind(now_s)

    def _assign_behind(self, now_s: float) -> Iterator[Assigned]:
        missing = self.slots - len(self.workers)  # what is left must do for those who come
        for worker in self.workers.values():
            if len(worker.cells) != 1 or self._is_late(worker, now_s, STUCK_S):
                continue
            if len(self.queue) <= missing + self.slots * self._chunk():
                return  # the last ones go to whoever is free first
            assigned = self._assign_to(worker, now_s)
            if assigned is None:
                return
            yield assigned

    def _room(self) -> int:
        """Return how many more workers may be given something to run."""
        if self.slots == self.slots_max:
            return self.slots_max  # a worker is in no other's way
        return self.slots - sum(bool(worker.cells) for worker in self.workers.values())

    def _assign_to(self, worker: Worker, now_s: float) -> Assigned | None:
        # what died begins alone: what its worker printed last is of its call then
        taken = self.queue.take(self._chunk(), retries=not worker.cells)
        if taken is None:
            return None
        span, careful = taken
        if not worker.cells:
            worker.heard_s = now_s
        cell = worker.open(span.lo, span.hi)
        return Assigned(worker.number, cell.number, span, careful)

    def _chunk(self) -> int:
        """Return how many inputs a worker gets next."""
        if not self.call_s or self.call_s >= LONG_CALL_S:
            return 1
        waiting = len(self.queue)
        guided = (waiting + self.left) / (CHUNKS_PER_SLOT * self.slots)
        least = CHUNK_MIN_S / self.call_s
        share = max(ceil(waiting / self.slots), min(waiting, least))
        wanted = min(share, CHUNK_S / self.call_s, max(guided, least))
        return max(1, int(wanted))

    # --- stealing ---

    def steals(self, now_s: float) -> list[StealRequest]:
        """Return what to take from whom: half from who would finish last, all from who is stuck."""
        waiting = len(self.queue)
        if waiting and now_s < self._look_s:
            return []
        self._look_s = now_s + LOOK_S
        holders = self._holders()
        dry = not waiting and bool(holders) and self._has_room()
        late_s = STUCK_S if dry else RESCUE_S
        best: tuple[bool, int, Worker] | None = None
        for worker, unstarted in holders:
            late = self._is_late(worker, now_s, late_s)
            if not late and (not dry or unstarted * self.call_s < STEAL_MIN_S):
                continue
            if best is None or (late, unstarted) > best[:2]:
                best = (late, unstarted, worker)
        if best is None:
            return []
        late, unstarted, worker = best
        return list(self.take_back(worker, unstarted if late else ceil(unstarted / 2)))

    def _holders(self) -> list[tuple[Worker, int]]:
        """Return who has inputs that are not begun, and how many."""
        holders = []
        for worker in self.workers.values():
            if worker.cells and (unstarted := worker.unstarted()) > 0:
                holders.append((worker, unstarted))
        return holders

    def _has_room(self) -> bool:
        """Return whether some worker could be assigned something at once."""
        if self._room() <= 0:
            return False
        if len(self.workers) < self.slots:
            return True
        return any(not worker.cells for worker in self.workers.values())

    def stuck_at_s(self) -> float | None:
        """Return when a worker must be looked at again, if it has not spoken before."""
        if len(self.queue):
            return self._look_s
        holders = self._holders()
        if not holders:
            return None
        patience_s = max(STUCK_S if self._has_room() else RESCUE_S, STUCK_CALLS * self.call_s)
        return min(worker.heard_s for worker, _ in holders) + patience_s

    def take_back(self, worker: Worker, inputs: int) -> Iterator[StealRequest]:
        """Yield what to steal of a worker's end, so that `inputs` change hands if they can."""
        for cell in reversed(worker.cells):
            part = min(worker.rest(cell), inputs)
            if part > 0:
                cell.stop -= part
                inputs -= part
                yield StealRequest(worker.number, cell.number, cell.stop)

    def _is_late(self, worker: Worker, now_s: float, least_s: float) -> bool:
        # the same sum as in `stuck_at_s`: else a timer can ring just before it is late, for ever
        return now_s >= worker.heard_s + max(least_s, STUCK_CALLS * self.call_s)

    # --- what comes back ---

    def take(self, worker: Worker, report: CellReport, now_s: float) -> None:
        """Take note of what a worker says; queue again what it gives back.

        Raises:
            BrokenWorkerError: that cannot be.
        """
        back = worker.take(report)
        self.queue.add(*back)
        if report.hi > report.lo:
            self._learn(report.hi - report.lo, report.seconds)
            worker.heard_s = now_s
        elif report.is_over:
            worker.heard_s = now_s

    def bury(self, worker: Worker, running: Range | None) -> int | None:
        """Queue again what a dead worker had; return the one index that is to blame, which is not.

        Of the calls of a stride of several none is to blame: they are run one by one from now on.
        """
        del self.workers[worker.number]
        for part in worker.open_ranges():
            self.queue.add(*part)
        if running is None:
            return None
        lo, hi = running
        if hi - lo == 1:
            self.queue.withdraw(lo, hi)
            return lo
        self.queue.add(lo, hi, careful=True)
        return None

    def is_running(self, lo: int, hi: int) -> bool:
        """Return whether a worker has some of [lo, hi)."""
        cells = (cell for worker in self.workers.values() for cell in worker.cells)
        return any(max(lo, cell.lo) < min(hi, cell.hi) for cell in cells)

    def try_again(self, index: int) -> None:
        """Let `index`, whose worker died, be assigned again after some others."""
        self.queue.retry(index, self.slots)

    def expect(self, like: "Dispatcher") -> None:
        """Expect calls to take as long as those of a job with the same function."""
        self.call_s, self._weight = like.call_s, min(like._weight, 1.0)

    def _learn(self, calls: int, seconds: float) -> None:
        total = self._weight + calls
        self.call_s = max(1e-9, (self.call_s * self._weight + seconds) / total)
        self._weight = min(total, MEMORY_CALLS)

    def places(self) -> list[Range]:
        """Return where all that is open is: in the queue, and in cells."""
        places = list(self.queue.places())
        for worker in self.workers.values():
            places += worker.open_ranges()
        return places

    def check(self) -> None:
        """Assert that no index is in two places."""
        self.queue.check()
        for worker in self.workers.values():
            worker.check()
        places = self.places()
        assert sum(hi - lo for lo, hi in places) == Ranges(places).total, places
        assert len(self.workers) <= self.slots_max
        assert 1 <= self.slots <= self.slots_max
