"""What administrators do to the table of keys, and users to their own."""

import time
from pathlib import Path

import pytest

from burla.protocol.admin_messages import KeyOperation, KeysManaged, ManageKeys
from burla.protocol.messages import ReplaceKey
from burla.scheduler.auth.key_store import KeyStore
from burla.scheduler.auth.management import manage
from burla.scheduler.core import admission
from burla.scheduler.core.admission import OVERLAP_S_MAX, REPLACED_MAX, AdmissionError, Role, Table

OLD, NEW = "ab" * 32, "cd" * 32
HOUR_S = 3600.0


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    made = KeyStore(tmp_path)
    made.make()
    return made


def said(operation: KeyOperation, key: str = "", user: str = "", role: str = "") -> ManageKeys:
    return ManageKeys(operation, key, user, role)


def test_keys_are_added_listed_and_revoked(keys: KeyStore) -> None:
    added = manage(keys, said(KeyOperation.ADD, OLD.upper(), "anna", "client"))
    assert [(known.key, known.user, known.role) for known in added.keys] == [
        (OLD, "anna", "client")
    ]
    assert manage(keys, said(KeyOperation.LIST)) == added
    (gone,) = manage(keys, said(KeyOperation.REVOKE, "anna")).keys
    assert gone.revoked_s is not None
    made = manage(keys, said(KeyOperation.TOKEN))
    assert len(made.token) == 32
    assert made.keys[0].role == "join"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (said(KeyOperation.ADD, "short", "a", "client"), "is not a key"),
        (said(KeyOperation.ADD, OLD, "a", "join"), "'join' is not a role"),
        (said(KeyOperation.ADD, OLD, "a", "king"), "is not a role"),
        (said(KeyOperation.ADD, OLD, "", "client"), "printable"),
        (said(KeyOperation.ADD, OLD, "a\nb", "client"), "printable"),
        (said(KeyOperation.REVOKE, "nobody"), "no key or user"),
    ],
)
def test_what_makes_no_sense_changes_nothing(keys: KeyStore, words: ManageKeys, why: str) -> None:
    before = keys.stamp()
    answer = manage(keys, words)
    assert why in answer.why
    assert answer.keys == ()
    assert keys.stamp() == before


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    assert "is not there" in manage(KeyStore(tmp_path / "no"), said(KeyOperation.LIST)).why


def test_a_key_is_replaced_by_one_of_the_same_rights_and_counts_for_a_while() -> None:
    table = admission.add({}, OLD, Role.ADMIN, "anna", 1.0)
    after = admission.succeed(table, OLD, NEW, 10.0, HOUR_S)
    assert (after[NEW].role, after[NEW].user, after[NEW].expires_s) == (Role.ADMIN, "anna", None)
    assert admission.role_of(after, OLD, 9.0 + HOUR_S) is Role.ADMIN
    assert admission.role_of(after, OLD, 10.0 + HOUR_S) is None
    assert "was replaced by another one" in admission.why_not(after, OLD, 10.0 + HOUR_S)
    long = admission.succeed(table, OLD, NEW, 10.0, 1e12)
    assert long[OLD].expires_s == 10.0 + OVERLAP_S_MAX


def refused(table: Table, old: str, new: str) -> str:
    with pytest.raises(AdmissionError) as error:
        admission.succeed(table, old, new, 10.0, HOUR_S)
    return str(error.value)


def test_only_a_good_key_is_replaced_and_only_by_a_new_one() -> None:
    table = admission.add({}, OLD, Role.CLIENT, "anna", 1.0)
    assert "use the newer one" in refused(table, NEW, "ef" * 32)
    assert "is known already" in refused(table, OLD, OLD)
    after = admission.succeed(table, OLD, NEW, 2.0, HOUR_S)
    assert "use the newer one" in refused(after, OLD, "ef" * 32)
    gone, _ = admission.revoke(table, OLD, 2.0)
    assert "has no rights" in refused(gone, OLD, NEW)


def test_nobody_fills_the_table_by_replacing_keys() -> None:
    table, last = admission.add({}, OLD, Role.CLIENT, "anna", 1.0), OLD
    for number in range(REPLACED_MAX):
        new = f"{number:064x}"
        table, last = admission.succeed(table, last, new, 2.0, HOUR_S), new
    assert "are about to expire" in refused(table, last, NEW)


def test_a_user_replaces_its_own_key_only(keys: KeyStore) -> None:
    manage(keys, said(KeyOperation.ADD, OLD, "anna", "client"))
    began_s = time.time()
    answer = manage(keys, ReplaceKey(bytes.fromhex(NEW), HOUR_S), by=OLD)
    old, new = answer.keys
    assert (old.key, new.key, new.user, new.role) == (OLD, NEW, "anna", "client")
    assert old.expires_s is not None
    assert began_s + HOUR_S <= old.expires_s <= time.time() + HOUR_S
    again = manage(keys, ReplaceKey(bytes(32), HOUR_S), by="ff" * 32)
    assert again == KeysManaged(why=again.why)
    assert again.why
