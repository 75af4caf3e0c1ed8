"""When outcomes and output of a lease go to the scheduler. Pure.

Outcomes are gathered for the report interval, and go at once when a slot runs dry, with an error,
and when all is done. Output goes ahead of the outcomes that it belongs to.
"""

from .effects import Send
from .streams import OUTPUT_GATHER_S, OutcomeStream, OutputStream

PROMPT_S = 0.02  # up to this interval a dry slot is told at once


def patience_s(report_s: float) -> float:
    """Return how long after a report a dry slot waits for the next one.

    A scheduler of many nodes that all run dry could not keep up, and would make it worse.
    """
    return max(0.0, report_s - PROMPT_S) / 2


class Report:
    """The two streams of a lease, and what makes them flow."""

    def __init__(
        self,
        lease: bytes,
        window: int,
        report_s: float,
        slots: int,
        secret: bytes = b"",
        *,
        blake3: bool = False,
    ) -> None:
        """Start with `slots` dry slots, which the scheduler knows of; seal by `secret`."""
        self.outcomes = OutcomeStream(lease, window, secret, blake3=blake3)
        self.output = OutputStream(lease)
        self._report_s = report_s
        self._told_dry = slots
        self._urgent = False
        self._sent_s = float("-inf")  # when the last report was sent

    def every(self, report_s: float) -> None:
        """Gather outcomes for so long from now on; 0: as before."""
        self._report_s = report_s or self._report_s

    def hurry(self) -> None:
        """Let what was gathered go at once."""
        self._urgent, self._sent_s = True, float("-inf")

    def due(
        self, dry: int, call_s: float, now_s: float, *, all_done: bool, unread: bool
    ) -> list[Send]:
        """Return what must be sent now.

        Args:
            dry: slots that have nothing to run.
            call_s: mean duration of recent calls.
            now_s: on the caller's clock.
            all_done: nothing that was assigned is open.
            unread: workers wait; the rest of a line that they have begun cannot come.
        """
        outcomes, output = self.outcomes, self.output
        if dry > self._told_dry or all_done:
            self._urgent = True
        self._told_dry = min(self._told_dry, dry)
        sends: list[Send] = []
        if output.lines:
            if unread and output.waits_for_ack():
                output.hold(now_s)
            output.release(now_s)
        if outcomes.due_since_s is None:
            self._urgent = False
        elif not self._send_outcomes(sends, outcomes.due_since_s, dry, call_s, now_s):
            return sends
        printed_s = output.due_since_s
        if printed_s is not None and (output.is_big() or now_s >= printed_s + OUTPUT_GATHER_S):
            sends += output.take()
        return sends

    def _send_outcomes(
        self, sends: list[Send], since_s: float, dry: int, call_s: float, now_s: float
    ) -> bool:
        """Add those that are due, after their output; return False if that has no room."""
        outcomes, output = self.outcomes, self.output
        late = now_s >= since_s + self._report_s
        urgent = self._urgent and now_s >= self._sent_s + patience_s(self._report_s)
        while outcomes.may_send() and (late or urgent or outcomes.is_big()):
            if output.lines:
                output.release(now_s, marked=True)
            if output.due_since_s is not None:
                sends += output.take()
                if output.is_blocked():
                    return False  # its window is full; the outcomes behind it wait too
            sends.append(outcomes.take(output.number, call_s))
            self._told_dry, self._sent_s = dry, now_s
        if outcomes.due_since_s is None:
            self._urgent = False
        return True

    def next_deadline_s(self) -> float | None:
        """Return when `due` must be asked again; None: not before something happens."""
        if self.output.due_since_s is not None and self.output.is_blocked():
            return None  # nothing goes before an acknowledgement
        times = []
        if self.outcomes.due_since_s is not None and self.outcomes.may_send():
            times.append(self.outcomes.due_since_s + self._report_s)
            if self._urgent:
                times.append(self._sent_s + patience_s(self._report_s))
        if self.output.due_since_s is not None:
            times.append(self.output.due_since_s + OUTPUT_GATHER_S)
        if self.output.lines:
            times.append(self.output.lines_due_s())
        return min(times, default=None)

    def again(self) -> list[Send]:
        """Return all that is not acknowledged: what was sent before may be lost."""
        return [*self.output.again(0, replay=False), *self.outcomes.again()]

    def is_full(self) -> bool:
        """Return whether workers must wait."""
        return self.outcomes.is_full() or self.output.is_full()

    def is_empty(self) -> bool:
        """Return whether all is acknowledged."""
        return self.outcomes.is_empty() and self.output.is_empty()

    def is_sent(self) -> bool:
        """Return whether nothing waits to be sent, though it may not be acknowledged yet."""
        due = (self.outcomes.due_since_s, self.output.due_since_s)
        return due == (None, None) and not self.output.lines

    def drop(self) -> None:
        """Forget everything: it is not wanted any more."""
        self.outcomes.drop()
        self.output.drop()

    def snapshot(self) -> dict[str, object]:
        """Return both streams, for people."""
        return {"outcomes": self.outcomes.snapshot(), "output": self.output.snapshot()}

    def check(self) -> None:
        """Assert that the sums are right. Costs O(state): for tests."""
        self.outcomes.check()
        self.output.check()
