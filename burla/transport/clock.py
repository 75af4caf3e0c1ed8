"""The clock by which silences are measured: it counts only while this process runs.

A process may stand still for as long as it likes: stopped by Ctrl-Z or a debugger, frozen with its
container, suspended with its machine where the clock goes on. Then nobody was silent who was not
heard. Every loop of ours reads its clock once a second at least, so a leap says that it stood
still, and does not count.
"""

import time
from collections.abc import Callable

LEAP_S = 2.0  # the most that counts of the time between two readings; beats are 1 s apart


class AwakeClock:
    """Seconds since it was made, without the time in which this process stood still.

    For one thread or event loop, which reads it at least once a second.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Begin at 0."""
        self._clock_s = clock_s
        self._read_s = clock_s()
        self._now_s = 0.0

    def __call__(self) -> float:
        """Return how long this process has run."""
        read_s = self._clock_s()
        passed_s = read_s - self._read_s
        self._now_s += passed_s if passed_s < LEAP_S else LEAP_S  # `min` costs as much as the rest
        self._read_s = read_s
        return self._now_s
