"""Per-job queues: where every index of a job is. Pure.

An index is in exactly one place: not entered yet, `pending`, in `held` of one lease, in `limbo`
(its outcome was forwarded, but the client that reconnected says that it lacks it), or `done`.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

from burla.wire.messages import Deal, Inputs, Leaf, OpenJob, Span
from burla.wire.ranges import Range, Ranges

ALIKE_BYTES_MAX = 1 << 20  # of a function: more takes over 1 ms to compare


@dataclass(slots=True)
class Batch:
    """Consecutive inputs as the client sent them; immutable but for `left`."""

    number: int
    start: int
    stop: int
    leaves: list[Leaf]
    frames: list[list[bytes]]  # per leaf
    size: int  # bytes of all frames
    left: int  # indices without an outcome

    @classmethod
    def from_inputs(cls, message: Inputs, payload: list[bytes]) -> "Batch":
        """Return the batch that `message` describes.

        Raises:
            ValueError: the leaves are not consecutive, or do not match the payload.
        """
        at, frame, frames = message.start, 0, []
        for leaf in message.leaves:
            if leaf.start != at or leaf.batch != message.batch:
                raise ValueError(f"leaf {leaf} of batch {message.batch} where {at} is due")
            frames.append(payload[frame : frame + leaf.frames])
            at, frame = at + leaf.count, frame + leaf.frames
        if frame != len(payload) or at == message.start:
            raise ValueError(f"batch {message.batch}: {len(payload)} frames, {frame} declared")
        size = sum(map(len, payload))
        leaves = list(message.leaves)
        return cls(message.batch, message.start, at, leaves, frames, size, at - message.start)

    def bytes_each(self) -> float:
        """Return the mean size of its inputs."""
        return self.size / (self.stop - self.start)

    def leaves_of(self, lo: int, hi: int) -> Iterator[tuple[Leaf, list[bytes]]]:
        """Yield the leaves that [lo, hi) lies in, with their frames."""
        first = bisect_right(self.leaves, lo, key=lambda leaf: leaf.start) - 1
        for leaf, frames in zip(self.leaves[first:], self.frames[first:], strict=True):
            if leaf.start >= hi:
                return
            yield leaf, frames


@dataclass(slots=True)
class Lease:
    """A node given to one job."""

    id: bytes
    node: bytes
    slots: int
    held: Ranges = field(default_factory=Ranges)  # dealt, no outcome yet
    sent: Ranges = field(default_factory=Ranges)  # whose leaves the nodelet has
    forget: list[int] = field(default_factory=list)  # batches to name in the next Deal
    weight: float = 0.0  # bytes of the held inputs, by their batches' mean
    call_s: float = 0.0  # as the nodelet measured; 0: not known
    shedding: bool = False  # asked to give back, has not answered
    shed_empty: bool = False  # had nothing to give since its last outcomes
    draining: bool = False  # gets no more; is ended when nothing is held


class Job:
    """One remote_parallel_map call."""

    def __init__(self, spec: OpenJob, function: list[bytes], owner: bytes, python: str) -> None:
        """Open a job for the client session `owner`."""
        self.spec = spec
        self.id = spec.job
        self.function = function
        self.owner = owner
        self.python = python
        self.batches: dict[int, Batch] = {}  # those with indices that are not done
        self.starts: list[int] = []  # of all batches ever entered, ascending
        self.numbers: list[int] = []  # theirs; a resumed job lacks those that were done before
        self.entered = 0  # indices [0, entered) have been sent by the client
        self.total: int | None = None  # None: more may come
        self.pending = Ranges()
        self.done = Ranges(spec.done)
        self.limbo = Ranges()
        self.weight = 0  # of the batches held here
        self.leases: dict[bytes, Lease] = {}
        self.past: dict[bytes, bytes] = {}  # ended leases with unacknowledged outcomes -> node
        self.failed = False  # an error went to the client: nothing more is dealt
        self.opened_s = 0.0
        self.hold_until_s = 0.0  # nothing is dealt before: nodelets may still say what they hold
        self.reopen_by_s: float | None = None  # said Hello anew: then what it still has, it opens
        self.said = ""  # the last waiting reason told
        self._likeness: bytes | None = None

    def slots(self) -> int:
        """Return how many calls may run at once on its leases."""
        return sum(lease.slots for lease in self.leases.values())

    def likeness(self) -> bytes:
        """Return what is equal for jobs that may follow each other in the same processes.

        Those are of one session, and have the same function (to the byte) and the same options.
        Empty: no job is like this one.
        """
        if self._likeness is None:
            spec, self._likeness = self.spec, b""
            if sum(map(len, self.function)) <= ALIKE_BYTES_MAX:
                options = (spec.func_cpu, spec.func_ram, spec.max_parallelism, spec.unpack)
                digest = blake2b(repr((self.owner, options)).encode(), digest_size=16)
                for part in (spec.environment, *self.function):
                    digest.update(len(part).to_bytes(8, "big"))
                    digest.update(part)
                self._likeness = digest.digest()
        return self._likeness

    def is_complete(self) -> bool:
        """Return whether every input has its outcome."""
        return self.total is not None and self.done.total >= self.total

    def enter(self, batch: Batch) -> None:
        """Take a batch; what of it is not done or on a lease becomes pending.

        One that is known already (the client reconnected) is only kept, if it is needed.

        Raises:
            ValueError: it is not the next one, nor a known one.
        """
        if batch.start < self.entered:
            self._enter_again(batch)
            return
        if self.numbers and batch.number <= self.numbers[-1]:
            raise ValueError(f"batch {batch.number} comes after batch {self.numbers[-1]}")
        if not self.done.covers(self.entered, batch.start):
            raise ValueError(f"batch {batch.number} starts at {batch.start}, not {self.entered}")
        self.starts.append(batch.start)
        self.numbers.append(batch.number)
        self.entered = batch.stop
        self._keep(batch)
        for lo, hi in self.done.missing(batch.start, batch.stop):
            self.pending.add(lo, hi)
        for elsewhere in (self.limbo, *(lease.held for lease in self.leases.values())):
            for lo, hi in elsewhere.common(batch.start, batch.stop):
                self.pending.remove(lo, hi)

    def _enter_again(self, batch: Batch) -> None:
        at = bisect_right(self.starts, batch.start) - 1
        end = self.starts[at + 1] if at + 1 < len(self.starts) else self.entered
        if at < 0 or (self.starts[at], self.numbers[at], end) != (
            batch.start,
            batch.number,
            batch.stop,
        ):
            raise ValueError(f"batch {batch.number} is not the one that was entered")
        if batch.number not in self.batches:
            self._keep(batch)

    def _keep(self, batch: Batch) -> None:
        batch.left = sum(hi - lo for lo, hi in self.done.missing(batch.start, batch.stop))
        if batch.left:
            self.batches[batch.number] = batch
            self.weight += batch.size

    def spans(self, lo: int, hi: int) -> Iterator[Span]:
        """Yield [lo, hi) cut at the bounds of batches, as far as batches have been entered."""
        first_at = max(0, bisect_right(self.starts, lo) - 1)
        for at in range(first_at, len(self.starts)):
            stop = self.starts[at + 1] if at + 1 < len(self.starts) else self.entered
            first, last = max(lo, self.starts[at]), min(hi, stop)
            if first < last:
                yield Span(self.numbers[at], first, last)
            if stop >= hi:
                return

    def deal(self, lease: Lease, count: int) -> tuple[Deal, list[bytes]]:
        """Move the first `count` pending indices to `lease`; return the message and its payload."""
        spans: list[Span] = []
        leaves: list[Leaf] = []
        payload: list[bytes] = []
        for lo, hi in self.pending.pop_front(count):
            lease.held.add(lo, hi)
            for span in self.spans(lo, hi):
                spans.append(span)
                batch = self.batches[span.batch]
                lease.weight += batch.bytes_each() * (span.hi - span.lo)
                for leaf, frames in batch.leaves_of(span.lo, span.hi):
                    if lease.sent.add(leaf.start, leaf.start + leaf.count):
                        leaves.append(leaf)
                        payload += frames
        forget, lease.forget = tuple(lease.forget), []
        deal = Deal(
            lease=lease.id,
            left=self.pending.total,
            spans=tuple(spans),
            leaves=tuple(leaves),
            forget=forget,
        )
        return deal, payload

    def give_back(self, lease: Lease, lo: int, hi: int) -> None:
        """Make what `lease` holds of [lo, hi) pending again."""
        for part in lease.held.remove(lo, hi):
            self._lighten(lease, *part)
            self.pending.add(*part)

    def finish(self, lease: Lease | None, lo: int, hi: int) -> None:
        """Mark [lo, hi) done; the outcomes came from `lease` (None: from one that has ended)."""
        for part in self.done.missing(lo, hi):
            self._finish_open(lease, *part)

    def _finish_open(self, lease: Lease | None, lo: int, hi: int) -> None:
        self.done.add(lo, hi)
        found = 0
        if lease is not None:
            for part in lease.held.remove(lo, hi):
                self._lighten(lease, *part)
                found += part[1] - part[0]
        if found < hi - lo:  # it was requeued meanwhile: late, but welcome
            self.pending.remove(lo, hi)
            self.limbo.remove(lo, hi)
            for other in self.leases.values():
                for part in other.held.remove(lo, hi):
                    self._lighten(other, *part)
        for span in self.spans(lo, hi):
            if batch := self.batches.get(span.batch):
                batch.left -= span.hi - span.lo
                if not batch.left:
                    self._drop(batch)

    def _drop(self, batch: Batch) -> None:
        del self.batches[batch.number]
        self.weight -= batch.size
        for lease in self.leases.values():
            if lease.sent.remove(batch.start, batch.stop):
                lease.forget.append(batch.number)

    def _lighten(self, lease: Lease, lo: int, hi: int) -> None:
        for span in self.spans(lo, hi):
            if batch := self.batches.get(span.batch):
                lease.weight -= batch.bytes_each() * (span.hi - span.lo)

    def undo(self, have: tuple[Range, ...]) -> None:
        """Take the client's word for what it has: other outcomes are looked for in limbo.

        Batches that are needed for them come again with the client's next messages.
        """
        known, self.done = self.done, Ranges(have)
        for lo, hi in known:
            for gap in self.done.missing(lo, hi):
                self.limbo.add(*gap)
                for span in self.spans(*gap):
                    if batch := self.batches.get(span.batch):
                        batch.left += span.hi - span.lo
        for lo, hi in self.done:
            if not Ranges(known).covers(lo, hi):
                for gap in known.missing(lo, hi):
                    self.done.remove(*gap)
                    self.finish(None, *gap)

    def release_limbo(self) -> None:
        """Give up waiting for outcomes that nobody sent again: their indices are pending."""
        for lo, hi in list(self.limbo):
            for span in self.spans(lo, hi):
                if span.batch in self.batches:
                    self.limbo.remove(span.lo, span.hi)
                    self.pending.add(span.lo, span.hi)

    def check(self) -> None:
        """Assert that every index is in exactly one place. Costs O(state): for tests."""
        places = [*self.done, *self.pending, *self.limbo]
        for lease in self.leases.values():
            places += list(lease.held)
        at = 0
        for lo, hi in sorted(places):
            assert lo == at or lo >= self.entered, (lo, at, self.id)
            at = hi
        assert at >= self.entered, (at, self.entered)
        left = {
            n: sum(hi - lo for lo, hi in self.done.missing(b.start, b.stop))
            for n, b in self.batches.items()
        }
        assert left == {n: b.left for n, b in self.batches.items()}
        assert all(left.values())
        assert self.weight == sum(b.size for b in self.batches.values())
