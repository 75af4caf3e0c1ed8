"""Which span goes to which worker of a lease, and who is robbed when another runs dry. Pure.

Every open index of a lease is in exactly one place: in `queue`, in `retry`, or in a cell of a
worker. Earlier inputs go first, in chunks that shrink towards the end of the work. Unless calls are
long, one chunk is queued behind the running one, but not of the last ones.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from math import ceil

from burla.protocol.messages import Span
from burla.protocol.ranges import Ranges

from .leaf_store import LeafStore

CHUNK_S = 0.02  # of calls in one chunk: its turnaround, 0.2 ms of our CPU, is 1 % of it
CHUNK_MIN_S = 0.0005  # less is not worth a turnaround, not even at the end
LONG_CALL_S = 0.005  # from here on a chunk is one call
BEHIND_S = 0.05  # up to here a chunk waits behind the running one: a turnaround takes up to 1 ms
CAREFUL_CHUNK = 64  # inputs dealt at once that go one by one because one of them killed a worker
CHUNKS_PER_SLOT = 4  # that the rest of the work is cut into: what the end is uneven by
MEMORY_CALLS = 32  # that the mean duration looks back on
STEAL_MIN_S = 0.0002  # of calls: what is done sooner than it is moved
STUCK_CALLS = 4  # mean durations without a word: whoever takes so long is stuck in a call
STUCK_S = 0.002  # at least, for a worker that is robbed because another is dry
LOOK_S = 0.05  # while inputs wait, stuck workers are looked for this often, not at each event
RESCUE_S = 0.1  # at least, for one whose inputs go back to the queue although nobody is dry


@dataclass(slots=True)
class Cell:
    """A span dealt and not settled: [lo, hi) are open, of which the worker begins none >= stop."""

    number: int
    lo: int
    hi: int
    stop: int


@dataclass(slots=True)
class Worker:
    """A worker that has loaded the function."""

    number: int
    heard_s: float  # when it last sent outcomes, or was dealt a span while it had none
    is_copy: bool = False  # forked from a template that had loaded the function
    has_run: bool = False
    doomed: bool = False  # it is being killed
    cells: deque[Cell] = field(default_factory=deque)  # the first is the one it is in

    def is_busy(self) -> bool:
        """Return whether it has something to run."""
        return any(cell.lo < cell.hi for cell in self.cells)

    def unstarted(self) -> int:
        """Return how many inputs it has not begun, as far as it has told."""
        return sum(self.rest(cell) for cell in self.cells)

    def rest(self, cell: Cell) -> int:
        """Return how many inputs of `cell` can be taken; the next one it has surely begun."""
        if cell.lo >= cell.stop:
            return 0
        for first in self.cells:
            if first.lo < first.stop:
                return cell.stop - cell.lo - (cell is first)
        return 0

    def cell(self, number: int) -> Cell | None:
        """Return one of its cells."""
        return next((cell for cell in self.cells if cell.number == number), None)


@dataclass(frozen=True, slots=True)
class Dealt:
    """A span for a worker."""

    worker: int
    cell: int
    span: Span
    careful: bool


@dataclass(frozen=True, slots=True)
class StealRequest:
    """Take [middle, ...) of a cell, as far as it is not begun."""

    worker: int
    cell: int
    middle: int


class Dispatcher:
    """What waits in a lease, and what its workers have."""

    def __init__(self, slots: int, store: LeafStore) -> None:
        """Start without work or workers."""
        self.most = slots  # of the lease
        self.slots = slots  # that may run at once now: fewer, down to one, while memory is short
        self.left = 0  # inputs of the job that nobody was dealt
        self.queue = Ranges()
        self.retry: dict[int, int] = {}  # index that died -> `_chunks` from which it may be tried
        self.careful = Ranges()  # of the queue: to be run one by one
        self.workers: dict[int, Worker] = {}
        self.call_s = 0.0  # mean duration of recent calls; 0: not known
        self._store = store
        self._weight = 0.0  # calls that `call_s` is the mean of, at most MEMORY_CALLS
        self._cells = count()
        self._chunks = 0
        self._look_s = 0.0  # when workers are looked at again although inputs wait

    # --- what is where ---

    def waiting(self) -> int:
        """Return how many inputs no worker has."""
        return self.queue.total + len(self.retry)

    def busy(self) -> int:
        """Return how many workers have something to run."""
        return sum(worker.is_busy() for worker in self.workers.values())

    def dry(self) -> int:
        """Return how many slots have nothing to run, now or soon."""
        waiting = self.waiting()
        return 0 if waiting >= self.slots else max(0, self.slots - self.busy() - waiting)

    # --- dealing ---

    def deal(self, now_s: float) -> Iterator[Dealt]:
        """Yield what goes to whom now: first to who has nothing, then behind running chunks."""
        if not self.queue and not self.retry:
            return
        room = self._room()
        for worker in self.workers.values():
            if room > 0 and not worker.cells and not worker.doomed:
                dealt = self._deal_to(worker, now_s)
                if dealt is None:
                    return
                room -= 1
                yield dealt
        if not self.call_s or self.call_s >= BEHIND_S or self.slots < self.most:
            return
        missing = self.slots - len(self.workers)  # what is left must do for those who come
        for worker in self.workers.values():
            if len(worker.cells) != 1 or self._is_late(worker, now_s, STUCK_S):
                continue
            if self.waiting() <= missing + self.slots * self._chunk():
                return  # the last ones go to whoever is free first
            dealt = self._deal_to(worker, now_s)
            if dealt is None:
                return
            yield dealt

    def _room(self) -> int:
        """Return how many more workers may be given something to run."""
        if self.slots == self.most:
            return self.most  # a worker is in no other's way
        return self.slots - sum(bool(worker.cells) for worker in self.workers.values())

    def _deal_to(self, worker: Worker, now_s: float) -> Dealt | None:
        taken = self._next()
        if taken is None:
            return None
        span, careful = taken
        self._chunks += 1
        if not worker.cells:
            worker.heard_s = now_s
        cell = Cell(next(self._cells), span.lo, span.hi, span.hi)
        worker.cells.append(cell)
        return Dealt(worker.number, cell.number, span, careful)

    def _next(self) -> tuple[Span, bool] | None:
        """Take the next span out of the queue; an index that died comes after its neighbours."""
        ripe = next(iter(self.retry), None)
        if ripe is not None and (not self.queue or self.retry[ripe] <= self._chunks):
            del self.retry[ripe]
            return next(self._store.spans(ripe, ripe + 1)), True
        first = self.queue.first()
        if first is None:
            return None
        lo, hi = self._store.cut(*first)
        hi = min(hi, lo + self._chunk())
        careful = lo in self.careful
        if careful:
            hi = min(self.careful.common(lo, hi)[0][1], lo + CAREFUL_CHUNK)
            self.careful.remove(lo, hi)
        elif marked := self.careful.common(lo, hi):
            hi = marked[0][0]
        self.queue.remove(lo, hi)
        return next(self._store.spans(lo, hi)), careful

    def _chunk(self) -> int:
        """Return how many inputs a worker gets next."""
        if not self.call_s or self.call_s >= LONG_CALL_S:
            return 1
        waiting = self.waiting()
        guided = (waiting + self.left) / (CHUNKS_PER_SLOT * self.slots)
        least = CHUNK_MIN_S / self.call_s
        share = max(ceil(waiting / self.slots), min(waiting, least))
        wanted = min(share, CHUNK_S / self.call_s, max(guided, least))
        return max(1, int(wanted))

    # --- stealing ---

    def thefts(self, now_s: float) -> list[StealRequest]:
        """Return what to take from whom: half from who would finish last, all from who is stuck."""
        waiting = self.waiting()
        if waiting and now_s < self._look_s:
            return []
        self._look_s = now_s + LOOK_S
        dry = not waiting and self._has_room()
        late_s = STUCK_S if dry else RESCUE_S
        best: tuple[bool, int, Worker] | None = None
        for worker in self.workers.values():
            unstarted = worker.unstarted()
            if unstarted <= 0:
                continue
            late = self._is_late(worker, now_s, late_s)
            if not late and (not dry or unstarted * self.call_s < STEAL_MIN_S):
                continue
            if best is None or (late, unstarted) > best[:2]:
                best = (late, unstarted, worker)
        if best is None:
            return []
        late, unstarted, worker = best
        return list(self.take_back(worker, unstarted if late else ceil(unstarted / 2)))

    def _has_room(self) -> bool:
        """Return whether somebody could be dealt something to run at once."""
        if self._room() <= 0:
            return False
        if len(self.workers) < self.slots:
            return True
        return any(not worker.cells for worker in self.workers.values())

    def stuck_at_s(self) -> float | None:
        """Return when somebody must be looked at again, if he has not spoken before."""
        if self.waiting():
            return self._look_s
        dry = self._has_room()
        patience_s = max(STUCK_S if dry else RESCUE_S, STUCK_CALLS * self.call_s)
        robbable = (w.heard_s for w in self.workers.values() if w.unstarted() > 0)
        first_s = min(robbable, default=None)
        return None if first_s is None else first_s + patience_s

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

    def ran(self, worker: int, cell: int, lo: int, hi: int, seconds: float, now_s: float) -> bool:
        """Take note that a worker has run [lo, hi); return whether that can be."""
        who = self.workers[worker]
        what = who.cell(cell)
        if what is None or what.lo != lo or not lo < hi <= what.hi:
            return False
        what.lo = hi
        who.has_run = True
        who.heard_s = now_s
        self._learn(hi - lo, seconds)
        return True

    def rob(self, worker: int, cell: int, lo: int, hi: int) -> None:
        """Take [lo, hi), which was stolen, from its worker."""
        what = self.workers[worker].cell(cell)
        assert what is not None, (worker, cell)
        assert what.stop <= lo < hi == what.hi, (what, lo, hi)
        what.hi = lo

    def shorten(self, worker: int, cell: int, lo: int) -> None:
        """Queue again what a worker will not run of a cell, from `lo` on."""
        who = self.workers.get(worker)
        what = who.cell(cell) if who is not None else None
        if what is not None and what.lo <= lo < what.hi:
            self.requeue(lo, what.hi)
            what.hi = lo
            what.stop = min(what.stop, lo)

    def close(self, worker: int, cell: int, now_s: float) -> None:
        """Take note that a worker is through with a cell; queue again what it did not run."""
        who = self.workers.get(worker)
        what = who.cell(cell) if who is not None else None
        if who is not None and what is not None:
            who.cells.remove(what)
            who.heard_s = now_s
            self.requeue(what.lo, what.hi)

    def bury(self, worker: Worker, running: tuple[int, int] | None) -> int | None:
        """Queue again what a dead worker had; return the one index that is to blame, which is not.

        Of the calls of a stride of several none is to blame: they are run one by one from now on.
        """
        del self.workers[worker.number]
        blamed = None
        for cell in worker.cells:
            lo, hi = running or (cell.lo, cell.lo)
            lo, hi = max(lo, cell.lo), min(hi, cell.hi)
            if lo >= hi:
                self.requeue(cell.lo, cell.hi)
                continue
            self.requeue(cell.lo, lo)
            self.requeue(hi, cell.hi)
            if hi - lo == 1:
                blamed = lo
            else:
                self.requeue(lo, hi)
                self.careful.add(lo, hi)
        return blamed

    def expect(self, like: "Dispatcher") -> None:
        """Expect calls to take as long as those of a job with the same function."""
        self.call_s, self._weight = like.call_s, min(like._weight, 1.0)

    def _learn(self, calls: int, seconds: float) -> None:
        total = self._weight + calls
        self.call_s = max(1e-9, (self.call_s * self._weight + seconds) / total)
        self._weight = min(total, MEMORY_CALLS)

    def requeue(self, lo: int, hi: int) -> None:
        """Let [lo, hi), perhaps empty, which nobody has any more, be dealt again."""
        self.queue.add(lo, hi)

    def withdraw(self, lo: int, hi: int) -> list[tuple[int, int]]:
        """Take what waits of [lo, hi) out, for good; return it."""
        self.careful.remove(lo, hi)
        retried = [index for index in self.retry if lo <= index < hi]
        for index in retried:
            del self.retry[index]
        return self.queue.remove(lo, hi) + [(index, index + 1) for index in retried]

    def is_running(self, lo: int, hi: int) -> bool:
        """Return whether a worker has some of [lo, hi)."""
        cells = (cell for worker in self.workers.values() for cell in worker.cells)
        return any(max(lo, cell.lo) < min(hi, cell.hi) for cell in cells)

    def pop_first(self) -> int | None:
        """Take out the first index that waits."""
        first = self.queue.first()
        index = min([*self.retry, *((first[0],) if first else ())], default=None)
        if index is not None and self.retry.pop(index, None) is None:
            self.queue.remove(index, index + 1)
            self.careful.remove(index, index + 1)
        return index

    def try_again(self, index: int) -> None:
        """Let `index`, whose worker died, be dealt again after some others."""
        self.retry[index] = self._chunks + self.slots

    def give_back(self, inputs: int) -> list[tuple[int, int]]:
        """Take up to `inputs` inputs out of the queue, from its end; not what is run with care."""
        given = []
        kept = []
        while inputs > 0 and self.queue:
            ((lo, hi),) = self.queue.pop_back(min(inputs, self._last_run()))
            marked = self.careful.common(lo, hi)
            if marked:
                kept.append((lo, marked[-1][1]))
                lo = marked[-1][1]
            if lo < hi:
                given.append((lo, hi))
                inputs -= hi - lo
        for lo, hi in kept:
            self.queue.add(lo, hi)
        return given

    def _last_run(self) -> int:
        lo, hi = list(self.queue)[-1]
        return hi - lo

    def check(self) -> None:
        """Assert that no index is in two places."""
        places = [*self.queue, *((i, i + 1) for i in self.retry)]
        for worker in self.workers.values():
            for cell in worker.cells:
                assert cell.lo <= cell.hi, cell
                assert cell.stop <= cell.hi or cell.lo == cell.hi, cell
                places.append((cell.lo, cell.hi))
        assert sum(hi - lo for lo, hi in places) == Ranges(places).total, places
        assert len(self.workers) <= self.most
        assert 1 <= self.slots <= self.most
        assert all(self.queue.covers(lo, hi) for lo, hi in self.careful)
