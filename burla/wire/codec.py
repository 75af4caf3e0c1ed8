"""Messages to frames and back. Pure.

On the wire a message is `[header, *payload]`: the header is one msgpack array, tag first; the
payload is opaque frames that nobody but a client and a worker opens.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgpack
import msgspec

from .messages import HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX, RUNS_MAX, Bulk, Message, Run

Frames = Sequence[bytes]
B = TypeVar("B", bound=Bulk)


class WireError(Exception):
    """A peer sent something that is not a message of its direction."""


def encode(message: Message, payload: Frames = ()) -> list[bytes]:
    """Return the frames of one message: `[header, *payload]`.

    Args:
        message: becomes one msgpack array, tag first.
        payload: 0..n opaque frames, passed on without a copy.

    Raises:
        WireError: the header exceeds `HEADER_BYTES_MAX`.
    """
    header = msgpack.packb(msgspec.to_builtins(message, builtin_types=(bytes,)))
    if len(header) > HEADER_BYTES_MAX:
        raise WireError(f"header of {type(message).__name__} has {len(header)} bytes")
    return [header, *payload]


def decode(frames: Sequence[bytes], direction: Any) -> tuple[Any, list[bytes]]:
    """Return the message and its payload.

    Args:
        frames: as they came from the socket, without the routing id.
        direction: the union of messages that may come this way, e.g. `ClientToScheduler`.

    Raises:
        WireError: the frames are not such a message.
    """
    if not frames or len(frames[0]) > HEADER_BYTES_MAX:
        raise WireError("no header, or one that is too long")
    try:
        fields = msgpack.unpackb(frames[0], use_list=True, strict_map_key=True)
        message = msgspec.convert(fields, direction, builtin_types=(bytes,))
    # msgpack has errors of its own besides ValueError, and recursion ends in RecursionError
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError, OverflowError) as error:
        raise WireError(f"{type(error).__name__}: {error}"[:500]) from None
    return message, list(frames[1:])


def pack_runs(runs: Sequence[Run]) -> bytes:
    """Return the table of at most RUNS_MAX runs as it travels in Outcomes and JobOutcomes."""
    assert len(runs) <= RUNS_MAX, len(runs)
    table = [(run.lo, run.hi, int(run.kind), run.frames) for run in runs]
    packed: bytes = msgpack.packb(table)
    return packed


def unpack_runs(packed: bytes) -> list[Run]:
    """Return what `pack_runs` was given.

    Raises:
        WireError: these bytes are no such table.
    """
    try:
        table = msgpack.unpackb(packed, use_list=True, strict_map_key=True)
        return msgspec.convert(table, list[Run])
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError, OverflowError) as error:
        raise WireError(f"{type(error).__name__}: {error}"[:500]) from None


def split(message: B, payload: Frames) -> list[tuple[B, list[bytes]]]:
    """Return the pieces in which a message with a large payload travels, in order."""
    groups: list[list[bytes]] = [[]]
    room = PAYLOAD_BYTES_MAX
    for frame in payload:
        if groups[-1] and len(frame) > room:
            groups.append([])
            room = PAYLOAD_BYTES_MAX
        groups[-1].append(frame)
        room -= len(frame)
    if len(groups) == 1:
        return [(message, groups[0])]
    replace = msgspec.structs.replace
    return [
        (replace(message, piece=number, pieces=len(groups)), group)
        for number, group in enumerate(groups)
    ]


class Joiner:
    """Puts the pieces of messages from one peer together again; bounded in bytes.

    Pieces of one message come in order (a ZeroMQ connection keeps it), others may lie between.
    """

    def __init__(self, bytes_max: int) -> None:
        """Refuse to hold more than `bytes_max` bytes of unfinished messages."""
        self._bytes_max = bytes_max
        self._bytes = 0
        self._unfinished: dict[Message, tuple[int, list[bytes]]] = {}  # next piece, frames so far

    def add(self, message: Message, payload: list[bytes]) -> tuple[Message, list[bytes]] | None:
        """Take what was decoded; return a whole message, or None while pieces are missing.

        Raises:
            WireError: a piece out of order, or too many bytes; the unfinished message is dropped.
        """
        if not isinstance(message, Bulk) or message.pieces == 1:
            return message, payload
        whole = msgspec.structs.replace(message, piece=0, pieces=1)
        due, frames = self._unfinished.pop(whole, (0, []))
        self._bytes -= sum(map(len, frames))
        if message.piece != due or due >= message.pieces:
            raise WireError(f"piece {message.piece} of {message.pieces} where {due} is due")
        frames += payload
        if due + 1 == message.pieces:
            return whole, frames
        size = sum(map(len, frames))
        if self._bytes + size > self._bytes_max:
            raise WireError(f"over {self._bytes_max} bytes in unfinished messages")
        self._bytes += size
        self._unfinished[whole] = (due + 1, frames)
        return None
