"""Where every index of a job is. Pure data, with what changes several places at once.

An index is in exactly one place: not entered yet, `pending`, in `held` of one lease, in `limbo`
(its outcome was forwarded, but the client that reconnected says that it lacks it), in `quarantine`
(it may be what several nodes died of: it is run alone), or `done`.
What policy asks over and over (`slots`, `held`, `unstarted`, `empty`) is counted along, so that no
question costs time in proportion to the leases.
"""

from burla.protocol.messages import NUMBER_MAX, Assign, Leaf, Span
from burla.protocol.ranges import Range, Ranges

from .batch import Batch, Batches
from .lease import Lease
from .quotas import Charge
from .suspects import Suspects


class Work:
    """The indices of one job, and the leases that hold some."""

    def __init__(self, charge: Charge, done: tuple[Range, ...], *, resumed: bool) -> None:
        """Start with nothing entered.

        Args:
            charge: where the batches that are kept are counted.
            done: what the client has outcomes of.
            resumed: nodelets may hold some that were not entered here.
        """
        self.batches = Batches(charge)
        self.resumed = resumed
        self.total: int | None = None  # None: more may come
        self.coming = 0  # inputs that are known to come
        self.pending = Ranges()
        self.done = Ranges(done)
        self.limbo = Ranges()
        self.quarantine = Ranges()
        self.suspects = Suspects()
        self.leases: dict[bytes, Lease] = {}  # those that serve the job
        self.slots = 0  # of all leases: calls that may run at once
        self.held = 0  # indices on leases
        self.unstarted = 0  # of those, what waits behind what runs
        self.empty = 0  # leases that hold nothing
        self.idle: dict[bytes, None] = {}  # leases with an idle slot, who has waited longest first
        self.hungry: dict[bytes, None] = {}  # others that would take more work ahead
        self.preparing: dict[bytes, str] = {}  # leases whose nodes install what they need, in words
        self.unfit: dict[bytes, str] = {}  # nodes that lack what others have, and why

    def is_complete(self) -> bool:
        """Return whether every input has its outcome."""
        return self.total is not None and self.done.total >= self.total

    def waiting(self) -> int:
        """Return how many inputs could be run at once by somebody else."""
        return self.pending.total + self.unstarted + self.quarantine.total

    # --- leases ---

    def add_lease(self, lease: Lease) -> None:
        """Count a lease in; it may hold something already."""
        self.leases[lease.id] = lease
        self.slots += lease.slots
        self.empty += 1
        if lease.held.total:
            self._count(lease, 0)
        else:
            self.idle[lease.id] = None

    def drop_lease(self, lease: Lease) -> None:
        """Make what a lease holds pending again, and count it out."""
        self.end_alone(lease)
        for lo, hi in list(lease.held):
            self.give_back(lease, lo, hi)
        del self.leases[lease.id]
        self.preparing.pop(lease.id, None)
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
            if lease.held.total:
                for part in parts:
                    self._lighten(lease, *part)
            else:
                lease.weight, lease.trial = 0.0, None
        return parts

    def _lighten(self, lease: Lease, lo: int, hi: int) -> None:
        for span in self.batches.spans(lo, hi):
            if batch := self.batches.kept.get(span.batch):
                lease.weight -= batch.bytes_each() * (span.hi - span.lo)

    # --- batches ---

    def enter(self, batch: Batch) -> None:
        """Take a batch; what of it is not done or on a lease becomes pending.

        One that is known already (the client reconnected) is only kept, if it is needed.

        Raises:
            ValueError: it is not the next one, nor a known one.
        """
        entered = self.batches.entered
        if batch.start < entered:
            self.batches.expect_known(batch)
            if batch.number not in self.batches.kept:
                self._keep(batch)
            elif batch.is_whole():
                self.batches.fill(batch)
            return
        if batch.start > entered and not self.done.covers(entered, batch.start):
            raise ValueError(f"batch {batch.number} starts at {batch.start}, not {entered}")
        self.batches.append(batch)
        open_ranges = self._keep(batch)
        for lo, hi in open_ranges:
            self.pending.add(lo, hi)
        if self.resumed:  # else nodelets cannot hold what has just come
            held = (lease.held for lease in self.leases.values())
            for elsewhere in (self.limbo, self.quarantine, *held):
                for lo, hi in elsewhere.common(batch.start, batch.stop):
                    self.pending.remove(lo, hi)

    def _keep(self, batch: Batch) -> list[Range]:
        """Hold a batch if it is needed; return what of it has no outcome yet."""
        missing = self.done.missing(batch.start, batch.stop)
        self.batches.keep(batch, sum(hi - lo for lo, hi in missing))
        return missing

    # --- work ---

    def assign(self, lease: Lease, count: int, report_s: float) -> tuple[Assign, list[bytes]]:
        """Move the first `count` pending indices to `lease`; return the message and its payload.

        A lease that has nothing but a `trial` to run gets that, from quarantine. `report_s` is how
        often its nodelet should report from now on.
        """
        spans: list[Span] = []
        leaves: list[Leaf] = []
        payload: list[bytes] = []
        trial = lease.trial if not lease.held else None
        ranges = self.pending.pop_front(count) if trial is None else [(trial, trial + 1)]
        if trial is not None:
            self.quarantine.remove(trial, trial + 1)
        for lo, hi in ranges:
            self._hold(lease, lo, hi)
            for span in self.batches.spans(lo, hi):
                spans.append(span)
                batch = self.batches.kept[span.batch]
                lease.weight += batch.bytes_each() * (span.hi - span.lo)
                for leaf, frames in batch.leaves_of(span.lo, span.hi):
                    if lease.sent.add(leaf.start, leaf.start + leaf.count):
                        batch.leases[lease.id] = None
                        leaves.append(leaf)
                        payload += frames
        forget, lease.forget = tuple(lease.forget), []
        message = Assign(
            lease=lease.id,
            left=min(NUMBER_MAX, self.pending.total + self.coming),
            spans=tuple(spans),
            leaves=tuple(leaves),
            forget=forget,
            report_s=report_s,
        )
        return message, payload

    def adopt(self, lease: Lease, lo: int, hi: int) -> None:
        """Let `lease`, which says that it has [lo, hi), hold what of it is not done."""
        hi = hi if self.resumed else min(hi, self.batches.entered)  # else no nodelet has more
        for part in self.done.missing(lo, hi):
            for other in self.leases.values():
                for at in other.held.common(*part):
                    self.give_back(other, *at)
            for place in (self.pending, self.limbo, self.quarantine):
                place.remove(*part)
            self._hold(lease, *part)

    def give_back(self, lease: Lease, lo: int, hi: int) -> None:
        """Make what `lease` holds of [lo, hi) pending again."""
        for first, last in self._release(lease, lo, hi):
            self.limbo.add(first, min(last, self.batches.entered))  # the rest comes with its batch
            self._recover(first, last)

    def finish(self, lease: Lease | None, lo: int, hi: int) -> bool:
        """Mark [lo, hi) done; return whether some of it was not.

        The outcomes came from `lease` (None: from one that has ended).
        """
        hi = hi if self.resumed else min(hi, self.batches.entered)  # no nodelet has run more
        news = self.done.missing(lo, hi)
        for part in news:
            self._finish_open(lease, *part)
        return bool(news)

    def _finish_open(self, lease: Lease | None, lo: int, hi: int) -> None:
        self.done.add(lo, hi)
        parts = self._release(lease, lo, hi) if lease is not None else []
        if (
            parts != [(lo, hi)] and sum(b - a for a, b in parts) < hi - lo
        ):  # it was requeued meanwhile: late, but welcome
            for place in (self.pending, self.limbo, self.quarantine):
                place.remove(lo, hi)
            for other in self.leases.values():
                self._release(other, lo, hi)
        for span in self.batches.spans(lo, hi):
            if batch := self.batches.kept.get(span.batch):
                batch.left -= span.hi - span.lo
                if not batch.left:
                    self._drop(batch)

    def _drop(self, batch: Batch) -> None:
        self.batches.drop(batch)
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
        for gap in known.minus(self.done):
            self.limbo.add(*gap)
            for span in self.batches.spans(*gap):
                if batch := self.batches.kept.get(span.batch):
                    batch.left += span.hi - span.lo
        if not self.resumed:  # no nodelet has run more
            self.done.remove(self.batches.entered, NUMBER_MAX + 1)
        for gap in self.done.minus(known):
            self._finish_open(None, *gap)

    def release_limbo(self) -> None:
        """Give up waiting for outcomes that nobody sent again: their indices are pending."""
        for lo, hi in list(self.limbo):
            self._recover(lo, hi)

    def _recover(self, lo: int, hi: int) -> None:
        """Make what of [lo, hi) is in limbo pending, as far as its batches are here."""
        for span in self.batches.spans(lo, hi):
            if span.batch in self.batches.kept:
                for part in self.limbo.remove(span.lo, span.hi):
                    self.queue(*part)

    def queue(self, lo: int, hi: int) -> None:
        """Let [lo, hi), which is nowhere now, be run again: alone, if that is called for."""
        self.pending.add(lo, hi)
        if self.suspects.is_open:
            for part in self.suspects.dangerous(lo, hi):
                self.pending.remove(*part)
                self.quarantine.add(*part)

    # --- inputs that nodes may die of: see quarantine.py ---

    def begin_alone(self, lease: Lease) -> None:
        """Let a lease run one input at a time, as soon as it has run what it holds."""
        self.slots += 1 - lease.slots
        self.unstarted += max(0, lease.held.total - 1) - lease.unstarted()
        lease.full_slots, lease.slots = lease.slots, 1
        self.hungry.pop(lease.id, None)
        self._count(lease, lease.held.total)

    def end_alone(self, lease: Lease) -> None:
        """Let a lease run as many calls at once as its nodelet was told."""
        if not lease.is_alone:
            return
        before = lease.unstarted()
        self.slots += lease.full_slots - lease.slots
        lease.slots, lease.full_slots, lease.trial = lease.full_slots, 0, None
        self.unstarted += lease.unstarted() - before
        self._count(lease, lease.held.total)

    def check(self) -> None:
        """Assert that every index is in exactly one place. Costs O(state): for tests."""
        places = [*self.done, *self.pending, *self.limbo, *self.quarantine]
        for lease in self.leases.values():
            places += list(lease.held)
        at = 0
        for lo, hi in sorted(places):
            assert lo == at or lo >= self.batches.entered, (lo, at)
            at = hi
        assert at >= self.batches.entered, (at, self.batches.entered)
        kept = self.batches.kept.values()
        for batch in kept:
            missing = self.done.missing(batch.start, batch.stop)
            assert batch.left == sum(hi - lo for lo, hi in missing) > 0
        assert self.batches.size == sum(batch.size for batch in kept)
        assert self.batches.announced == sum(not batch.is_whole() for batch in kept)
        leases = self.leases.values()
        assert self.slots == sum(lease.slots for lease in leases)
        assert self.held == sum(lease.held.total for lease in leases)
        assert self.unstarted == sum(lease.unstarted() for lease in leases)
        assert self.empty == sum(not lease.held for lease in leases)
        assert set(self.idle) == {lease.id for lease in leases if lease.idle()}
        assert not set(self.idle) & set(self.hungry)
        assert set(self.hungry) <= set(self.leases)
        self.suspects.check(self.done)
        for lease in leases:
            assert lease.trial is None or list(lease.held) == [(lease.trial, lease.trial + 1)]
            assert not lease.is_alone or lease.slots == 1
