"""Which calls of a lease have had their time: interrupted first, then killed. Pure.

The slates say which call each worker is in. A call that is interrupted has a moment to clean up;
whoever is still in it then holds the interpreter's lock in C code, or catches what it should not.
"""

from collections.abc import Collection, Iterator, Mapping

from msgspec import Struct

from burla.protocol.deaths import TIMEOUT
from burla.protocol.messages import Kind

from .cells import Worker
from .effects import Expire, Kill
from .events import CellReport, Died, Stride

GRACE_S = 1.0  # for a call to end when it was interrupted


class _Call(Struct):
    """The call that a worker was seen in last."""

    cell: int
    index: int
    spent_s: float = 0.0  # since it was first seen there, but for when nobody read its outcomes
    is_interrupted: bool = False


class Timeouts:
    """What was seen of the calls of busy workers."""

    def __init__(self, timeout_s: float) -> None:
        """Let each call take so long; 0: as long as it wants."""
        self._timeout_s = timeout_s
        self._calls: dict[int, _Call] = {}  # by worker
        self._looked_s = 0.0

    def look(
        self,
        workers: Mapping[int, Worker],
        strides: Mapping[int, Stride],
        now_s: float,
        waiting: Collection[int] = (),
    ) -> Iterator[Expire | Kill]:
        """Yield what is to be done about calls whose time is up.

        Args:
            workers: of the lease.
            strides: of the busy ones among them.
            now_s: on the caller's clock.
            waiting: workers that may wait until somebody reads what they write.
        """
        passed_s, self._looked_s = now_s - self._looked_s, now_s
        before, self._calls = self._calls, {}
        for number, stride in strides.items():
            worker = workers.get(number)
            index = None if worker is None else running(worker, stride)
            if index is None:
                continue
            call = before.get(number)
            if call is None or (call.cell, call.index) != (stride.cell, index):
                self._calls[number] = _Call(stride.cell, index)
                continue
            self._calls[number] = call
            if number in waiting:
                continue
            call.spent_s += passed_s
            if not call.is_interrupted and call.spent_s >= self._timeout_s:
                call.is_interrupted = True
                yield Expire(number, index)
            elif call.is_interrupted and call.spent_s >= self._timeout_s + GRACE_S:
                yield Kill(number, TIMEOUT)

    def forget(self, index: int) -> None:
        """Give a call that has failed, and is called again, its whole time."""
        self._calls = {n: call for n, call in self._calls.items() if call.index != index}

    def has_limit(self) -> bool:
        """Return whether there is anything to look for."""
        return self._timeout_s > 0


def running(worker: Worker, stride: Stride) -> int | None:
    """Return the index of the call that a worker is in, as its slate says; None: in none."""
    cell = worker.cell(stride.cell)
    if cell is None:
        return None
    index = max(stride.lo, stride.at, cell.lo)
    return index if index < min(stride.hi, cell.hi) else None


def noted(workers: Mapping[int, Worker], event: Died) -> Iterator[CellReport]:
    """Yield the outcomes that a dead worker had noted and not written, one after the other."""
    worker = workers.get(event.worker)
    cell = worker.cell(event.stride.cell) if worker is not None else None
    first, outcomes = event.notes
    for index, frame in enumerate(outcomes, first):
        if cell is not None and index == cell.lo < cell.hi:
            yield CellReport(cell.number, index, index + 1, Kind.RESULT, 0.0, [frame])
