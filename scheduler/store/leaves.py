"""Big inputs in the store: where their pieces lie, and which are on their way. Pure data.

A leaf that is announced by its size comes in pieces of `PIECE_BYTES`, but for the last one, and
each is a record of its own. So it is known of each piece where it lies, and nothing more is kept.
"""

from collections import deque
from collections.abc import Sequence

from msgspec import Struct, field

from burla.protocol.fields import BLOB_PIECE_BYTES, Leaf

PIECE_BYTES = BLOB_PIECE_BYTES
WINDOW_PIECES = 8  # of one job that were asked for and are not on the disk
ALL_PIECES = 32  # likewise of all jobs: what this process may have to hold
ASKED_MIN = 2  # of one question, if there are so many

Place = tuple[int, int]  # segment, and where in it the record begins


class LeafAt:
    """A big leaf of a batch."""

    __slots__ = ("batch", "missing", "next", "places", "size", "start")

    def __init__(self, batch: int, leaf: Leaf) -> None:
        """Have nothing of it."""
        self.batch, self.start, self.size = batch, leaf.start, leaf.size
        self.places: list[Place | None] = [None] * -(-leaf.size // PIECE_BYTES)
        self.missing = len(self.places)  # pieces that are not on the disk
        self.next = 0  # pieces before this one are there, or on their way

    def size_of(self, number: int) -> int:
        """Return how many bytes a piece has."""
        return min(PIECE_BYTES, self.size - number * PIECE_BYTES)

    def put(self, number: int, place: Place) -> None:
        """Take note of where a piece lies; of one that was written twice, where it lies last."""
        if 0 <= number < len(self.places):
            self.missing -= self.places[number] is None
            self.places[number] = place

    def missing_bytes(self) -> int:
        """Return how many bytes are not on the disk."""
        lacking = [number for number, place in enumerate(self.places) if place is None]
        return sum(map(self.size_of, lacking))

    def take_run(self, most: int) -> range:
        """Return the pieces to ask for next, which follow each other; from then on they are."""
        places = self.places
        while self.next < len(places) and places[self.next] is not None:
            self.next += 1
        start = self.next
        while self.next < min(len(places), start + most) and places[self.next] is None:
            self.next += 1
        return range(start, self.next)


class Coming(Struct):
    """What of the big leaves of a job is not on the disk."""

    leaves: dict[int, LeafAt] = field(default_factory=dict)  # by first input, in order
    todo: deque[LeafAt] = field(default_factory=deque)  # of those of which more is to be asked for
    asked: deque[tuple[LeafAt, int]] = field(default_factory=deque)  # pieces, as they are to come
    writing: int = 0  # pieces that have come
    size: int = 0  # bytes that have not come
    heard_s: float = 0.0  # when a piece came, or was asked for
    is_stalled: bool = False  # what was asked for does not come

    def add(self, leaves: Sequence[LeafAt]) -> None:
        """Take leaves of which something is missing."""
        self.leaves |= {leaf.start: leaf for leaf in leaves}
        self.todo += leaves
        self.size += sum([leaf.missing_bytes() for leaf in leaves])

    def forget_asked(self) -> None:
        """Let what was asked for be asked for again: nobody sends it any more."""
        if self.asked:
            for leaf, number in reversed(self.asked):
                leaf.next = number
            self.asked.clear()
            self.todo = deque(e for e in self.leaves.values() if e.next < len(e.places))

    def clear(self) -> None:
        """Wait for nothing any more but for what has come."""
        self.leaves, self.size = {}, 0
        self.todo.clear()
        self.asked.clear()

    def under_way(self) -> int:
        """Return how many pieces may have to be held here."""
        return self.writing + (0 if self.is_stalled else len(self.asked))


class Line(Struct):
    """Whose turn it is to be asked for pieces."""

    wanting: dict[bytes, None] = field(default_factory=dict)  # jobs; who is next comes first
    under_way: dict[bytes, int] = field(default_factory=dict)  # pieces, by job
    total: int = 0  # of those
    size: int = 0  # bytes of all jobs that have not come

    def note(self, job: bytes, pieces: int) -> None:
        """Take note of how much of a job is under way."""
        self.total += pieces - self.under_way.pop(job, 0)
        if pieces:
            self.under_way[job] = pieces

    def share(self) -> int:
        """Return how much of one job may be under way: there is room for the next one."""
        return max(ASKED_MIN, min(WINDOW_PIECES, ALL_PIECES // (len(self.under_way) + 1)))
