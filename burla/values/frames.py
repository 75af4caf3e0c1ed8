"""Pickles <-> frames: how a pickle and its big buffers are cut up and joined again.

A value is a list of frames of at most FRAME_BYTES_MAX. A small one is one frame, the pickle itself.
A big one has a first frame that says how to join the others; its buffers travel beside the pickle
(protocol 5, out of band) and every byte is copied once on either side.
"""

import pickle
import struct
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from burla.limits import BUFFERS_MAX, FRAME_BYTES_MAX, VALUE_BYTES_MAX

from .rooms import TWICE_BYTES_MAX, Draining
from .shared_memory import ALIGN, VIEW, fetch, is_reference
from .views import fetch_view

OUT_OF_BAND_BYTES_MIN = (
    1 << 14
)  # below it a copy into the pickle costs less than a frame of its own

_HEADER = struct.Struct("<cI")  # tag, number of buffers; then a size each for the pickle and them
_PICKLE = b"\x80"  # a pickle itself starts so
_JOINED = b"\x01"  # tag of a value in several frames
_SIZE = struct.Struct("<Q")

Frames = Sequence[bytes | bytearray | memoryview]


class TooLargeError(Exception):
    """A value has more bytes than may be sent."""

    def __init__(self, size: int) -> None:
        super().__init__(f"{size:,} bytes; at most {VALUE_BYTES_MAX:,} can be sent")
        self.size = size


class NotLoadableError(Exception):
    """Bytes that arrived cannot be turned into an object here; the text says why."""


def dump_plain(obj: object) -> list[bytes]:
    """Return the frames of an object of which all parts are importable or builtin."""
    return take_apart_plain(obj).cut()


def take_apart_plain(obj: object) -> "Pieces":
    """Return the pickle of an object of which all parts are importable or builtin."""
    pieces = Pieces()
    pickle.Pickler(pieces, protocol=5, buffer_callback=pieces.hold).dump(obj)
    return pieces


class Pieces:
    """Takes what a pickler writes without joining it, and the big buffers it leaves out.

    All of it may alias what was pickled, until it is cut or written.
    """

    def __init__(self) -> None:
        self.data: list[Any] = []  # bytes-like
        self.buffers: list[memoryview] = []
        self.write: Any = self.data.append

    def hold(self, buffer: pickle.PickleBuffer) -> bool:
        """Take a buffer out of band; return True to have it pickled in place."""
        try:
            view = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if view.nbytes < OUT_OF_BAND_BYTES_MIN or len(self.buffers) >= BUFFERS_MAX:
            return True
        self.buffers.append(view)
        return False

    def written(self) -> list[Any]:
        """Return the pickle in its pieces, each of which has a length."""
        if len(self.buffers) >= BUFFERS_MAX:  # big ones beyond are written as what they came as
            self.data[:] = [
                piece.raw() if isinstance(piece, pickle.PickleBuffer) else piece
                for piece in self.data
            ]
        return self.data

    @property
    def size(self) -> int:
        """Return how many bytes these are."""
        return sum(map(len, self.written())) + sum(view.nbytes for view in self.buffers)

    def cut(self) -> list[bytes]:
        """Return the frames, which are copies.

        Raises:
            TooLargeError: it cannot be sent.
        """
        return cut(self.written(), self.buffers)

    def flow(self) -> "Flow":
        """Return what `lay_out` does in frames that are not copies, where they are big ones.

        What was pickled must not change before they are written.

        Raises:
            TooLargeError: it cannot be sent.
        """
        size = self.size
        if size > VALUE_BYTES_MAX:
            raise TooLargeError(size)
        parts = self.lay_out()
        self.data.clear()
        return Flow(_in_place(parts))

    def lay_out(self) -> list[Any]:
        """Return what is written to a file one behind the other: the buffers are aligned in it."""
        data = self.written()
        parts = [head_of(sum(map(len, data)), self.buffers), *data]
        at = sum(map(len, parts))
        for view in self.buffers:
            parts += (bytes(-at % ALIGN), view)
            at += -at % ALIGN + view.nbytes
        return parts


class Flow(list[Any]):
    """The frames of one big value as it is laid out: it travels in fragments."""


class LaidOut:
    """One big value as it is laid out, of which parts are read. Thread-safe but for `settle`.

    It may alias what was pickled, until it is settled.
    """

    def __init__(self, pieces: Pieces) -> None:
        """Keep the value.

        Raises:
            TooLargeError: it cannot be sent.
        """
        if pieces.size > VALUE_BYTES_MAX:
            raise TooLargeError(pieces.size)
        self._pieces = pieces
        self._laid = _laid(pieces)
        ends = self._laid[1]
        self.size = ends[-1]

    def read(self, start: int, stop: int) -> list[bytes]:
        """Return a part of it, a copy."""
        parts, ends = self._laid
        found: list[bytes] = []
        at = bisect_right(ends, start)
        while start < stop:
            part, end = parts[at], ends[at]
            begin = start - (end - len(part))
            found.append(bytes(part[begin : begin + stop - start]))
            start, at = start + len(found[-1]), at + 1
        return found if len(found) == 1 else [b"".join(found)]

    def frames(self) -> list[bytes]:
        """Return all of it in frames, as it is sent whole: copies."""
        return self._pieces.cut()

    def settle(self) -> None:
        """Copy what could change."""
        settled = Pieces()
        settled.data[:] = map(_unchanging, self._pieces.written())
        settled.buffers[:] = [memoryview(_unchanging(one)) for one in self._pieces.buffers]
        self._pieces, self._laid = settled, _laid(settled)


def _laid(pieces: Pieces) -> tuple[list[memoryview], list[int]]:
    """Return the parts of a value as they are laid out, and where each ends."""
    parts = [memoryview(part).cast("B") for part in pieces.lay_out() if len(part)]
    return parts, list(accumulate(map(len, parts)))


def _unchanging(part: Any) -> Any:
    if type(part) is bytes or (type(part) is memoryview and type(part.obj) is bytes):
        return part
    return bytes(part)


def _in_place(parts: list[Any]) -> list[Any]:
    """Return `parts` as frames; small ones are joined, and `parts` is left empty."""
    frames: list[Any] = []
    small: list[Any] = []
    room = FRAME_BYTES_MAX
    parts.reverse()  # taken from the end: what is joined need not be there twice
    while parts:
        view = memoryview(parts.pop()).cast("B")
        if len(view) > room and small:
            frames.append(b"".join(small))
            small, room = [], FRAME_BYTES_MAX
        if len(view) >= FRAME_BYTES_MAX:
            frames += (
                view[at : at + FRAME_BYTES_MAX] for at in range(0, len(view), FRAME_BYTES_MAX)
            )
        elif len(view):
            small.append(view)
            room -= len(view)
    if small:
        frames.append(b"".join(small))
    return frames


def head_of(size: int, buffers: Sequence[memoryview]) -> bytes:
    """Return what begins a value in several frames: the sizes of its pickle and its buffers."""
    sizes = [size, *(view.nbytes for view in buffers)]
    return _HEADER.pack(_JOINED, len(buffers)) + b"".join(map(_SIZE.pack, sizes))


def check_size(size: int, buffers: Sequence[memoryview]) -> None:
    """Look whether a pickle and its buffers may be sent.

    Raises:
        TooLargeError: these are more than VALUE_BYTES_MAX.
    """
    whole = size + sum(view.nbytes for view in buffers)
    if whole > VALUE_BYTES_MAX:
        raise TooLargeError(whole)


def cut(data: Sequence[Any], buffers: Sequence[memoryview]) -> list[bytes]:
    """Return the frames of a pickle and its buffers; copies every byte once at most.

    Raises:
        TooLargeError: these are more than VALUE_BYTES_MAX.
    """
    size = sum(map(len, data))
    if not buffers and size <= FRAME_BYTES_MAX:
        return [bytes(data[0]) if len(data) == 1 else b"".join(data)]
    check_size(size, buffers)
    head = head_of(size, buffers)
    if len(head) + size <= FRAME_BYTES_MAX:
        frames = [b"".join([head, *data])]
    else:
        frames = [head, *_chunks(data)]
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
    if first[:1] == _PICKLE:  # the usual one
        return first, []
    if is_reference(first):
        return _join_in_place(first)
    if not first:
        raise NotLoadableError("there is not enough memory for it here")
    if first[:1] != _JOINED:
        raise NotLoadableError(f"a value cannot begin with {bytes(first[:1])!r}")
    if len(frames) == 1 and len(first) > FRAME_BYTES_MAX:  # gathered from fragments
        return _take_apart(first)
    rest = iter(frames[1:])
    at, sizes = sizes_in(first)
    data: Any = memoryview(first)[at:]
    if len(data) != sizes[0]:
        data = _take(rest, sizes[0])
    return data, [_take(rest, size) for size in sizes[1:]]


def _join_in_place(reference: Any) -> tuple[Any, list[Any]]:
    """Return the pickle and its buffers, which are parts of what `Pieces.lay_out` returned."""
    try:
        if reference[:1] == VIEW:
            return join_view(reference)
        mapped = fetch(reference)
    except OSError as error:
        raise NotLoadableError(f"shared memory cannot be mapped: {error}") from None
    return _take_apart(mapped)


def join_view(reference: Any, *, is_taken: bool = True) -> tuple[Any, list[Any]]:
    """Return the pickle and its buffers, of which some lie in the file of an input.

    Raises:
        OSError: it is not there (any more).
    """
    inline, in_file = fetch_view(reference, is_taken=is_taken)
    data, buffers = _take_apart(inline)
    for index, buffer in in_file:
        buffers.insert(index, buffer)
    return data, buffers


def _take_apart(mapped: memoryview) -> tuple[Any, list[Any]]:
    """Return the pickle and its buffers, which are parts of `mapped`: see `Pieces.lay_out`."""
    at, sizes = sizes_in(mapped)
    parts: list[Any] = []
    for size in sizes:
        at += -at % ALIGN if parts else 0  # the pickle itself follows its head
        parts.append(mapped[at : at + size])
        at += size
    if at != len(mapped):
        raise NotLoadableError(f"parts of {at} bytes came as {len(mapped)} bytes")
    return parts[0], parts[1:]


def sizes_in(first: Any) -> tuple[int, list[int]]:
    """Return where the head of a value ends, and the sizes of the pickle and its buffers."""
    try:
        (_, count) = _HEADER.unpack_from(first)
        end = _HEADER.size + _SIZE.size * (count + 1)
        places = range(_HEADER.size, end, _SIZE.size)
        return end, [_SIZE.unpack_from(first, place)[0] for place in places]
    except struct.error as error:
        raise NotLoadableError(f"the first frame of a value is malformed: {error}") from None


def load(frames: Frames) -> Any:
    """Return what the pickle in these frames is of.

    Raises:
        NotLoadableError: these frames are not of a value.
    """
    data, buffers = join(frames)
    if len(data) > TWICE_BYTES_MAX and len(frames) == 1 and not is_reference(frames[0]):
        return pickle.load(Draining(data, sizes_in(frames[0])[0]), buffers=buffers)
    return pickle.loads(data, buffers=buffers)


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
