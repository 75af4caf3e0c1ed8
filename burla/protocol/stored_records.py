"""The form in which messages lie in the files of the store, and how damage to it is found. Pure.

A record is one message with its payload:

    length of the header (4 bytes), of the body (8), checksum of the body (8),
    checksum of all before this and of the header (8), header, body

little-endian; checksums are XXH3 of 64 bits. The header is a msgpack array of the encoded message
and the lengths of its payload frames; the body is these frames. Whoever writes appends, so damage
is a torn end, or bytes that have changed: a body that does not fit its checksum costs that record,
and a header that does not fit costs the rest of its segment: nobody knows where the next one is.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import msgspec
import xxhash
from msgspec import Meta, Struct

from .codec import WireError, decode, encode
from .fields import Count, Message

SEGMENT_BYTES = 64 << 20  # a file that has so many gets no more records
HEADER_BYTES_MAX = 4 << 20  # of a record: a message, and the lengths of its frames
BODY_BYTES_MAX = 16 << 30
READ_BYTES = 1 << 20  # read at a time
HEADS_BYTES = 16 << 10  # likewise, where bodies are passed over

Read = Callable[[int, int], bytes]  # at, size -> bytes; fewer at the end of the file

_LENGTHS = struct.Struct("<IQQ")
_CHECK = struct.Struct("<Q")
PREFIX_BYTES = _LENGTHS.size + _CHECK.size


class _Header(Struct, frozen=True, array_like=True):
    said: bytes
    sizes: Annotated[list[Count], Meta(max_length=1 << 20)]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Header)


def pack(message: Message, payload: Sequence[bytes] = ()) -> list[bytes]:
    """Return what to write, in parts; the payload is not copied."""
    body = xxhash.xxh3_64()
    sizes = [len(frame) for frame in payload]
    for frame in payload:
        body.update(frame)
    header = _encoder.encode(_Header(encode(message)[0], sizes))
    lengths = _LENGTHS.pack(len(header), sum(sizes), body.intdigest())
    check = _CHECK.pack(xxhash.xxh3_64_intdigest(lengths + header))
    return [lengths + check + header, *payload]


class Record(Struct, frozen=True):
    """One record, as it was found."""

    at: int
    end: int
    header: bytes
    body_at: int
    is_whole: bool  # its body is what was written

    def message(self, direction: Any) -> Message | None:
        """Return the message; None: it is none of `direction`."""
        try:
            header = _decoder.decode(self.header)
            message: Message = decode([header.said], direction)[0]
        except (WireError, msgspec.MsgspecError):
            return None
        return message

    def frames(self, body: bytes) -> list[bytes]:
        """Return the payload; `body` is what lies from `body_at` to `end`."""
        frames, at, view = [], 0, memoryview(body)
        for size in _decoder.decode(self.header).sizes:
            frames.append(bytes(view[at : at + size]))
            at += size
        return frames


def scan(read: Read, at: int = 0, stop: int | None = None, trusted: int = 0) -> Iterator[Record]:
    """Yield the records from `at` on, up to the first of which the header is damaged or torn.

    Args:
        read: gives bytes of the file.
        at: where a record begins.
        stop: no record that begins there or later is looked at; None: up to the end of the file.
        trusted: bodies that end up to here are taken for whole, and not read.
    """
    window = _Window(read)
    while stop is None or at < stop:
        window.ahead = HEADS_BYTES if at < trusted else READ_BYTES
        prefix = window.take(at, PREFIX_BYTES)
        if len(prefix) < PREFIX_BYTES:
            return
        lengths = prefix[: _LENGTHS.size]
        header_bytes, body_bytes, body_check = _LENGTHS.unpack(lengths)
        if header_bytes > HEADER_BYTES_MAX or body_bytes > BODY_BYTES_MAX:
            return
        header = window.take(at + PREFIX_BYTES, header_bytes)
        (check,) = _CHECK.unpack(prefix[_LENGTHS.size :])
        if len(header) < header_bytes or xxhash.xxh3_64_intdigest(lengths + header) != check:
            return
        body_at = at + PREFIX_BYTES + header_bytes
        end = body_at + body_bytes
        found = body_check if end <= trusted else window.check(body_at, body_bytes)
        if found is None:  # torn
            return
        yield Record(at, end, header, body_at, found == body_check)
        at = end


class _Window:
    """Reads ahead, so that small records cost little."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self.ahead = READ_BYTES  # read at least
        self._at, self._bytes = 0, b""

    def take(self, at: int, size: int) -> bytes:
        """Return bytes; fewer at the end of the file."""
        start = at - self._at
        if not 0 <= start <= start + size <= len(self._bytes):
            self._at, start = at, 0
            self._bytes = self._read(at, max(size, self.ahead))
        return self._bytes[start : start + size]

    def check(self, at: int, size: int) -> int | None:
        """Return the checksum of bytes; None: they are not all there."""
        made, end = xxhash.xxh3_64(), at + size
        while at < end:
            part = self.take(at, min(READ_BYTES, end - at))
            if not part:
                return None
            made.update(part)
            at += len(part)
        return int(made.intdigest())
