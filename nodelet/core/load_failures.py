"""Whether more workers of a lease can be had: how those fare that load its function. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgpack

from burla.protocol.messages import Kind

LOAD_DEATHS_MAX = 3  # in a row, while loading: then the function is to blame


@dataclass(slots=True)
class LoadFailures:
    """The workers of a lease that are not ready yet, and what became of those before them."""

    growing: int = 0  # workers asked for and not ready
    no_worker: tuple[Kind, Sequence[bytes]] | None = None  # why there can be none
    _deaths: int = 0  # in a row, each of workers begun after the last
    _excused: int = 0  # workers still loading that were begun before the last of these deaths

    def may_grow(self) -> bool:
        """Return whether it is worth asking for one more."""
        return self._deaths < LOAD_DEATHS_MAX

    def ready(self) -> None:
        """One has loaded the function."""
        self.growing = max(0, self.growing - 1)
        self._deaths = self._excused = 0

    def failed(self, frames: Sequence[bytes], others: bool) -> None:
        """One could not load the function; `others` could."""
        self.growing = max(0, self.growing - 1)
        if others:  # go on with those
            self._deaths = LOAD_DEATHS_MAX
        else:
            self.no_worker = (Kind.ERROR, frames)

    def died(self, how: tuple[str, int], others: bool) -> None:
        """One ended before it was ready; `others` are."""
        self.growing = max(0, self.growing - 1)
        if self._excused:  # it was begun before the last death, and may have been killed with it
            self._excused -= 1
            return
        self._excused = self.growing
        self._deaths += 1
        if self._deaths >= LOAD_DEATHS_MAX and not others:
            self.no_worker = (Kind.DEATH, [msgpack.packb([*how, self._deaths])])

    def gone(self) -> None:
        """Nobody who was ready is left: others must be tried, whatever was before."""
        self._deaths = 0
