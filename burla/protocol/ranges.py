"""A set of indices kept as sorted, disjoint half-open ranges. Pure; used by all three cores.

Jobs have millions of inputs, but what is pending, held or done is nearly always a handful of runs,
so every operation here costs time in proportion to the ranges it touches, never to the indices.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from operator import lt

Range = tuple[int, int]  # [lo, hi), lo < hi


def ascend(ranges: Iterable[Range]) -> bool:
    """Return whether these are ranges that follow each other, as all honest peers tell them."""
    end = -1
    for lo, hi in ranges:
        if not end < lo < hi:
            return False
        end = hi - 1  # they may touch
    return True


class Ranges:
    """A mutable set of integers, stored as sorted, disjoint, non-adjacent ranges."""

    __slots__ = ("_hi", "_lo", "total")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        """Start with the union of `ranges`."""
        self._lo: list[int] = []
        self._hi: list[int] = []
        self.total = 0  # how many indices are in the set
        if not (told := tuple(ranges)):
            return
        self._lo, self._hi = [lo for lo, _ in told], [hi for _, hi in told]
        self.total = sum(self._hi) - sum(self._lo)
        if all(map(lt, self._lo, self._hi)) and all(map(lt, self._hi, self._lo[1:])):
            return  # they are so already, as nearly always
        self._lo, self._hi, self.total = [], [], 0
        for lo, hi in sorted(told):  # in any other order it would take quadratic time
            self.add(lo, hi)

    def __iter__(self) -> Iterator[Range]:
        """Yield the ranges in ascending order."""
        return zip(self._lo, self._hi, strict=True)

    def __bool__(self) -> bool:
        return bool(self._lo)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and self._lo == other._lo and self._hi == other._hi

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return "Ranges([" + ", ".join(f"({lo}, {hi})" for lo, hi in self) + "])"

    def __contains__(self, index: int) -> bool:
        at = bisect_right(self._lo, index) - 1
        return at >= 0 and index < self._hi[at]

    def add(self, lo: int, hi: int) -> int:
        """Put [lo, hi) into the set; return how many of its indices were new."""
        if lo >= hi:
            return 0
        if not self._hi or lo > self._hi[-1]:  # the usual place
            self._lo.append(lo)
            self._hi.append(hi)
            self.total += hi - lo
            return hi - lo
        first = bisect_left(self._hi, lo)  # first range that touches or follows
        last = bisect_right(self._lo, hi)  # first range that lies wholly behind
        before = sum(self._hi[i] - self._lo[i] for i in range(first, last))
        if first < last:
            lo, hi = min(lo, self._lo[first]), max(hi, self._hi[last - 1])
        self._lo[first:last] = [lo]
        self._hi[first:last] = [hi]
        new = hi - lo - before
        self.total += new
        return new

    def remove(self, lo: int, hi: int) -> list[Range]:
        """Take [lo, hi) out of the set; return the parts of it that were in the set, ascending."""
        if lo >= hi:
            return []
        first = bisect_right(self._hi, lo)
        last = bisect_left(self._lo, hi)
        if first >= last:
            return []
        if last - first == 1:  # as mostly
            return [self._remove_from(first, lo, hi)]
        taken: list[Range] = []
        kept_lo: list[int] = []
        kept_hi: list[int] = []
        for begin, end in zip(self._lo[first:last], self._hi[first:last], strict=True):
            taken.append((begin if begin > lo else lo, end if end < hi else hi))
            self.total -= taken[-1][1] - taken[-1][0]
            if begin < lo:
                kept_lo.append(begin)
                kept_hi.append(lo)
            if end > hi:
                kept_lo.append(hi)
                kept_hi.append(end)
        self._lo[first:last] = kept_lo
        self._hi[first:last] = kept_hi
        return taken

    def _remove_from(self, at: int, lo: int, hi: int) -> Range:
        """Take [lo, hi) out of one range, which has some of it; return what it had."""
        begin, end = self._lo[at], self._hi[at]
        if begin < lo and hi < end:
            self._lo.insert(at + 1, hi)
            self._hi.insert(at, lo)
        elif begin < lo:
            self._hi[at] = lo
        elif hi < end:
            self._lo[at] = hi
        else:
            del self._lo[at], self._hi[at]
        taken = (begin if begin > lo else lo, end if end < hi else hi)
        self.total -= taken[1] - taken[0]
        return taken

    def missing(self, lo: int, hi: int) -> list[Range]:
        """Return the parts of [lo, hi) that are not in the set, ascending."""
        gaps = []
        at = lo
        for i in range(bisect_right(self._hi, lo), bisect_left(self._lo, hi)):
            if self._lo[i] > at:
                gaps.append((at, self._lo[i]))
            at = self._hi[i]
        if at < hi:
            gaps.append((at, hi))
        return gaps

    def minus(self, other: "Ranges") -> list[Range]:
        """Return the parts of this set that are not in `other`, ascending; in linear time."""
        if self == other:
            return []
        parts: list[Range] = []
        begins, ends, at, most = other._lo, other._hi, 0, len(other._lo)
        for lo, hi in zip(self._lo, self._hi, strict=True):
            while at < most and ends[at] <= lo:
                at += 1
            here, follows = lo, at
            while here < hi and follows < most and begins[follows] < hi:
                if begins[follows] > here:
                    parts.append((here, begins[follows]))
                here = ends[follows]
                follows += 1
            if here < hi:
                parts.append((here, hi))
        return parts

    def common(self, lo: int, hi: int) -> list[Range]:
        """Return the parts of [lo, hi) that are in the set, ascending."""
        return [
            (max(lo, self._lo[i]), min(hi, self._hi[i]))
            for i in range(bisect_right(self._hi, lo), bisect_left(self._lo, hi))
        ]

    def covers(self, lo: int, hi: int) -> bool:
        """Return whether all of [lo, hi) is in the set."""
        return not self.missing(lo, hi)

    def pop_front(self, count: int) -> list[Range]:
        """Take out the `count` smallest indices (fewer if there are fewer)."""
        return self._pop(0, count)

    def pop_back(self, count: int) -> list[Range]:
        """Take out the `count` largest indices; return them as ascending ranges."""
        return self._pop(-1, count)[::-1]

    def first(self) -> Range | None:
        """Return the range of the smallest indices; None when the set is empty."""
        return (self._lo[0], self._hi[0]) if self._lo else None

    def _pop(self, end: int, count: int) -> list[Range]:
        taken: list[Range] = []
        while count > 0 and self._lo:
            lo, hi = self._lo[end], self._hi[end]
            cut = (lo, min(hi, lo + count)) if end == 0 else (max(lo, hi - count), hi)
            self.remove(*cut)
            taken.append(cut)
            count -= cut[1] - cut[0]
        return taken
