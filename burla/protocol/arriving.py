"""A blob on its way in: what to ask for next, and whether it is what its name says. Pure."""

from collections.abc import Sequence
from hashlib import sha256

from .fields import BLOB_PIECE_BYTES, BLOB_WINDOW

# Without a piece for this long what was asked for is lost, or its source is. A piece takes 10 s on
# a slow line, and whoever is asked again while it comes sends all of it twice.
STALLED_S = 20.0
WRONG_MAX = 3  # times that the bytes are not those of the name; then nobody is asked again


class Arriving:
    """The bytes of one blob, in order; where they are put is for others."""

    def __init__(self, digest: bytes, size: int) -> None:
        """Have nothing of it."""
        self.digest, self.size = digest, size
        self.have = 0  # bytes from its beginning
        self.asked = 0  # likewise, that will be there when all has come that was asked for
        self.heard_s = 0.0  # when something of it came last, or was asked for first
        self.wrong = 0  # how often all of it was there, and was not what its name says
        self._hash = sha256()

    def is_whole(self) -> bool:
        """Return whether all of it is here, and is what its name says."""
        return self.have == self.size

    def ask(self, now_s: float) -> tuple[int, int] | None:
        """Return the range to ask for now; None: enough is under way."""
        if self.asked == self.size or self.asked - self.have > BLOB_WINDOW // 2:
            return None
        if self.asked == self.have:
            self.heard_s = now_s
        start, self.asked = self.asked, min(self.size, self.have + BLOB_WINDOW)
        return start, self.asked

    def is_stalled(self, now_s: float) -> bool:
        """Return whether what was asked for does not come."""
        return self.asked > self.have and now_s >= self.heard_s + STALLED_S

    def forget_asked(self) -> None:
        """Ask anew for what is missing: who was asked is gone, or the question was."""
        self.asked = self.have

    def take(self, start: int, payload: Sequence[bytes], now_s: float) -> bool:
        """Take the next bytes; return whether they were waited for: else they change nothing.

        If they are the last, and all together are not what the name says, nothing is here any more.
        """
        size = sum(map(len, payload))
        is_next = start == self.have and 0 < size <= BLOB_PIECE_BYTES
        if not is_next or start + size > self.asked:
            return False
        for frame in payload:
            self._hash.update(frame)
        self.have += size
        self.heard_s = now_s
        if self.have == self.size and self._hash.digest() != self.digest:
            self.wrong += 1
            self.have = self.asked = 0
            self._hash = sha256()
        return True


def pieces_of(start: int, stop: int) -> list[tuple[int, int]]:
    """Return the ranges in which [start, stop) is sent."""
    step = BLOB_PIECE_BYTES
    return [(at, min(at + step, stop)) for at in range(start, stop, step)]
