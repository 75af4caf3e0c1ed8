"""Steals that a lease has asked for, until all of them are answered. Pure."""

from dataclasses import dataclass, field

from burla.protocol.messages import Retract
from burla.protocol.ranges import Ranges

from .dispatcher import Dispatcher, StealRequest
from .effects import Steal


@dataclass(slots=True)
class PendingSteals:
    """Steals that were asked for together; all are answered before anything else happens."""

    shed: Retract | None = None  # the inputs go back to the scheduler; None: to the queue
    got: Ranges = field(default_factory=Ranges)  # for the scheduler
    _cells: dict[tuple[int, int], None] = field(default_factory=dict)  # worker and cell: no answer

    def ask(self, theft: StealRequest) -> Steal:
        """Return what to ask for."""
        self._cells[theft.worker, theft.cell] = None
        return Steal(theft.worker, theft.cell, theft.middle)

    def answer(self, bench: Dispatcher, worker: int, cell: int, lo: int, hi: int) -> None:
        """Take [lo, hi), perhaps empty, that was stolen."""
        del self._cells[worker, cell]
        if lo < hi:
            bench.rob(worker, cell, lo, hi)
            if self.shed is None:
                bench.requeue(lo, hi)
            else:
                self.got.add(lo, hi)

    def is_over(self) -> bool:
        """Return whether all steals are answered."""
        return not self._cells
