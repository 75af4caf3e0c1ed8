"""Batches on their way out: what of them is sent, and what is put down where the workers see it."""

from burla.core.effects import Frames
from burla.errors import InputTooLarge
from burla.values.payloads import Batch, Pieces, TooLargeError
from burla.values.sharing import SharedInputs


def put_down(batch: Batch, shared: SharedInputs) -> tuple[list[tuple[int, Frames]], int, bool]:
    """Return the leaves to send, of big ones where they are; their bytes; was a file written?

    Raises:
        InputTooLarge: an input cannot be sent.
    """
    leaves: list[tuple[int, Frames]] = []
    at, size, has_written = batch.start, batch.bytes, False
    for leaf in batch.leaves:
        if isinstance(leaf.body, Pieces):
            try:
                frames: Frames = shared.put(at, leaf.count, leaf.body)
            except TooLargeError as error:
                raise InputTooLarge(at, f"input {at} cannot be sent: it has {error}") from None
            has_written = True
            size += sum(map(len, frames)) - leaf.bytes
        else:
            frames = leaf.body
        leaves.append((leaf.count, frames))
        at += leaf.count
    return leaves, size, has_written
