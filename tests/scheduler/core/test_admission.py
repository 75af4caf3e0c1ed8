"""Who may act as what: roles, revocation, tokens, and what a stranger learns."""

import pytest

from burla.protocol import messages as m
from burla.protocol.codec import WireError, decode, encode
from burla.scheduler.core.admission import (
    KEYS_MAX,
    MAY_SAY,
    TOKEN_S,
    AdmissionError,
    Entry,
    RateLimiter,
    Role,
    Table,
    add,
    join,
    revoke,
    role_of,
    why_not,
)

ANNA, BERT, NODE, TOKEN = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)


def table() -> Table:
    made = add({}, ANNA, Role.CLIENT, "anna", 0.0)
    return add(made, TOKEN, Role.JOIN, "join token", 0.0)


def test_a_key_is_nobody_until_it_is_added_and_after_it_is_revoked() -> None:
    assert role_of({}, ANNA, 0.0) is None
    assert role_of(table(), ANNA, 0.0) is Role.CLIENT
    gone, keys = revoke(table(), ANNA, 5.0)
    assert keys == [ANNA]
    assert role_of(gone, ANNA, 5.0) is None
    assert "revoked" in why_not(gone, ANNA, 5.0)
    assert "not known" in why_not(gone, BERT, 5.0)
    again = add(gone, ANNA, Role.CLIENT, "anna", 6.0)
    assert role_of(again, ANNA, 6.0) is Role.CLIENT


def test_keys_are_revoked_by_their_beginning_or_by_their_user() -> None:
    both = add(table(), BERT, Role.ADMIN, "anna", 0.0)
    assert revoke(both, "anna", 1.0)[1] == [ANNA, BERT]
    assert revoke(both, "b" * 8, 1.0)[1] == [BERT]
    near = add(both, "b" * 63 + "0", Role.CLIENT, "x", 0.0)
    with pytest.raises(AdmissionError, match="2 keys begin"):
        revoke(near, "b" * 8, 1.0)
    for nobody in ("b" * 7, "carl", ""):
        with pytest.raises(AdmissionError, match="no key or user"):
            revoke(near, nobody, 1.0)


def test_a_token_makes_one_key_a_nodes_and_is_used_up() -> None:
    joined = join(table(), TOKEN, NODE, "n1", 1.0)
    assert role_of(joined, NODE, 1.0) is Role.NODE
    assert role_of(joined, TOKEN, 1.0) is None
    with pytest.raises(AdmissionError, match="was used before"):
        join(joined, TOKEN, BERT, "n2", 2.0)


def test_a_token_expires() -> None:
    assert role_of(table(), TOKEN, TOKEN_S - 1) is Role.JOIN
    with pytest.raises(AdmissionError, match="has expired"):
        join(table(), TOKEN, NODE, "n1", TOKEN_S)
    assert TOKEN not in add(table(), BERT, Role.CLIENT, "bert", TOKEN_S)  # nobody needs it


def test_a_token_changes_no_key_that_is_something_else() -> None:
    with pytest.raises(AdmissionError, match="has another role"):
        join(table(), TOKEN, ANNA, "n1", 1.0)
    gone, _ = revoke(join(table(), TOKEN, NODE, "n1", 1.0), NODE, 2.0)
    fresh = add(gone, BERT, Role.JOIN, "join token", 2.0)
    with pytest.raises(AdmissionError, match="was revoked"):
        join(fresh, BERT, NODE, "n1", 3.0)  # it does not get back in by a token


@pytest.mark.parametrize("key", [ANNA, BERT])
def test_what_is_no_token_lets_nobody_join(key: str) -> None:
    with pytest.raises(AdmissionError):
        join(table(), key, NODE, "n1", 1.0)


def test_names_and_numbers_are_bounded() -> None:
    for name in ("", "a\nb", "n" * 257):
        with pytest.raises(AdmissionError, match="printable"):
            add({}, ANNA, Role.CLIENT, name, 0.0)
    full = {f"{number:064x}": Entry(Role.CLIENT, "u", 0.0) for number in range(KEYS_MAX)}
    with pytest.raises(AdmissionError, match="10000 keys already"):
        add(full, ANNA, Role.CLIENT, "anna", 0.0)
    assert len(add(full, f"{1:064x}", Role.NODE, "u", 0.0)) == KEYS_MAX


@pytest.mark.parametrize(
    ("role", "message", "may"),
    [
        (Role.CLIENT, m.CloseJob(bytes(16)), True),
        (Role.ADMIN, m.CloseJob(bytes(16)), True),
        (Role.NODE, m.CloseJob(bytes(16)), False),
        (Role.JOIN, m.CloseJob(bytes(16)), False),
        (Role.NODE, m.Stopped(bytes(16)), True),
        (Role.CLIENT, m.Stopped(bytes(16)), False),
        (Role.ADMIN, m.Stopped(bytes(16)), False),
        (Role.JOIN, m.Join(m.PROTOCOL, bytes(32), "n"), True),
        (Role.CLIENT, m.Join(m.PROTOCOL, bytes(32), "n"), False),
        (Role.NODE, m.Join(m.PROTOCOL, bytes(32), "n"), False),
        (Role.JOIN, m.Heartbeat(), False),
    ],
)
def test_each_role_has_its_own_words(role: Role, message: m.Message, may: bool) -> None:
    if may:
        assert decode(encode(message), MAY_SAY[role])[0] == message
    else:
        with pytest.raises(WireError):
            decode(encode(message), MAY_SAY[role])


def test_whoever_floods_is_counted_and_others_are_not_touched() -> None:
    pace = RateLimiter(per_second=2, names_max=3)
    assert [pace.allows("a", 0.1 * n) for n in range(5)] == [True, True, False, False, False]
    assert pace.held_back == 3
    assert pace.allows("b", 0.5)
    assert pace.allows("c", 0.5)
    assert not pace.allows("d", 0.5)  # no room for more names in this second
    assert pace.allows("d", 2.0)
    assert pace.allows("a", 2.0)
    assert pace.allows("a", 1.0)  # a clock that was set back holds nobody up


def test_no_role_is_forgotten() -> None:
    assert set(MAY_SAY) == set(Role)
