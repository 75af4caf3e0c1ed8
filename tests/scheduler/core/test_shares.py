"""Whose turn it is: who takes too much time waits, and nobody else does."""

from burla.scheduler.core.shares import BACKLOG_BYTES_MAX, DEBT_MAX_S, SAVED_S, SHARE, Shares


def test_who_takes_too_much_waits_until_it_has_paid() -> None:
    shares = Shares()
    shares.charge("anna", SAVED_S / 2, 0.0)
    assert not shares.must_wait("anna", 0.0)
    shares.charge("anna", SAVED_S, 0.0)
    assert shares.must_wait("anna", 0.0)
    assert not shares.must_wait("bert", 0.0)
    assert not shares.must_wait("anna", SAVED_S / SHARE)


def test_what_waits_keeps_its_order_and_goes_on_at_once_when_nobody_else_speaks() -> None:
    shares = Shares()
    shares.charge("anna", 1.0, 0.0)
    for word in (b"1", b"2"):
        assert shares.put("anna", [word])
    assert shares.pop(0.0, is_idle=False) is None
    assert shares.pop(0.0, is_idle=True) == ("anna", [b"1"])
    assert shares.must_wait("anna", 1000.0)  # behind what waits
    assert shares.pop(1000.0, is_idle=False) == ("anna", [b"2"])
    assert not shares
    assert not shares.must_wait("anna", 1000.0)


def test_those_who_wait_take_turns() -> None:
    shares = Shares()
    for user in ("anna", "bert"):
        shares.charge(user, 1.0, 0.0)
        for word in (b"1", b"2"):
            shares.put(user, [word])
    found = [shares.pop(0.0, is_idle=True) for _ in range(4)]
    assert [each and each[0] for each in found] == ["anna", "bert", "anna", "bert"]


def test_what_waits_is_bounded_in_bytes_and_in_empty_frames() -> None:
    shares = Shares()
    shares.charge("anna", 1.0, 0.0)
    big = [bytes(BACKLOG_BYTES_MAX // 2)]
    assert [shares.put("anna", big) for _ in range(2)] == [True, False]
    shares.charge("bert", 1.0, 0.0)
    many = [b""] * (1 << 16)
    put = [shares.put("bert", many) for _ in range(100)]
    assert not all(put)


def test_a_debt_has_an_end_and_quiet_keys_are_forgotten() -> None:
    shares = Shares()
    for _ in range(100):
        shares.charge("anna", 10.0, 0.0)
    assert not shares.must_wait("anna", DEBT_MAX_S / SHARE)
    shares.forget(0.0)
    assert shares.must_wait("anna", 0.0)
    shares.forget(1e6)
    assert not shares.must_wait("anna", 0.0)
