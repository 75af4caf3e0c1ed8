"""Inputs go in by the batch and come out by the range; the windows of both threads agree."""

import pytest

from burla.core.batches import PRUNE_MIN, Batches, Window
from burla.core.effects import Deliver
from burla.protocol import messages as m

JOB, LEASE = b"j" * 16, b"1" * 16


def test_batches_follow_each_other_without_a_gap() -> None:
    batches = Batches(JOB)
    first = batches.add([(2, [b"a"]), (1, [b"b", b"c"])], 3)
    leaves = (m.Leaf(0, 0, 2, 1), m.Leaf(0, 2, 1, 2))
    assert first.message == m.Inputs(job=JOB, batch=0, start=0, leaves=leaves)
    assert (first.payload, first.size, first.left) == ([b"a", b"b", b"c"], 3, 3)
    second = batches.add([(4, [b"d"])], 1, coming=0)
    last = (m.Leaf(1, 3, 4, 1),)
    assert second.message == m.Inputs(job=JOB, batch=1, start=3, leaves=last, total=7)
    assert (batches.end, batches.total) == (7, 7)
    with pytest.raises(AssertionError):
        batches.add([(1, [b"e"])], 1)


def test_a_batch_says_how_many_inputs_are_to_come() -> None:
    batches = Batches(JOB)
    assert batches.add([(2, [b"a"])], 1, coming=5).message.coming == 5
    assert batches.add([(1, [b"b"])], 1).message.coming == 0, "nobody knows"
    assert batches.add([(1, [b"b"])], 1, coming=1 << 60).message.coming == m.NUMBER_MAX
    assert batches.total is None
    last = batches.add([(4, [b"c"])], 1, coming=0).message
    assert (last.coming, last.total) == (0, 8)


def test_an_outcome_counts_once_and_frees_batches_that_are_complete() -> None:
    batches = Batches(JOB)
    batches.add([(4, [b"a"])], 100)
    batches.add([(4, [b"b"])], 200)
    assert batches.finish(2, 5) == ([(2, 5)], 0)
    assert batches.finish(0, 4) == ([(0, 2)], 100)
    assert batches.finish(0, 5) == ([], 0)
    assert [batch.message.batch for batch in batches.open()] == [1]
    batches.check()
    assert batches.finish(4, 8) == ([(5, 8)], 200)
    assert list(batches.open()) == []
    batches.check()


def test_an_endless_job_forgets_what_is_done() -> None:
    batches = Batches(JOB)
    for number in range(10 * PRUNE_MIN):
        batches.add([(2, [b"xx"])], 2)
        assert batches.finish(2 * number, 2 * number + 2) == ([(2 * number, 2 * number + 2)], 2)
    assert len(batches._starts) <= PRUNE_MIN
    batches.check()


def test_a_batch_that_is_not_done_is_found_behind_many_that_are() -> None:
    batches = Batches(JOB)
    for _ in range(2 * PRUNE_MIN):
        batches.add([(1, [b"x"])], 1)
    batches.finish(1, 2 * PRUNE_MIN)
    assert [batch.message.batch for batch in batches.open()] == [0]
    assert batches.finish(0, 1) == ([(0, 1)], 1)
    batches.add([(3, [b"y"])], 3)
    assert batches.finish(2 * PRUNE_MIN, 2 * PRUNE_MIN + 3)[1] == 3
    batches.check()


def test_the_window_always_lets_one_batch_in() -> None:
    window = Window()
    assert window.has_room()
    window.add(1, m.JOB_INPUT_WINDOW + 1)
    assert not window.has_room()
    window.free(Deliver(JOB, LEASE, 1, "n", (), 1, m.JOB_INPUT_WINDOW + 1))
    assert window == Window()


def test_the_window_bounds_tiny_inputs_by_their_number() -> None:
    window = Window()
    window.add(m.JOB_INPUT_COUNT, 1)
    assert not window.has_room()


class Content:
    """A big leaf of the numbers from 0 on, that nobody has pickled."""

    size = 5 << 20

    def read(self, start: int, stop: int) -> list[bytes]:
        return [b"%d-%d" % (start, stop)]

    def frames(self) -> list[bytes]:
        return [b"all", b"of it"]


def with_big_leaf() -> Batches:
    batches = Batches(JOB)
    batches.add([(2, [b"a"]), (1, Content()), (1, [b"b", b"c"])], 3)
    return batches


def test_a_big_leaf_is_announced_to_who_asks_for_it_and_goes_whole_to_others() -> None:
    batches = with_big_leaf()
    (batch,) = batches.open()
    first, last = m.Leaf(0, 0, 2, 1), m.Leaf(0, 3, 1, 2)
    whole = m.Inputs(job=JOB, batch=0, start=0, leaves=(first, m.Leaf(0, 2, 1, 2), last))
    assert batches.to_send(batch) == (whole, [b"a", b"all", b"of it", b"b", b"c"])
    batches.sends_whole = False
    leaves = (first, m.Leaf(0, 2, 1, 0, Content.size), last)
    said = m.Inputs(job=JOB, batch=0, start=0, leaves=leaves)
    assert batches.to_send(batch) == (said, [b"a", b"b", b"c"])


def test_what_is_asked_for_of_a_big_leaf_is_read_in_pieces_until_it_is_done() -> None:
    def wanted(leaf: int, start: int, stop: int, batch: int = 0) -> m.InputWanted:
        return m.InputWanted(LEASE, JOB, batch, leaf, start, start, stop)

    batches, mib = with_big_leaf(), 1 << 20
    asked = batches.pieces(wanted(2, 4 * mib, 9 * mib))
    assert list(asked) == [(m.InputPiece(LEASE, JOB, 2, 4 * mib), [b"4194304-5242880"])]
    pieces = [piece.start for piece, _ in batches.pieces(wanted(2, 0, 3 * mib))]
    assert pieces == [0, mib, 2 * mib]
    for other in (wanted(0, 0, 1), wanted(2, 0, 1, batch=1), wanted(2, 0, 1 << 30)):
        assert list(batches.pieces(other)) == []
    batches.finish(0, 4)
    assert list(batches.pieces(wanted(2, 0, 1))) == []
