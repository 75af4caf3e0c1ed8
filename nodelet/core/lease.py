"""One lease of a nodelet: its work, its workers, and what it owes the scheduler. Pure.

Events change what is here; `settle` then decides what follows from all of them. The core
(nodelet.py) knows who speaks and when; which input is where is in custody.py, what becomes of
workers in lease_workers.py, who gets what in dispatcher.py.
"""

from collections.abc import Callable, Sequence

from burla.limits import VALUE_BYTES_MAX
from burla.protocol.deaths import TIMEOUT
from burla.protocol.messages import (
    NOTICE,
    Assign,
    Held,
    Kind,
    Retract,
    Run,
    StartLease,
    Stopped,
)
from burla.protocol.ranges import Ranges

from .big_inputs import BigInputs
from .cells import BrokenWorkerError
from .custody import Custody
from .effects import (
    AssignSpan,
    BeginLease,
    Effect,
    EndWorkers,
    Interrupt,
    PauseReading,
    ResumeReading,
    Send,
)
from .events import (
    CellReport,
    Died,
    Looked,
    Printed,
    Reading,
    Reported,
    Stolen,
    WorkerEvent,
    WorkersEnded,
)
from .lease_workers import LeaseWorkers
from .long_calls import LongCalls
from .phases import Life, Phase
from .reporting import Report
from .reports import Reports
from .retries import Retries
from .steals import Steals
from .timeouts import Timeouts, noted

INTERRUPT_S = 1.0  # for a call to end after SIGINT
UNREAD_S = 0.25  # for outcomes to be read that workers could not write while a window was full


class Lease:
    """What the node holds of one lease."""

    def __init__(
        self,
        start: StartLease,
        function: Sequence[bytes],
        effects: list[Effect],
        now_s: float,
        blobs: tuple[int, ...] = (),
        new_number: Callable[[], int] | None = None,
        ram: int = VALUE_BYTES_MAX,
    ) -> None:
        """Wait to be begun.

        Args:
            start: what the scheduler said of it.
            function: in frames.
            effects: where all it asks for is put.
            now_s: the time.
            blobs: numbers of those that it needs.
            new_number: for the file of a big input.
            ram: bytes of the node: no bigger input can be had.
        """
        self.id = start.lease
        self.life = Life(start.lease, now_s)
        self.custody = Custody(start.slots, new_number)
        self.report = Report(
            start.lease,
            start.outcome_window,
            start.report_s,
            start.slots,
            start.secret,
            blake3=start.blake3,
        )
        self._start = start
        self._function, self._blobs = function, blobs
        self._goes_on = start.policy is not None and start.policy.goes_on
        self._effects = effects
        self._dispatcher = self.custody.dispatcher
        timeout_s = 0.0 if start.policy is None else start.policy.timeout_s
        self._retries = Retries(start.policy, start.lease, self.custody, self.report.outcomes)
        hold_back = self._retries.hold_back
        self.big = BigInputs(start.lease, start.job, self.custody, hold_back, effects, ram)
        self._workers = LeaseWorkers(
            self._dispatcher,
            start.func_ram,
            effects,
            is_noted=timeout_s > 0,
            deaths=self._retries.deaths,
            may_fork=not (start.policy and start.policy.func_gpu),  # CUDA does not outlive a fork
        )
        self._steals = Steals(self.id, self.custody, effects)
        self._reports = Reports(self._workers, self.report, effects)
        self._long = LongCalls(self.id, self._dispatcher.workers, self._workers.watchdog, now_s)
        self._timeouts = Timeouts(timeout_s)
        self._late: list[int] = []  # workers that are interrupted: what waits behind is others'
        self._has_failed = False  # an error is on its way: nothing more is assigned
        self._discards = False  # its outcomes and its output are not wanted
        self._is_followed = False  # a lease of the same session begins next
        self._is_paused = False
        self._must_interrupt = False  # its calls, which it was not told to end before
        self._interrupt_s = 0.0  # when; until then who writes an outcome may end that
        self._kill_s = 0.0  # while STOPPING: when calls are not waited for any longer

    # --- from the scheduler ---

    def begin(
        self, now_s: float, places: tuple[str, str] = ("", ""), *, enters: bool = False
    ) -> None:
        """Let the first worker load the function.

        Args:
            now_s: when.
            places: where imports look first.
            enters: in the sandbox that was made for its image.
        """
        self.life.enter(Phase.SERVING, now_s)
        self._begin_lease(places, keep=False, enters=enters)
        self._workers.want(1)

    def linger(self, now_s: float) -> None:
        """Forget what is not acknowledged, and keep the workers."""
        self._discards = True
        self.report.drop()
        if self.life.phase is Phase.SERVING:
            self.life.enter(Phase.LINGERING, now_s)
            self.custody.store.drop_leaves()

    def take_over(self, old: "Lease", now_s: float, places: tuple[str, str] = ("", "")) -> bool:
        """Begin with the workers of a lease that has nothing to do; return whether that can be."""
        if not old._is_idle() or not self._workers.may_adopt(old._workers):
            return False
        if old._is_paused:  # its outcomes outlive it; the windows of this one have room
            old._is_paused = False
            self._effects.append(ResumeReading())
        old.life.enter(Phase.STOPPED, now_s)
        old.custody.store.drop_leaves()
        self.life.enter(Phase.SERVING, now_s)
        self._begin_lease(places, keep=True)
        self._workers.adopt(old._workers, now_s)
        return True

    def assign(self, message: Assign, payload: Sequence[bytes], now_s: float) -> None:
        """Take work. What is known already changes nothing.

        Raises:
            ValueError: the message contradicts itself or what came before.
        """
        self.custody.add_leaves(message, payload)
        self.report.every(message.report_s)
        if self.life.takes_work:
            self._retries.learn(message.tried, now_s)
            self.custody.assign(message.spans, self.report.outcomes.held)
            self.big.hold_back(message.spans, now_s)
            self._retries.hold_back(message.spans, now_s)

    def retract(self, message: Retract) -> None:
        """Give inputs back."""
        self._steals.retract(message)
        if not self.life.takes_work:
            self._steals.refuse()

    def end(self, discard: bool, now_s: float, heir: StartLease | None = None) -> bool:
        """Stop all of it: idle workers at once, calls after a moment in which they may clean up.

        Args:
            discard: what is not acknowledged.
            now_s: when.
            heir: a lease of the same session, which begins next.

        Returns:
            Whether that may begin in its place.
        """
        if discard:
            self._discards = True
            self.report.drop()
        if self.life.phase is Phase.QUEUED:
            self._stopped(now_s)
        elif self.life.serves:
            self._is_followed = heir is not None and not (self._start.image or heir.image)
            self.life.enter(Phase.STOPPING, now_s)
            self._interrupt_s = now_s + (UNREAD_S if self._is_paused else 0.0)
            self._kill_s = self._interrupt_s + INTERRUPT_S
            self._must_interrupt = True
            self._effects += self._long.silence(now_s)
            self._steals.refuse()
            self.custody.clear()
            if self._is_paused:
                self._is_paused = False
                self._effects.append(ResumeReading())
            return self._is_followed
        return False

    def send_again(self) -> None:
        """Send all that is not acknowledged: what was sent before may be lost."""
        if self.life.phase is Phase.STOPPED:
            self._effects.append(Send(Stopped(self.id)))
        self._effects += self.report.again()

    def held(self, now_s: float) -> Held | None:
        """Return what a Hello says of it; None: nothing."""
        stopping = not self.life.takes_work
        if stopping and self._discards:
            return None
        spans = self.custody.spans_of(Ranges([*self.custody.open, *self.report.outcomes.held]))
        start = self._start
        tried = self._retries.known(now_s)
        return Held(self.id, start.job, start.slots, spans, stopping, tried)

    # --- from the workers ---

    def take(self, event: WorkerEvent, now_s: float) -> None:
        """Take what a worker did, or what was seen of them."""
        match event:
            case Reported():
                self._reports.take(event, self, now_s)
            case Stolen():
                self._stolen(event)
            case Printed():
                if event.stream != NOTICE:
                    self._workers.words.note(event.worker, event.data)
                if not self._discards:
                    of = event.of if event.is_exact else self._workers.whose(event)
                    self.report.output.add(event.worker, event.stream, event.data, now_s, of)
            case Looked():
                self._workers.look(event.strides, now_s)
                if self._timeouts.has_limit() and self.life.phase is Phase.SERVING:
                    strides, is_in = event.strides, self._reports.turns.is_in
                    waiting = [each for each in strides if self._is_paused or is_in(each)]
                    workers = self._dispatcher.workers
                    for effect in self._timeouts.look(workers, strides, now_s, waiting):
                        self._effects.append(effect)
                        self._late.append(effect.worker)
            case Reading():
                if self.life.serves:
                    self._workers.read_memory(event, self.custody.open, now_s)
            case Died():
                self.report.output.finish(event.worker)
                if self._timeouts.has_limit():
                    for report in noted(self._dispatcher.workers, event):
                        self._reports.take(Reported(event.worker, [report]), self, now_s)
                self._reports.forget(event.worker, self, now_s)
                if (verdict := self._workers.died(event, now_s)) is not None:
                    index, death = verdict
                    if (
                        death.killed_for == TIMEOUT
                        and self._retries.after_timeouts
                        and self._retries.again(index, "CallTimeout", now_s)
                    ):
                        return
                    self.complete(Run(index, index + 1, Kind.DEATH, 1), [death.encode()], now_s)
            case WorkersEnded():
                if self.life.phase is Phase.STOPPING:
                    self._stopped(now_s)
            case _ if self.life.serves:
                self._workers.take(event, now_s)
            case _:  # it came too late to be of use
                pass

    def _stolen(self, event: Stolen) -> None:
        """Take what was stolen; whose slate contradicts what it was assigned is killed."""
        try:
            self._steals.answer(event)
        except BrokenWorkerError as error:
            self._workers.kill_broken(self._dispatcher.workers[event.worker], error)

    # --- what follows ---

    def settle(self, now_s: float) -> None:
        """Assign, steal, report, pause and end, as things stand."""
        if self.big.leaves:
            self.big.settle(now_s)
        if self._steals.unanswered or self.rests():
            return
        if self._must_interrupt:
            self._interrupt(now_s)
        if self.custody.done:
            for lo, hi in self.custody.forget_done():
                self._retries.forget(lo, hi)
        if self.custody.queue.delayed:
            self.custody.queue.wake(now_s)
        if self.life.serves:
            self._regulate()
        for number in self._late:
            if (late := self._dispatcher.workers.get(number)) is not None and late.unstarted():
                self._steals.take_all(late)
        self._late.clear()
        if self._steals.settle() and self.custody.open.total and self._feeds():
            self._feed(now_s)
        if self._steals.unanswered:
            return
        dispatcher = self._dispatcher
        all_done = not self.custody.open.total
        self._effects += self.report.due(
            dispatcher.slots if all_done else dispatcher.dry(),
            dispatcher.call_s,
            now_s,
            all_done=all_done,
            unread=self._is_paused,
        )
        if now_s >= self._long.due_s and self.life.phase is Phase.SERVING:
            # of calls that wait until their outcomes or prints are read, none is known to last
            waits = all_done or self._is_paused
            self._effects += (
                self._long.silence(now_s) if waits else self._long.look(now_s, self._reports.turns)
            )
        is_stopping = self.life.phase is Phase.STOPPING and self._kill_s < float("inf")
        if is_stopping and (now_s >= self._kill_s or not dispatcher.busy()):
            self._kill_s = float("inf")
            self._effects.append(EndWorkers(self._is_followed))

    def rests(self) -> bool:
        """Return whether it is stopped, and nothing happens before the scheduler names it again."""
        return (
            self.life.phase is Phase.STOPPED
            and not (self.custody.done or self.big.leaves or self._steals.unanswered)
            and self.report.is_sent()
        )

    def next_deadline_s(self) -> float | None:
        """Return when `settle` must be called next; None: not before something happens."""
        if self.rests():
            return None
        times: list[float] = []
        due_s = self.report.next_deadline_s()
        if due_s is not None:
            times.append(due_s)
        if self.life.phase is Phase.STOPPING:
            times.append(self._interrupt_s if self._must_interrupt else self._kill_s)
        elif self.custody.open.total and self._feeds():
            stuck_s = self._dispatcher.stuck_at_s()
            if stuck_s is not None:
                times.append(stuck_s)
            times += self.custody.queue.delayed.values()
        return min(times, default=None)

    def check(self) -> None:
        """Assert that every assigned index is in one place. Costs O(state): for tests."""
        self.report.check()
        assert not self._steals.unanswered, "a steal was not answered"
        assert self.life.phase is not Phase.QUEUED or not self._dispatcher.workers
        if self.life.takes_work:
            self.custody.check(self.report.outcomes.held)
            self.big.check()

    def snapshot(self) -> dict[str, object]:
        """Return its state, for people: no payload and no secret is in it."""
        return {
            "job": self._start.job.hex(),
            "life": self.life.snapshot(),
            "is_paused": self._is_paused,
            "has_failed": self._has_failed,
            **self.custody.snapshot(),
            "big_inputs": self.big.snapshot(),
            **self._workers.snapshot(),
            "unacknowledged": self.report.snapshot(),
        }

    # --- helpers ---

    def _is_idle(self) -> bool:
        """Return whether its workers may go on with another lease."""
        return self.life.serves and not self.custody.open and not self._has_failed

    def _begin_lease(self, places: tuple[str, str], *, keep: bool, enters: bool = False) -> None:
        files, packages = places
        begin = BeginLease(self._start, self._function, keep, self._blobs, packages, files, enters)
        self._effects.append(begin)
        self._function = ()  # it may be big, and this lease may be remembered for long

    def _feeds(self) -> bool:
        """Return whether workers get something to run."""
        return self.life.serves and not self._has_failed and not self._is_paused

    def _feed(self, now_s: float) -> None:
        dispatcher, queue = self._dispatcher, self.custody.queue
        if (reason := self._workers.spawn.no_worker) is not None:
            if (index := queue.pop_first()) is not None:
                kind, frames = reason
                run = Run(index, index + 1, kind, len(frames))
                self.complete(run, frames, now_s, stops=True)
            return
        for one in dispatcher.assign(now_s):
            if len(dispatcher.workers[one.worker].cells) == 1:
                self._workers.words.begin(one.worker)
            leaves = self.custody.store.find(one.span)
            left, slots = dispatcher.left + len(queue), self._start.slots
            files = self.big.numbers_of(leaves) if self.big.leaves else ()
            self._effects.append(
                AssignSpan(one.worker, one.cell, one.span, leaves, left, slots, one.careful, files)
            )
        if len(queue):
            self._workers.want_for_waiting()
        self._steals.balance(now_s)

    def _regulate(self) -> None:
        """Read from the workers only while the windows have room."""
        is_full = self.report.is_full()
        if is_full and not self._is_paused:
            self._effects.append(PauseReading())
        elif self._is_paused and not is_full:
            self._effects.append(ResumeReading())
        self._is_paused = is_full

    def complete(
        self,
        run: Run,
        frames: Sequence[bytes],
        now_s: float,
        report: CellReport | None = None,
        *,
        stops: bool = False,
    ) -> None:
        """Pass an outcome on, or a part of one, which is complete with its last part.

        `report`: what its worker said; `stops`: no other input can be called either.
        """
        outcomes = self.report.outcomes
        if report is not None and not report.is_whole():
            if not self._discards:
                outcomes.add_fragment(report, None, now_s)
            return
        if not self.life.serves and run.kind is Kind.ERROR:
            return  # our own SIGINT, as likely as not; whoever wants its index has it queued again
        stops = stops or (not self._goes_on and run.kind in (Kind.ERROR, Kind.DEATH))
        self.custody.open.remove(run.lo, run.hi)
        tries = self._retries.tries(run.lo) + 1 if run.kind is Kind.ERROR else 1
        self._retries.forget(run.lo, run.hi)
        if self._discards:
            pass
        elif report is not None and report.fragment is not None:
            outcomes.add_fragment(report, run, now_s)
        else:
            outcomes.add(run, frames, now_s, stops=stops)
        if not self._discards:
            outcomes.tally.take(run, frames, report, tries)
        if stops:
            self._has_failed = True
            self.report.hurry()

    def again(self, index: int, why: str, now_s: float) -> bool:
        """Return whether a call that has failed is called again; then its time begins anew."""
        if not (self.life.serves and self._retries.again(index, why, now_s)):
            return False
        self._timeouts.forget(index)
        return True

    def _interrupt(self, now_s: float) -> None:
        """End the calls that run; who runs one would go on with the next."""
        busy = [worker for worker in self._dispatcher.workers.values() if worker.is_busy()]
        for worker in busy:
            if worker.unstarted():
                self._steals.take_all(worker)
        if now_s >= self._interrupt_s:
            self._must_interrupt = False
            self._effects += [Interrupt(worker.number) for worker in busy]

    def _stopped(self, now_s: float) -> None:
        self.life.enter(Phase.STOPPED, now_s)
        self._dispatcher.workers.clear()
        self._effects.append(Send(Stopped(self.id)))
