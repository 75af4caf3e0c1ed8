"""What goes along with a function by a name: its caller's own modules, and files.

Little of it goes with the job itself. More goes as blobs: the cluster asks for those that it has
not got of this user, so a loop of maps sends them once.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from burla.protocol import messages as m

INLINE_BYTES_MAX = 64 << 10  # below it costs less than to name it
NAMED_MAX = 36  # of one kind; the function has blobs, too
PACKAGES_MAX = 8  # of packages, with one that describes them and one of the small

Named = Sequence[tuple[str, bytes]]


class Attachments(NamedTuple):
    """What goes along, ready to be sent."""

    inline: tuple[tuple[str, bytes], ...] = ()
    blobs: tuple[m.Blob, ...] = ()
    contents: tuple[bytes, ...] = ()  # of the blobs

    def joined_with(self, other: "Attachments") -> "Attachments":
        """Return both together."""
        blobs, contents = self.blobs + other.blobs, self.contents + other.contents
        return Attachments(self.inline + other.inline, blobs, contents)


NO_ATTACHMENTS = Attachments()


def attach(named: Named) -> Attachments:
    """Return how these go along."""
    if sum(len(data) for _, data in named) <= INLINE_BYTES_MAX:
        return Attachments(inline=tuple(named))
    kind = m.BlobKind.NAMED
    blobs = [m.Blob(sha256(data).digest(), len(data), kind, name) for name, data in named]
    return Attachments((), tuple(blobs), tuple(data for _, data in named))


def join_small(pieces: Sequence[bytes], alone_from: int) -> tuple[list[tuple[int, int]], Named]:
    """Return the parts that pieces are sent in, and for each piece its part and where it begins.

    Small ones go together, the biggest ones alone: so a change of one sends only its part anew.

    Args:
        pieces: any number.
        alone_from: so many bytes make a big one.
    """
    by_size = sorted(range(len(pieces)), key=lambda at: -len(pieces[at]))
    alone = [at for at in by_size[: NAMED_MAX - 2] if len(pieces[at]) >= alone_from]
    parts = {at: number for number, at in enumerate(alone, 1)}
    places, small, start = [], [], 0
    for at, piece in enumerate(pieces):
        if at in parts:
            places.append((parts[at], 0))
        else:
            places.append((0, start))
            small.append(piece)
            start += len(piece)
    named = [("0", b"".join(small)), *((str(parts[at]), pieces[at]) for at in alone)]
    return places, named
