"""Messages are acknowledged when all before them are safe, and several at once."""

from burla.core.acks import ACK_BYTES, ACK_MESSAGES, Acks


def test_a_message_is_new_once() -> None:
    acks = Acks()
    assert acks.take(1, 10)
    assert not acks.take(1, 10)


def test_a_few_small_ones_wait_for_each_other() -> None:
    acks = Acks()
    for seq in range(1, ACK_MESSAGES + 1):
        acks.take(seq, 10)
    told = [acks.make_safe(seq) for seq in range(1, ACK_MESSAGES + 1)]
    assert told == [False] * (ACK_MESSAGES - 1) + [True]
    assert acks.tell() == ACK_MESSAGES
    acks.check()


def test_big_ones_do_not_wait() -> None:
    acks = Acks()
    acks.take(1, ACK_BYTES)
    assert acks.make_safe(1)


def test_nothing_behind_a_gap_is_told() -> None:
    acks = Acks()
    for seq in range(1, 7):
        acks.take(seq, ACK_BYTES)
    assert not any([acks.make_safe(seq) for seq in range(2, 7)])
    assert acks.safe == 0
    assert acks.make_safe(1)
    assert (acks.safe, acks.tell(), acks.told) == (6, 6, 6)


def test_what_is_safe_again_changes_nothing() -> None:
    acks = Acks()
    acks.take(1, 10)
    acks.make_safe(1)
    acks.tell()
    assert not acks.make_safe(1)
    assert acks.tell() == 1


def test_what_was_told_is_not_new_again() -> None:
    acks = Acks()
    acks.take(1, 10)
    acks.make_safe(1)
    assert acks.tell() == 1
    assert not acks.take(1, 10)
    assert acks.take(2, 10)
    acks.check()
