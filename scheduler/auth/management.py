"""What `burla auth` does to the table of keys: where that lies, and over the wire alike."""

import time
from collections.abc import Iterable

from burla.protocol.admin_messages import (
    KEYS_TOLD_MAX,
    KeyOperation,
    KeysManaged,
    KnownKey,
    ManageKeys,
)
from burla.protocol.messages import ReplaceKey
from burla.scheduler.core import admission
from burla.scheduler.core.admission import AdmissionError, Role, Table
from burla.transport.keys import KeyFileError, parse_key

from . import server_key
from .key_store import LOCK_S, KeyStore

ROLES = (Role.CLIENT, Role.NODE, Role.ADMIN)  # a join token is made, not added


def carry_out(
    key_store: KeyStore, said: ManageKeys | ReplaceKey, by: str = "", lock_s: float = LOCK_S
) -> KeysManaged:
    """Do what is said; return the keys that it is about.

    Args:
        key_store: whose table it is.
        said: what is to be done.
        by: the key that says it.
        lock_s: how long to wait for others.

    Raises:
        AdmissionError: it makes no sense.
        KeyFileError: the table is refused, or somebody keeps the lock.
        OSError: it cannot be written.
    """
    if isinstance(said, ReplaceKey):
        return _replace(key_store, said, by, lock_s)
    return _manage(key_store, said, lock_s)


def manage(
    key_store: KeyStore, said: ManageKeys | ReplaceKey, by: str = "", lock_s: float = LOCK_S
) -> KeysManaged:
    """Do what is said, as `carry_out`; return the answer, which may be why nothing was done."""
    try:
        return carry_out(key_store, said, by, lock_s)
    except (AdmissionError, KeyFileError, OSError) as error:
        return KeysManaged(why=str(error))


def _replace(key_store: KeyStore, said: ReplaceKey, by: str, lock_s: float) -> KeysManaged:
    new = said.key.hex()
    table = key_store.change(
        lambda table: admission.succeed(table, by, new, time.time(), said.overlap_s), lock_s
    )
    return _told(table, [by, new])


def _manage(key_store: KeyStore, said: ManageKeys, lock_s: float) -> KeysManaged:
    meant: list[str] = []

    def add(table: Table) -> Table:
        meant[:] = [_key(said.key)]
        return admission.add(table, meant[0], _role(said.role), said.user, time.time())

    def revoke(table: Table) -> Table:
        table, meant[:] = admission.revoke(table, said.key, time.time())
        return table

    match said.operation:
        case KeyOperation.LIST:
            table = key_store.read()
            return _told(table, table)
        case KeyOperation.ADD:
            table = key_store.change(add, lock_s)
        case KeyOperation.REVOKE:
            table = key_store.change(revoke, lock_s)
        case KeyOperation.TOKEN:
            pair = key_store.make_token(lock_s)
            made = _told(key_store.read(), [pair.public.hex()])
            return KeysManaged(made.keys, made.total, token=pair.secret)
        case KeyOperation.ROTATE_SERVER:
            coming = server_key.prepare(key_store, said.overlap_s, lock_s)
            return KeysManaged(server_key=coming.key, from_s=coming.from_s)
        case KeyOperation.ROTATE_NODE:
            raise AdmissionError("a node makes its key itself: ask the scheduler that it serves")
    return _told(table, meant)


def _key(text: str) -> str:
    try:
        return parse_key(text).hex()
    except ValueError as error:
        raise AdmissionError(f"{text!r} is not a key: {error}") from None


def _role(text: str) -> Role:
    if text not in ROLES:
        raise AdmissionError(f"{text!r} is not a role: {', '.join(ROLES)}")
    return Role(text)


def _told(table: Table, keys: Iterable[str]) -> KeysManaged:
    there = [key for key in keys if key in table]
    told = tuple(
        KnownKey(key, e.user, e.role.value, e.added_s, e.revoked_s, e.expires_s)
        for key, e in ((key, table[key]) for key in there[:KEYS_TOLD_MAX])
    )
    return KeysManaged(told, len(there))
