"""Batches on their way out: what of them is sent, and what is put down where the workers see it."""

from collections.abc import Callable, Iterator
from typing import NamedTuple
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


# Big inputs in files are sent a few at a time: each message costs as much as to write a megabyte.
TOGETHER_BYTES = 12 << 20

LeafToSend = tuple[int, Frames | Content]  # how many inputs


class Put(NamedTuple):
    """What to send of batches."""

    leaves: list[LeafToSend]
    size: int  # bytes of it
    has_written: bool  # a file
    end: int  # the index behind it


def put_down_together(
    batch: Batch,
    following: Iterator[Batch],
    has_room: Callable[[], bool],
    shared: SharedInputs,
    keep: Callable[[LaidOut], None],
) -> Put:
    """Put down a batch and, as long as these are in files and are little, others that follow.

    Args:
        batch: the first.
        following: what comes behind it and is at hand.
        has_room: returns whether one more may be put down.
        shared: where big inputs are put.
        keep: told of what may alias an input.

    Raises:
        InputTooLarge: an input cannot be sent.
    """
    leaves, size, has_written = put_down(batch, shared, keep)
    end, written, goes_on = batch.start + batch.count, batch.bytes, has_written
    while goes_on and written < TOGETHER_BYTES and has_room():
        next_ = next(following, None)
        if next_ is None or not next_.count:
            break
        more, more_size, goes_on = put_down(next_, shared, keep)
        leaves += more
        size += more_size
        end, written = next_.start + next_.count, written + next_.bytes
    return Put(leaves, size, has_written, end)


def put_down(
    batch: Batch, shared: SharedInputs, keep: Callable[[LaidOut], None]
) -> tuple[list[LeafToSend], int, bool]:
    """Return the leaves to send, of big ones where they are; their bytes; was a file written?

    `keep` is told of those that may alias their inputs.

    Raises:
        InputTooLarge: an input cannot be sent.
    """
    leaves: list[LeafToSend] = []
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
