"""Lines are kept whole, and windows hold, whatever comes in which pieces."""

from burla.nodelet.core.effects import Send
from burla.nodelet.core.streams import (
    GATHER_CALLS,
    LINE_BYTES_MAX,
    LINE_WAIT_MOST_S,
    LINE_WAIT_S,
    OutcomeStream,
    OutputStream,
)
from burla.protocol.messages import Kind, Output, Run

LEASE = b"L" * 16


def chunks(sends: list[Send]) -> list[tuple[int, bytes]]:
    """Return streams and bytes of output messages."""
    found: list[tuple[int, bytes]] = []
    for send in sends:
        assert isinstance(send.message, Output)
        found += zip(send.message.streams, send.payload, strict=True)
    return found


def test_pieces_of_a_line_are_put_together_and_other_workers_go_between_lines() -> None:
    output = OutputStream(LEASE)
    output.add(1, 1, b"one\ntw", 0.0)
    output.add(2, 1, b"of another\n", 0.0)
    output.add(1, 2, b"an error\n", 0.0)
    output.add(1, 1, b"o\n", 0.0)
    got = [(1, b"one\n"), (1, b"of another\n"), (2, b"an error\n"), (1, b"two\n")]
    assert chunks(output.take()) == got
    output.check()


def test_the_beginning_of_a_line_goes_when_nothing_follows() -> None:
    output = OutputStream(LEASE)
    output.add(1, 1, b"50 %", 0.0)
    assert output.lines_due_s() == LINE_WAIT_S
    output.release(LINE_WAIT_S / 2)
    assert output.take() == []
    output.release(LINE_WAIT_S)
    assert chunks(output.take()) == [(1, b"50 %")]


def test_it_waits_longer_while_nobody_reads() -> None:
    output = OutputStream(LEASE)
    output.add(1, 1, b"half", 0.0)
    output.hold(1.0)
    assert output.lines_due_s() == 1.0 + LINE_WAIT_S
    output.release(1.0)
    assert output.take() == []


def test_who_looks_late_has_read_nothing_meanwhile_and_waits_once_more() -> None:
    output = OutputStream(LEASE)
    output.add(1, 1, b"ha", 0.0)
    late_s = 3 * LINE_WAIT_S
    output.release(late_s)
    assert output.take() == []
    assert output.lines_due_s() == late_s + LINE_WAIT_S
    output.add(1, 1, b"lf\n", late_s)
    assert chunks(output.take()) == [(1, b"half\n")]


def test_but_not_for_ever() -> None:
    output = OutputStream(LEASE)
    output.add(1, 1, b"50 %", 0.0)
    now_s = 0.0
    while not (got := output.take()):
        now_s += 3 * LINE_WAIT_S
        output.release(now_s)
    assert chunks(got) == [(1, b"50 %")]
    assert LINE_WAIT_MOST_S <= now_s <= LINE_WAIT_MOST_S + 3 * LINE_WAIT_S


def test_a_line_without_end_is_bounded() -> None:
    output = OutputStream(LEASE)
    piece = b"x" * (LINE_BYTES_MAX // 2)
    output.add(1, 1, piece, 0.0)
    assert output.take() == []
    output.add(1, 1, piece, 0.0)
    assert chunks(output.take()) == [(1, 2 * piece)]


def test_what_is_marked_goes_ahead_of_outcomes_and_the_rest_waits() -> None:
    output = OutputStream(LEASE)
    output.add(1, 1, b"done", 0.0)
    output.add(2, 1, b"in the middle", 0.0)
    output.mark(1)
    output.release(0.0, marked=True)
    assert chunks(output.take()) == [(1, b"done")]


def test_lines_alone_make_nobody_wait_for_an_acknowledgement() -> None:
    output = OutputStream(LEASE)
    output.add(1, 1, b"x", 0.0)
    assert not output.waits_for_ack()
    output.add(1, 1, b"\n", 0.0)
    output.take()
    assert output.waits_for_ack()
    output.ack(1)
    assert not output.waits_for_ack()


def test_outcomes_of_very_many_calls_wait_for_no_others() -> None:
    outcomes = OutcomeStream(LEASE, window=1000)
    half = GATHER_CALLS // 2
    outcomes.add(Run(0, half, Kind.RESULTS, 1), [b"x"], 0.0)
    assert not outcomes.is_big()
    outcomes.add(Run(half, 2 * half, Kind.RESULTS, 1), [b"y"], 0.0)
    assert outcomes.is_big()
    outcomes.take(0, 0.0)
    outcomes.add(Run(2 * half, 3 * half, Kind.RESULTS, 1), [b"z"], 0.0)
    assert not outcomes.is_big()
    outcomes.check()


def test_outcomes_are_kept_until_they_are_acknowledged() -> None:
    outcomes = OutcomeStream(LEASE, window=10)
    outcomes.add(Run(0, 2, Kind.RESULTS, 1), [b"x" * 6], 0.0)
    first = outcomes.take(0, 0.1)
    outcomes.add(Run(5, 6, Kind.ERROR, 1), [b"y" * 6], 0.0)
    assert outcomes.is_full()
    second = outcomes.take(3, 0.1)
    assert outcomes.again() == [first, second]
    outcomes.ack(7)  # never sent
    outcomes.ack(1)
    assert outcomes.again() == [second]
    assert list(outcomes.held) == [(5, 6)]
    outcomes.ack(2)
    assert outcomes.is_empty()
    outcomes.check()


def inputs(output: OutputStream) -> list[tuple[bytes, tuple[int, int]]]:
    """Return what is sent now, with the inputs that it may be of."""
    found: list[tuple[bytes, tuple[int, int]]] = []
    for send in output.take():
        assert isinstance(send.message, Output)
        found += zip(send.payload, send.message.inputs, strict=True)
    output.check()
    return found


def test_each_call_has_chunks_of_its_own_and_many_short_ones_share_them() -> None:
    output = OutputStream(LEASE)
    for index in range(3):
        output.add(1, 1, b"one of %d\n" % index, 0.0, (index, index + 1))
        output.add(1, 1, b"two of %d\n" % index, 0.0, (index, index + 1))
    output.add(1, 1, b"many\n", 0.0, (10, 50))
    output.add(1, 1, b"more\n", 0.0, (40, 90))
    assert inputs(output) == [
        (b"one of 0\ntwo of 0\n", (0, 1)),
        (b"one of 1\ntwo of 1\n", (1, 2)),
        (b"one of 2\ntwo of 2\n", (2, 3)),
        (b"many\nmore\n", (10, 90)),
    ]


def test_a_line_of_two_calls_may_be_of_both_and_the_next_one_is_not() -> None:
    output = OutputStream(LEASE)
    output.add(1, 1, b"half", 0.0, (3, 4))
    output.add(1, 1, b" and half\nnext\n", 0.0, (4, 5))
    output.add(1, 1, b"unknown\n", 0.0)
    assert inputs(output) == [
        (b"half and half\n", (3, 5)),
        (b"next\n", (4, 5)),
        (b"unknown\n", (0, 0)),
    ]
