"""The life of a lease on its node: its phases, and which may follow which. Pure."""

from collections import deque
from enum import StrEnum

TRANSITIONS_KEPT = 100  # of a lease, for people


class Phase(StrEnum):
    """How far a lease is."""

    QUEUED = "QUEUED"  # an earlier one is still stopping
    SERVING = "SERVING"
    LINGERING = "LINGERING"  # its job is over; its workers wait for another
    STOPPING = "STOPPING"  # calls may clean up, then its processes are killed
    STOPPED = "STOPPED"  # only unacknowledged outcomes and output are left


ALLOWED = {
    Phase.QUEUED: {Phase.SERVING, Phase.STOPPED},
    Phase.SERVING: {Phase.LINGERING, Phase.STOPPING, Phase.STOPPED},  # at once: others took over
    Phase.LINGERING: {Phase.STOPPING, Phase.STOPPED},
    Phase.STOPPING: {Phase.STOPPED},
    Phase.STOPPED: set(),
}


class TransitionError(Exception):
    """A lease cannot go from the one phase to the other: a bug of ours."""


class Life:
    """Which phase a lease is in, and which it was in."""

    def __init__(self, lease: bytes, now_s: float) -> None:
        """Begin as QUEUED."""
        self.lease = lease
        self.phase = Phase.QUEUED
        self.serves = False  # its workers are there, for its job or for the next one
        self.takes_work = True  # what is assigned will be run
        self.has_workers = False  # processes of the lease may be there
        self.past: deque[tuple[float, str]] = deque(maxlen=TRANSITIONS_KEPT)
        self.note(Phase.QUEUED, now_s)

    def enter(self, phase: Phase, now_s: float) -> None:
        """Go on to another phase.

        Raises:
            TransitionError: that is not allowed.
        """
        if phase not in ALLOWED[self.phase]:
            raise TransitionError(f"lease {self.lease.hex()}: {self.phase} -> {phase}")
        self.phase = phase
        self.serves = self.takes_work = phase in (Phase.SERVING, Phase.LINGERING)
        self.has_workers = self.serves or phase is Phase.STOPPING
        self.note(phase, now_s)

    def note(self, what: str, now_s: float) -> None:
        """Keep for people what has happened."""
        self.past.append((now_s, what))

    def snapshot(self) -> dict[str, object]:
        """Return it, for people."""
        past = [{"at_s": at_s, "what": str(what)} for at_s, what in self.past]
        return {"lease": self.lease.hex(), "phase": str(self.phase), "past": past}
