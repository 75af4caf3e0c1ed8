"""One map call: what to send, what came back, in which order. Pure.

Feed a `Session` what the caller has (`add_batch`, `end_inputs`, `consumed`, `shown`, `close`), what
the scheduler says (`receive`), when the connection comes and goes (`link`, `unlink`) and the time
(`expire`); carry out the effects it returns, in order. Frames of outcomes pass through unopened. It
keeps every batch until all its outcomes are here, so that whatever dies can be told again.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import assert_never

from msgspec.structs import replace

from burla.protocol import messages as m
from burla.protocol.codec import WireError, unpack_runs
from burla.protocol.mac import NOT_SEALED, is_sealed
from burla.protocol.ranges import Range, Ranges

from .acks import ACK_LATE_S, Acks
from .effects import Deliver, Effect, Fail, Finish, Frames, Part, ReportWaiting, Send, Warn, Write
from .output_order import OutputOrder, Piece

DONE_RANGES_MAX = 1 << 15  # told in OpenJob, at most 19 bytes each; see HEADER_BYTES_MAX
WAIT_SAID_S = 1.0  # a job that waits longer says why
PRUNE_MIN = 1024  # forgotten batches at the front that are worth moving a list for

Runs = list[tuple[m.Run, list[bytes]]]
AboutJob = m.JobOutcomes | m.JobOutput | m.LeaseLost | m.JobStatus | m.JobFailed


@dataclass(slots=True)
class _Batch:
    message: m.Inputs
    payload: list[bytes]
    size: int  # bytes of all frames
    left: int  # inputs without outcome


@dataclass(slots=True)
class _Lease:
    """What has come from one lease."""

    node: str = ""
    acks: Acks = field(default_factory=Acks)
    shown: int = 0  # output chunks up to this one are written
    output: OutputOrder = field(default_factory=OutputOrder)


class Session:
    """One job, as the client knows it."""

    def __init__(self, spec: m.OpenJob, function: Frames, prompt: bool, now_s: float) -> None:
        """Start a job that has no inputs yet.

        Args:
            spec: opens it.
            function: frames of the function.
            prompt: acknowledge outcomes on receipt; else when `consumed` says so.
            now_s: when it starts, on the caller's clock.
        """
        self.id = spec.job
        self.topic = spec.topic  # may be replaced before it is opened
        self.born_s = now_s
        self.over = False
        self.opened = False  # the scheduler may know of it
        self._spec, self._function, self._prompt = spec, list(function), prompt
        self._linked = False
        self._done = Ranges()
        self._total: int | None = None
        self._next = 0  # index of the next input
        self._batches: dict[int, _Batch] = {}  # those that are not complete
        self._starts: list[int] = []  # of batches from number `_first` on
        self._first = 0
        self._failed = False  # an outcome is an error: only output is awaited
        self._leases: dict[bytes, _Lease] = {}
        self._lacking: dict[bytes, None] = {}  # leases with missing output, in order
        self._untold: dict[bytes, None] = {}  # leases with something to acknowledge
        self._tell_s = 0.0  # when that is done at the latest; 0: there is nothing
        self._stalled = ""  # why the scheduler does nothing for it, as this end sees it
        self._status = ""  # why nothing of it runs, as the scheduler said
        self._waiting, self._waiting_s, self._said = "", 0.0, ""
        self._effects: list[Effect] = []

    # --- the connection ---

    def link(self, now_s: float) -> list[Effect]:
        """Note that the scheduler listens: tell it all that it may not know."""
        self._linked = True
        self._stalled = ""
        self._reconsider(now_s)
        done = sorted(sorted(self._done, key=lambda r: r[0] - r[1])[:DONE_RANGES_MAX])
        spec = replace(self._spec, topic=self.topic, resumed=self.opened, done=tuple(done))
        self._send(spec, self._function)
        self.opened = True
        for batch in self._batches.values():
            self._send(batch.message, batch.payload)
        if self._total is not None:
            self._send(m.InputsEnd(self.id, self._total))
        for lease_id, lease in self._leases.items():
            if lease.acks.safe:
                self._acknowledge(lease_id, lease)
            if lease.shown:
                self._send(m.AckOutput(lease_id, lease.shown))
        return self._settle()

    def unlink(self) -> None:
        """Note that the scheduler does not hear us; everything is told again by `link`."""
        self._linked = False

    def stall(self, why: str, now_s: float) -> list[Effect]:
        """Note why the scheduler does nothing for the job; empty: it listens."""
        self._stalled = why
        self._reconsider(now_s)
        return self._settle()

    # --- what the caller has ---

    def add_batch(
        self, leaves: Sequence[tuple[int, Frames]], now_s: float, *, last: bool = False
    ) -> list[Effect]:
        """Take the next inputs, or the last: per leaf, how many they are and their frames."""
        if self.over:
            return []
        assert self._total is None, self._total
        number, start, at = self._first + len(self._starts), self._next, self._next
        parts, payload = [], list[bytes]()
        for count, frames in leaves:
            parts.append(m.Leaf(number, at, count, len(frames)))
            payload += frames
            at += count
        self._total = at if last else None
        message = m.Inputs(
            job=self.id, batch=number, start=start, leaves=tuple(parts), total=self._total
        )
        self._batches[number] = _Batch(message, payload, sum(map(len, payload)), at - start)
        self._starts.append(start)
        self._next = at
        self._send(message, payload)
        return self._settle()

    def end_inputs(self, now_s: float) -> list[Effect]:
        """Note that no more inputs come."""
        if self.over:
            return []
        self._total = self._next
        self._send(m.InputsEnd(self.id, self._total))
        return self._settle()

    def consumed(self, lease_id: bytes, seq: int, now_s: float) -> list[Effect]:
        """Note that the caller's user has all outcomes of this message."""
        lease = self._leases.get(lease_id)
        if self.over or lease is None:
            return []
        self._make_safe(lease_id, lease, seq, now_s)
        return self._settle()

    def shown(self, lease_id: bytes, number: int, now_s: float) -> list[Effect]:
        """Note that output of the lease is written up to chunk `number`."""
        lease = self._leases.get(lease_id)
        if self.over or lease is None or number <= lease.shown:
            return []
        lease.shown = number
        self._send(m.AckOutput(lease_id, number))
        return self._settle()

    def close(self, now_s: float) -> list[Effect]:
        """End the job, whatever it has reached."""
        self._end()
        return self._settle()

    # --- what the scheduler says ---

    def receive(self, message: AboutJob, payload: list[bytes], now_s: float) -> list[Effect]:
        """Take one message about this job; what does not fit is ignored, as is what is repeated."""
        if self.over:
            return []
        match message:
            case m.JobOutcomes():
                if not is_sealed(self._spec.secret, message, payload):
                    return self.fail("", NOT_SEALED.format(message.node or "?"))
                self._take_outcomes(message, payload, now_s)
            case m.JobOutput():
                self._take_output(message, payload, now_s)
            case m.LeaseLost():
                self._lease(message.lease, message.node).output.lose(now_s)
            case m.JobStatus():
                self._status = message.waiting
                self._reconsider(now_s)
            case m.JobFailed():
                return self.fail(message.argument, message.text)
            case _:
                assert_never(message)
        return self._settle()

    def fail(self, argument: str, text: str) -> list[Effect]:
        """End the job because it can not go on."""
        self._effects.append(Fail(argument, text))
        self._end()
        return self._settle()

    # --- time ---

    def next_deadline_s(self) -> float | None:
        """Return when `expire` must be called next; None: not before something else happens."""
        if self.over:
            return None
        due = [look for e in self._lacking if (look := self._leases[e].output.look_s) is not None]
        if self._tell_s:
            due.append(self._tell_s)
        if self._waiting and self._waiting != self._said:
            due.append(self._waiting_s + WAIT_SAID_S)
        return min(due, default=None)

    def expire(self, now_s: float) -> list[Effect]:
        """Do what is due."""
        if self.over:
            return []
        if self._tell_s and now_s >= self._tell_s:
            self._tell_s = 0.0
            for lease_id in list(self._untold):
                self._acknowledge(lease_id, self._leases[lease_id])
        for lease_id in list(self._lacking):
            self._look_for_output(lease_id, self._leases[lease_id], now_s)
        if self._waiting and self._waiting != self._said and now_s >= self._waiting_s + WAIT_SAID_S:
            self._said = self._waiting
            self._effects.append(ReportWaiting(self._waiting))
        return self._settle()

    def check(self) -> None:
        """Assert what holds between any two calls. Costs O(state): for tests."""
        assert not self._effects
        entered = Ranges()
        for number, batch in self._batches.items():
            start, stop = self._bounds(number)
            assert batch.message.start == start
            assert sum(leaf.count for leaf in batch.message.leaves) == stop - start
            assert batch.left == stop - start - sum(
                hi - lo for lo, hi in self._done.common(start, stop)
            )
            assert batch.left > 0
            entered.add(start, stop)
        assert not self._done.missing(0, self._next) or all(
            entered.covers(lo, hi) for lo, hi in self._done.missing(0, self._next)
        ), "an input without outcome is in no batch"
        for lease_id, lease in self._leases.items():
            lease.acks.check()
            assert lease.shown < lease.output.due
            assert (lease_id in self._lacking) == lease.output.lacking()
            assert lease_id not in self._lacking or lease.output.look_s is not None
        if self._is_complete() and not self._lacking:
            assert self.over

    # --- outcomes ---

    def _take_outcomes(self, said: m.JobOutcomes, payload: list[bytes], now_s: float) -> None:
        runs = self._runs_of(said, payload)
        if not runs:
            return
        lease = self._lease(said.lease, said.node)
        if not lease.acks.take(said.seq, sum(map(len, payload))):
            if said.seq <= lease.acks.told:  # the acknowledgement was lost
                self._acknowledge(said.lease, lease)
            return
        lease.output.announce(said.output, now_s)
        self._look(said.lease, lease)
        parts, inputs, freed = [], 0, 0
        for run, frames in runs:
            fresh = tuple(self._done.missing(run.lo, run.hi))
            if not fresh or self._failed:
                continue
            self._done.add(run.lo, run.hi)
            inputs += sum(hi - lo for lo, hi in fresh)
            freed += sum(self._settle_batches(lo, hi) for lo, hi in fresh)
            parts.append(Part(run, fresh, frames))
            self._failed = run.kind in (m.Kind.ERROR, m.Kind.DEATH)
        if parts:
            delivered = Deliver(said.lease, said.seq, said.node, tuple(parts), inputs, freed)
            self._effects.append(delivered)
        if self._prompt or not parts:
            self._make_safe(said.lease, lease, said.seq, now_s)

    def _runs_of(self, said: m.JobOutcomes, payload: list[bytes]) -> Runs:
        """Return the runs and their frames, if they lie in what was sent."""
        try:
            runs = unpack_runs(said.runs, payload)
        except WireError:
            return []
        for run, _ in runs:
            single = run.kind != m.Kind.RESULTS
            if not run.lo < run.hi <= self._next or (single and run.hi != run.lo + 1):
                return []
        return runs

    def _settle_batches(self, lo: int, hi: int) -> int:
        """Note the outcomes of [lo, hi); return the bytes of the batches that are complete now."""
        freed = 0
        number = self._batch_of(lo)
        while lo < hi:
            stop = self._bounds(number)[1]
            batch = self._batches[number]
            batch.left -= min(hi, stop) - lo
            if not batch.left:
                freed += batch.size
                del self._batches[number]
            lo, number = stop, number + 1
        self._prune()
        return freed

    def _batch_of(self, index: int) -> int:
        return self._first + bisect_right(self._starts, index) - 1

    def _bounds(self, number: int) -> Range:
        at = number - self._first
        stop = self._starts[at + 1] if at + 1 < len(self._starts) else self._next
        return self._starts[at], stop

    def _prune(self) -> None:
        """Forget where complete batches at the front began, once that is worth it."""
        done = next(iter(self._batches), self._first + len(self._starts)) - self._first
        if done >= max(PRUNE_MIN, len(self._starts) // 2):
            del self._starts[:done]
            self._first += done

    def _make_safe(self, lease_id: bytes, lease: _Lease, seq: int, now_s: float) -> None:
        at_once = lease.acks.make_safe(seq)
        if self._is_complete() or lease.acks.safe == lease.acks.told:
            return  # the job is about to be closed, or an earlier message is not safe
        if at_once:
            self._acknowledge(lease_id, lease)
        else:
            self._untold[lease_id] = None
            self._tell_s = self._tell_s or now_s + ACK_LATE_S

    def _acknowledge(self, lease_id: bytes, lease: _Lease) -> None:
        self._untold.pop(lease_id, None)
        self._send(m.AckOutcomes(lease_id, lease.acks.tell()))

    # --- output ---

    def _take_output(self, said: m.JobOutput, chunks: list[bytes], now_s: float) -> None:
        if len(said.streams) == len(chunks) > 0:
            lease = self._lease(said.lease, "")
            piece = Piece(said.number, said.streams, tuple(chunks))
            self._show(said.lease, lease.output.take(piece, now_s))
            self._look(said.lease, lease)

    def _show(self, lease_id: bytes, pieces: list[Piece]) -> None:
        self._effects += [Write(lease_id, p.last, p.streams, p.chunks) for p in pieces]

    def _look(self, lease_id: bytes, lease: _Lease) -> None:
        if lease.output.lacking():
            self._lacking[lease_id] = None
        else:
            self._lacking.pop(lease_id, None)

    def _look_for_output(self, lease_id: bytes, lease: _Lease, now_s: float) -> None:
        """Ask for output that is missing, or show what there is and say that some is lost."""
        output = lease.output
        if output.look_s is None or now_s < output.look_s:
            return
        if output.ask(now_s):
            self._send(m.ReplayOutput(self.id, lease_id, output.due - 1))
            return
        self._show(lease_id, output.give_up())
        self._look(lease_id, lease)
        self._effects.append(Warn(f"some output of node {lease.node or '?'} is lost"))

    def _lease(self, lease_id: bytes, node: str) -> _Lease:
        lease = self._leases.setdefault(lease_id, _Lease())
        lease.node = node or lease.node
        return lease

    def _reconsider(self, now_s: float) -> None:
        """Note since when the job waits for what it waits for."""
        why = self._stalled or self._status
        if why != self._waiting:
            self._waiting, self._waiting_s = why, now_s

    def _send(self, message: m.Message, payload: Frames = (), *, is_late: bool = False) -> None:
        if self._linked:
            self._effects.append(Send(message, payload, is_late))

    def _is_complete(self) -> bool:
        return self._failed or self._done.total == self._total

    def _settle(self) -> list[Effect]:
        """Finish a job that has all it can get; hand over the effects."""
        if not self.over and self._is_complete() and not self._lacking:
            self._effects.append(Finish())
            self._end(is_late=not self._failed)  # nothing of it runs any more
        effects, self._effects = self._effects, []
        return effects

    def _end(self, *, is_late: bool = False) -> None:
        if not self.over:
            self.over = True
            self._send(m.CloseJob(self.id), is_late=is_late)
            self._batches.clear()
