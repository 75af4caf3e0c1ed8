"""Leases in the log of a node: which job it serves, until when, and why it ends.

A loop of small maps makes a thousand a second: beyond some lines a second they are only counted.
"""

import logging

from burla.protocol import messages as m

LINES_PER_S = 20

log = logging.getLogger(__name__)


class LeaseLog:
    """Writes a line when a lease begins and when it ends."""

    def __init__(self) -> None:
        """Begin with no lease."""
        self._lease = b""
        self._job = self._why = ""
        self._second = self._count = 0

    def began(self, start: m.StartLease, now_s: float) -> None:
        """Note that a lease begins."""
        if log.isEnabledFor(logging.INFO):
            self._lease, self._job, self._why = start.lease, start.job.hex()[:8], ""
            text = f"serving job {self._job}, {start.slots} slots: lease {start.lease.hex()}"
            self._write(now_s, text)

    def told(self, said: m.EndLease | m.StartLease) -> None:
        """Note that the scheduler ends the lease, and why as far as it says."""
        if not self._lease:  # as in a private cluster, which has no log
            return
        if isinstance(said, m.StartLease):
            if self._lease in (said.follows, said.keep):
                self._why = f"its job is over, and {said.job.hex()[:8]} of the same caller follows"
        elif said.lease == self._lease:
            self._why = "its job is over" if said.discard else "the scheduler takes the node back"

    def ended(self, now_s: float) -> None:
        """Note that the workers of the lease are ended; without one, what was kept for another."""
        if log.isEnabledFor(logging.INFO) and self._lease:
            why = self._why or "it is idle, or its scheduler is gone"
            self._write(now_s, f"ending lease {self._lease.hex()} of job {self._job}: {why}")
        self._lease = b""

    def _write(self, now_s: float, text: str) -> None:
        if int(now_s) != self._second:
            if self._count > LINES_PER_S:
                log.info("%d lines about leases were left out", self._count - LINES_PER_S)
            self._second, self._count = int(now_s), 0
        self._count += 1
        if self._count <= LINES_PER_S:
            log.info("%s", text)
