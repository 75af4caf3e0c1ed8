"""A nodelet that runs nothing: its calls end by the clock. No socket, no clock of its own.

What it says of outcomes, and how they are read on the other side, is here and nowhere else in the
benchmarks: `outcomes` and `done_in`.
"""

from collections import deque
from collections.abc import Sequence

import msgpack

from burla.nodelet.core.reporting import patience_s
from burla.protocol import messages as m
from burla.protocol.codec import read_runs
from burla.protocol.job_messages import Tally, bucket_of
from burla.protocol.ranges import Range, Ranges

RESULT = b"\x80\x05K\x00."  # what values.dump_results says of a small int, near enough in size
RUNS_MAX = 256  # in one message, as in nodelet/core/streams.py


def outcomes(lease: bytes, seq: int, done: Ranges, call_s: float) -> tuple[m.Outcomes, list[bytes]]:
    """Return the message that a nodelet would send once `done` have run, and its payload."""
    rows = [
        (lo, hi, int(m.Kind.RESULTS), [len(RESULT)] * (hi - lo), True)  # as codec.pack_runs has it
        for lo, hi in done
    ]
    said = m.Outcomes(
        lease=lease,
        seq=seq,
        done=tuple(done),
        failed=False,
        runs=msgpack.packb(rows),
        output=0,
        call_s=call_s,
        tally=Tally(((bucket_of(call_s), done.total),)),
    )
    return said, [RESULT * done.total]


def done_in(said: m.JobOutcomes) -> Ranges:
    """Return the indices that a client learns the outcomes of."""
    return Ranges((run.lo, run.hi) for run, _, _ in read_runs(said.runs))


class SimulatedNode:
    """One lease after the other on `slots` slots; every call takes `call_s` seconds."""

    def __init__(self, slots: int, call_s: float) -> None:
        """Start without a lease."""
        self.slots, self.call_s = slots, call_s
        self.lease = b""
        self.report_s = 0.0
        self.busy_s = 0.0  # slot-seconds of calls that have ended, over all leases
        self._queue: deque[m.Span] = deque()
        self._waiting = 0  # inputs in it
        self._free = 0
        self._running: deque[tuple[float, int, list[Range]]] = deque()  # end, calls, which
        self._done = Ranges()  # not reported yet
        self._done_since_s = 0.0
        self._told_dry = 0
        self._urgent = False  # there is something to tell at once
        self._sent_s = float("-inf")
        self._seq = 0

    def begin(self, start: m.StartLease) -> None:
        """Take a lease."""
        self.lease, self.report_s, self._seq = start.lease, start.report_s, 0
        self._free = self._told_dry = min(self.slots, start.slots)

    def end(self) -> None:
        """Drop the lease and all of it."""
        self.lease, self._free, self._waiting = b"", 0, 0
        self._queue.clear()
        self._running.clear()
        self._done = Ranges()

    def assign(self, spans: Sequence[m.Span], report_s: float, now_s: float) -> None:
        """Take work, and report so often from now on."""
        self.report_s = report_s or self.report_s
        self.advance(now_s)
        self._queue.extend(spans)
        self._waiting += sum(span.hi - span.lo for span in spans)
        self._fill(now_s)
        self._told_dry = min(self._told_dry, self._dry())

    def retract(self, inputs: int, now_s: float) -> list[m.Span]:
        """Give back up to `inputs` inputs from the end of what is not begun."""
        self.advance(now_s)
        given: list[m.Span] = []
        while inputs > 0 and self._queue:
            span = self._queue.pop()
            lo = max(span.lo, span.hi - inputs)
            if span.lo < lo:
                self._queue.append(m.Span(span.batch, span.lo, lo))
            given.append(m.Span(span.batch, lo, span.hi))
            inputs -= span.hi - lo
            self._waiting -= span.hi - lo
        return given

    def advance(self, now_s: float) -> None:
        """End the calls that have ended by `now_s`, and begin others at the same moments."""
        running = self._running
        while running and running[0][0] <= now_s:
            end_s, count, ranges = running.popleft()
            if not self._done:
                self._done_since_s = end_s
            for lo, hi in ranges:
                self._done.add(lo, hi)
            self.busy_s += count * self.call_s
            self._free += count
            self._fill(end_s)

    def busy_until(self, now_s: float) -> float:
        """Return the slot-seconds of all calls so far, those that run with their parts."""
        self.advance(now_s)
        parts = (n * (now_s - end_s + self.call_s) for end_s, n, _ in self._running)
        return self.busy_s + sum(parts)

    def report(self, now_s: float) -> list[tuple[m.Outcomes, list[bytes]]]:
        """Return what a nodelet would say now: it gathers, but not while slots run dry."""
        self.advance(now_s)
        dry = self._dry()
        urgent = dry > self._told_dry or not (self._running or self._waiting)
        self._told_dry = min(self._told_dry, dry)
        urgent = self._urgent = urgent or self._urgent
        urgent = urgent and now_s >= self._sent_s + patience_s(self.report_s)
        late = now_s >= self._done_since_s + self.report_s
        said = []
        while self._done and (urgent or late or self._done.total >= RUNS_MAX):
            self._seq += 1
            part = Ranges(self._done.pop_front(RUNS_MAX))
            said.append(outcomes(self.lease, self._seq, part, self.call_s))
            self._told_dry, self._sent_s, self._urgent = dry, now_s, False
        return said

    def _dry(self) -> int:
        return 0 if self._waiting else self._free

    def wake_s(self) -> float:
        """Return when `report` must be asked again; infinite: not before a message."""
        due_s = self._done_since_s + self.report_s if self._done else float("inf")
        if self._urgent:
            due_s = min(due_s, self._sent_s + patience_s(self.report_s))
        if not self._running:
            return due_s
        first_s, count, _ = self._running[0]
        if self._waiting < count:  # a slot runs dry then
            return min(due_s, first_s)
        return min(due_s, first_s + min(self.call_s, self.report_s))

    def _fill(self, at_s: float) -> None:
        count = min(self._free, self._waiting)
        if not count:
            return
        self._free -= count
        self._waiting -= count
        ranges: list[Range] = []
        left = count
        while left:
            span = self._queue.popleft()
            hi = min(span.hi, span.lo + left)
            if hi < span.hi:
                self._queue.appendleft(m.Span(span.batch, hi, span.hi))
            ranges.append((span.lo, hi))
            left -= hi - span.lo
        self._running.append((at_s + self.call_s, count, ranges))
