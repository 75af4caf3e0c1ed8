"""What is over a limit of bytes, in words for its sender. Pure; both ends say the same."""

from collections.abc import Sequence

from .messages import Blob, Inputs, Leaf, OpenJob


def too_large(
    message: OpenJob | Inputs, payload: Sequence[bytes], bytes_max: int
) -> tuple[str, int | None]:
    """Return why a function or a batch is not taken, and the index of the input that is why.

    Without its `payload`, which need not have come, its size is not said.
    """
    index = None
    if isinstance(message, OpenJob):
        what = "the function, with all that it refers to, has"
    else:
        index, count = _largest(message, payload)
        last = index + count - 1
        what = f"input {index} has" if count == 1 else f"inputs {index} to {last} have together"
    whole = size_of(message, payload)
    is_known = bool(payload)
    if isinstance(message, Inputs):
        is_known |= not any(leaf.frames for leaf in message.leaves)
    size = f"{whole:,}" if is_known else f"more than {bytes_max:,}"
    text = (
        f"{what} {size} bytes, and this cluster holds at most {bytes_max:,} bytes of functions and"
        " inputs for you at once. Send less, e.g. a path or URL from which the function reads, or"
        " ask an administrator of the cluster to allow more (burla-scheduler --tenant-bytes)"
    )
    return text, index


def size_of(message: OpenJob | Inputs, payload: Sequence[bytes]) -> int:
    """Return how many bytes it is about, also of what it only names."""
    named: Sequence[Blob | Leaf] = message.blobs if isinstance(message, OpenJob) else message.leaves
    return sum(map(len, payload)) + sum([one.size for one in named])


def _largest(message: Inputs, payload: Sequence[bytes]) -> tuple[int, int]:
    """Return where the largest leaf begins and how many inputs it has, if it is nearly all."""
    at, whole = 0, size_of(message, payload)
    for leaf in message.leaves if whole else ():
        if 2 * (leaf.size + sum(map(len, payload[at : at + leaf.frames]))) > whole:
            return leaf.start, leaf.count
        at += leaf.frames
    return message.start, sum(leaf.count for leaf in message.leaves)
