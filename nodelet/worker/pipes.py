"""Framing between the agent and its workers, and what both must remember alike.

A message is a fixed header, the sizes of its frames, and the frames. Workers read and write
blocking, the agent never blocks. What comes from a worker is not trusted: user code can write into
any descriptor of its process, so every field is checked and every size bounded before it is used.
"""

import mmap
import signal
import socket
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

from burla.limits import FRAGMENT_BYTES, FRAME_BYTES_MAX, VALUE_BYTES_MAX

Frame = bytes | bytearray | memoryview

MESSAGE_BYTES_MAX = VALUE_BYTES_MAX + (64 << 20)  # one value, or many small ones
MESSAGE_FRAMES_MAX = 1 << 13  # whole ones of a value, and what its buffers begin
ORDER_BYTES_MAX = 1 << 40  # what the agent sends: leaves of several inputs, it is believed
ORDER_FRAMES_MAX = 1 << 24
READ_BYTES = 256 << 10  # of one read; more than a socket buffer usually holds
LEAVES_KEPT = 4  # leaves of several inputs that a worker remembers beyond their span
CUT_SIGNAL = signal.SIGURG  # to a worker: end this stride after the running call
WRITE_FRAMES_MAX = 512  # frames in one system call; IOV_MAX is 1024

FD = struct.Struct("i")
ANCILLARY_BYTES = socket.CMSG_SPACE(256 * FD.size)  # more than the kernel lets one message carry

_MAGIC = 0xB17A
_HEADER = struct.Struct("<HBBIqqqqq")
HEADER_BYTES = _HEADER.size
_SIZE = struct.Struct("<Q")
# batch, lo, hi, frames sent; 0: it is remembered; less: bytes of the file that comes with it
LEAF_RECORD = struct.Struct("<qqqq")


class BadMessageError(Exception):
    """What arrived is not a message of ours."""


class Kind(IntEnum):
    """What a message is. Down: agent to worker. Up: worker to agent."""

    LOAD = 1  # down; settings, environment, function. lo: frames of the environment
    SPAN = 2  # down; leaves. lo, hi: the span; a: left; b: slots
    FORK = 3  # down, to a template; a: page of the slate; b: 1: look first whether modules are as
    # they were; carries three descriptors
    TEMPLATE = 4  # down: serve as a template from now on
    EXIT = 5  # down: leave
    PRELOAD = 6  # down; settings, modules: import them, and serve as a template without a function
    HELLO = 16  # up: here I am. a: pid
    LOADED = 17  # up; if it took long: modules. a: ns that it took; b: 1 if this process may
    # serve as a template
    LOAD_FAILED = 18  # up; the packed exception
    NOTHING = 19  # up: [lo, hi) is empty; for its flag only
    RESULTS = 20  # up: results of [lo, hi) in one pickle
    RESULT = 21  # up: the result of lo
    ERROR = 22  # up: the exception of lo
    FORK_FAILED = 23  # up, from a template; a: errno
    NOTICE = 24  # up; a line for the caller, who shows the first one of a job
    UNFIT = 25  # up, from what a template without a function has forked: another is to load it


# Of one call: bytes that its process had at most; how many bytes were written to stdout and to
# stderr when it had ended, all calls of the worker together; -1: not known.
FACTS = struct.Struct("<qqq")


class Flag:
    """What a message says besides its kind: bits. An IntFlag takes a microsecond for each `&`."""

    CAREFUL: Final = 1  # on SPAN: strides of one
    STOP: Final = 2  # on outcomes: nothing at or behind `a` is run of this span, ever
    END: Final = 4  # on outcomes: the span is over at `a`; its cell is free
    FLOWS: Final = 8  # on outcomes: one big value, which is read in fragments
    RETRY: Final = 16  # on an error: the call may be called again
    TOLD: Final = 32  # on an error: its type and its text, a line each, follow as one more frame
    FACTS: Final = 64  # on the outcome of one call: what is known of it (`FACTS`) is the last frame


class Message(NamedTuple):
    """One message; what its numbers mean is said at its kind."""

    kind: int
    flags: int = 0
    cell: int = 0
    lo: int = 0
    hi: int = 0
    a: int = 0
    b: int = 0
    frames: Sequence[Frame] = ()
    at: int = 0  # where a fragment lies in its value, if `size` says so
    size: int = 0  # of the whole value; 0: this is no fragment

    def is_last(self) -> bool:
        """Return whether nothing follows that belongs to it."""
        return not self.size or self.at + len(self.frames[0]) == self.size


def pack(message: Message) -> list[Frame]:
    """Return the bytes of a message as buffers, its frames uncopied."""
    kind, flags, cell, lo, hi, a, b, frames, _, _ = message
    if flags & Flag.FLOWS:
        head = _HEADER.pack(_MAGIC, kind, flags, 1, cell, lo, hi, a, b)
        return [head + _SIZE.pack(sum(map(len, frames))), *frames]
    count = len(frames)
    head = _HEADER.pack(_MAGIC, kind, flags, count, cell, lo, hi, a, b)
    if not count:
        return [head]
    return [head + struct.pack(f"<{count}I", *map(len, frames)), *frames]


def unpack_header(data: bytes) -> Message:
    """Return a message that has no frames.

    Raises:
        BadMessageError: it is none of ours.
    """
    if len(data) != HEADER_BYTES or (head := _HEADER.unpack(data))[0] != _MAGIC or head[3]:
        raise BadMessageError(f"a message begins with {data[:16]!r}")
    return _build(head, (), b"")


class Parser:
    """Turns the bytes of a stream into messages; big messages are read in place.

    A value that flows comes as messages of a fragment each, as they arrive.
    """

    def __init__(
        self,
        buffer: bytearray | mmap.mmap,
        bytes_max: int = MESSAGE_BYTES_MAX,
        frames_max: int = MESSAGE_FRAMES_MAX,
        hold: Callable[[memoryview], memoryview] = lambda part: memoryview(bytes(part)),
    ) -> None:
        """Read through `buffer`, which several parsers may share as long as each read is parsed.

        Nothing larger than the next two say is a message. `hold` copies a fragment out of the
        memory that the next one is read into.
        """
        self._buffer, self._hold = buffer, hold
        self._bytes_max, self._frames_max = bytes_max, frames_max
        self._rest = b""  # the beginning of a message, when it is small
        self._big: memoryview | None = None  # room for a whole message that is not complete
        self._filled = 0
        self._head: tuple[int, ...] = ()
        self._sizes: tuple[int, ...] = ()
        self._flow: _Flow | None = None  # a value of which some is still to come
        self._receive: Callable[[socket.socket, Any], int] = socket.socket.recv_into
        self.descriptors: list[int] = []  # in the order in which they came

    def carry(self) -> None:
        """Take descriptors that come with messages from now on, into `descriptors`."""
        self._receive = self._receive_fds

    def _receive_fds(self, sock: socket.socket, buffer: Any) -> int:
        got, ancillary, _, _ = sock.recvmsg_into([buffer], ANCILLARY_BYTES)
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                count = len(data) // FD.size
                self.descriptors += [fd for (fd,) in FD.iter_unpack(data[: count * FD.size])]
        return got

    def read(self, sock: socket.socket) -> list[Message] | None:
        """Read once from `sock`; return the messages that are complete now, None at the end.

        Raises:
            BlockingIOError: nothing is there.
            BadMessageError: the bytes are none of our messages; nothing more can be read.
        """
        if self._flow is not None:
            got = sock.recv_into(self._flow.room)
            return list(self._flowed(self._flow, got)) if got else None
        if self._big is not None:
            got = self._receive(sock, self._big[self._filled :])
            if not got:
                return None
            self._filled += got
            if self._filled < len(self._big):
                return []
            body, self._big = self._big, None
            return [_build(self._head, self._sizes, body)]
        got = self._receive(sock, self._buffer)
        if not got:
            return None
        data = bytes(memoryview(self._buffer)[:got])
        if self._rest:
            data = self._rest + data
        return list(self._parse(data))

    def _parse(self, data: bytes) -> Iterator[Message]:
        at, end = 0, len(data)
        while end - at >= HEADER_BYTES:
            head = _HEADER.unpack_from(data, at)
            count = head[3]
            if head[0] != _MAGIC or count > self._frames_max:
                raise BadMessageError(f"a message begins with {data[at : at + 16]!r}")
            if head[2] & Flag.FLOWS:
                body = at + HEADER_BYTES + _SIZE.size
                if end < body:
                    break
                at = body
                flow = self._begin_flow(head, _SIZE.unpack_from(data, body - _SIZE.size)[0])
                while self._flow is not None and at < end:
                    part = data[at : at + len(flow.room)]
                    flow.room[: len(part)] = part
                    at += len(part)
                    yield from self._flowed(flow, len(part))
                continue
            body = at + HEADER_BYTES + 4 * count
            if end < body:
                break
            sizes = struct.unpack_from(f"<{count}I", data, at + HEADER_BYTES)
            total = sum(sizes)
            if count and max(sizes) > FRAME_BYTES_MAX:
                raise BadMessageError(f"a frame of {max(sizes)} bytes")
            if total > self._bytes_max:
                raise BadMessageError(f"a message of {total} bytes")
            if end - body < total:
                if total > READ_BYTES:
                    self._begin_big(head, sizes, total, data[body:])
                    at = end
                break
            yield _build(head, sizes, data[body : body + total])
            at = body + total
        self._rest = data[at:]

    def _begin_flow(self, head: tuple[int, ...], size: int) -> "_Flow":
        if not FRAGMENT_BYTES < size <= self._bytes_max or head[3] != 1:
            raise BadMessageError(f"a value of {size} bytes that flows")
        self._flow = _Flow(head, size, self._hold)
        return self._flow

    def _flowed(self, flow: "_Flow", got: int) -> Iterator[Message]:
        """Yield the next fragment if it is complete now."""
        if (fragment := flow.fill(got)) is not None:
            if fragment.is_last():
                self._flow = None
            yield fragment

    def _begin_big(
        self, head: tuple[int, ...], sizes: tuple[int, ...], total: int, begun: bytes
    ) -> None:
        self._head, self._sizes, self._filled = head, sizes, len(begun)
        self._big = memoryview(bytearray(total))
        self._big[: len(begun)] = begun


class _Flow:
    """A value that is read in fragments."""

    def __init__(
        self, head: tuple[int, ...], size: int, hold: Callable[[memoryview], memoryview]
    ) -> None:
        self._head, self._size, self._hold = head, size, hold
        self._at = 0  # where the fragment begins that is read now
        self._memory = memoryview(
            bytearray(FRAGMENT_BYTES)
        )  # for all of them: new memory costs as much as to fill it
        self._begin()

    def _begin(self) -> None:
        self._fragment = self._memory[: self._size - self._at]
        self.room = self._fragment  # what of it is still empty

    def fill(self, got: int) -> Message | None:
        """Note that so much was read into `room`; return the fragment if it is full."""
        self.room = self.room[got:]
        if len(self.room):
            return None
        whole = _build(self._head, (len(self._fragment),), self._hold(self._fragment))
        fragment = whole._replace(at=self._at, size=self._size)
        self._at += len(self._fragment)
        self._begin()
        return fragment


def _build(head: tuple[int, ...], sizes: tuple[int, ...], body: bytes | memoryview) -> Message:
    frames: list[Frame] = []
    if len(sizes) == 1:
        frames.append(body)
    else:
        at = 0
        for size in sizes:
            frames.append(body[at : at + size])
            at += size
    _, kind, flags, _, cell, lo, hi, a, b = head
    return Message(kind, flags, cell, lo, hi, a, b, frames)


def send(sock: socket.socket, buffers: list[Frame]) -> list[Frame]:
    """Write as much as `sock` takes now; return what is left.

    Raises:
        BlockingIOError: it takes nothing now.
    """
    one = len(buffers) == 1
    sent = sock.send(buffers[0]) if one else sock.sendmsg(buffers[:WRITE_FRAMES_MAX])
    for at, buffer in enumerate(buffers):
        size = len(buffer)
        if sent < size:
            return [memoryview(buffer)[sent:], *buffers[at + 1 :]] if sent else buffers[at:]
        sent -= size
    return []


def send_all(sock: socket.socket, buffers: list[Frame]) -> None:
    """Write all of it to a blocking socket."""
    while buffers:
        buffers = send(sock, buffers)


# --- leaves ---


# batch, lo, hi; the frames of its inputs, or the bytes of the file that has them; what others need
SentLeaf = tuple[int, int, int, Sequence[Frame], int, int]


class LeafMemory:
    """Which leaves a worker remembers. Agent and worker keep one each and do the same to both.

    The worker's holds what it decoded, the agent's None; whether a leaf must be sent is then known
    without asking.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, int], object] = OrderedDict()

    def find(self, batch: int, lo: int) -> object | None:
        """Return what is kept for the leaf that begins at `lo`, and note that it was used."""
        key = (batch, lo)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        return None

    def keep(self, batch: int, lo: int, hi: int, value: object) -> None:
        """Remember a leaf; one with a single input is not worth it."""
        if hi - lo > 1:
            self._kept[batch, lo] = value
            self._kept.move_to_end((batch, lo))
            if len(self._kept) > LEAVES_KEPT:
                self._kept.popitem(last=False)


def pack_span(message: Message, leaves: Sequence[SentLeaf], memory: LeafMemory) -> list[Frame]:
    """Return a SPAN message with those of `leaves` that `memory`, of its worker, has not got."""
    table = bytearray()
    frames: list[Frame] = []
    for batch, lo, hi, own, size, _ in leaves:
        known = memory.find(batch, lo) is not None
        table += LEAF_RECORD.pack(batch, lo, hi, 0 if known else len(own) - size)
        if not known:
            frames += own
            memory.keep(batch, lo, hi, True)
    return pack(message._replace(frames=[bytes(table), *frames]))
