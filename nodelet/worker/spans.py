"""What a worker was assigned: spans, and the leaves that their inputs are pickled in."""

from collections.abc import Iterator, Sequence
from typing import Any

from burla.values import payloads

from .pipes import Flag, Frame, Message


class Leaf:
    """Inputs [lo, hi), decoded when the first of them is wanted."""

    __slots__ = ("_frames", "_inputs", "hi", "lo")

    def __init__(self, lo: int, hi: int, frames: Sequence[Frame]) -> None:
        self.lo = lo
        self.hi = hi
        self._frames = frames
        self._inputs: Sequence[Any] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether its inputs, which have been decoded, are numbers and texts, or tuples of such."""
        return type(self._inputs) in (list, range)

    def inputs(self) -> Sequence[Any]:
        """Return all its inputs.

        Raises:
            NotLoadableError: they cannot be unpickled here.
        """
        if self._inputs is None:
            self._inputs = payloads.load_leaf(self._frames)
            self._frames = ()
        return self._inputs


class Span:
    """A run of calls that the agent has assigned to this worker."""

    __slots__ = ("_at", "_dropped", "careful", "cell", "hi", "leaves", "left", "lo", "slots")

    def __init__(self, message: Message, leaves: list[Leaf]) -> None:
        self.cell, self.lo, self.hi = message.cell, message.lo, message.hi
        self.left, self.slots = message.a, max(1, message.b)
        self.careful = bool(message.flags & Flag.CAREFUL)
        self.leaves = leaves
        self._at = 0
        self._dropped = 0

    def leaf(self, index: int) -> Leaf:
        """Return the leaf of an index; mostly the one asked for last, or the next."""
        while self.leaves[self._at].hi <= index:
            self._at += 1
        while self.leaves[self._at].lo > index:  # a stride over several leaves ended early
            self._at -= 1
        return self.leaves[self._at]

    def is_plain(self, lo: int, hi: int) -> bool:
        """Return whether the inputs [lo, hi), which have been decoded, are numbers and texts."""
        return all(leaf.is_plain for leaf in self.leaves if leaf.lo < hi and leaf.hi > lo)

    def drop(self, before: int) -> None:
        """Let go of the leaves that end at `before` or earlier, which may be big."""
        while self._dropped < len(self.leaves) and self.leaves[self._dropped].hi <= before:
            self.leaves[self._dropped] = _DROPPED
            self._dropped += 1

    def input(self, index: int) -> Any:
        """Return one input."""
        leaf = self.leaf(index)
        return leaf.inputs()[index - leaf.lo]

    def numbers(self, lo: int, hi: int) -> Iterator[int] | None:
        """Return an iterator over the inputs [lo, hi) if a range has them all.

        So each is made for its call, where the one before has lain, and there is no list of them.
        """
        leaf = self.leaf(lo)
        inputs = leaf.inputs()
        if type(inputs) is range and hi <= leaf.hi:
            return iter(inputs[lo - leaf.lo : hi - leaf.lo])
        return None

    def inputs(self, lo: int, hi: int) -> list[Any]:
        """Return the inputs [lo, hi), fewer if one cannot be had, at least one.

        Raises:
            NotLoadableError: the first of them cannot be unpickled here.
        """
        inputs: list[Any] = []
        at = lo
        try:
            while at < hi:
                leaf = self.leaf(at)
                end = min(hi, leaf.hi)
                part = leaf.inputs()[at - leaf.lo : end - leaf.lo]
                if type(part) is list and not inputs:
                    inputs = part  # nearly always: one leaf has them all
                else:
                    inputs.extend(part)  # an array on the right of += would be added to them
                at = end
        except payloads.InputNotLoadableError as error:
            inputs.extend(leaf.inputs()[at - leaf.lo : error.offset])
            if not inputs:
                raise
        except Exception:
            if not inputs:
                raise
        return inputs


_DROPPED = Leaf(0, 0, ())
