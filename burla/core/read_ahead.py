"""How far an iterable that is not known beforehand is read ahead of its calls. Pure.

What was pulled from a queue or a cursor is gone for others, also if the caller breaks off. So no
more is pulled than keeps the slots of the job busy until its outcomes have come here and further
inputs have gone there: a few inputs for each slot, and what the slots run in a moment. Before the
first node serves the job that is not known, and little is read.
"""

import math

from msgspec import Struct

from burla.protocol.messages import JOB_INPUT_COUNT

FIRST = 8  # inputs, while no slot is known
PER_SLOT = 3  # one that runs, one that waits behind it, one under way
AHEAD_S = 0.3  # outcomes of a job on 100 nodes come every 0.25 s
ORDERED_FIRST = 64  # inputs, while no outcome tells how big they are
ORDERED_BYTES = 64 << 20  # of outcomes that wait for an earlier one
GROW_AHEAD_S = 120.0  # where machines are made for what waits, which must be seen for that


class ReadAhead(Struct):
    """What is known of the speed of one job, kept by its calling thread."""

    ahead_s: float = AHEAD_S  # so much of the time of all slots is read ahead
    slots: int = 0  # calls that may run at once; 0: not known yet
    call_s: float = 0.0  # mean duration of recent calls on some node; 0: not known

    def most(self) -> int:
        """Return how many inputs may be without an outcome."""
        if not self.slots:
            return FIRST
        calls = self.ahead_s / self.call_s if self.call_s > 0 else 0.0
        return min(JOB_INPUT_COUNT, math.ceil(self.slots * (PER_SLOT + calls)))


class InOrder(Struct):
    """How far the calls of a job whose results are yielded in order may be ahead of the yield.

    What is done waits here for what is not, so that is bounded: by the size of the outcomes that
    there were, and to twice their number, lest the first ones were small.
    """

    slots: int = 0  # calls that may run at once; 0: not known yet
    _fed: int = 0
    _yielded: int = 0
    _outcomes: int = 0
    _bytes: int = 0
    _each: float = 0.0  # bytes of an outcome, of late

    def feed(self, inputs: int) -> None:
        """Note inputs that were handed in."""
        self._fed += inputs

    def take(self, outcomes: int, size: int) -> None:
        """Note outcomes that have come, of `size` bytes."""
        if outcomes:
            self._outcomes += outcomes
            self._bytes += size
            self._each = size / outcomes

    def hand_over(self, outcomes: int) -> None:
        """Note outcomes that were yielded."""
        self._yielded += outcomes

    def room(self) -> int:
        """Return how many more inputs may be handed in."""
        least = max(ORDERED_FIRST, PER_SLOT * self.slots)
        most = least
        if self._outcomes:
            each = max(1.0, self._each, self._bytes / self._outcomes)
            fitting = min(int(ORDERED_BYTES / each), ORDERED_FIRST + 2 * self._outcomes)
            most = min(JOB_INPUT_COUNT, max(PER_SLOT * self.slots, fitting, 1))
        return most - (self._fed - self._yielded)
