"""What was counted when, as far as somebody has looked: what charts show. Bounded."""

from collections import deque

POINTS_MAX = 1800  # an hour, at a look each two seconds
APART_S = 0.9  # what is seen sooner is the same point
RATE_S = 10.0  # a rate is the mean over so long


class History:
    """Counts at moments, the oldest first."""

    def __init__(self, points_max: int = POINTS_MAX) -> None:
        """Begin with none."""
        self._points: deque[tuple[float, int, int]] = deque(maxlen=points_max)

    def add(self, time_s: float, count: int, level: int) -> None:
        """Take note of how much was counted until now, and of how much runs.

        A count that has fallen is that of another life of the scheduler: it begins again.
        """
        if self._points:
            last_s, last, _ = self._points[-1]
            if time_s < last_s + APART_S:
                return
            if count < last:
                self._points.clear()
        self._points.append((time_s, count, level))

    def rate(self, over_s: float = RATE_S) -> float | None:
        """Return how much was counted a second lately; None: it is not known yet."""
        if len(self._points) < 2:
            return None
        last_s, last, _ = self._points[-1]
        for time_s, count, _ in reversed(self._points):
            begin_s, begin = time_s, count
            if last_s - time_s >= over_s:
                break
        return (last - begin) / (last_s - begin_s)

    def chart(self, after_s: float = 0.0) -> list[tuple[float, float, int]]:
        """Return what is newer: Unix time, rate since the point before, and level."""
        found = []
        before: tuple[float, int, int] | None = None
        for point in self._points:
            if before is not None and point[0] > after_s:
                rate = (point[1] - before[1]) / (point[0] - before[0])
                found.append((round(point[0], 1), round(rate, 2), point[2]))
            before = point
        return found
