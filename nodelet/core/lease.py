"""One lease of a nodelet: its work, its workers, and what it owes the scheduler. Pure.

The core (nodelet.py) knows who speaks and when; policy is in dispatcher.py. An index that was dealt
to this node is open (on the bench), or its outcome is kept until it is acknowledged, or it was
returned.
"""

from collections.abc import Iterable, Sequence

from burla.protocol.codec import Frames
from burla.protocol.messages import Assign, Held, Kind, Retract, Retracted, Run, StartLease, Stopped
from burla.protocol.ranges import Ranges

from .dispatcher import Dispatcher, StealRequest, Worker
from .effects import (
    AddWorkers,
    BeginLease,
    DealSpan,
    DropTemplate,
    Effect,
    EndWorkers,
    Interrupt,
    Kill,
    Note,
    PauseReading,
    ResumeReading,
    Send,
)
from .leaf_store import LeafStore
from .load_failures import LoadFailures
from .memory_policy import MemoryPolicy, Reading
from .phases import Phase
from .reporting import Report
from .steals import PendingSteals

INTERRUPT_S = 1.0  # for a call to end after SIGINT


class Lease:
    """What the node holds of one lease."""

    def __init__(self, start: StartLease, function: Sequence[bytes], effects: list[Effect]) -> None:
        """Wait to be begun; `effects` is where all it asks for is put."""
        self.id = start.lease
        self.phase = Phase.QUEUED
        self.store = LeafStore()
        self.bench = Dispatcher(start.slots, self.store)
        self.report = Report(
            start.lease, start.outcome_window, start.report_s, start.slots, start.secret
        )
        self._start = start
        self._function = function
        self._effects = effects
        self._open = Ranges()  # dealt; neither run nor returned
        self._done: dict[int, None] = {}  # batches to be forgotten when no worker is in them
        self._crew = LoadFailures()
        self._ration = MemoryPolicy(self.bench, start.func_ram)
        self._robbery: PendingSteals | None = None
        self.is_lingering = False  # its job is over; its workers wait for another
        self._failed = False  # an error is on its way: the job is over, nothing more is dealt
        self._discard = self._paused = False
        self._kill_s = 0.0  # while STOPPING: when calls are not waited for any longer

    # --- from the scheduler ---

    def begin(self) -> None:
        """Let the first worker load the function."""
        self.phase = Phase.SERVING
        self._effects.append(BeginLease(self._start, self._function))
        self._add_workers(1)

    def linger(self) -> None:
        """Forget what is not acknowledged, and keep the workers."""
        self._discard = True
        self.report.drop()
        self.is_lingering = self.phase is Phase.SERVING

    def take_over(self, old: "Lease", now_s: float) -> bool:
        """Begin with the workers of a lease that has nothing to do; return whether that can be."""
        idle = old.phase is Phase.SERVING and not (old._open or old._paused or old._failed)
        workers = list(old.bench.workers)
        busy = old._robbery or old._crew.growing or any(w.cells for w in old.bench.workers.values())
        if not idle or busy or not 0 < len(workers) <= self.bench.slots:
            return False
        old.phase, old.is_lingering = Phase.STOPPED, False
        old.bench.workers.clear()
        self.phase = Phase.SERVING
        self._effects.append(BeginLease(self._start, self._function, keep=True))
        self.bench.expect(old.bench)
        for number in workers:  # they load the function before they look at what they are dealt
            self.bench.workers[number] = Worker(number, now_s, has_run=True)
        return True

    def deal(self, message: Assign, payload: Sequence[bytes]) -> None:
        """Take work. What is known already changes nothing.

        Raises:
            ValueError: the message contradicts itself or what came before.
        """
        self.store.add(message.leaves, payload)
        self._done.update(dict.fromkeys(message.forget))
        self.bench.left = message.left
        self.report.every(message.report_s)
        if self.phase in (Phase.STOPPING, Phase.STOPPED):
            return
        for span in message.spans:
            self.store.claim(span)
            for lo, hi in self._open.missing(span.lo, span.hi):
                for gap in self.report.outcomes.held.missing(lo, hi):
                    self._open.add(*gap)
                    self.bench.requeue(*gap)

    def shed(self, message: Retract) -> None:
        """Give inputs back: from the end of the queue, then from the ends of the workers'."""
        if self.phase in (Phase.STOPPING, Phase.STOPPED) or self._robbery is not None:
            self._return(Ranges())
            return
        got = Ranges(self.bench.give_back(message.inputs))
        missing = message.inputs - got.total
        robbery = PendingSteals(message, got)
        workers = self.bench.workers.values()
        for worker in sorted(workers, key=lambda w: -max((c.stop for c in w.cells), default=0)):
            taken = min(missing, worker.unstarted())
            if taken > 0:
                missing -= taken
                self._rob(robbery, self.bench.take_back(worker, taken))
        if self._robbery is None:
            self._return(got)

    def end(self, discard: bool, now_s: float) -> None:
        """Stop all of it: idle workers at once, calls after a moment in which they may clean up."""
        if discard:
            self._discard = True
            self.report.drop()
        if self.phase is Phase.QUEUED:
            self._stopped()
        elif self.phase is Phase.SERVING and self._robbery is None:
            self.phase = Phase.STOPPING
            self._kill_s = now_s + INTERRUPT_S
            busy = [worker for worker in self.bench.workers.values() if worker.is_busy()]
            self._effects += [Interrupt(worker.number) for worker in busy]
            robbery = PendingSteals()
            for worker in busy:  # it would go on with the next call
                self._rob(robbery, self.bench.take_back(worker, worker.unstarted()))
            self._open = Ranges()
            self.bench.queue = Ranges()
            self.bench.careful = Ranges()
            self.bench.retry.clear()
            if self._paused:
                self._paused = False
                self._effects.append(ResumeReading())

    def replay(self, after: int) -> None:
        """Send output again that the client has missed."""
        self._effects += self.report.output.again(after, replay=True)

    def send_again(self) -> None:
        """Send all that is not acknowledged: what was sent before may be lost."""
        if self.phase is Phase.STOPPED:
            self._effects.append(Send(Stopped(self.id)))
        self._effects += self.report.again()

    def held(self) -> Held | None:
        """Return what a Hello says of it; None: nobody need know that it was."""
        stopping = self.phase in (Phase.STOPPING, Phase.STOPPED)
        if stopping and self._discard:
            return None
        held = Ranges([*self._open, *self.report.outcomes.held])
        spans = [span for lo, hi in held for span in self.store.spans(lo, hi)]
        start = self._start
        return Held(self.id, start.job, start.slots, tuple(spans), stopping)

    # --- from the workers ---

    def ready(self, worker: int, is_copy: bool, now_s: float) -> None:
        """Take in a worker that has loaded the function."""
        self._crew.ready()
        if self.phase is Phase.SERVING:
            self.bench.workers[worker] = Worker(worker, now_s, is_copy)

    def load_failed(self, worker: int, frames: Sequence[bytes]) -> None:
        """A worker could not load the function, perhaps a second one, and is gone."""
        if who := self.bench.workers.get(worker):
            self.bench.bury(who, None)
        self._crew.failed(frames, bool(self.bench.workers))

    def ran(
        self, worker: int, cell: int, run: Run, frames: Frames, seconds: float, now_s: float
    ) -> None:
        """Take outcomes; if they don't fit what it was dealt, the worker is broken, and killed."""
        if worker not in self.bench.workers:
            return
        if self.bench.ran(worker, cell, run.lo, run.hi, seconds, now_s):
            if run.kind is Kind.ERROR or not self.bench.workers[worker].is_busy():
                self.report.output.mark(worker)  # else it may be in the middle of the next line
            self._settle_run(run, frames, now_s)
        else:
            self._effects.append(Note(f"worker {worker} says {run} of cell {cell}: it is killed"))
            self._effects.append(Kill(worker))

    def given_back(self, worker: int, cell: int, lo: int) -> None:
        """The worker will run nothing of this cell from `lo` on."""
        self.bench.shorten(worker, cell, lo)

    def settled(self, worker: int, cell: int, now_s: float) -> None:
        """The span of this cell is over; what was not run of it is queued again."""
        self.bench.close(worker, cell, now_s)

    def printed(self, worker: int, stream: int, data: bytes, now_s: float) -> None:
        """Take output."""
        if not self._discard:
            self.report.output.add(worker, stream, data, now_s)

    def stolen(self, worker: int, cell: int, lo: int, hi: int) -> None:
        """Take [lo, hi), perhaps empty, that was stolen."""
        robbery = self._robbery
        assert robbery is not None, (worker, cell)
        robbery.answer(self.bench, worker, cell, lo, hi)
        if robbery.is_over():
            self._robbery = None
            if robbery.shed is not None:
                self._return(robbery.got)

    def died_loading(self, how: tuple[str, int]) -> None:
        """A worker ended before it was ready."""
        self._crew.died(how, bool(self.bench.workers))

    def died(
        self, worker: int, how: tuple[str, int], running: tuple[int, int] | None, now_s: float
    ) -> None:
        """A worker ended; `running` are the calls that it was in."""
        who = self.bench.workers.get(worker)
        if who is None:
            return
        figures = self._ration.died(who, how, now_s)
        self.report.output.finish(worker)
        if figures is None and who.is_copy and not who.has_run and how[0] == "signal":
            running = None  # what it was forked from is to blame, not a call
            self._effects.append(DropTemplate())
        index = self.bench.bury(who, running)
        if not self.bench.workers:
            self._crew.gone()
        if index is not None:
            said = self._ration.judge(index, how, figures, who)
            if said is None:
                self.bench.try_again(index)
            else:
                self._settle_run(Run(index, index + 1, Kind.DEATH, 1), [said], now_s)

    def memory(self, reading: Reading, now_s: float) -> None:
        """Take a reading of the node's memory."""
        if self.phase is Phase.SERVING:
            for worker, why in self._ration.look(reading, self._open, now_s):
                self._effects += [Note(why), Kill(worker)]

    def ended(self) -> None:
        """All processes of the lease are gone."""
        if self.phase is Phase.STOPPING:
            self._stopped()

    # --- time ---

    def settle(self, now_s: float) -> None:
        """Assign, steal, report, pause and end, as things stand."""
        if self._robbery is not None or self._only_waits():
            return
        self._forget_done()
        self._regulate()
        if self.phase is Phase.SERVING and not self._failed and not self._paused:
            self._feed(now_s)
            if self._robbery is not None:
                return
        bench = self.bench
        self._effects += self.report.due(bench.dry(), not self._open, bench.call_s, now_s)
        self._regulate()
        if self.phase is Phase.STOPPING and self._kill_s < float("inf"):
            busy = bench.busy()
            if not busy or now_s >= self._kill_s:
                self._kill_s = float("inf")
                self._effects.append(EndWorkers())

    def next_deadline_s(self) -> float | None:
        """Return when `settle` must be called next; None: not before something happens."""
        if self._only_waits():
            return None
        times: list[float] = []
        due_s = self.report.next_deadline_s()
        if due_s is not None:
            times.append(due_s)
        if self.phase is Phase.STOPPING:
            times.append(self._kill_s)
        elif self.phase is Phase.SERVING and not self._failed and not self._paused:
            stuck_s = self.bench.stuck_at_s()
            if stuck_s is not None:
                times.append(stuck_s)
        return min(times, default=None)

    def is_forgettable(self) -> bool:
        """Return whether nothing of it matters any more."""
        return self.phase is Phase.STOPPED and self.report.is_empty()

    def check(self) -> None:
        """Assert that every dealt index is in one place. Costs O(state): for tests."""
        self.report.check()
        assert self._robbery is None, "a steal was not answered"
        assert self.phase is not Phase.QUEUED or not self.bench.workers
        if self.phase in (Phase.STOPPING, Phase.STOPPED):
            return
        self.bench.check()
        bench = Ranges([*self.bench.queue, *((i, i + 1) for i in self.bench.retry)])
        for worker in self.bench.workers.values():
            for cell in worker.cells:
                bench.add(cell.lo, cell.hi)
        assert bench == self._open, (bench, self._open)
        for lo, hi in self._open:
            assert not self.report.outcomes.held.common(lo, hi), (lo, hi)

    # --- helpers ---

    def _only_waits(self) -> bool:
        """Return whether all that may still happen is that what was sent is acknowledged."""
        return self.phase is Phase.STOPPED and not self._done and self.report.is_sent()

    def _feed(self, now_s: float) -> None:
        bench = self.bench
        if self._crew.no_worker is not None:
            self._give_up(now_s)
            return
        for dealt in bench.deal(now_s):
            leaves = self.store.find(dealt.span)
            left = bench.left + bench.waiting()
            self._effects.append(
                DealSpan(dealt.worker, dealt.cell, dealt.span, leaves, left, dealt.careful)
            )
        room = bench.slots - len(bench.workers) - self._crew.growing
        wanted = min(room, bench.waiting() - self._crew.growing)
        if wanted > 0 and self._crew.may_grow():
            self._add_workers(wanted)
        self._rob(PendingSteals(), bench.thefts(now_s))

    def _rob(self, robbery: PendingSteals, thefts: Iterable[StealRequest]) -> None:
        """Ask for steals; until all are answered nothing else happens."""
        for theft in thefts:
            self._effects.append(robbery.ask(theft))
            self._robbery = robbery

    def _regulate(self) -> None:
        """Read from the workers only while the windows have room."""
        if self.phase is not Phase.SERVING:
            return
        full = self.report.is_full()
        if full and not self._paused:
            self._effects.append(PauseReading())
        elif self._paused and not full:
            self._effects.append(ResumeReading())
        self._paused = full

    def _forget_done(self) -> None:
        """Drop batches that are done everywhere; what waits of them here was run elsewhere."""
        for batch in list(self._done):
            lo, hi = self.store.bounds(batch)
            for part in self.bench.withdraw(lo, hi):
                self._open.remove(*part)
            if not self.bench.is_running(lo, hi):
                self.store.forget(batch)
                del self._done[batch]

    def _add_workers(self, count: int) -> None:
        self._crew.growing += count
        self._effects.append(AddWorkers(count))

    def _give_up(self, now_s: float) -> None:
        """Answer the first input that waits with the reason why nobody can run it."""
        assert self._crew.no_worker is not None
        kind, frames = self._crew.no_worker
        index = self.bench.pop_first()
        if index is not None:
            self._settle_run(Run(index, index + 1, kind, len(frames)), frames, now_s)

    def _settle_run(self, run: Run, frames: Sequence[bytes], now_s: float) -> None:
        """Pass an outcome on."""
        if self.phase is not Phase.SERVING and run.kind is Kind.ERROR:
            return  # our own SIGINT, as likely as not; whoever wants its index has it queued again
        self._open.remove(run.lo, run.hi)
        if not self._discard:
            self.report.outcomes.add(run, frames, now_s)
        if run.kind in (Kind.ERROR, Kind.DEATH):
            self._failed = True
            self.report.hurry()

    def _return(self, got: Ranges) -> None:
        for lo, hi in got:
            self._open.remove(lo, hi)
        spans = [span for lo, hi in got for span in self.store.spans(lo, hi)]
        self._effects.append(Send(Retracted(self.id, tuple(spans))))

    def _stopped(self) -> None:
        self.phase = Phase.STOPPED
        self.bench.workers.clear()
        self._effects.append(Send(Stopped(self.id)))
