import os
from collections.abc import Iterator

import pytest

from burla.nodelet.shell.output import PIPE_BYTES, STDERR, STDOUT, OutputPipes


@pytest.fixture
def pipes() -> Iterator[OutputPipes]:
    one = OutputPipes()
    yield one
    one.close()


def test_what_is_there_is_read_as_it_is(pipes: OutputPipes) -> None:
    out, err = pipes.writers
    assert pipes.drain() == []
    os.write(out, b"one\ntwo\nthr")
    os.write(err, b"error\n")
    assert pipes.drain() == [(STDOUT, b"one\ntwo\nthr"), (STDERR, b"error\n")]
    os.close(out)
    os.close(err)


def test_a_turn_reads_as_much_as_a_pipe_holds_and_no_more(pipes: OutputPipes) -> None:
    out, err = pipes.writers
    os.set_blocking(out, False)
    written = os.write(out, b"x" * 2 * PIPE_BYTES)
    assert pipes.drain() == [(STDOUT, b"x" * written)]
    assert pipes.drain() == []
    os.close(out)
    os.close(err)


def test_the_end_of_a_stream_is_told_after_what_was_written_last(pipes: OutputPipes) -> None:
    out, err = pipes.writers
    os.write(out, b"last words")
    os.close(out)
    assert pipes.drain() == [(STDOUT, b"last words")]
    assert pipes.drain() == [(STDOUT, b"")]
    assert pipes.forget(STDOUT) == pipes.stdout
    assert pipes.fds == [pipes.stderr]
    os.close(err)
