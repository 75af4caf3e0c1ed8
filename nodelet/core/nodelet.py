"""The nodelet's core: decides everything, does nothing. Pure.

Feed it what arrives from the scheduler (`receive`), what the workers do (`ready` ... `ended`) and
the time (`expire`); carry out the effects that it returns, in order. A `Steal` among them is
answered by `stolen` before anything else is fed in. This file knows the connection and which lease
is served; what follows for a lease is in lease.py.
"""

from collections.abc import Callable, Sequence
from typing import assert_never

from msgspec.structs import replace

from burla.protocol import messages as m
from burla.protocol.codec import Frames
from burla.protocol.messages import Run, SchedulerToNodelet

from .effects import Effect, Heard, KeepBlanks, Leave, Note, Quit, Send
from .lease import Lease
from .memory_policy import Reading
from .phases import Phase

BEAT_S = 1.0
HELLO_S = 2.0  # HelloRequired is answered again after this long; many come with a reconnect
UNHEARD_S = 10.0  # without a Welcome for this long: people should know
HEARD_S = 5.0  # that the scheduler answers is noted this often
SILENCE_S = 60.0  # a scheduler that says nothing for this long is gone
BLANKS_SPARE = 4  # beyond one per CPU: for small jobs that follow each other closely
BLANKS_MAX = 64  # more are forked when a lease asks for them
LEASES_MAX = 64  # also those of which only unacknowledged outcomes are left; the oldest go first


class Nodelet:
    """One machine: at most one lease at a time, and what is owed of earlier ones."""

    def __init__(self, hello: m.NodeHello) -> None:
        """Offer the machine that `hello` describes; it holds nothing yet."""
        self.leases: dict[bytes, Lease] = {}  # in order of arrival
        self._hello = hello
        self._effects: list[Effect] = []
        self._beat_s = 0.0
        self._heard_s = 0.0
        self._hello_s = 0.0  # when the last Hello was sent
        self._welcomed: bytes | None = None  # by this scheduler; None: not on this connection
        self._warned = False
        self._noted_s = 0.0  # when it was last noted that the scheduler answers
        self._leaving = False
        self._released = False  # the scheduler knows, and gives us nothing more

    # --- events ---

    def start(self, now_s: float) -> list[Effect]:
        """Begin; return what to do."""
        self._beat_s = now_s + BEAT_S
        self._heard_s = now_s
        self._keep_blanks()
        self._say_hello(now_s)
        return self._settle(now_s)

    def receive(
        self, message: SchedulerToNodelet, payload: Sequence[bytes], now_s: float
    ) -> list[Effect]:
        """Take one message of the scheduler; return what to do, in order."""
        self._heard_s = now_s
        try:
            self._take(message, payload, now_s)
        except ValueError as error:  # what it says does not fit together: that message is void
            self._effects.append(Note(f"ignored {type(message).__name__}: {error}"))
        return self._settle(now_s)

    def ready(self, worker: int, now_s: float, *, is_copy: bool = False) -> list[Effect]:
        """A worker has the function; a copy was forked from one that had loaded it."""
        return self._tell(lambda lease: lease.ready(worker, is_copy, now_s), now_s)

    def load_failed(self, worker: int, frames: Sequence[bytes], now_s: float) -> list[Effect]:
        """A worker could not load the function, and is gone."""
        return self._tell(lambda lease: lease.load_failed(worker, frames), now_s)

    def ran(
        self, worker: int, cell: int, run: Run, frames: Frames, seconds: float, now_s: float
    ) -> list[Effect]:
        """A worker has run the calls of `run`, which took `seconds`."""
        return self._tell(lambda e: e.ran(worker, cell, run, frames, seconds, now_s), now_s)

    def given_back(self, worker: int, cell: int, lo: int, now_s: float) -> list[Effect]:
        """A worker will run nothing of a cell from `lo` on."""
        return self._tell(lambda lease: lease.given_back(worker, cell, lo), now_s)

    def settled(self, worker: int, cell: int, now_s: float) -> list[Effect]:
        """A worker is through with a cell."""
        return self._tell(lambda lease: lease.settled(worker, cell, now_s), now_s)

    def printed(self, worker: int, stream: int, data: bytes, now_s: float) -> list[Effect]:
        """A worker wrote to stdout (1) or stderr (2)."""
        return self._tell(lambda lease: lease.printed(worker, stream, data, now_s), now_s)

    def stolen(self, worker: int, cell: int, lo: int, hi: int, now_s: float) -> list[Effect]:
        """[lo, hi), perhaps empty, was stolen as asked."""
        return self._tell(lambda lease: lease.stolen(worker, cell, lo, hi), now_s)

    def died(
        self,
        worker: int,
        how: tuple[str, int],
        ready: bool,
        running: tuple[int, int] | None,
        now_s: float,
    ) -> list[Effect]:
        """A worker ended: ("exit", status) or ("signal", number) while it was in `running`."""
        if ready:
            return self._tell(lambda lease: lease.died(worker, how, running, now_s), now_s)
        return self._tell(lambda lease: lease.died_loading(how), now_s)

    def memory(self, reading: Reading, now_s: float) -> list[Effect]:
        """The memory of the node and of its workers was looked at."""
        return self._tell(lambda lease: lease.memory(reading, now_s), now_s)

    def ended(self, now_s: float) -> list[Effect]:
        """All processes of the lease that was to end are gone, and its scratch is wiped."""
        return self._tell(lambda lease: lease.ended(), now_s)

    def leave(self, now_s: float) -> list[Effect]:
        """Take no more work; `Leave` comes when what was begun is done and delivered."""
        if not self._leaving:
            self._leaving = True
            self._effects.append(Note("leaving: finishing the calls that run"))
            if self._welcomed is not None:
                self._effects.append(Send(m.Drain()))
        return self._settle(now_s)

    def expire(self, now_s: float) -> list[Effect]:
        """Do what is due at `now_s`; return what to do."""
        if now_s >= self._beat_s:
            self._beat_s = now_s + BEAT_S
            self._effects.append(Send(m.Heartbeat()))
        silent_s = now_s - self._heard_s
        if self._welcomed is not None and self._heard_s - self._noted_s >= HEARD_S:
            self._noted_s = self._heard_s
            self._effects.append(Heard())
        if silent_s >= UNHEARD_S and not self._warned:
            self._warned = True
            self._effects.append(
                Note(f"no word from the scheduler for {UNHEARD_S:.0f} s; trying on")
            )
        if silent_s >= SILENCE_S and self.leases:
            self._effects.append(Note(f"no word for {SILENCE_S:.0f} s: its leases are ended"))
            for lease in list(self.leases.values()):
                lease.end(True, now_s)
        return self._settle(now_s)

    def next_deadline_s(self) -> float:
        """Return when `expire` must be called next, on the caller's clock."""
        times = [self._beat_s]  # silences are looked at with each beat
        for lease in self.leases.values():
            due_s = lease.next_deadline_s()
            if due_s is not None:
                times.append(due_s)
        return min(times)

    def check(self) -> None:
        """Assert what holds between any two calls. Costs O(state): for tests."""
        assert not self._effects
        phases = [lease.phase for lease in self.leases.values()]
        assert sum(phase in (Phase.SERVING, Phase.STOPPING) for phase in phases) <= 1
        assert len(phases) <= LEASES_MAX
        for lease in self.leases.values():
            lease.check()

    # --- from the scheduler ---

    def _take(self, said: SchedulerToNodelet, payload: Sequence[bytes], now_s: float) -> None:
        match said:
            case m.Welcome():
                self._welcome(said, now_s)
            case m.HelloRequired():
                self._welcomed = None
                if now_s >= self._hello_s + HELLO_S:
                    self._say_hello(now_s)
            case m.Refused():
                self._effects.append(Quit(said.reason, said.not_authorised))
            case m.StartLease():
                self._start_lease(said, payload, now_s)
            case m.Assign():
                if lease := self.leases.get(said.lease):
                    lease.deal(said, payload)
            case m.Retract():
                if lease := self.leases.get(said.lease):
                    lease.shed(said)
            case m.AckOutcomes():
                if lease := self.leases.get(said.lease):
                    lease.report.outcomes.ack(said.seq)
            case m.AckOutput():
                if lease := self.leases.get(said.lease):
                    lease.report.output.ack(said.number)
            case m.ReplayOutput():
                if lease := self.leases.get(said.lease):
                    lease.replay(said.after)
            case m.Linger():
                if lease := self.leases.get(said.lease):
                    lease.linger()
            case m.EndLease():
                self._end_lease(said, now_s)
            case m.Drained():
                self._released = self._leaving
            case m.Heartbeat():
                pass
            case _:
                assert_never(said)

    def _say_hello(self, now_s: float) -> None:
        self._hello_s = now_s
        for lease in self.leases.values():
            if lease.is_lingering:  # whoever hears this may not know of it
                lease.end(True, now_s)
        held = [h for lease in self.leases.values() if (h := lease.held()) is not None]
        self._effects.append(Send(replace(self._hello, held=tuple(held))))

    def _welcome(self, said: m.Welcome, now_s: float) -> None:
        if self._warned or self._welcomed != said.scheduler:
            self._effects.append(Note(f"connected to the scheduler (burla {said.version})"))
        self._warned = False
        self._welcomed = said.scheduler
        self._hello_s = -HELLO_S  # the next HelloRequired is a new question
        self._noted_s = now_s
        self._effects.append(Heard())
        for lease in self.leases.values():
            lease.send_again()
        if self._leaving:
            self._effects.append(Send(m.Drain()))

    def _start_lease(self, said: m.StartLease, function: Sequence[bytes], now_s: float) -> None:
        for lease_id in said.over:
            if earlier := self.leases.get(lease_id):
                earlier.end(True, now_s)
        if said.lease in self.leases:
            return
        if len(self.leases) >= LEASES_MAX:
            past = [e for e in self.leases.values() if e.phase is Phase.STOPPED]
            if not past:
                raise ValueError(f"{LEASES_MAX} leases wait")
            del self.leases[past[0].id]
            self._effects.append(Note(f"outcomes of lease {past[0].id.hex()} are given up"))
        lease = self.leases[said.lease] = Lease(said, function, self._effects)
        kept = None if said.keep is None else self.leases.get(said.keep)
        if kept is not None and not lease.take_over(kept, now_s):
            kept.end(False, now_s)

    def _end_lease(self, said: m.EndLease, now_s: float) -> None:
        lease = self.leases.get(said.lease)
        if lease is None:
            self._effects.append(Send(m.Stopped(said.lease)))
        else:
            lease.end(said.discard, now_s)

    # --- helpers ---

    def _tell(self, event: Callable[[Lease], None], now_s: float) -> list[Effect]:
        """Tell an event to the lease whose workers there are; a late one comes to nobody."""
        lease = self._current()
        if lease is not None:
            event(lease)
        return self._settle(now_s)

    def _current(self) -> Lease | None:
        for lease in self.leases.values():
            if lease.phase in (Phase.SERVING, Phase.STOPPING):
                return lease
        return None

    def _settle(self, now_s: float) -> list[Effect]:
        lease = self._current()
        if lease is None:
            waiting = (e for e in self.leases.values() if e.phase is Phase.QUEUED)
            lease = next(waiting, None)
            if lease is not None:
                lease.begin()
        for one in list(self.leases.values()):
            one.settle(now_s)
            if one.is_forgettable():
                del self.leases[one.id]
        if self._leaving and not self.leases and (self._released or self._welcomed is None):
            self._effects.append(Leave())
        effects = self._effects[:]
        self._effects.clear()
        return effects

    def _keep_blanks(self) -> None:
        self._effects.append(KeepBlanks(blanks_of(self._hello.cpus)))


def blanks_of(cpus: int) -> int:
    """Return how many blanks a machine holds ready while it has no lease."""
    return min(cpus + min(cpus, BLANKS_SPARE), BLANKS_MAX)
