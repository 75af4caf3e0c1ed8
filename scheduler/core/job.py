"""Per-job queues: where every index of a job is. Pure.

An index is in exactly one place: not entered yet, `pending`, in `held` of one lease, in `limbo`
(its outcome was forwarded, but the client that reconnected says that it lacks it), or `done`.
What policy asks of a job over and over (`slots`, `held`, `unstarted`, `empty`) is counted along, so
that no question costs time in proportion to its leases.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

from burla.protocol.messages import Assign, Leaf, OpenJob, Span
from burla.protocol.ranges import Range, Ranges

from .batch import Batch
from .quotas import FRAME_COST, JOB_COST, Usage

ALIKE_BYTES_MAX = 1 << 20  # of a function: more takes over 1 ms to compare


@dataclass(slots=True)
class Lease:
    """A node given to one job."""

    id: bytes
    node: bytes
    slots: int
    since_s: float = 0.0  # when it began, on the caller's clock
    held: Ranges = field(default_factory=Ranges)  # dealt, no outcome yet
    sent: Ranges = field(default_factory=Ranges)  # whose leaves the nodelet has
    forget: list[int] = field(default_factory=list)  # batches to name in the next Assign
    weight: float = 0.0  # bytes of the held inputs, by their batches' mean
    call_s: float = 0.0  # as the nodelet measured; 0: not known
    shedding: bool = False  # asked to give back, has not answered
    shed_empty: bool = False  # had nothing to give since its last outcomes
    draining: bool = False  # gets no more; is ended when nothing is held

    def idle(self) -> int:
        """Return how many of its slots have nothing to run."""
        return max(0, self.slots - self.held.total)

    def unstarted(self) -> int:
        """Return how many of its inputs wait behind those that run."""
        return max(0, self.held.total - self.slots)


def cost_of(spec: OpenJob, function: list[bytes]) -> int:
    """Return how many bytes a job takes here before it has inputs, for quotas."""
    frames = sum(map(len, function)) + FRAME_COST * len(function)
    return JOB_COST + len(spec.environment) + frames


class Job:
    """One remote_parallel_map call."""

    def __init__(
        self,
        spec: OpenJob,
        function: list[bytes],
        owner: bytes,
        python: str,
        user: str,
        usage: Usage | None = None,
    ) -> None:
        """Open a job for the client session `owner` of `user`; count it in `usage`."""
        self.usage = Usage() if usage is None else usage  # of its tenant
        self.usage.jobs += 1
        self.cost = cost_of(spec, function)  # bytes that count for the tenant
        self.usage.bytes_held += self.cost
        self.kept = 0  # inputs that count for the tenant: of the batches held here
        self.spec = spec
        self.id = spec.job
        self.function = function
        self.owner = owner
        self.python = python
        self.user = user
        self.tenant = ""  # whose quotas it is counted for: the key
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
        self.slots = 0  # of all leases: calls that may run at once
        self.held = 0  # indices on leases
        self.unstarted = 0  # of those, what waits behind what runs
        self.empty = 0  # leases that hold nothing
        self.idle: dict[bytes, None] = {}  # leases with an idle slot, who has waited longest first
        self.hungry: dict[bytes, None] = {}  # others that would take more work ahead
        self.failed = False  # an error went to the client: nothing more is dealt
        self.opened_s = 0.0
        self.turn = 0  # among equals the lowest is next; who gave up a node goes to the end
        self.hold_until_s = 0.0  # nothing is dealt before: nodelets may still say what they hold
        self.reopen_by_s: float | None = None  # said Hello anew: then what it still has, it opens
        self.said = ""  # the last waiting reason told
        self.scanned_s = 0.0  # when all leases were last looked at, of very many
        self._likeness: bytes | None = None

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

    # --- leases ---

    def add_lease(self, lease: Lease) -> None:
        """Count a lease in; it may hold something already."""
        self.leases[lease.id] = lease
        self.slots += lease.slots
        self.empty += 1
        if lease.held:
            self._count(lease, 0)
        else:
            self.idle[lease.id] = None

    def drop_lease(self, lease: Lease) -> None:
        """Make what a lease holds pending again, and count it out."""
        for lo, hi in list(lease.held):
            self.give_back(lease, lo, hi)
        del self.leases[lease.id]
        self.slots -= lease.slots
        self.empty -= 1
        self.idle.pop(lease.id, None)
        self.hungry.pop(lease.id, None)

    def _count(self, lease: Lease, before: int) -> None:
        """Take note that what a lease holds has changed; it held so many before."""
        after, slots = lease.held.total, lease.slots
        self.held += after - before
        self.unstarted += max(0, after - slots) - max(0, before - slots)
        self.empty += (not after) - (not before)
        if after < slots:
            self.hungry.pop(lease.id, None)
            self.idle.setdefault(lease.id, None)
        else:
            self.idle.pop(lease.id, None)

    def _hold(self, lease: Lease, lo: int, hi: int) -> None:
        before = lease.held.total
        lease.held.add(lo, hi)
        self._count(lease, before)

    def _release(self, lease: Lease, lo: int, hi: int) -> list[Range]:
        """Take [lo, hi) from a lease; return the parts that it held."""
        before = lease.held.total
        parts = lease.held.remove(lo, hi)
        if parts:
            self._count(lease, before)
            for part in parts:
                self._lighten(lease, *part)
        return parts

    def _lighten(self, lease: Lease, lo: int, hi: int) -> None:
        for span in self.spans(lo, hi):
            if batch := self.batches.get(span.batch):
                lease.weight -= batch.bytes_each() * (span.hi - span.lo)

    # --- batches ---

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
        if self.spec.resumed:  # else nobody can hold what has just come
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
            self._charge(batch, 1)

    def _charge(self, batch: Batch, sign: int) -> None:
        inputs, cost = sign * (batch.stop - batch.start), sign * batch.cost
        self.kept += inputs
        self.cost += cost
        self.usage.inputs += inputs
        self.usage.bytes_held += cost

    def discharge(self) -> None:
        """Count nothing of this job any more: it is closed."""
        self.usage.jobs -= 1
        self.usage.inputs -= self.kept
        self.usage.bytes_held -= self.cost

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

    # --- work ---

    def deal(self, lease: Lease, count: int, report_s: float) -> tuple[Assign, list[bytes]]:
        """Move the first `count` pending indices to `lease`; return the message and its payload.

        `report_s` is how often its nodelet should report from now on.
        """
        spans: list[Span] = []
        leaves: list[Leaf] = []
        payload: list[bytes] = []
        for lo, hi in self.pending.pop_front(count):
            self._hold(lease, lo, hi)
            for span in self.spans(lo, hi):
                spans.append(span)
                batch = self.batches[span.batch]
                lease.weight += batch.bytes_each() * (span.hi - span.lo)
                for leaf, frames in batch.leaves_of(span.lo, span.hi):
                    if lease.sent.add(leaf.start, leaf.start + leaf.count):
                        batch.leases[lease.id] = None
                        leaves.append(leaf)
                        payload += frames
        forget, lease.forget = tuple(lease.forget), []
        deal = Assign(
            lease=lease.id,
            left=self.pending.total,
            spans=tuple(spans),
            leaves=tuple(leaves),
            forget=forget,
            report_s=report_s,
        )
        return deal, payload

    def adopt(self, lease: Lease, lo: int, hi: int) -> None:
        """Let `lease`, which says that it has [lo, hi), hold what of it is not done."""
        hi = hi if self.spec.resumed else min(hi, self.entered)  # else nobody can have more
        for part in self.done.missing(lo, hi):
            for other in self.leases.values():
                for at in other.held.common(*part):
                    self.give_back(other, *at)
            self.pending.remove(*part)
            self.limbo.remove(*part)
            self._hold(lease, *part)

    def give_back(self, lease: Lease, lo: int, hi: int) -> None:
        """Make what `lease` holds of [lo, hi) pending again."""
        for first, last in self._release(lease, lo, hi):
            self.limbo.add(first, min(last, self.entered))  # the rest comes with its batch
            self._recover(first, last)

    def finish(self, lease: Lease | None, lo: int, hi: int) -> None:
        """Mark [lo, hi) done; the outcomes came from `lease` (None: from one that has ended)."""
        hi = hi if self.spec.resumed else min(hi, self.entered)  # nobody can have run more
        for part in self.done.missing(lo, hi):
            self._finish_open(lease, *part)

    def _finish_open(self, lease: Lease | None, lo: int, hi: int) -> None:
        self.done.add(lo, hi)
        parts = self._release(lease, lo, hi) if lease is not None else []
        if sum(b - a for a, b in parts) < hi - lo:  # it was requeued meanwhile: late, but welcome
            self.pending.remove(lo, hi)
            self.limbo.remove(lo, hi)
            for other in self.leases.values():
                self._release(other, lo, hi)
        for span in self.spans(lo, hi):
            if batch := self.batches.get(span.batch):
                batch.left -= span.hi - span.lo
                if not batch.left:
                    self._drop(batch)

    def _drop(self, batch: Batch) -> None:
        del self.batches[batch.number]
        self.weight -= batch.size
        self._charge(batch, -1)
        for lease_id in batch.leases:
            lease = self.leases.get(lease_id)
            if lease is not None and lease.sent.remove(batch.start, batch.stop):
                lease.forget.append(batch.number)

    # --- a client that reconnected ---

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
        for lo, hi in list(self.done):
            for gap in known.missing(lo, hi):
                self.done.remove(*gap)
                self.finish(None, *gap)

    def release_limbo(self) -> None:
        """Give up waiting for outcomes that nobody sent again: their indices are pending."""
        for lo, hi in list(self.limbo):
            self._recover(lo, hi)

    def _recover(self, lo: int, hi: int) -> None:
        """Make what of [lo, hi) is in limbo pending, as far as its batches are here."""
        for span in self.spans(lo, hi):
            if span.batch in self.batches:
                for part in self.limbo.remove(span.lo, span.hi):
                    self.pending.add(*part)

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
        assert self.kept == sum(b.stop - b.start for b in self.batches.values())
        costs = sum(b.cost for b in self.batches.values())
        assert self.cost == cost_of(self.spec, self.function) + costs
        leases = self.leases.values()
        assert self.slots == sum(lease.slots for lease in leases)
        assert self.held == sum(lease.held.total for lease in leases)
        assert self.unstarted == sum(lease.unstarted() for lease in leases)
        assert self.empty == sum(not lease.held for lease in leases)
        assert set(self.idle) == {lease.id for lease in leases if lease.idle()}
        assert not set(self.idle) & set(self.hungry)
        assert set(self.hungry) <= set(self.leases)
