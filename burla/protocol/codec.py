"""Messages to frames and back. Pure.

On the wire a message is `[header, *payload]`: the header is one msgpack array, tag first; the
payload is opaque frames that only a client and a worker open.
"""

from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from .messages import (
    HEADER_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    PIECE_FRAMES_MAX,
    RUNS_MAX,
    Bulk,
    Count,
    Kind,
    Message,
    Positive,
    Run,
)
from .printable import printable
from .words import cleaner

HEADER_COST = 16  # times the bytes of a header is what its message takes once it is decoded
DIRECTIONS_MAX = 64  # found by identity; a program has a handful
FRAME_COST = 64  # bytes that an empty frame takes
BLOCK_BYTES = 64 << 10  # frames of outcomes are joined up to here; a bigger one travels alone

Frames = Sequence[bytes]
_Row = tuple[Count, Positive, Kind, Annotated[list[Count], Meta(min_length=1)], bool]
_SERIES = 4  # place in a row
B = TypeVar("B", bound=Bulk)


class WireError(Exception):
    """A peer sent something that is not a message of its direction."""


class OverLimitError(WireError):
    """A message in pieces has more bytes than are taken, or than others leave."""

    def __init__(self, message: "Bulk", bytes_max: int) -> None:
        super().__init__(f"over {bytes_max} bytes in unfinished messages")
        self.message = message  # what it was to be: whoever it is for must not wait for it
        self.bytes_max = bytes_max


def encode(message: Message, payload: Frames = ()) -> list[bytes]:
    """Return the frames of one message: `[header, *payload]`.

    Args:
        message: becomes one msgpack array, tag first.
        payload: 0..n opaque frames, passed on without a copy.

    Raises:
        WireError: the header exceeds `HEADER_BYTES_MAX`.
    """
    header = _encoder.encode(message)
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
        known = _directions.get(id(direction))
        decoder = _remember(direction) if known is None else known[1]
        message = decoder.decode(frames[0])
    except (ValueError, RecursionError) as error:  # all errors of msgspec are ValueErrors
        raise WireError(printable(f"{type(error).__name__}: {error}"[:500])) from None
    kind: type[Message] = type(message)
    if (clean := cleaner(kind)) is not None:
        message = clean(message)
    return message, list(frames[1:])


_encoder = msgspec.msgpack.Encoder()
_rows = msgspec.msgpack.Decoder(list[_Row])


# By identity: to hash a union takes longer than to decode a message.
_directions: dict[int, tuple[Any, msgspec.msgpack.Decoder[Any]]] = {}


def _remember(direction: Any) -> msgspec.msgpack.Decoder[Any]:
    """Return what decodes one direction; it is known from now on, and the direction kept."""
    decoder = _decoder(direction)
    if len(_directions) >= DIRECTIONS_MAX:
        _directions.clear()
    _directions[id(direction)] = direction, decoder
    return decoder


@cache
def _decoder(direction: Any) -> msgspec.msgpack.Decoder[Any]:
    """Return what decodes one direction; to make one costs a hundred times what it then takes."""
    return msgspec.msgpack.Decoder(direction)


def pack_runs(runs: Sequence[tuple[Run, Frames]]) -> tuple[bytes, list[bytes]]:
    """Return the table of at most RUNS_MAX runs as it travels in Outcomes, and their payload.

    The frames of a thousand short calls travel in a few payload frames: each would cost every hop.
    """
    assert len(runs) <= RUNS_MAX, len(runs)
    table: list[list[Any]] = []
    payload = list[bytes]()
    block: list[bytes] = []
    room = 0
    for run, frames in runs:
        _enter(table, run, [len(frame) for frame in frames])
        for frame in frames:
            if len(frame) > room and block:
                payload.append(block[0] if len(block) == 1 else b"".join(block))
                block = []
            if not block:
                room = BLOCK_BYTES
            block.append(frame)
            room -= len(frame)
    if block:
        payload.append(block[0] if len(block) == 1 else b"".join(block))
    return _encoder.encode(table), payload


def pack_big(run: Run, size: int) -> bytes:
    """Return the table of one run whose only frame came in fragments of `size` bytes together."""
    return _encoder.encode([[run.lo, run.hi, int(run.kind), [size], False]])


def _enter(table: list[list[Any]], run: Run, sizes: list[int]) -> None:
    """Put a run into a table; short calls that follow each other share a row."""
    single = run.hi - run.lo == len(sizes) == 1
    last = table[-1] if table else None
    if single and last and last[_SERIES] and last[1] == run.lo and last[2] == run.kind:
        last[1] = run.hi
        last[3] += sizes
    else:
        table.append([run.lo, run.hi, int(run.kind), sizes, single])


def unpack_runs(packed: bytes, payload: Frames) -> list[tuple[Run, list[bytes]]]:
    """Return the runs with their frames, as `pack_runs` was given them.

    Raises:
        WireError: these bytes are no such table, or the payload is not that of the table.
    """
    runs = []
    blocks = iter(payload)
    block, at = b"", 0
    for run, sizes, series in read_runs(packed):
        frames = []
        for size in sizes:
            if at == len(block):
                block, at = next(blocks, b""), 0
            if not 0 < size <= len(block) - at:
                raise WireError(f"a frame of {size} bytes where {len(block) - at} are left")
            frames.append(block if size == len(block) else block[at : at + size])
            at += size
        if series:
            runs += [
                (Run(index, index + 1, run.kind, 1), [frame])
                for index, frame in enumerate(frames, run.lo)
            ]
        else:
            runs.append((run, frames))
    if at != len(block) or next(blocks, None) is not None:
        raise WireError("more payload than the runs have frames")
    return runs


def read_runs(packed: bytes) -> list[tuple[Run, list[int], bool]]:
    """Return the rows of a table: a run, the sizes of its frames, whether it is a series.

    A series is a run for each index, with a frame each.

    Raises:
        WireError: these bytes are no such table.
    """
    try:
        rows = _rows.decode(packed)
    except (ValueError, RecursionError) as error:
        raise WireError(f"{type(error).__name__}: {error}"[:500]) from None
    for lo, hi, _, sizes, series in rows:
        if series and hi - lo != len(sizes):
            raise WireError(f"{len(sizes)} frames for {hi - lo} runs")
    return [(Run(lo, hi, kind, len(sizes)), sizes, series) for lo, hi, kind, sizes, series in rows]


def split(message: B, payload: Frames) -> list[tuple[B, list[bytes]]]:
    """Return the pieces in which a message with a large payload travels, in order."""
    groups: list[list[bytes]] = [[]]
    room = PAYLOAD_BYTES_MAX
    for frame in payload:
        if groups[-1] and (len(frame) > room or len(groups[-1]) == PIECE_FRAMES_MAX):
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


class ByteBudget:
    """How many bytes some reassemblers may hold together."""

    def __init__(self, bytes_max: int) -> None:
        """Have room for `bytes_max`."""
        self.bytes_max = bytes_max
        self.used = 0


class Reassembler:
    """Puts the pieces of messages from one peer together again; bounded in bytes.

    Pieces of one message come in order (a ZeroMQ connection keeps it), others may lie between.
    """

    def __init__(self, bytes_max: int, shared: ByteBudget | None = None) -> None:
        """Refuse to hold more than `bytes_max` bytes, or than others leave of `shared`."""
        self._budgets = [ByteBudget(bytes_max)] + ([] if shared is None else [shared])
        # next piece, frames so far, bytes that they take
        self._unfinished: dict[Message, tuple[int, list[bytes], int]] = {}

    def close(self) -> None:
        """Drop what is unfinished."""
        self._use(-self._budgets[0].used)
        self._unfinished.clear()

    def add(
        self, message: Message, payload: list[bytes], header_bytes: int = 0
    ) -> tuple[Message, list[bytes]] | None:
        """Take what was decoded; return a whole message, or None while pieces are missing.

        `header_bytes` is the length of its header, if it is to count.

        Raises:
            WireError: a piece out of order; the unfinished message is dropped.
            OverLimitError: too many bytes; likewise.
        """
        if not isinstance(message, Bulk) or message.pieces == 1:
            return message, payload
        whole = msgspec.structs.replace(message, piece=0, pieces=1)
        start = (0, list[bytes](), HEADER_COST * header_bytes)
        due, frames, size = self._unfinished.pop(whole, start)
        if due:
            self._use(-size)
        if message.piece != due or due >= message.pieces:
            raise WireError(f"piece {message.piece} of {message.pieces} where {due} is due")
        frames += payload
        if due + 1 == message.pieces:
            return whole, frames
        size += sum(map(len, payload)) + FRAME_COST * (len(payload) + 1)
        for budget in self._budgets:
            if budget.used + size > budget.bytes_max:
                raise OverLimitError(message, budget.bytes_max)
        self._use(size)
        self._unfinished[whole] = (due + 1, frames, size)
        return None

    def _use(self, size: int) -> None:
        for budget in self._budgets:
            budget.used += size
