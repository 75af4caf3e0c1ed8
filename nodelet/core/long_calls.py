"""Which calls of a lease last so long that their caller should hear of them. Pure.

What a short call costs for it is one comparison. Who waits for the function to load has begun no
call, so that is told as well: of the first worker, and of one that goes on from an earlier lease.
"""

from collections.abc import Mapping

from burla.protocol.messages import LONG_CALLS_MAX, LongCall, Running

from .cells import Worker
from .effects import Send
from .turns import Turns
from .watchdog import Watchdog

LONG_S = 1.0  # what lasts longer is told; the user hears of it much later, see core/hanging.py
STUCK_S = 10.0  # what lasted longer is over at once; else that it is over is told in its turn
TELL_S = 5.0  # so often; the client counts on from what it heard last
LOOK_S = 1.0  # the nodelet beats as often, and so has its leases settle

_NOBODY = -1  # stands for the first worker of a lease, which is not ready yet


class LongCalls:
    """What of one lease lasts, and what was told of it."""

    def __init__(
        self, lease: bytes, workers: Mapping[int, Worker], watchdog: Watchdog, now_s: float
    ) -> None:
        """Look first in a moment.

        Args:
            lease: its id.
            workers: those of it that are ready, at any time.
            watchdog: sees their strides.
            now_s: on the caller's clock.
        """
        self.due_s = now_s + LOOK_S  # when to look next
        self._lease, self._workers, self._watchdog = lease, workers, watchdog
        self._idle: dict[tuple[int, int, int], float] = {}  # worker, cell, index -> not begun since
        self._is_told = False
        self._longest_s = 0.0  # of what was told last
        self._told_s = float("-inf")

    def look(self, now_s: float, turns: Turns) -> list[Send]:
        """Return what is to be said now; something that was assigned is open.

        Of who writes a big result, or waits for its turn to, no call lasts.
        """
        self.due_s = now_s + LOOK_S
        calls: list[LongCall] = []
        idle: dict[tuple[int, int, int], float] = {}
        for worker in self._workers.values():
            if turns.is_in(worker.number):
                continue
            if (call := self._watchdog.running(worker, now_s)) is not None:
                if call.seconds >= LONG_S:
                    calls.append(call)
                continue
            for cell in worker.cells:
                if cell.lo < cell.hi:
                    where = worker.number, cell.number, cell.lo
                    idle[where] = self._idle.get(where, now_s)
                    break
        if not self._workers:
            idle[_NOBODY, 0, 0] = self._idle.get((_NOBODY, 0, 0), now_s)
        self._idle = idle
        loading_s = max((now_s - since_s for since_s in idle.values()), default=0.0)
        calls.sort(key=lambda call: -call.seconds)
        return self._say(calls, loading_s if loading_s >= LONG_S else 0.0, now_s)

    def silence(self, now_s: float) -> list[Send]:
        """Return what is to be said now that nothing is known to last."""
        self.due_s = now_s + LOOK_S
        self._idle.clear()
        return self._say([], 0.0, now_s, at_once=True)

    def _say(
        self, calls: list[LongCall], loading_s: float, now_s: float, *, at_once: bool = False
    ) -> list[Send]:
        longest_s = max((call.seconds for call in calls), default=loading_s)
        is_due = now_s >= self._told_s + TELL_S
        if longest_s <= 0:  # a job of many calls of some seconds has that again and again
            is_due = self._is_told and (at_once or is_due or self._longest_s >= STUCK_S)
        if not is_due:
            return []
        self._is_told, self._told_s, self._longest_s = longest_s > 0, now_s, longest_s
        return [Send(Running(self._lease, tuple(calls[:LONG_CALLS_MAX]), loading_s))]
