"""Batches as clients send them: consecutive inputs in leaves that are never opened here. Pure."""

from bisect import bisect_right
from collections.abc import Iterator

from msgspec import Struct, field

from burla.protocol.input_messages import LEAF_BYTES_MAX
from burla.protocol.messages import Inputs, Leaf, Span

from .quotas import FRAME_COST, LEAF_COST, Charge


class Batch(Struct):
    """Consecutive inputs as the client sent them; immutable but for `left` and `leases`."""

    number: int
    start: int
    stop: int
    leaves: list[Leaf]
    frames: list[list[bytes]]  # per leaf; none of one whose node asks the client for it
    size: int  # bytes of all frames, also of those
    left: int  # indices without an outcome
    cost: int  # bytes that it takes here, for quotas
    leases: dict[bytes, None] = field(default_factory=dict)  # whose nodelets have leaves of it
    wanted_s: float = float("-inf")  # when the client was asked to send all of it

    @classmethod
    def from_inputs(cls, message: Inputs, payload: list[bytes]) -> "Batch":
        """Return the batch that `message` describes.

        Raises:
            ValueError: the leaves are not consecutive, or do not match the payload.
        """
        at, frame, frames = message.start, 0, []
        for leaf in message.leaves:
            if leaf.start != at or leaf.batch != message.batch:
                raise ValueError(f"leaf {leaf} of batch {message.batch} where {at} is due")
            if bool(leaf.frames) == bool(leaf.size) or leaf.size > LEAF_BYTES_MAX:
                raise ValueError(f"leaf {leaf} of batch {message.batch}")
            frames.append(payload[frame : frame + leaf.frames])
            at, frame = at + leaf.count, frame + leaf.frames
        if frame != len(payload) or at == message.start:
            raise ValueError(f"batch {message.batch}: {len(payload)} frames, {frame} declared")
        leaves = list(message.leaves)
        size = sum(map(len, payload)) + sum([leaf.size for leaf in leaves])
        cost = size + FRAME_COST * frame + LEAF_COST * len(leaves)
        count = at - message.start
        return cls(message.batch, message.start, at, leaves, frames, size, count, cost)

    def is_whole(self) -> bool:
        """Return whether all of it is here, so that it can be sent to any node."""
        return all([leaf.frames for leaf in self.leaves])

    def leaf_at(self, index: int) -> Leaf | None:
        """Return the leaf that begins at an index."""
        at = bisect_right(self.leaves, index, key=lambda leaf: leaf.start) - 1
        return self.leaves[at] if at >= 0 and self.leaves[at].start == index else None

    def bytes_each(self) -> float:
        """Return the mean size of its inputs."""
        return self.size / (self.stop - self.start)

    def leaves_of(self, lo: int, hi: int) -> Iterator[tuple[Leaf, list[bytes]]]:
        """Yield the leaves that [lo, hi) lies in, with their frames."""
        count = len(self.leaves)
        first = bisect_right(self.leaves, lo, key=lambda leaf: leaf.start) - 1 if count > 1 else 0
        for at in range(first, count):
            leaf = self.leaves[at]
            if leaf.start >= hi:
                return
            yield leaf, self.frames[at]


class Batches:
    """Which index of a job lies in which batch, and the batches that are still needed."""

    def __init__(self, charge: Charge) -> None:
        """Start empty; what is kept is counted in `charge`."""
        self.kept: dict[int, Batch] = {}  # by number: those with indices that are not done
        self.size = 0  # bytes of those
        self.announced = 0  # how many of those are not whole here
        self.entered = 0  # indices [0, entered) have been sent by the client
        self._charge = charge
        self._starts: list[int] = []  # of all batches ever entered, ascending
        self._stops: list[int] = []  # where they end: a resumed job lacks those that were done
        self._numbers: list[int] = []

    def append(self, batch: Batch) -> None:
        """Enter the next batch; `keep` it, too, if it is needed.

        Raises:
            ValueError: its number is not the next one.
        """
        if self._numbers and batch.number <= self._numbers[-1]:
            raise ValueError(f"batch {batch.number} comes after batch {self._numbers[-1]}")
        self._starts.append(batch.start)
        self._stops.append(batch.stop)
        self._numbers.append(batch.number)
        self.entered = batch.stop

    def expect_known(self, batch: Batch) -> None:
        """Take a look at a batch that was entered before: the client has reconnected.

        Raises:
            ValueError: it was not.
        """
        at = bisect_right(self._starts, batch.start) - 1
        known = at >= 0 and (self._starts[at], self._numbers[at], self._stops[at])
        if known != (batch.start, batch.number, batch.stop):
            raise ValueError(f"batch {batch.number} is not the one that was entered")

    def keep(self, batch: Batch, left: int) -> None:
        """Hold a batch of which `left` indices have no outcome yet, if there are any."""
        batch.left = left
        if left:
            self.kept[batch.number] = batch
            self.size += batch.size
            self.announced += not batch.is_whole()
            self._charge.add(batch.stop - batch.start, batch.cost)

    def fill(self, batch: Batch) -> None:
        """Take a batch that is held and was asked for whole; nobody has more of it."""
        kept = self.kept[batch.number]
        if kept.is_whole() or [(e.start, e.count) for e in batch.leaves] != [
            (e.start, e.count) for e in kept.leaves
        ]:
            return
        self._charge.add(0, batch.cost - kept.cost)
        kept.leaves, kept.frames, kept.cost = batch.leaves, batch.frames, batch.cost
        self.announced -= 1

    def drop(self, batch: Batch) -> None:
        """Let go of a batch that is held."""
        del self.kept[batch.number]
        self.size -= batch.size
        self.announced -= not batch.is_whole()
        self._charge.add(batch.start - batch.stop, -batch.cost)

    def spans(self, lo: int, hi: int) -> list[Span]:
        """Return [lo, hi) cut at the bounds of batches, as far as batches have been entered."""
        starts, count = self._starts, len(self._starts)
        begin = bisect_right(starts, lo) - 1
        if begin >= 0 and lo < hi <= self._stops[begin]:  # as mostly
            return [Span(self._numbers[begin], lo, hi)]
        found = []
        for at in range(max(0, begin), count):
            first, last = max(lo, starts[at]), min(hi, self._stops[at])
            if first < last:
                found.append(Span(self._numbers[at], first, last))
            if last == hi:
                break
        return found
