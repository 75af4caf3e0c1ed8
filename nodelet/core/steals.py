"""What a lease takes back from its workers: for others, or for the scheduler.

A steal is asked of the shell and answered before anything else happens. What the scheduler wants
back comes from the end of the queue first, then from the ends of the workers'. Pure.
"""

from collections import deque
from collections.abc import Iterable

from burla.protocol.messages import Retract, Retracted
from burla.protocol.ranges import Ranges

from .cells import Worker
from .custody import Custody
from .dispatcher import StealRequest
from .effects import Effect, Send, Steal
from .events import Stolen


class Steals:
    """What is asked for and not answered."""

    def __init__(self, lease: bytes, custody: Custody, effects: list[Effect]) -> None:
        """Start with nothing asked for; `effects` is where all that is asked for is put."""
        self._lease = lease
        self._custody = custody
        self._dispatcher = custody.dispatcher
        self._effects = effects
        self._retracts: deque[Retract] = deque()  # of the scheduler, not begun
        self._got: Ranges | None = None  # for the scheduler; None: what is stolen is queued
        self.unanswered: dict[tuple[int, int], None] = {}  # by worker and cell

    def retract(self, message: Retract) -> None:
        """Take note that the scheduler wants inputs back."""
        self._retracts.append(message)

    def refuse(self) -> None:
        """Give the scheduler nothing: the lease is over."""
        while self._retracts:
            self._retracts.popleft()
            self._return(Ranges())

    def settle(self) -> bool:
        """Go on giving back what the scheduler wants; return whether that is done."""
        while self._retracts and not self.unanswered:
            inputs = self._retracts.popleft().inputs
            self._got = Ranges(self._custody.queue.pop_last(inputs))
            missing = inputs - self._got.total
            workers = self._dispatcher.workers.values()
            for worker in sorted(workers, key=_last_open, reverse=True):
                taken = min(missing, worker.unstarted())
                if taken > 0:
                    missing -= taken
                    self._ask(self._dispatcher.take_back(worker, taken))
            if not self.unanswered:
                self._finish()
        return not self.unanswered

    def balance(self, now_s: float) -> None:
        """Take from those who would finish last, or are stuck, for those who have nothing."""
        self._ask(self._dispatcher.steals(now_s))

    def take_all(self, worker: Worker) -> None:
        """Take all that a worker has not begun."""
        self._ask(self._dispatcher.take_back(worker, worker.unstarted()))

    def answer(self, event: Stolen) -> None:
        """Take what was stolen.

        Raises:
            BrokenWorkerError: that cannot be.
        """
        del self.unanswered[event.worker, event.cell]
        try:
            worker = self._dispatcher.workers[event.worker]
            stolen = worker.take_stolen(event.cell, event.lo, event.hi)
            if stolen is not None and self._got is None:
                self._custody.queue.add(*stolen)
            elif stolen is not None and self._got is not None:
                self._got.add(*stolen)
        finally:
            if not self.unanswered:
                self._finish()

    def _ask(self, requests: Iterable[StealRequest]) -> None:
        for one in requests:
            self.unanswered[one.worker, one.cell] = None
            self._effects.append(Steal(one.worker, one.cell, one.middle))

    def _finish(self) -> None:
        got, self._got = self._got, None
        if got is not None:
            self._return(got)

    def _return(self, got: Ranges) -> None:
        self._effects.append(Send(Retracted(self._lease, self._custody.give_up(got))))


def _last_open(worker: Worker) -> int:
    return max((cell.stop for cell in worker.cells), default=0)
