"""How many inputs of a job were handed in, of how many, and the places of their results. Pure."""

from typing import Any

from msgspec import Struct

PLACES = 1 << 22  # that are made at once


class HandedIn(Struct):
    """What is counted of the inputs of one job."""

    total: int | None = None  # of the job; None: nobody knows yet
    count: int = 0  # that were handed in

    def coming(self) -> int | None:
        """Return how many are to be handed in yet; None: nobody knows."""
        return None if self.total is None else self.total - self.count

    def make_places(self, results: list[Any]) -> None:
        """Let each input have its place among the results.

        Those that are to come, too: to grow a list in steps takes ten times as long.
        """
        missing = self.count - len(results)
        if missing > 0:
            results += [None] * max(missing, min(missing + (self.coming() or 0), PLACES))

    def end(self, results: list[Any] | None) -> None:
        """Note that no more come, though that many were to: the list got shorter meanwhile."""
        if results is not None:
            del results[self.count :]
