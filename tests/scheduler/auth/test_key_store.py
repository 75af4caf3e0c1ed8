"""The key directory: changed by several processes, read only if nobody else could write it."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from burla.scheduler.auth import key_store
from burla.scheduler.auth.key_store import KeyStore
from burla.scheduler.core import admission
from burla.scheduler.core.admission import Role, Table
from burla.transport.keys import KeyFileError

KEYS = [f"{number:064x}" for number in range(40)]


def added(key: str) -> admission.Table:
    return admission.add({}, key, Role.CLIENT, "u", 1.5)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    made = KeyStore(tmp_path)
    pair = made.make()
    assert KeyStore(tmp_path).make() == pair == made.server_pair()
    before = made.stamp()
    table = made.change(lambda table: admission.add(table, KEYS[0], Role.JOIN, "ü", 1.5))
    assert made.read() == table
    assert made.stamp() != before
    gone = made.change(lambda table: admission.revoke(table, KEYS[0], 2.5)[0])
    assert KeyStore(tmp_path).read() == gone


def test_changes_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    KeyStore(tmp_path).make()

    def change(key: str) -> Table:
        return KeyStore(tmp_path).change(
            lambda table: admission.add(table, key, Role.CLIENT, "u", 1.0), lock_s=20.0
        )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(change, KEYS))
    assert sorted(KeyStore(tmp_path).read()) == sorted(KEYS)


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    made = KeyStore(tmp_path)
    made.make()
    stamp = made.stamp()
    with pytest.raises(admission.AdmissionError):
        made.change(lambda table: admission.revoke(table, "nobody", 1.0)[0])
    assert made.stamp() == stamp
    made.change(lambda table: table)  # the lock is free


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": 2, "keys": {}}',
        '{"format": 1, "keys": []}',
        '{"format": 1, "keys": {"short": {}}}',
        json.dumps({"format": 1, "keys": {KEYS[0]: {"role": "king"}}}),
        json.dumps({"format": 1, "keys": {"short": {"role": "node", "user": "", "added": 0.0}}}),
        json.dumps({"format": 1, "keys": {KEYS[0]: {"role": "node", "user": "", "added": "0"}}}),
    ],
)
def test_what_is_no_table_is_refused(text: str, tmp_path: Path) -> None:
    made = KeyStore(tmp_path)
    made.make()
    (tmp_path / key_store.TABLE).write_text(text)
    with pytest.raises(KeyFileError, match="is not a table of keys"):
        made.read()


def test_there_is_nothing_to_read_before_init(tmp_path: Path) -> None:
    nothing = KeyStore(tmp_path / "nothing")
    assert nothing.stamp() is None
    for read in (nothing.read, nothing.server_pair, lambda: nothing.change(lambda table: table)):
        with pytest.raises(KeyFileError, match="is not there"):
            read()
