"""Which outcome messages of one lease have come, are safe, and are acknowledged. Pure.

Several are acknowledged at once: each word costs the scheduler, and a nodelet can keep a little.
"""

from msgspec import Struct, field

ACK_MESSAGES = 4  # so many are safe before the nodelet is told,
ACK_BYTES = 256 << 10  # or so many bytes: an eighth of the smallest window,
ACK_LATE_S = 0.1  # or so much time has passed


class Acks(Struct):
    """Messages are numbered from 1."""

    told: int = 0  # the nodelet has been told that all up to here are safe
    safe: int = 0  # all up to here are safe
    came: int = 0  # all up to here have come
    _safe_bytes: int = 0  # of those that are safe and not told
    _behind_gap: set[int] = field(default_factory=set)  # safe, but not all before them are
    _sizes: dict[int, int] = field(default_factory=dict)  # bytes of what came and is not told

    def has(self, seq: int) -> bool:
        """Return whether a message has come before."""
        return seq <= self.told or seq in self._sizes

    def take(self, seq: int, size: int) -> bool:
        """Take note of a message; return whether it is new."""
        if self.has(seq):
            return False
        self._sizes[seq] = size
        while self.came + 1 in self._sizes:
            self.came += 1
        return True

    def make_safe(self, seq: int) -> bool:
        """Take note that what is in a message is safe; return whether to tell the nodelet now."""
        if seq > self.safe:
            self._behind_gap.add(seq)
        while self.safe + 1 in self._behind_gap:
            self.safe += 1
            self._behind_gap.discard(self.safe)
            self._safe_bytes += self._sizes[self.safe]
        return self.safe - self.told >= ACK_MESSAGES or self._safe_bytes >= ACK_BYTES

    def tell(self) -> int:
        """Return up to where to acknowledge; it is told then."""
        for seq in range(self.told + 1, self.safe + 1):
            del self._sizes[seq]
        self.told, self._safe_bytes = self.safe, 0
        return self.told

    def check(self) -> None:
        """Assert what must hold; for tests."""
        assert self.told <= self.safe <= self.came
        assert all(seq > self.safe + 1 for seq in self._behind_gap)
        assert self._behind_gap <= self._sizes.keys()
        untold = range(self.told + 1, self.safe + 1)
        assert self._safe_bytes == sum(self._sizes[seq] for seq in untold)
