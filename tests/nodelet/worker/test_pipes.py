import os
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from burla.limits import FRAGMENT_BYTES, FRAME_BYTES_MAX
from burla.nodelet.worker.pipes import (
    HEADER_BYTES,
    LEAVES_KEPT,
    MESSAGE_BYTES_MAX,
    BadMessageError,
    Flag,
    Frame,
    Kind,
    LeafMemory,
    Message,
    Parser,
    SentLeaf,
    pack,
    pack_span,
    send,
    send_all,
    unpack_header,
)

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    here, there = socket.socketpair()
    here.setblocking(False)
    yield here, there
    here.close()
    there.close()


def joined(message: Message) -> bytes:
    return b"".join(pack(message))


def plain(message: Message) -> tuple[object, ...]:
    return (*message[:7], [bytes(frame) for frame in message.frames])


SOME = Message(Kind.RESULTS, 2, 3, 10, 20, 5, 6, [b"abc", b"", b"xyz"])


def test_messages_come_out_as_they_went_in(pair: Pair) -> None:
    other = Message(Kind.HELLO, a=-7)
    send_all(pair[1], [*pack(SOME), *pack(other), *pack(SOME)])
    messages = Parser(bytearray(1 << 16)).read(pair[0])
    assert messages is not None
    assert [plain(one) for one in messages] == [plain(SOME), plain(other), plain(SOME)]


def test_a_message_may_come_byte_by_byte(pair: Pair) -> None:
    parser = Parser(bytearray(1 << 16))
    got = []
    for byte in joined(SOME):
        pair[1].send(bytes([byte]))
        got += parser.read(pair[0]) or []
    assert [plain(one) for one in got] == [plain(SOME)]


def test_a_big_message_is_read_in_place_and_the_next_one_follows(pair: Pair) -> None:
    frames: list[Frame] = [bytes([number]) * FRAME_BYTES_MAX for number in range(3)]
    big = Message(Kind.RESULT, 0, 0, 1, 2, 0, 0, frames)
    unsent = [*pack(SOME), *pack(big), *pack(SOME)]
    pair[1].setblocking(False)
    parser = Parser(bytearray(1 << 18))
    got: list[Message] = []
    while len(got) < 3:
        with suppress(BlockingIOError):
            unsent = send(pair[1], unsent) if unsent else []
        got += parser.read(pair[0]) or []
    assert [plain(one) for one in got] == [plain(SOME), plain(big), plain(SOME)]


def test_a_value_that_flows_is_read_in_fragments_and_the_next_message_follows(pair: Pair) -> None:
    value = b"".join(number.to_bytes(4, "big") for number in range(640 << 10))
    frames: list[Frame] = [value[:100], memoryview(value)[100:]]
    flows = Message(Kind.RESULT, Flag.FLOWS | Flag.END, 1, 7, 8, 8, 9, frames)
    unsent = [*pack(SOME), *pack(flows), *pack(SOME)]
    pair[1].setblocking(False)
    parser = Parser(bytearray(1 << 18))
    got: list[Message] = []
    while len(got) < 5:
        with suppress(BlockingIOError):
            unsent = send(pair[1], unsent) if unsent else []
        got += parser.read(pair[0]) or []
    assert [plain(one) for one in (got[0], got[-1])] == [plain(SOME), plain(SOME)]
    parts = got[1:-1]
    assert [(one.at, one.size) for one in parts] == [
        (at, len(value)) for at in range(0, len(value), FRAGMENT_BYTES)
    ]
    assert [one.is_last() for one in parts] == [False, False, True]
    assert b"".join(bytes(one.frames[0]) for one in parts) == value
    assert {one[:7] for one in parts} == {flows[:7]}


@pytest.mark.parametrize("size", [1, FRAGMENT_BYTES, MESSAGE_BYTES_MAX + 1])
def test_what_flows_has_a_size_that_a_value_may_have(pair: Pair, size: int) -> None:
    head = pack(Message(Kind.RESULT, Flag.FLOWS))[0][:HEADER_BYTES]
    pair[1].send(bytes(head) + size.to_bytes(8, "little"))
    with pytest.raises(BadMessageError, match="flows"):
        Parser(bytearray(1 << 16)).read(pair[0])


def test_the_end_is_told_from_nothing(pair: Pair) -> None:
    parser = Parser(bytearray(100))
    with pytest.raises(BlockingIOError):
        parser.read(pair[0])
    pair[1].close()
    assert parser.read(pair[0]) is None


@pytest.mark.parametrize("junk", [b"x" * 200, bytes(200), joined(SOME)[1:] + bytes(100)])
def test_junk_is_refused(pair: Pair, junk: bytes) -> None:
    pair[1].send(junk)
    with pytest.raises(BadMessageError):
        Parser(bytearray(1 << 16)).read(pair[0])


def test_sizes_are_bounded_before_memory_is_taken(pair: Pair) -> None:
    head = bytearray(pack(Message(Kind.RESULT))[0])
    head[4:8] = (1).to_bytes(4, "little")
    pair[1].send(bytes(head) + (FRAME_BYTES_MAX + 1).to_bytes(4, "little"))
    with pytest.raises(BadMessageError, match="a frame of"):
        Parser(bytearray(1 << 16)).read(pair[0])
    head[4:8] = (1 << 30).to_bytes(4, "little")
    pair[1].send(head)
    with pytest.raises(BadMessageError):
        Parser(bytearray(1 << 16)).read(pair[0])


def test_a_header_alone_is_a_message_without_frames() -> None:
    fork = Message(Kind.FORK, a=12)
    data = joined(fork)
    assert len(data) == HEADER_BYTES
    assert plain(unpack_header(data)) == plain(fork)
    with pytest.raises(BadMessageError):
        unpack_header(data[:-1])


def leaf(lo: int, hi: int) -> SentLeaf:
    return 1, lo, hi, (b"leaf %d" % lo,), 0, 0


def sent(leaves: list[SentLeaf], memory: LeafMemory) -> list[bytes]:
    """Return the leaves that a SPAN message carries."""
    return [bytes(frame) for frame in pack_span(Message(Kind.SPAN), leaves, memory)[2:]]


def test_a_leaf_that_the_worker_has_is_not_sent_again() -> None:
    memory = LeafMemory()
    assert sent([leaf(0, 256)], memory) == [b"leaf 0"]
    assert sent([leaf(0, 256)], memory) == []
    assert sent([leaf(0, 256), leaf(256, 300)], memory) == [b"leaf 256"]


def test_only_the_leaves_used_last_are_remembered() -> None:
    memory = LeafMemory()
    assert sent([leaf(0, 2)], memory) == [b"leaf 0"]
    for number in range(1, LEAVES_KEPT):
        sent([leaf(number * 2, number * 2 + 2)], memory)
    assert sent([leaf(0, 2)], memory) == []
    sent([leaf(100, 102)], memory)
    assert sent([leaf(0, 2)], memory) == []
    assert sent([leaf(2, 4)], memory) == [b"leaf 2"]


def test_a_leaf_of_one_input_is_not_remembered() -> None:
    memory = LeafMemory()
    assert sent([leaf(5, 6)], memory) == [b"leaf 5"]
    assert sent([leaf(5, 6)], memory) == [b"leaf 5"]


def test_descriptors_come_with_a_message_whatever_was_read_before_it(pair: Pair) -> None:
    parser = Parser(bytearray(1 << 16))
    parser.carry()
    with open("/dev/null", "rb") as one, open("/dev/zero", "rb") as other:
        send_all(pair[1], pack(SOME))
        socket.send_fds(pair[1], [joined(SOME)], [one.fileno(), other.fileno()])
        send_all(pair[1], pack(SOME))
        found = 0
        while found < 3:
            found += len(parser.read(pair[0]) or ())
        there = [os.readlink(f"/proc/self/fd/{fd}") for fd in parser.descriptors]
    for fd in parser.descriptors:
        os.close(fd)
    assert there == ["/dev/null", "/dev/zero"]
