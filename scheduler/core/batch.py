"""Batches as clients send them: consecutive inputs in leaves that nobody here opens. Pure."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from burla.protocol.messages import Inputs, Leaf

from .quotas import FRAME_COST, LEAF_COST


@dataclass(slots=True)
class Batch:
    """Consecutive inputs as the client sent them; immutable but for `left` and `leases`."""

    number: int
    start: int
    stop: int
    leaves: list[Leaf]
    frames: list[list[bytes]]  # per leaf
    size: int  # bytes of all frames
    left: int  # indices without an outcome
    cost: int  # bytes that it takes here, for quotas
    leases: dict[bytes, None] = field(default_factory=dict)  # whose nodelets have leaves of it

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
            frames.append(payload[frame : frame + leaf.frames])
            at, frame = at + leaf.count, frame + leaf.frames
        if frame != len(payload) or at == message.start:
            raise ValueError(f"batch {message.batch}: {len(payload)} frames, {frame} declared")
        size = sum(map(len, payload))
        leaves = list(message.leaves)
        cost = size + FRAME_COST * frame + LEAF_COST * len(leaves)
        count = at - message.start
        return cls(message.batch, message.start, at, leaves, frames, size, count, cost)

    def bytes_each(self) -> float:
        """Return the mean size of its inputs."""
        return self.size / (self.stop - self.start)

    def leaves_of(self, lo: int, hi: int) -> Iterator[tuple[Leaf, list[bytes]]]:
        """Yield the leaves that [lo, hi) lies in, with their frames."""
        first = bisect_right(self.leaves, lo, key=lambda leaf: leaf.start) - 1
        for at in range(first, len(self.leaves)):
            leaf = self.leaves[at]
            if leaf.start >= hi:
                return
            yield leaf, self.frames[at]
