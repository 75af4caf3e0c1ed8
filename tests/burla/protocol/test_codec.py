"""Messages to frames and back; what is not a message is a WireError and nothing else."""

from contextlib import suppress

import msgpack
import pytest
from hypothesis import given, strategies as st

from burla.limits import FRAME_BYTES_MAX
from burla.protocol import messages as m
from burla.protocol.codec import (
    BLOCK_BYTES,
    OverLimitError,
    Reassembler,
    WireError,
    decode,
    encode,
    pack_runs,
    split,
    unpack_runs,
)

JOB = bytes(range(16))


def batch(size: int = 1) -> m.Inputs:
    return m.Inputs(job=JOB, batch=0, start=0, leaves=(m.Leaf(0, 0, 5, size),))


def test_a_message_comes_back_as_it_was() -> None:
    frames = encode(batch(), [b"payload"])
    assert decode(frames, m.ClientToScheduler) == (batch(), [b"payload"])


def test_a_message_of_another_direction_is_refused() -> None:
    frames = encode(m.EndLease(JOB, discard=True))
    with pytest.raises(WireError):
        decode(frames, m.ClientToScheduler)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xc1",
        b"\xdd\xff\xff\xff\xff",  # an array of 2^32 elements
        b"\x91" * 100_000,
        msgpack.packb(["Beat", 1]),
        msgpack.packb(["CloseJob", b"short"]),
        msgpack.packb(["InputsEnd", JOB, -1]),
        msgpack.packb(["InputsEnd", JOB, 1 << 60]),
        msgpack.packb(["CloseJob", "x" * 16]),
        msgpack.packb({"CloseJob": JOB}),
        b"\x00" * (m.HEADER_BYTES_MAX + 1),
    ],
)
def test_what_is_no_message_is_a_wire_error(header: bytes) -> None:
    with pytest.raises(WireError):
        decode([header], m.ClientToScheduler)


@given(st.binary(max_size=200))
def test_no_bytes_do_harm(header: bytes) -> None:
    for direction in (m.ClientToScheduler, m.NodeletToScheduler, m.SchedulerToNodelet):
        with suppress(WireError):
            decode([header], direction)


@given(st.data())
def test_no_mutation_of_a_message_does_harm(data: st.DataObject) -> None:
    header = bytearray(encode(batch())[0])
    for _ in range(data.draw(st.integers(1, 4))):
        header[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))
    try:
        message, _ = decode([bytes(header)], m.ClientToScheduler)
    except WireError:
        return
    assert isinstance(message, m.Message)


def test_a_large_payload_travels_in_pieces_and_is_joined_again() -> None:
    payload = [bytes([i]) * FRAME_BYTES_MAX for i in range(7)]
    pieces = split(batch(7), payload)
    assert len(pieces) == 4
    assert max(sum(map(len, frames)) for _, frames in pieces) <= m.PAYLOAD_BYTES_MAX
    joiner = Reassembler(16 << 20)
    whole = [joiner.add(*decode(encode(*piece), m.ClientToScheduler)) for piece in pieces]
    assert whole == [None, None, None, (batch(7), payload)]


def test_pieces_of_two_messages_may_alternate() -> None:
    one, two = batch(3), m.Inputs(job=JOB, batch=1, start=5, leaves=(m.Leaf(1, 5, 1, 3),))
    payload = [b"a" * FRAME_BYTES_MAX] * 3
    joiner = Reassembler(16 << 20)
    pairs = zip(split(one, payload), split(two, payload), strict=True)
    whole = [joiner.add(*piece) for pair in pairs for piece in pair]
    assert [w[0] for w in whole if w] == [one, two]


def test_a_piece_out_of_order_is_refused_and_the_next_message_is_fine() -> None:
    payload = [b"a" * FRAME_BYTES_MAX] * 5
    pieces = split(batch(5), payload)
    joiner = Reassembler(16 << 20)
    with pytest.raises(WireError):
        joiner.add(*pieces[1])
    assert [joiner.add(*piece) for piece in pieces][-1] == (batch(5), payload)


def test_unfinished_messages_are_bounded() -> None:
    joiner = Reassembler(3 << 20)
    pieces = split(batch(9), [b"a" * FRAME_BYTES_MAX] * 9)
    joiner.add(*pieces[0])
    with pytest.raises(OverLimitError) as raised:
        joiner.add(*pieces[1])
    assert raised.value.message == pieces[1][0]  # for whom it was must not wait
    assert raised.value.bytes_max == 3 << 20


def test_a_header_that_is_too_long_is_not_sent() -> None:
    leaves = tuple(m.Leaf(0, i, 1, 1) for i in range(400_000))
    with pytest.raises(WireError):
        encode(m.Inputs(job=JOB, batch=0, start=0, leaves=leaves))


def test_frames_of_many_runs_travel_in_few_and_come_apart_again() -> None:
    big = b"b" * (BLOCK_BYTES + 1)
    runs = [
        (m.Run(at, at + 1, m.Kind.RESULT, len(frames)), frames)
        for at, frames in enumerate([[b"a"], [b"bc", b"d"], [big], [b"e", big, big], [b"f"] * 9])
    ]
    table, payload = pack_runs(runs)
    assert unpack_runs(table, payload) == runs
    assert len(payload) == 6
    small = [(m.Run(at, at + 1, m.Kind.RESULTS, 1), [b"x" * 50]) for at in range(256)]
    table, payload = pack_runs(small)
    assert (len(payload), len(table)) < (2, 2 * 256 + 64)  # one row
    assert unpack_runs(table, payload) == small


@pytest.mark.parametrize(
    ("table", "payload"),
    [
        (b"", [b"x"]),
        (b"\xc1", [b"x"]),
        (msgpack.packb([[0, 1, 0, [], False]]), []),
        (msgpack.packb([[0, 1, 0, [0], False]]), [b""]),
        (msgpack.packb([[0, 1, 0, [2], False]]), [b"x"]),
        (msgpack.packb([[0, 1, 0, [1], False]]), [b"xy"]),
        (msgpack.packb([[0, 1, 0, [1], False]]), [b"x", b"y"]),
        (msgpack.packb([[0, 1, 9, [1], False]]), [b"x"]),
        (msgpack.packb([[0, 0, 0, [1], False]]), [b"x"]),
        (msgpack.packb([[-1, 1, 0, [1], False]]), [b"x"]),
        (msgpack.packb([[0, 1, 0, 1, False]]), [b"x"]),
        (msgpack.packb([[0, 3, 0, [1, 1], True]]), [b"xx"]),
        (msgpack.packb([[3, 1, 0, [1, 1], True]]), [b"xx"]),
        (msgpack.packb([[0, 1, 0, [-1], False]]), [b"x"]),
        (msgpack.packb([[0, 1, 0, [1 << 60], False]]), [b"x"]),
    ],
)
def test_a_table_that_does_not_fit_its_payload_is_no_message(
    table: bytes, payload: list[bytes]
) -> None:
    with pytest.raises(WireError):
        unpack_runs(table, payload)
