"""The leaves that a nodelet keeps for a lease, and which batch an index belongs to. Pure.

A leaf comes once and is kept until the scheduler says that its batch is done everywhere. Bytes are
bounded by `JOB_INPUT_WINDOW` at the client, which holds the same batches for at least as long.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from itertools import count, groupby
from operator import attrgetter

from msgspec import Struct, field

from burla.protocol.messages import Leaf, Span
from burla.protocol.ranges import Range

from .effects import StoredLeaf


class _Batch(Struct):
    """The leaves of one batch that are here, ascending; two lists of one length."""

    starts: list[int] = field(default_factory=list)
    leaves: list[StoredLeaf] = field(default_factory=list)


class LeafStore:
    """Leaves by batch. Costs O(leaves touched), in C where there may be thousands."""

    def __init__(self, new_number: Callable[[], int] | None = None) -> None:
        """Start empty; `new_number` is for the file of a leaf that comes in pieces."""
        self._new_number = new_number or count(1).__next__
        self._big: list[StoredLeaf] = []  # those, ascending
        self._batches: dict[int, _Batch] = {}
        self._lows: list[int] = []  # the lowest index assigned of each batch, ascending
        self._numbers: list[int] = []  # their batches, ascending too

    def add(self, leaves: Sequence[Leaf], payload: Sequence[bytes]) -> None:
        """Keep leaves; those that are here already change nothing.

        Raises:
            ValueError: the payload is not theirs.
        """
        if sum([leaf.frames for leaf in leaves]) != len(payload):
            raise ValueError(f"{len(payload)} frames for {len(leaves)} leaves")
        at = 0
        for number, group in groupby(leaves, attrgetter("batch")):
            new = list(group)
            count = sum([leaf.frames for leaf in new])
            frames = payload[at : at + count]
            at += count
            self._add(self._batches.setdefault(number, _Batch()), new, frames)

    def _add(self, batch: _Batch, leaves: list[Leaf], payload: Sequence[bytes]) -> None:
        groups: list[Sequence[bytes]]
        if len(payload) == len(leaves):
            groups = [(frame,) for frame in payload]
        else:
            frames = iter(payload)
            groups = [tuple(next(frames) for _ in range(leaf.frames)) for leaf in leaves]
        if any([leaf.size for leaf in leaves]):
            stored = [self._announced(*each, batch) for each in zip(leaves, groups, strict=True)]
        else:
            stored = [
                StoredLeaf(leaf.batch, leaf.start, leaf.start + leaf.count, group)
                for leaf, group in zip(leaves, groups, strict=True)
            ]
        starts = [leaf.lo for leaf in stored]
        if (not batch.starts or starts[0] > batch.starts[-1]) and starts == sorted(set(starts)):
            batch.starts += starts
            batch.leaves += stored
            return
        for leaf in stored:
            where = bisect_left(batch.starts, leaf.lo)
            if where == len(batch.starts) or batch.starts[where] != leaf.lo:
                batch.starts.insert(where, leaf.lo)
                batch.leaves.insert(where, leaf)

    def _announced(self, leaf: Leaf, frames: Sequence[bytes], batch: _Batch) -> StoredLeaf:
        """Return a leaf, perhaps one that comes in pieces; what is known keeps its number."""
        stored = StoredLeaf(leaf.batch, leaf.start, leaf.start + leaf.count, frames, leaf.size)
        if not leaf.size or leaf.start in batch.starts:
            return stored
        stored = stored._replace(number=self._new_number())
        insort(self._big, stored, key=_lo)
        return stored

    def big_leaves(self, lo: int, hi: int) -> list[StoredLeaf]:
        """Return those that come in pieces and have some of [lo, hi)."""
        big = self._big
        first = max(0, bisect_right(big, lo, key=_lo) - 1) if big else 0
        stop = bisect_left(big, hi, key=_lo) if big else 0
        return [leaf for leaf in big[first:stop] if leaf.hi > lo]

    def cut(self, lo: int, hi: int) -> int:
        """Return up to where [lo, hi) may go to a worker at once: one big leaf comes alone."""
        if not self._big:
            return hi
        for leaf in self.big_leaves(lo, hi):
            return min(hi, leaf.hi) if leaf.lo <= lo else leaf.lo
        return hi

    def bounds(self, number: int) -> Range:
        """Return [lo, hi) outside of which nothing that was assigned belongs to a batch."""
        at = bisect_left(self._numbers, number)
        if at == len(self._numbers) or self._numbers[at] != number:
            return 0, 0
        return self._lows[at], self._lows[at + 1] if at + 1 < len(self._lows) else 1 << 62

    def forget(self, number: int) -> None:
        """Drop the leaves of a batch."""
        if self._batches.pop(number, None) is not None and self._big:
            self._big = [leaf for leaf in self._big if leaf.batch != number]

    def drop_leaves(self) -> None:
        """Drop the leaves of all batches: nothing of this lease is run any more."""
        self._batches.clear()
        self._big.clear()

    def bytes_held(self) -> int:
        """Return how many bytes the leaves have. Costs O(leaves): for people and tests."""
        leaves = (leaf for batch in self._batches.values() for leaf in batch.leaves)
        return sum(len(frame) for leaf in leaves for frame in leaf.frames)

    def claim(self, span: Span) -> None:
        """Note that the indices of `span` belong to its batch.

        Raises:
            ValueError: they cannot, or the leaves that they lie in are not here.
        """
        if span.lo >= span.hi:
            raise ValueError(f"{span} is empty")
        leaves = self.find(span)
        stop = leaves[-1].hi
        if stop < span.hi or sum([leaf.hi - leaf.lo for leaf in leaves]) != stop - leaves[0].lo:
            raise ValueError(f"leaves of {span} are missing")
        at = bisect_left(self._numbers, span.batch)
        if at == len(self._numbers) or self._numbers[at] != span.batch:
            self._numbers.insert(at, span.batch)
            self._lows.insert(at, span.lo)
        low = min(self._lows[at], span.lo)
        if at and self._lows[at - 1] >= low:
            raise ValueError(f"{span} begins before batch {self._numbers[at - 1]}")
        if at + 1 < len(self._lows) and self._lows[at + 1] < span.hi:
            raise ValueError(f"{span} ends behind batch {self._numbers[at + 1]}")
        self._lows[at] = low

    def find(self, span: Span) -> list[StoredLeaf]:
        """Return the leaves that `span` lies in, ascending.

        Raises:
            ValueError: the one with its first index is not here.
        """
        batch = self._batches.get(span.batch)
        if batch is None or span.lo < batch.starts[0]:
            raise ValueError(f"leaves of {span} are missing")
        first = bisect_right(batch.starts, span.lo) - 1
        stop = bisect_left(batch.starts, span.hi)
        return batch.leaves[first:stop]

    def spans(self, lo: int, hi: int) -> Iterator[Span]:
        """Yield [lo, hi), all of it assigned, cut at the bounds of batches."""
        while lo < hi:
            span = self.first_span(lo, hi)
            yield span
            lo = span.hi

    def first_span(self, lo: int, hi: int) -> Span:
        """Return the first part of [lo, hi), all of it assigned, that lies in one batch."""
        at = bisect_right(self._lows, lo) - 1
        end = min(hi, self._lows[at + 1]) if at + 1 < len(self._lows) else hi
        return Span(self._numbers[at], lo, end)


def _lo(leaf: StoredLeaf) -> int:
    return leaf.lo
