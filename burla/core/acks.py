"""Which outcome messages of one lease have come, are safe, and are acknowledged. Pure.

Several are acknowledged at once: each word costs the scheduler, and a nodelet can keep a little.
"""

from dataclasses import dataclass, field

from burla.protocol.ranges import Ranges

ACK_MESSAGES = 4  # so many are safe before the nodelet is told,
ACK_BYTES = 256 << 10  # or so many bytes: an eighth of the smallest window,
ACK_LATE_S = 0.1  # or so much time has passed


@dataclass(slots=True)
class Acks:
    """Messages are numbered from 1."""

    told: int = 0  # the nodelet has been told that all up to here are safe
    _got: Ranges = field(default_factory=Ranges)
    _safe: Ranges = field(default_factory=Ranges)
    _sizes: dict[int, int] = field(default_factory=dict)  # bytes of what came, until it is told

    @property
    def safe(self) -> int:
        """Return up to which number all are safe."""
        first = self._safe.first()
        return first[1] - 1 if first is not None and first[0] == 1 else 0

    def take(self, seq: int, size: int) -> bool:
        """Take note of a message; return whether it is new."""
        if seq in self._got:
            return False
        self._got.add(seq, seq + 1)
        self._sizes[seq] = size
        return True

    def make_safe(self, seq: int) -> bool:
        """Take note that what is in a message is safe; return whether to tell the nodelet now."""
        self._safe.add(seq, seq + 1)
        untold = self.safe - self.told
        if untold >= ACK_MESSAGES:
            return True
        return sum(self._sizes[self.told + 1 + at] for at in range(untold)) >= ACK_BYTES

    def tell(self) -> int:
        """Return up to where to acknowledge; it is told then."""
        for seq in range(self.told + 1, self.safe + 1):
            del self._sizes[seq]
        self.told = self.safe
        return self.told

    def check(self) -> None:
        """Assert what must hold; for tests."""
        assert all(self._got.covers(lo, hi) for lo, hi in self._safe)
        assert self.told <= self.safe
