"""What a worker knows of a call that has ended: where its output ends, and what it took."""

import os
from collections.abc import Iterator

import pytest

from burla.nodelet.shell.output import OutputPipes
from burla.nodelet.shell.traffic import cut
from burla.nodelet.worker.facts import Facts
from burla.nodelet.worker.pipes import FACTS
from burla.nodelet.worker.slate import PAGE_BYTES, AgentSlate, WorkerSlate


class Pair:
    """Both ends of the output of one worker, which is this process."""

    def __init__(self) -> None:
        """Open pipes at descriptors of their own."""
        words = memoryview(bytearray(PAGE_BYTES)).cast("q")
        self.slate, self.pipes = AgentSlate(words), OutputPipes()
        self.pipes.shown = self.slate.output
        self.out, self.err = self.pipes.writers
        self.facts = Facts(WorkerSlate(words), self.pipes.writers)

    def ends(self) -> tuple[int, int]:
        """Return where its output ends, as the worker sees it."""
        _, out, err = FACTS.unpack(self.facts.packed())
        return out, err


@pytest.fixture
def pair() -> Iterator[Pair]:
    one = Pair()
    yield one
    one.pipes.close()
    for fd in (one.out, one.err):
        os.close(fd)


def test_it_knows_where_its_output_ends_however_much_of_it_is_read(pair: Pair) -> None:
    assert pair.ends() == (0, 0)
    os.write(pair.out, b"one\n")
    assert pair.ends() == (4, 0)
    pair.pipes.drain()
    assert pair.ends() == (4, 0)
    os.write(pair.out, b"two\n")
    os.write(pair.err, b"!")
    assert pair.ends() == (8, 1)
    pair.pipes.drain()
    assert pair.pipes.totals == [8, 1]
    assert pair.ends() == (8, 1)


def test_while_the_agent_reads_it_does_not_guess(pair: Pair) -> None:
    os.write(pair.out, b"one\n")
    pair.slate.output[0] += 1
    assert pair.ends() == (-1, 0)


def test_where_the_function_has_put_something_else_it_says_nothing(pair: Pair) -> None:
    os.write(pair.out, b"one\n")
    saved, null = os.dup(pair.out), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, pair.out)
    assert pair.ends() == (-1, 0)
    os.dup2(saved, pair.out)
    assert pair.ends() == (4, 0)
    for fd in (saved, null):
        os.close(fd)


def test_memory_is_told_of_one_call_and_not_of_those_before(pair: Pair) -> None:
    big = bytearray(64 << 20)
    before = FACTS.unpack(pair.facts.packed())[0]
    assert before > len(big)
    del big
    pair.facts.begin()
    assert FACTS.unpack(pair.facts.packed())[0] < before - (32 << 20)


def test_what_was_read_is_cut_where_a_call_ended() -> None:
    printed = [(1, b"one\ntwo\n"), (2, b"error"), (1, b"three\n")]
    totals = [100 + 14, 50 + 5]
    early, late = cut(printed, totals, (104, 55))
    assert early == [(1, b"one\n"), (2, b"error")]
    assert late == [(1, b"two\n"), (1, b"three\n")]
    assert cut(printed, totals, (114, 55)) == (printed, [])
    assert cut(printed, totals, (90, 50)) == ([], printed)
    assert cut(printed, totals, (-1, -1)) == (printed, []), "it is not known: all is before"
