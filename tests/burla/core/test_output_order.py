"""Output is handed out once, in order; what is missing is asked for, and given up in the end."""

from burla.core.output_order import (
    EARLY_BYTES_MAX,
    GAP_S,
    REPLAY_AGAIN_S,
    REPLAYS_MAX,
    OutputOrder,
    Piece,
)


def piece(number: int, *chunks: bytes) -> Piece:
    return Piece(number, (1,) * len(chunks), chunks)


def test_what_comes_in_order_is_handed_out_at_once() -> None:
    order = OutputOrder()
    assert order.take(piece(1, b"a", b"b"), 0) == [piece(1, b"a", b"b")]
    assert order.take(piece(3, b"c"), 0) == [piece(3, b"c")]
    assert (order.due, order.look_s) == (4, None)


def test_what_was_seen_is_cut_off() -> None:
    order = OutputOrder()
    order.take(piece(1, b"a", b"b"), 0)
    assert order.take(piece(1, b"a", b"b"), 0) == []
    assert order.take(piece(2, b"b", b"c"), 0) == [piece(3, b"c")]


def test_what_lies_behind_a_gap_waits_for_it() -> None:
    order = OutputOrder()
    assert order.take(piece(3, b"c"), 5) == []
    assert order.lacking()
    assert order.look_s == 5 + GAP_S
    assert order.take(piece(1, b"a", b"b"), 6) == [piece(1, b"a", b"b"), piece(3, b"c")]
    assert not order.lacking()
    assert order.look_s is None


def test_what_is_announced_is_missed_until_it_comes() -> None:
    order = OutputOrder()
    order.announce(0, 1)
    assert not order.lacking()
    order.announce(2, 1)
    assert order.lacking()
    assert order.look_s == 1 + GAP_S
    order.take(piece(1, b"a", b"b"), 2)
    assert not order.lacking()


def test_no_more_than_a_bounded_part_is_kept_behind_a_gap() -> None:
    order = OutputOrder()
    big = b"x" * (EARLY_BYTES_MAX // 2 + 1)
    assert order.take(piece(3, big), 0) == []
    assert order.take(piece(4, big), 0) == []  # not kept: it comes again by replay
    assert order.take(piece(1, b"a", b"b"), 0) == [piece(1, b"a", b"b"), piece(3, big)]
    assert order.due == 4


def test_it_is_asked_for_again_and_again_and_then_given_up() -> None:
    order = OutputOrder()
    order.take(piece(3, b"c"), 0)
    for _ in range(REPLAYS_MAX):
        assert order.ask(1)
        assert order.look_s == 1 + REPLAY_AGAIN_S
    assert not order.ask(1)
    assert order.give_up() == [piece(3, b"c")]
    assert (order.due, order.look_s) == (4, None)


def test_progress_allows_as_many_questions_again() -> None:
    order = OutputOrder()
    order.announce(5, 0)
    assert all([order.ask(1) for _ in range(REPLAYS_MAX)])
    order.take(piece(1, b"a"), 2)
    assert order.ask(3)


def test_of_a_lost_lease_nothing_is_asked_for() -> None:
    order = OutputOrder()
    order.announce(2, 0)
    order.lose(1)
    assert order.look_s == 1 + GAP_S  # what is under way has a moment to arrive
    assert not order.ask(2)
    assert order.give_up() == []
    assert (order.due, order.lacking()) == (3, False)
