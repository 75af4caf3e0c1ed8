"""Why nothing of a job runs, what else is said of it, and when the user is to hear that. Pure."""

import math

from msgspec import Struct, field

REPORT_S = 1.0  # a job that waits longer says why
NOTICES_MAX = 8  # of one job


class Waiting(Struct):
    """One reason at a time; each is reported once, when it has lasted for a while."""

    due_s: float = math.inf  # when `take_due` has something; inf: it has nothing
    _stalled: str = ""  # why the scheduler does nothing for the job, as this end sees it
    _status: str = ""  # why nothing of it runs, as the scheduler said
    _why: str = ""
    _reported: str = ""
    _notices: set[str] = field(default_factory=set)  # that the user has seen

    def stall(self, why: str, now_s: float) -> None:
        """Note why the scheduler does nothing for the job; empty: it listens."""
        if why != self._stalled:
            self._stalled = why
            self._reconsider(now_s)

    def hear(self, status: str, now_s: float) -> None:
        """Note what the scheduler says: why nothing of the job runs; empty: it does."""
        if status != self._status:
            self._status = status
            self._reconsider(now_s)

    def take_due(self, now_s: float) -> str:
        """Return what to report now; empty: nothing."""
        if now_s < self.due_s:
            return ""
        self._reported, self.due_s = self._why, math.inf
        return self._why

    def new(self, notice: str) -> tuple[str, ...]:
        """Return the notice if there is one that the user has not seen."""
        if not notice or notice in self._notices or len(self._notices) >= NOTICES_MAX:
            return ()
        self._notices.add(notice)
        return (notice,)

    def _reconsider(self, now_s: float) -> None:
        why = self._stalled or self._status
        if why != self._why:
            self._why = why
            self.due_s = now_s + REPORT_S if why and why != self._reported else math.inf
