"""How long strides last; which last too long and are cut, so that they hold up nothing. Pure."""

from collections.abc import Iterator, Mapping

from msgspec import Struct

from burla.protocol.messages import LongCall

from .cells import Worker
from .events import Stride

SLOW_STRIDE_S = 0.02  # a stride that lasts longer, and holds something back, is cut
CUTS_MAX = 5  # signals for one stride, each after twice the time; it may be inside C code


class _Seen(Struct):
    """The stride that a worker was seen in last."""

    cell: int
    lo: int
    hi: int
    since_s: float
    cuts: int = 0


class Watchdog:
    """What was seen of the strides of busy workers."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._seen: dict[int, _Seen] = {}  # by worker

    def look(
        self, workers: Mapping[int, Worker], strides: Mapping[int, Stride], now_s: float
    ) -> Iterator[int]:
        """Yield the workers whose stride is to be cut now.

        Args:
            workers: of the lease.
            strides: of the busy ones among them.
            now_s: on the caller's clock.
        """
        self._seen = {number: self._seen[number] for number in strides if number in self._seen}
        for number, stride in strides.items():
            if number in workers and self._must_be_cut(workers[number], stride, now_s):
                yield number

    def _must_be_cut(self, worker: Worker, stride: Stride, now_s: float) -> bool:
        cell = worker.cell(stride.cell)
        if cell is None or cell.lo >= stride.hi or stride.lo >= cell.hi:
            self._seen.pop(worker.number, None)  # between two strides
            return False
        seen = self._seen.get(worker.number)
        if seen is None or (seen.cell, seen.lo) != (stride.cell, stride.lo):
            self._seen[worker.number] = _Seen(stride.cell, stride.lo, stride.hi, now_s)
            return False
        if seen.cuts >= CUTS_MAX or now_s - seen.since_s < SLOW_STRIDE_S * (1 << seen.cuts):
            return False
        claimed = min(stride.claimed, cell.hi)
        if claimed <= max(stride.lo, cell.lo) + 1 and cell.lo >= stride.lo:
            return False  # it holds up nothing but itself
        seen.cuts += 1
        return True

    def running(self, worker: Worker, now_s: float) -> LongCall | None:
        """Return which call a worker was seen in last, and for how long; None: in none.

        In a stride that was cut that is a single one, unless C code keeps the worker from it.
        """
        seen = self._seen.get(worker.number)
        if seen is None:
            return None
        open_ = worker.running(Stride(seen.cell, seen.lo, seen.hi))
        return None if open_ is None else LongCall(*open_, max(0.0, now_s - seen.since_s))
