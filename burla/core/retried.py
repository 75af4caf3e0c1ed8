"""Calls of one job that failed and were called again: how often, and what is said of it. Pure."""

from collections.abc import Iterable

from burla.protocol.fields import TRIED_MAX, Try
from burla.protocol.printable import printable
from burla.protocol.ranges import Range

SHOWN_MAX = 3  # calls named in the summary


class Retried:
    """What is known of them."""

    def __init__(self) -> None:
        """Know of none."""
        self._open: dict[int, Try] = {}  # those without outcome
        self._calls = 0
        self._tries = 0
        self._shown: dict[int, Try] = {}  # the first ones

    def take(self, tried: Iterable[Try]) -> None:
        """Take note of calls that failed, in an order in which none is told before it was."""
        for one in tried:
            known = self._open.get(one.index)
            if known is not None and one.tries <= known.tries:
                continue
            self._calls += known is None
            self._tries += one.tries - (0 if known is None else known.tries)
            self._open[one.index] = one
            if one.index in self._shown or len(self._shown) < SHOWN_MAX:
                self._shown[one.index] = one

    def forget(self, done: Iterable[Range]) -> None:
        """Take note that calls have their outcomes."""
        for lo, hi in done if self._open else ():
            few = len(self._open) < hi - lo
            for index in [i for i in self._open if lo <= i < hi] if few else range(lo, hi):
                self._open.pop(index, None)

    def open(self) -> tuple[Try, ...]:
        """Return those without outcome, as far as they can be told at once."""
        latest = list(self._open.values())[-TRIED_MAX:]
        return tuple(Try(one.index, one.tries, one.wait_s) for one in latest)

    def summary(self) -> str:
        """Return a line for the user; empty: no call was called again."""
        if not self._calls:
            return ""
        one = self._calls == 1
        shown = [
            f"input {index} ({_shown(one.why)}{f', {one.tries} times' if one.tries > 1 else ''})"
            for index, one in self._shown.items()
        ]
        more = f" and {self._calls - len(shown)} more" if self._calls > len(shown) else ""
        calls = "1 call was" if one else f"{self._calls:,} calls were"
        tries = "" if self._tries == self._calls else f", {self._tries:,} times in all"
        return f"{calls} called again after errors{tries}: {', '.join(shown)}{more}"


def _shown(why: bytes) -> str:
    """Return the type of an error; a node may say anything."""
    return printable(why.decode("utf-8", "replace")) or "error"
