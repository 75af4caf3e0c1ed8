"""The nodelet's core: decides everything, does nothing. Pure.

Feed it what arrives from the scheduler (`receive`) and what workers do (`take`): that changes what
it knows. Then, and whenever a deadline has passed, `settle` decides what follows from all of it:
carry out the effects that it returns, in order. A `Steal` among them is answered by `Stolen` before
anything else is fed in, and `settle` is asked again. This file knows the connection and which lease
is served; what follows for a lease is in lease.py.
"""

from collections import deque
from collections.abc import Collection, Sequence
from itertools import count
from typing import assert_never

from msgspec.structs import replace

from burla.protocol import messages as m
from burla.protocol.key_messages import KeyReplaced, RenewKey, ServerKey
from burla.protocol.messages import SchedulerToNodelet

from .blobs import IDLE_MAX, Blobs
from .effects import DropSpare, Effect, Heard, KeepBlanks, Leave, Note, Quit, Send
from .events import Reading, WorkerEvent, WorkersEnded
from .images import ImageTable
from .lease import Lease
from .memory_policy import low
from .packages import PackageTable
from .phases import Life, Phase
from .succession import Succession

HELLO_S = 2.0  # HelloRequired is answered again after this long; many come with a reconnect
UNHEARD_S = 10.0  # without a Welcome for this long: people should know
HEARD_S = 5.0  # that the scheduler answers is noted this often
SILENCE_S = 600.0  # a scheduler that says nothing for this long is gone; by default
BLANKS_SPARE = 4  # beyond one per CPU: for small jobs that follow each other closely
BLANKS_MAX = 64  # more are forked when a lease asks for them
LEASES_MAX = 64  # also those of which only unacknowledged outcomes are left; the oldest go first
PAST_MAX = 16  # leases that are over, of which is remembered for people what became of them


class Nodelet:
    """One machine: at most one lease at a time, and what is owed of earlier ones."""

    def __init__(
        self, hello: m.NodeHello, silence_s: float = SILENCE_S, blobs_max: int = IDLE_MAX
    ) -> None:
        """Offer the machine that `hello` describes; it holds nothing yet.

        Args:
            hello: about this machine.
            silence_s: how long its leases go on while the scheduler is silent.
            blobs_max: how many blobs it may keep that no lease needs.
        """
        self.leases: dict[bytes, Lease] = {}  # in order of arrival
        # Those that may have something to do. The others rest until the scheduler names them.
        self._awake: dict[bytes, Lease] = {}
        self._past: deque[Life] = deque(maxlen=PAST_MAX)
        self._hello, self._silence_s = hello, silence_s
        self._effects: list[Effect] = []
        self._new_number = count(1).__next__  # of what is kept in memory: blobs and big inputs
        room = hello.ram // m.BLOBS_SHARE
        self._blobs = Blobs(room, self._effects, blobs_max, self._new_number)
        self.packages = PackageTable(self._effects)
        self.images = ImageTable(self._effects)
        self._succession = Succession(self._effects)
        self._beat_s = 0.0
        self._heard_s = 0.0
        self._hello_s = 0.0  # when the last Hello was sent
        self.shared = ""  # where all nodes have one file system, as the scheduler said last
        self._welcomed: bytes | None = None  # by this scheduler; None: not on this connection
        self._warned = False
        self._noted_s = 0.0  # when it was last noted that the scheduler answers
        self._leaving = False
        self._left = False  # nothing is left to be done
        self._released = False  # the scheduler knows, and gives us nothing more

    # --- events ---

    def start(self, now_s: float) -> None:
        """Begin."""
        self._beat_s = now_s + m.BEAT_S
        self._heard_s = now_s
        self._effects.append(KeepBlanks(blanks_of(self._hello.cpus)))
        self._say_hello(now_s)

    def receive(self, message: SchedulerToNodelet, payload: Sequence[bytes], now_s: float) -> None:
        """Take one message of the scheduler."""
        self._heard_s = now_s
        try:
            self._take(message, payload, now_s)
        except ValueError as error:  # what it says does not fit together: that message is void
            self._effects.append(Note(f"ignored {type(message).__name__}: {error}"))

    def take(self, event: WorkerEvent, now_s: float) -> None:
        """Take one event of the workers there are; a late one changes nothing."""
        lease = self._current()
        if lease is not None:
            lease.take(event, now_s)
        elif isinstance(event, WorkersEnded):
            self._succession.cleared()
        if isinstance(event, Reading) and event.available < low(event.total):
            self._blobs.drop_unneeded()
            self._effects.append(DropSpare())

    def blob_failed(self, number: int, why: str, now_s: float, *, may_pass: bool = False) -> None:
        """Take note that a blob, or a big input, cannot be kept, perhaps only just now."""
        for lease in self.leases.values():
            if lease.big.failed(number, why, now_s, may_pass=may_pass):
                return
        self._blobs.failed(number, why)

    def image_there(self, lease: bytes, place: str) -> None:
        """Take note where the files of a lease's image are."""
        if (found := self.images.there(lease, place)) is not None:
            self.packages.need(found.start, found.blobs, place)

    def leave(self) -> None:
        """Take no more work; `Leave` comes when what was begun is done and delivered."""
        if not self._leaving:
            self._leaving = True
            self._effects.append(Note("draining: finishing the running calls"))
            if self._welcomed is not None:
                self._effects.append(Send(m.Drain()))

    def last_word(self) -> list[Send]:
        """Return what to say when this ends at once, as it was told: it does not die of a call."""
        return [Send(m.Drain())] if self._welcomed is not None and not self._released else []

    # --- what follows ---

    def settle(self, now_s: float) -> list[Effect]:
        """Decide what follows from what has happened and from the time; return what to do."""
        if now_s >= self._beat_s:
            self._beat(now_s)
        for lease_id in list(self.packages.awaited) if self.packages.awaited else ():
            if self._blobs.has_all(lease_id):
                self.packages.blobs_there(lease_id)
        if self._current() is None:
            waiting = [e.id for e in self._awake.values() if e.life.phase is Phase.QUEUED]
            next_id = self._succession.next_of(waiting)
            if next_id is not None and self._has_all(next_id) and self.images.enter(next_id):
                places = self.packages.places_of(next_id)
                enters = self.images.has_entered(next_id)
                self._succession.begun()
                self.leases[next_id].begin(now_s, places, enters=enters)
        # it may be gone for good, or have another key by now
        is_silent = now_s - self._heard_s >= UNHEARD_S
        for one in list(self._awake.values()):
            if self._leaving and is_silent and one.life.phase is Phase.LINGERING:
                one.end(True, now_s)
            one.settle(now_s)
            if one.life.phase is Phase.STOPPED:
                self._release(one, now_s)
                if one.report.is_empty():
                    self._forget(one)
                elif one.rests():
                    del self._awake[one.id]
        is_released = self._released or self._welcomed is None or is_silent
        if self._leaving and is_released and not self.leases and not self._left:
            self._left = True
            self._effects.append(Leave())
        effects = self._effects[:]
        self._effects.clear()
        return effects

    def _beat(self, now_s: float) -> None:
        """Say that we live, and look how long the scheduler has not."""
        self._beat_s = now_s + m.BEAT_S
        self._effects.append(Send(m.Heartbeat()))
        self._blobs.settle(now_s)
        silent_s = now_s - self._heard_s
        if self._welcomed is not None and self._heard_s - self._noted_s >= HEARD_S:
            self._noted_s = self._heard_s
            self._effects.append(Heard())
        if silent_s >= UNHEARD_S and not self._warned:
            self._warned = True
            self._effects.append(
                Note(
                    f"no answer from the scheduler for {UNHEARD_S:.0f} s; still trying, and"
                    f" leases go on until it has been silent for {self._silence_s:.0f} s"
                )
            )
        if silent_s >= self._silence_s and self.leases:
            self._effects.append(
                Note(f"no answer from the scheduler for {silent_s:.0f} s: ending its leases")
            )
            for lease in list(self.leases.values()):
                self._awake[lease.id] = lease
                lease.end(True, now_s)

    def next_deadline_s(self) -> float:
        """Return when `settle` must be called next, on the caller's clock."""
        times = [self._beat_s]  # silences are looked at with each beat
        for lease in self._awake.values():
            due_s = lease.next_deadline_s()
            if due_s is not None:
                times.append(due_s)
        return min(times)

    def check(self) -> None:
        """Assert what holds between any two calls. Costs O(state): for tests."""
        assert not self._effects
        assert sum(lease.life.has_workers for lease in self.leases.values()) <= 1
        assert len(self.leases) <= LEASES_MAX
        self._blobs.check()
        assert self._awake.keys() <= self.leases.keys()
        for lease in self.leases.values():
            lease.check()
            assert lease.id in self._awake or lease.rests()

    def busy(self) -> Collection[int]:
        """Return the workers that have something to run."""
        lease = self._current()
        return lease.custody.dispatcher.occupied() if lease is not None else ()

    def snapshot(self) -> dict[str, object]:
        """Return its state, for people: no payload and no secret is in it."""
        return {
            "name": self._hello.name,
            "cpus": self._hello.cpus,
            "ram": self._hello.ram,
            "welcomed_by": self._welcomed.hex() if self._welcomed is not None else None,
            "heard_s": self._heard_s,
            "is_leaving": self._leaving,
            "leases": {lease.id.hex(): lease.snapshot() for lease in self.leases.values()},
            "blobs": self._blobs.snapshot(),
            "packages": self.packages.snapshot(),
            "images": self.images.snapshot(),
            "succession": self._succession.snapshot(),
            "past": [life.snapshot() for life in self._past],
        }

    # --- from the scheduler ---

    def _take(self, said: SchedulerToNodelet, payload: Sequence[bytes], now_s: float) -> None:
        match said:
            case m.StartLease():
                self._start_lease(said, payload, now_s)
            case m.Assign():
                if lease := self._named(said.lease):
                    lease.assign(said, payload, now_s)
            case m.Welcome():
                self._welcome(said, now_s)
            case m.HelloRequired():
                self._welcomed = None
                if now_s >= self._hello_s + HELLO_S:
                    self._say_hello(now_s)
            case m.Refused():
                self._effects.append(Quit(said.reason, said.not_authorised))
            case m.BlobPiece():
                self._blobs.take(said, payload, now_s)
            case m.InputPiece():
                if lease := self._named(said.lease):
                    lease.big.take(said, payload, now_s)
            case m.Retract():
                if lease := self._named(said.lease):
                    lease.retract(said)
            case m.AckOutcomes():
                if lease := self._named(said.lease):
                    lease.report.outcomes.ack(said.seq)
            case m.AckOutput():
                if lease := self._named(said.lease):
                    lease.report.output.ack(said.number)
            case m.ReplayOutput():
                if lease := self._named(said.lease):
                    self._effects += lease.report.output.again(said.after, replay=True)
            case m.Linger():
                if lease := self._named(said.lease):
                    lease.linger(now_s)
            case m.EndLease():
                self._end_lease(said, now_s)
            case m.Drained():
                self._released = self._leaving
            case m.Heartbeat() | ServerKey() | RenewKey() | KeyReplaced():  # the shell takes keys
                pass
            case _:
                assert_never(said)

    def _say_hello(self, now_s: float) -> None:
        self._hello_s = now_s
        for lease in self.leases.values():
            if lease.life.phase is Phase.LINGERING:  # whoever hears this may not know of it
                lease.end(True, now_s)
        held = [h for lease in self.leases.values() if (h := lease.held(now_s)) is not None]
        self._effects.append(Send(replace(self._hello, held=tuple(held))))

    def _welcome(self, said: m.Welcome, now_s: float) -> None:
        if self._warned or self._welcomed != said.scheduler:
            self._effects.append(Note(f"connected to the scheduler (burla {said.version})"))
        self._warned = False
        self._welcomed = said.scheduler
        self.shared = said.shared
        self._hello_s = -HELLO_S  # the next HelloRequired is a new question
        self._noted_s = now_s
        self._effects.append(Heard())
        for lease in self.leases.values():
            lease.send_again()
        self._blobs.ask_again(now_s)
        for lease in self.leases.values():
            lease.big.ask_again(now_s)
        self.packages.send_again()
        self.images.send_again()
        if self._leaving:
            self._effects.append(Send(m.Drain()))

    def _start_lease(self, said: m.StartLease, function: Sequence[bytes], now_s: float) -> None:
        if said.follows is not None and said.lease not in self.leases:
            followed = self._named(said.follows)
            is_over = said.follows in said.over
            if followed is not None and followed.end(is_over, now_s, heir=said):
                self._succession.name(said.lease)
        for lease_id in said.over:
            if earlier := self._named(lease_id):
                earlier.end(True, now_s)
        if said.lease in self.leases:
            return
        if len(self.leases) >= LEASES_MAX:
            past = [e for e in self.leases.values() if e.life.phase is Phase.STOPPED]
            if not past:
                raise ValueError(f"{LEASES_MAX} leases are waiting already")
            self._forget(past[0])
            self._effects.append(
                Note(f"lease {past[0].id.hex()} is forgotten: too many unacknowledged leases")
            )
        blobs = self._need(said, now_s) if said.blobs or said.packages or said.image else ()
        lease = self.leases[said.lease] = self._awake[said.lease] = Lease(
            *(said, function, self._effects, now_s, blobs, self._new_number, self._hello.ram)
        )
        kept = None if said.keep is None else self._named(said.keep)
        if kept is not None:
            places = self.packages.places_of(lease.id)
            if not self._has_all(lease.id) or not lease.take_over(kept, now_s, places):
                kept.end(False, now_s)

    def _need(self, said: m.StartLease, now_s: float) -> tuple[int, ...]:
        """Get what a lease cannot begin without; return the numbers of its blobs."""
        blobs = self._blobs.need(said, now_s) if said.blobs else ()
        place = self.images.need(said, blobs) if said.image else ""
        if place or not said.image:  # else what there is of packages is known later
            self.packages.need(said, blobs, place)
        return blobs

    def _end_lease(self, said: m.EndLease, now_s: float) -> None:
        lease = self._named(said.lease)
        if lease is None:
            self._effects.append(Send(m.Stopped(said.lease)))
        else:
            lease.end(said.discard, now_s)

    # --- helpers ---

    def _named(self, lease_id: bytes) -> Lease | None:
        """Return a lease that the scheduler names, which may have something to do from now on."""
        lease = self.leases.get(lease_id)
        if lease is not None:
            self._awake[lease_id] = lease
        return lease

    def _has_all(self, lease: bytes) -> bool:
        """Return whether a lease may begin."""
        is_there = self.packages.has_all(lease) and self.images.has_files(lease)
        return is_there and self._blobs.has_all(lease)

    def _current(self) -> Lease | None:
        """Return the lease whose workers there are."""
        for lease in self._awake.values():
            if lease.life.has_workers:
                return lease
        return None

    def _release(self, lease: Lease, now_s: float) -> None:
        """Let go of what a lease needs no more."""
        self._blobs.release(lease.id, now_s)
        self.packages.release(lease.id)
        self.images.release(lease.id)

    def _forget(self, lease: Lease) -> None:
        del self.leases[lease.id]
        self._awake.pop(lease.id, None)
        self._release(lease, lease.life.past[-1][0])
        self._past.append(lease.life)


def blanks_of(cpus: int) -> int:
    """Return how many blanks a machine holds ready while it has no lease."""
    return min(cpus + min(cpus, BLANKS_SPARE), BLANKS_MAX)
