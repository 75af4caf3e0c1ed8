"""A blob on its way in."""

from hashlib import sha256

from burla.protocol.arriving import STALLED_S, Arriving, pieces_of
from burla.protocol.messages import BLOB_PIECE_BYTES, BLOB_WINDOW

MIB = 1 << 20


def arriving(content: bytes) -> Arriving:
    return Arriving(sha256(content).digest(), len(content))


def test_what_comes_in_order_is_whole_in_the_end() -> None:
    one = arriving(b"abcdef")
    assert one.ask(0) == (0, 6)
    assert one.ask(0) is None
    assert one.take(0, [b"ab", b"c"], 1)
    assert not one.is_whole()
    assert one.take(3, [b"def"], 2)
    assert one.is_whole()
    assert one.ask(2) is None


def test_a_bounded_part_is_asked_for_ahead() -> None:
    content = bytes(3 * BLOB_WINDOW)
    one = arriving(content)
    assert one.ask(0) == (0, BLOB_WINDOW)
    at = 0
    while not one.is_whole():
        assert one.take(at, [content[at : at + MIB]], 0)
        at += MIB
        part = one.ask(0)
        assert one.asked - one.have <= BLOB_WINDOW
        assert part is None or part[1] == one.asked
        assert one.asked > one.have or one.is_whole()


def test_what_was_not_asked_for_changes_nothing() -> None:
    one = arriving(b"abcdef")
    assert not one.take(0, [b"abcdef"], 0)
    one.ask(0)
    assert not one.take(1, [b"bcdef"], 0)
    assert not one.take(0, [b""], 0)
    assert not one.take(0, [b"abcdefg"], 0)
    assert one.have == 0
    big = arriving(bytes(4 * MIB))
    big.ask(0)
    assert not big.take(0, [bytes(BLOB_PIECE_BYTES + 1)], 0)


def test_other_bytes_than_the_name_says_are_forgotten() -> None:
    one = arriving(b"abcdef")
    one.ask(0)
    assert one.take(0, [b"abcdeF"], 0)
    assert (one.have, one.wrong, one.is_whole()) == (0, 1, False)
    assert one.ask(0) == (0, 6)
    assert one.take(0, [b"abcdef"], 0)
    assert one.is_whole()


def test_what_is_lost_is_asked_for_again() -> None:
    one = arriving(bytes(2 * MIB))
    assert not one.is_stalled(100)
    one.ask(0)
    one.take(0, [bytes(MIB)], 1)
    assert not one.is_stalled(1 + STALLED_S - 0.1)
    assert one.is_stalled(1 + STALLED_S)
    one.forget_asked()
    assert one.ask(9) == (MIB, 2 * MIB)
    assert not one.is_stalled(9)


def test_pieces_are_small() -> None:
    assert pieces_of(0, 0) == []
    assert pieces_of(5, 2 * MIB + 5) == [(5, MIB + 5), (MIB + 5, 2 * MIB + 5)]
    assert pieces_of(0, MIB + 1) == [(0, MIB), (MIB, MIB + 1)]
