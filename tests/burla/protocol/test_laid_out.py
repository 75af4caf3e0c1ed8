"""How big values lie in one piece is said twice: where they are made, and where they are cut."""

import struct

import pytest

from burla.limits import BUFFERS_MAX, FRAME_BYTES_MAX
from burla.protocol import laid_out
from burla.protocol.laid_out import frames_of
from burla.values import shared_memory
from burla.values.frames import LaidOut, take_apart_plain

MB = 1 << 20


@pytest.mark.parametrize(
    "value",
    [
        bytearray(MB + 1),
        [bytearray(1 << 14), bytearray((1 << 14) + 1), bytearray(3 * MB + 7)],
        [str(number) for number in range(300_000)],  # all of it is a pickle
        ["x" * (2 * MB), bytearray(MB)],
    ],
)
def test_it_is_cut_into_the_frames_that_its_caller_would_send(value: object) -> None:
    laid = LaidOut(take_apart_plain(value))
    (image,) = laid.read(0, laid.size)
    frames = frames_of(memoryview(image))
    assert frames == laid.frames()
    assert max(map(len, frames)) <= FRAME_BYTES_MAX


@pytest.mark.parametrize(
    "image",
    [
        b"",
        bytes(9),
        struct.pack("<cIQ", b"\x01", 0, 5) + bytes(4),
        struct.pack("<cIQ", b"\x01", 0, 5) + bytes(6),
        struct.pack("<cIQ", b"\x01", 0, 1 << 63),
        struct.pack("<cI", b"\x01", 0xFFFFFFFF) + bytes(99),
        struct.pack("<cI", b"\x01", BUFFERS_MAX + 1) + bytes(8 * BUFFERS_MAX + 99),
    ],
)
def test_what_lies_otherwise_is_refused(image: bytes) -> None:
    with pytest.raises(ValueError, match=r"head|buffers|parts"):
        frames_of(memoryview(image))


def test_both_align_alike() -> None:
    assert laid_out.ALIGN == shared_memory.ALIGN
