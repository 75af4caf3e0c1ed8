"""The inputs of a lease that no worker has, and in which order they go. Pure.

Earlier inputs go first. An input whose worker died comes after some others, and alone. Where
one of several, it is not known which, has killed a worker, they are to be run one by one.
"""

from collections.abc import Iterable

from burla.protocol.messages import Span
from burla.protocol.ranges import Range, Ranges

from .leaf_store import LeafStore

CAREFUL_CHUNK = 64  # inputs given out at once that are run one by one


class WorkQueue:
    """Which inputs wait, which of them with care, and which to be tried again."""

    def __init__(self, store: LeafStore) -> None:
        """Start empty; `store` knows which batch an input belongs to."""
        self.ranges = Ranges()
        self.retries: dict[int, int] = {}  # index that died -> `_taken` from which it may be tried
        self.delayed: dict[int, float] = {}  # index that failed -> when it may be called again
        self.expected = Ranges()  # of leaves that are still on their way
        self.careful = Ranges()  # of `ranges`: to be run one by one
        self._store = store
        self._taken = 0  # spans

    def __len__(self) -> int:
        return self.ranges.total + len(self.retries)

    def add(self, lo: int, hi: int, *, careful: bool = False) -> None:
        """Let [lo, hi), perhaps empty, which nobody has any more, be given out again."""
        self.ranges.add(lo, hi)
        if careful:
            self.careful.add(lo, hi)

    def retry(self, index: int, after: int) -> None:
        """Let `index`, whose worker died, be given out again after so many others."""
        self.retries[index] = self._taken + after

    def delay(self, index: int, until_s: float) -> None:
        """Let `index`, whose call failed, be given out again, alone, from `until_s` on."""
        self.delayed[index] = until_s

    def expect(self, lo: int, hi: int) -> None:
        """Let [lo, hi), which waits, wait until it is `found`."""
        for part in self.ranges.remove(lo, hi):
            self.expected.add(*part)

    def found(self, lo: int, hi: int) -> list[Range]:
        """Let what was expected of [lo, hi) be given out; return it."""
        parts = self.expected.remove(lo, hi)
        for part in parts:
            self.ranges.add(*part)
        return parts

    def wake(self, now_s: float) -> None:
        """Let what was delayed long enough be given out."""
        for index in [i for i, due_s in self.delayed.items() if now_s >= due_s]:
            del self.delayed[index]
            self.retry(index, 0)

    def take(self, count: int, *, retries: bool = True) -> tuple[Span, bool] | None:
        """Take the next span out, of up to `count` inputs; None: there is none.

        Args:
            count: what is to be run one by one comes in spans of its own size.
            retries: whether it may be one that died.

        Returns:
            The span, and whether it is to be run one by one.
        """
        first = self.ranges.first()
        ripe = next(iter(self.retries), None) if retries else None
        if ripe is not None and (first is None or self.retries[ripe] <= self._taken):
            self._taken += 1
            del self.retries[ripe]
            return self._store.first_span(ripe, ripe + 1), True
        if first is None:
            return None
        span = self._store.first_span(*first)
        lo, hi = span.lo, min(span.hi, span.lo + count)
        hi = self._store.cut(lo, hi)
        careful = False
        if self.careful.total:
            hi, careful = self._cut_by_care(lo, hi)
        self._taken += 1
        self.ranges.remove(lo, hi)
        return Span(span.batch, lo, hi), careful

    def _cut_by_care(self, lo: int, hi: int) -> tuple[int, bool]:
        """Return where all is alike that begins at `lo`, and whether it is to be run one by one."""
        marked = self.careful.common(lo, hi)
        if not marked:
            return hi, False
        if marked[0][0] > lo:
            return marked[0][0], False
        hi = min(marked[0][1], lo + CAREFUL_CHUNK)
        self.careful.remove(lo, hi)
        return hi, True

    def pop_first(self) -> int | None:
        """Take out the first index that waits."""
        firsts = [one[0] for one in (self.ranges.first(), self.expected.first()) if one]
        index = min([*self.retries, *firsts], default=None)
        if index is not None and self.retries.pop(index, None) is None:
            self.ranges.remove(index, index + 1)
            self.expected.remove(index, index + 1)
            self.careful.remove(index, index + 1)
        return index

    def pop_last(self, inputs: int) -> list[Range]:
        """Take up to `inputs` inputs out, from the end; not what is to be run one by one."""
        taken = self.expected.pop_back(inputs)  # what is not here is the easiest to give
        inputs -= sum([hi - lo for lo, hi in taken])
        kept = []
        while inputs > 0 and self.ranges:
            ((lo, hi),) = self.ranges.pop_back(min(inputs, self._last_run()))
            marked = self.careful.common(lo, hi)
            if marked:
                kept.append((lo, marked[-1][1]))
                lo = marked[-1][1]
            if lo < hi:
                taken.append((lo, hi))
                inputs -= hi - lo
        for lo, hi in kept:
            self.ranges.add(lo, hi)
        while inputs > 0 and self.delayed:
            index, _ = self.delayed.popitem()
            taken.append((index, index + 1))
            inputs -= 1
        return taken

    def _last_run(self) -> int:
        lo, hi = list(self.ranges)[-1]
        return hi - lo

    def withdraw(self, lo: int, hi: int) -> list[Range]:
        """Take what waits of [lo, hi) out, for good; return it."""
        self.careful.remove(lo, hi)
        retried = [index for index in self.retries if lo <= index < hi]
        for index in retried:
            del self.retries[index]
        delayed = [index for index in self.delayed if lo <= index < hi] if self.delayed else []
        for index in delayed:
            del self.delayed[index]
        retried += delayed
        return (
            self.ranges.remove(lo, hi)
            + self.expected.remove(lo, hi)
            + [(index, index + 1) for index in retried]
        )

    def clear(self) -> None:
        """Forget everything."""
        self.ranges, self.careful, self.expected = Ranges(), Ranges(), Ranges()
        self.retries.clear()
        self.delayed.clear()

    def places(self) -> Iterable[Range]:
        """Yield what waits, as ranges."""
        yield from self.ranges
        yield from self.expected
        yield from ((index, index + 1) for index in (*self.retries, *self.delayed))

    def check(self) -> None:
        """Assert that nothing is in it twice."""
        assert not any(index in self.ranges for index in self.retries), self.retries
        assert all(self.ranges.covers(lo, hi) for lo, hi in self.careful)
