"""What happened to jobs, in lines for the log: opened, given nodes, ended, and why. Pure.

Nothing is put into words while nobody keeps them, or when too much happens: then it is counted.
"""

from collections.abc import Callable

from msgspec import Struct, field

from burla.protocol.printable import printable

LINES_PER_S = 50  # a loop of small maps makes thousands; each line costs as much as 1 % of a map


class Journal(Struct):
    """Lines that are not written yet."""

    is_kept: bool = False
    lines: list[str] = field(default_factory=list)
    _second: int = 0
    _count: int = 0  # of lines in that second, those left out included

    def add(self, now_s: float, words: Callable[..., str], *about: object) -> None:
        """Keep what `words(*about)` returns, unless there are too many lines this second."""
        if not self.is_kept:
            return
        second = int(now_s)
        if second != self._second:
            self._say_left_out()
            self._second, self._count = second, 0
        self._count += 1
        if self._count <= LINES_PER_S:
            text = words(*about)  # names are what clients say: no line of theirs is a line here
            self.lines.append(printable(text))

    def take(self) -> list[str]:
        """Return the lines, which are the caller's now."""
        lines, self.lines = self.lines, []
        return lines

    def _say_left_out(self) -> None:
        if self._count > LINES_PER_S:
            self.lines.append(f"{self._count - LINES_PER_S} lines about jobs were left out")
