"""Whether the next lease begins where the last one's processes were. Pure.

It may if the scheduler says that it follows that one: then both are of the same session. All
processes of the last lease end, but the shell may keep what has only imported for it. Should the
one that was to follow be gone meanwhile, that ends as well before any other lease begins.
"""

from .effects import Effect, EndWorkers


class Succession:
    """The lease that may begin in the place of the last one; none: all that was there ends."""

    def __init__(self, effects: list[Effect]) -> None:
        """Keep no place yet."""
        self._effects = effects
        self._heir: bytes | None = None
        self._is_clearing = False  # nobody follows: what is left there is ended

    def name(self, heir: bytes) -> None:
        """Take which lease follows the one that ends now."""
        self._heir = heir

    def next_of(self, waiting: list[bytes]) -> bytes | None:
        """Return which of the leases that wait may begin, now that no other has workers."""
        if self._is_clearing:
            return None
        if self._heir is None:
            return waiting[0] if waiting else None
        if self._heir in waiting:
            return self._heir
        self._is_clearing = True
        self._effects.append(EndWorkers())
        return None

    def begun(self) -> None:
        """Take that a lease has begun: it has the place."""
        self._heir = None

    def cleared(self) -> None:
        """Take that nothing is left there."""
        if self._is_clearing:
            self._heir, self._is_clearing = None, False

    def snapshot(self) -> dict[str, object]:
        """Return its state, for people."""
        heir = None if self._heir is None else self._heir.hex()
        return {"heir": heir, "is_clearing": self._is_clearing}
