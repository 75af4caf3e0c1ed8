"""Pickles <-> frames: how a pickle and its big buffers are cut up and joined again.

A value is a list of frames of at most FRAME_BYTES_MAX. A small one is one frame, the pickle itself.
A big one has a first frame that says how to join the others; its buffers travel beside the pickle
(protocol 5, out of band) and every byte is copied once on either side.
"""

import pickle
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .shelf import SHARED, fetch

FRAME_BYTES_MAX = 1 << 20  # a frame; bigger ones would hold up heartbeats behind them on the socket
OUT_OF_BAND_BYTES_MIN = (
    1 << 14
)  # below it a copy into the pickle costs less than a frame of its own

_HEADER = struct.Struct("<cI")  # tag, number of buffers; then a size each for the pickle and them
_JOINED = b"\x01"  # tag of a value in several frames; a pickle itself starts with b"\x80"
_SIZE = struct.Struct("<Q")

Frames = Sequence[bytes | bytearray | memoryview]


class NotLoadableError(Exception):
    """Bytes that arrived cannot be turned into an object here; the text says why."""


def dump_plain(obj: object) -> list[bytes]:
    """Return the frames of an object of which all parts are importable or builtin."""
    return encode(obj, lambda write, hold: pickle.Pickler(write, protocol=5, buffer_callback=hold))


def encode(obj: object, make_pickler: Callable[[Any, Any], Any]) -> list[bytes]:
    """Return the frames of `obj`, pickled by what `make_pickler(file, buffer_callback)` returns."""
    pieces = Pieces()
    make_pickler(pieces, pieces.hold).dump(obj)
    return cut(pieces.data, pieces.buffers)


class Pieces:
    """Takes what a pickler writes without joining it, and the big buffers it leaves out."""

    def __init__(self) -> None:
        self.data: list[Any] = []  # bytes-like; may alias mutable objects until they are cut
        self.buffers: list[memoryview] = []
        self.write = self.data.append

    def hold(self, buffer: pickle.PickleBuffer) -> bool:
        """Take a buffer out of band; return True to have it pickled in place."""
        try:
            view = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if view.nbytes < OUT_OF_BAND_BYTES_MIN:
            return True
        self.buffers.append(view)
        return False


def cut(data: Sequence[Any], buffers: Sequence[memoryview]) -> list[bytes]:
    """Return the frames of a pickle and its buffers; copies every byte once at most."""
    size = sum(map(len, data))
    if not buffers and size <= FRAME_BYTES_MAX:
        return [bytes(data[0]) if len(data) == 1 else b"".join(data)]
    sizes = [size, *(view.nbytes for view in buffers)]
    head = _HEADER.pack(_JOINED, len(buffers)) + b"".join(map(_SIZE.pack, sizes))
    if len(head) + size <= FRAME_BYTES_MAX:
        frames = [b"".join([head, *data])]
    elif len(head) <= FRAME_BYTES_MAX:
        frames = [head, *_chunks(data)]
    else:
        raise ValueError(f"{len(buffers)} buffers in one value: too many to send")
    for view in buffers:
        frames += _chunks([view])
    return frames


def _chunks(pieces: Sequence[Any]) -> list[bytes]:
    """Return `pieces` joined and cut again into full frames."""
    frames: list[bytes] = []
    open_, room = [], FRAME_BYTES_MAX
    for piece in pieces:
        view = memoryview(piece).cast("B")
        start = 0
        while len(view) - start >= room:
            open_.append(view[start : start + room])
            frames.append(b"".join(open_) if len(open_) > 1 else bytes(open_[0]))
            start += room
            open_, room = [], FRAME_BYTES_MAX
        if start < len(view):
            open_.append(view[start:])
            room -= len(view) - start
    if open_:
        frames.append(b"".join(open_))
    return frames


def join(frames: Frames) -> tuple[Any, list[Any]]:
    """Return the pickle and its buffers (writable), as `cut` was given them.

    Raises:
        NotLoadableError: these frames are not what `cut` returned.
    """
    first: Any = frames[0]
    if first[:1] == SHARED:
        try:
            mapped, spans = fetch(first)
        except OSError as error:
            raise NotLoadableError(f"shared memory cannot be mapped: {error}") from None
        first = mapped[spans[0][0] :][: spans[0][1]]
        places = iter(spans[1:])
        return _join(first, lambda size: _take_in_place(mapped, places, size))
    rest = iter(frames[1:])
    return _join(first, lambda size: _take(rest, size))


def _join(first: Any, take: Callable[[int], Any]) -> tuple[Any, list[Any]]:
    if first[:1] != _JOINED:
        return first, []
    try:
        (_, count) = _HEADER.unpack_from(first)
        body = _HEADER.size + _SIZE.size * (count + 1)
        sizes = [
            _SIZE.unpack_from(first, _HEADER.size + _SIZE.size * i)[0] for i in range(count + 1)
        ]
    except struct.error as error:
        raise NotLoadableError(f"the first frame of a value is malformed: {error}") from None
    data: Any = memoryview(first)[body:]
    if len(data) != sizes[0]:
        data = take(sizes[0])
    return data, [take(size) for size in sizes[1:]]


def _take_in_place(mapped: memoryview, places: Iterator[tuple[int, int]], size: int) -> Any:
    """Return the next `size` bytes of whole frames, which lie one behind the other in `mapped`."""
    start, got = -1, 0
    while got < size and (place := next(places, None)) is not None:
        start = place[0] if start < 0 else start
        got += place[1]
    if got != size:
        raise NotLoadableError(f"a part of {size} bytes came as {got} bytes")
    return mapped[start : start + size]


def _take(frames: Any, size: int) -> bytearray:
    """Return the next `size` bytes of whole frames, copied once."""
    chunks, got = [], 0
    while got < size:
        chunk = next(frames, None)
        if chunk is None:
            break
        chunks.append(chunk)
        got += len(chunk)
    if got != size:
        raise NotLoadableError(f"a part of {size} bytes came as {got} bytes")
    return bytearray(chunks[0]) if len(chunks) == 1 else bytearray().join(chunks)
