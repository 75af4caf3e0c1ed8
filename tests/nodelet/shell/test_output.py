import os
import threading
from collections.abc import Iterator

import pytest

from burla.nodelet.shell.output import LINE_BYTES_MAX, STDERR, STDOUT, OutputPipes


class Reader:
    """Both ends of a worker's pipes, and what was handed over."""

    def __init__(self) -> None:
        self.pipes = OutputPipes()
        self.out, self.err = self.pipes.writers
        self.got: list[tuple[int, bytes]] = []

    def take(self, stream: int, data: bytes) -> None:
        self.got.append((stream, data))


@pytest.fixture
def reader() -> Iterator[Reader]:
    one = Reader()
    yield one
    one.pipes.close()
    for fd in one.pipes.writers:
        os.close(fd)


def test_lines_are_handed_over_and_a_beginning_is_held(reader: Reader) -> None:
    os.write(reader.out, b"one\ntwo\nthr")
    os.write(reader.err, b"error\n")
    assert reader.pipes.drain(reader.take) == []
    assert reader.got == [(STDOUT, b"one\ntwo\n"), (STDERR, b"error\n")]
    os.write(reader.out, b"ee\n")
    reader.pipes.drain(reader.take)
    assert reader.got[2:] == [(STDOUT, b"three\n")]
    assert not reader.pipes.holds


def test_what_is_held_is_released_when_nothing_follows(reader: Reader) -> None:
    os.write(reader.out, b"50 %")
    reader.pipes.drain(reader.take)
    assert reader.pipes.release(reader.take)
    assert reader.got == []
    assert not reader.pipes.release(reader.take)
    assert reader.got == [(STDOUT, b"50 %")]


def test_an_outcome_does_not_wait_for_the_end_of_a_line(reader: Reader) -> None:
    os.write(reader.out, b"no newline")
    reader.pipes.drain(reader.take, settle=True)
    assert reader.got == [(STDOUT, b"no newline")]


def test_a_long_line_that_is_being_written_is_not_torn_by_an_outcome(reader: Reader) -> None:
    size = 1 << 20
    line = b"x" * size + b"\n"
    writer = threading.Thread(target=_write, args=(reader.out, line))
    writer.start()
    while sum(len(data) for _, data in reader.got) < len(line):
        reader.pipes.drain(reader.take, settle=True)
    writer.join()
    assert b"".join(data for _, data in reader.got) == line


def test_a_line_without_end_is_bounded(reader: Reader) -> None:
    written = 0
    while not reader.got:
        written += os.write(reader.out, b"x" * (64 << 10))
        reader.pipes.drain(reader.take)
    assert LINE_BYTES_MAX < written < LINE_BYTES_MAX + (128 << 10)
    assert reader.got == [(STDOUT, b"x" * written)]


def test_the_end_of_a_stream_is_told_with_what_was_held(reader: Reader) -> None:
    os.write(reader.out, b"last words")
    reader.pipes.drain(reader.take)
    os.close(reader.out)
    (ended,) = reader.pipes.drain(reader.take)
    reader.pipes.forget(ended)
    assert reader.got == [(STDOUT, b"last words")]
    assert reader.pipes.drain(reader.take) == []
    reader.out = os.dup(reader.err)
    reader.pipes.writers = (reader.out, reader.err)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
