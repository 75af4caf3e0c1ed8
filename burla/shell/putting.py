"""Batches on their way out: what of them is sent, and what is put down where the workers see it."""

from collections.abc import Callable, Sequence
from weakref import ref

from burla.core.effects import Content, Frames
from burla.errors import InputTooLarge
from burla.values.frames import LaidOut
from burla.values.payloads import Batch, Pieces, TooLargeError
from burla.values.sharing import SharedInputs


class Aliased:
    """Big inputs of a job that are not copied while nobody can change them.

    That is while the thread of the caller is in our hands. Whoever lets code of the caller go on
    must `settle` them before.
    """

    def __init__(self) -> None:
        """Begin without any."""
        self.is_allowed = False  # else each is copied at once
        self._leaves: list[ref[LaidOut]] = []

    def add(self, leaf: LaidOut) -> None:
        """Take a leaf that was just made."""
        if self.is_allowed:
            self._leaves = [one for one in self._leaves if one() is not None]
            self._leaves.append(ref(leaf))
        else:
            leaf.settle()

    def settle(self) -> None:
        """Copy what has no outcome yet and could change."""
        leaves, self._leaves = self._leaves, []
        for one in leaves:
            if (leaf := one()) is not None:
                leaf.settle()


def put_down(
    batch: Batch, shared: SharedInputs, keep: Callable[[LaidOut], None]
) -> tuple[Sequence[tuple[int, Frames | Content]], int, bool]:
    """Return the leaves to send, of big ones where they are; their bytes; was a file written?

    `keep` is told of those that may alias their inputs.

    Raises:
        InputTooLarge: an input cannot be sent.
    """
    leaves: list[tuple[int, Frames | Content]] = []
    at, size, has_written = batch.start, batch.bytes, False
    for leaf in batch.leaves:
        if not isinstance(leaf.body, Pieces):
            leaves.append((leaf.count, leaf.body))
            at += leaf.count
            continue
        try:
            put = shared.put(at, leaf.count, leaf.body, LaidOut)
        except TooLargeError as error:
            raise InputTooLarge(at, f"input {at} cannot be sent: it has {error}") from None
        if isinstance(put, LaidOut):
            keep(put)
            size += put.size - leaf.bytes
        else:
            has_written = True
            size += sum(map(len, put)) - leaf.bytes
        leaves.append((leaf.count, put))
        at += leaf.count
    return leaves, size, has_written
