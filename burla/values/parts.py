"""Big functions in parts: how a function is taken apart, so that no part of it is sent twice.

A function with all that it refers to may be big: a model in its closure, a table among its globals.
It is cut where a loop of maps would cut it: each big buffer (pickle protocol 5, out of band) and
each big `bytes` is a part by itself, and so is the pickle that refers to them, unless that is
small. A part is known by its content: what was sent before is named. Where a part lies is for
others to say (`held_parts` for who sends); `load_parts` maps or takes them where they have arrived.

A part that was a `bytes` is loaded as the very object that the worker made of it before, if it has
it still: it cannot have been changed. All other parts are loaded into memory that is the function's
own as soon as it writes there, and shared until then.
"""

import pickle
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from .frames import NotLoadableError, Pieces, check_size, head_of, sizes_in
from .shared_memory import BYTES_PART, fetch_part

PART_BYTES_MIN = 256 << 10  # of a buffer or a `bytes`: below it lies in the pickle
INLINE_BYTES_MAX = 16 << 10  # of the pickle: below it travels with the job, as do small functions
PARTS_MAX = 120  # of one function; what is big beyond these lies in the pickle

REFERRED = b"\x06"  # tag of the first frame of a function whose parts lie in files; see frames.py

# What stands in the pickle for a big `bytes`: `bytes(next buffer)`. That is the buffer itself if it
# is a `bytes`, and a copy of it where the parts came as frames.
_BYTES = b"cbuiltins\nbytes\n"
_NEXT_BYTES = b"cbuiltins\nbytes.__new__\n" + _BYTES + b"\x97\x86R"
_SHORT, _LONG = struct.Struct("<cI"), struct.Struct("<cQ")  # how pickle begins a `bytes`


class FunctionPieces(Pieces):
    """The pickle of a function, whose big buffers and `bytes` lie beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.write = self._write
        self.are_bytes: set[int] = set()  # which buffers were `bytes`

    @classmethod
    def of(cls, data: Iterable[bytes]) -> "FunctionPieces":
        """Return a pickle that was made before, without buffers."""
        pieces = cls()
        pieces.close()
        pieces.data += data
        return pieces

    def hold(self, buffer: Any) -> bool:
        """Take a buffer out of band; return True to have it pickled in place."""
        try:
            view = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if view.nbytes < PART_BYTES_MIN or len(self.buffers) >= PARTS_MAX:
            return True
        self.buffers.append(view)
        return False

    def close(self) -> None:
        """Take nothing more. Until then this is a ring, whose views the collector may not clear.

        Views of views in a ring that it clears crash Python (3.11 to 3.13).
        """
        self.write = self.data.append

    def copy(self) -> None:
        """Copy what may still be changed by whoever it was pickled from."""
        self.buffers[:] = [
            view if type(view.obj) is bytes else memoryview(view.tobytes()) for view in self.buffers
        ]
        self.data[:] = [piece if type(piece) is bytes else bytes(piece) for piece in self.written()]

    def _write(self, piece: Any) -> None:
        """Take what a pickler writes: what is so big comes alone, behind what begins it."""
        if type(piece) is pickle.PickleBuffer:  # one that is pickled in place
            piece = piece.raw()
        if type(piece) is bytes and len(piece) >= PART_BYTES_MIN and self._begins(len(piece)):
            self.are_bytes.add(len(self.buffers))
            self.buffers.append(memoryview(piece))
        else:
            self.data.append(piece)

    def _begins(self, size: int) -> bool:
        """Return whether a `bytes` of this size follows; then what began it names it instead."""
        if not self.data or len(self.buffers) >= PARTS_MAX:
            return False
        last = bytes(self.data[-1])
        for begin in (
            _SHORT.pack(b"B", size) if size < 1 << 32 else b"",
            _LONG.pack(b"\x8e", size),
        ):
            if begin and last.endswith(begin):
                self.data[-1] = last[: -len(begin)] + _NEXT_BYTES
                return True
        return False


class Part(NamedTuple):
    """A part of a function that is about to be sent."""

    view: memoryview  # of the caller's memory
    is_bytes: bool


class Apart(NamedTuple):
    """A function in parts."""

    first: bytes  # says how to join them; with the pickle, if that is small
    parts: list[Part]  # in the order in which they follow


def take_parts(pieces: FunctionPieces) -> Apart | None:
    """Return a function in parts; None: it is too small for that.

    Raises:
        TooLargeError: it cannot be sent.
    """
    data = pieces.written()
    size = sum(map(len, data))
    if size < INLINE_BYTES_MAX and not pieces.buffers:
        return None
    check_size(size, pieces.buffers)
    head = head_of(size, pieces.buffers)
    parts = [Part(view, at in pieces.are_bytes) for at, view in enumerate(pieces.buffers)]
    joined = b"".join(data)
    if size < INLINE_BYTES_MAX:
        return Apart(head + joined, parts)
    return Apart(head, [Part(memoryview(joined), False), *parts])


# --- where they are loaded ---


class Arrived(NamedTuple):
    """A part where it is loaded."""

    key: bytes  # the same for the same content
    is_bytes: bool
    open: Callable[[], Any]  # returns its memory, private to who writes to it


_bytes_kept: dict[bytes, bytes] = {}  # by key: those of the function that was loaded last


def refer_first(first: bytes) -> bytes:
    """Return the first frame of a function whose other frames are references to its parts."""
    return REFERRED + first[1:]


def referred(frames: Sequence[Any]) -> list[Arrived]:
    """Return the parts of a function that lie in files of this machine; none: it came whole.

    A reference serves as the key: the path in it is named after the content.
    """
    if bytes(frames[0][:1]) != REFERRED:
        return []
    found = []
    for frame in frames[1:]:
        reference = bytes(frame)
        is_bytes = reference[:1] == BYTES_PART
        found.append(Arrived(reference, is_bytes, partial(fetch_part, reference)))
    return found


def load_parts(first: Any, parts: Sequence[Arrived]) -> tuple[Any, list[Any]]:
    """Return the pickle and its buffers, as `frames.join` does, of a function in parts.

    Raises:
        NotLoadableError: they do not belong together, or cannot be mapped.
    """
    global _bytes_kept
    at, sizes = sizes_in(first)
    kept: dict[bytes, bytes] = {}
    opened = [_open(part, kept) for part in parts]
    _bytes_kept = kept
    data: Any = memoryview(first)[at:]
    if len(data) != sizes[0]:
        data = opened.pop(0) if opened else b""
    if [len(data), *map(len, opened)] != sizes:
        raise NotLoadableError("the parts of a function do not belong together")
    return data, opened


def _open(part: Arrived, kept: dict[bytes, bytes]) -> Any:
    try:
        if not part.is_bytes:
            return part.open()
        if part.key not in kept:
            known = _bytes_kept.get(part.key)
            kept[part.key] = bytes(part.open()) if known is None else known
        return kept[part.key]
    except OSError as error:
        raise NotLoadableError(f"a part of the function cannot be mapped: {error}") from None
