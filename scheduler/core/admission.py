"""Which key may act as what: roles, revocation, join tokens. Pure.

A key is looked up for every handshake and for every message, so that whatever changes in the table
counts from the next message on. Times here are Unix time: they stand in a file that people read.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from burla.protocol.admin_messages import AdminToScheduler
from burla.protocol.messages import (
    ClientToScheduler,
    JoiningToScheduler,
    NodeletToScheduler,
)

TOKEN_S = 600.0  # a join token is good for ten minutes, and once
KEYS_MAX = 10_000  # in one table, revoked ones included
NODE_REVOKED_S = 86400.0  # a node's key is told as revoked for so long, then as unknown
NAME_CHARACTERS_MAX = 256
OVERLAP_S_MAX = 30 * 86400.0  # for so long a key that was replaced goes on to count at most
REPLACED_MAX = 10  # such keys of one user: the table is everybody's


class AdmissionError(Exception):
    """A change of the table that makes no sense; the text says why."""


class Role(StrEnum):
    """What a key may do; one key has one role."""

    CLIENT = "client"  # opens jobs
    NODE = "node"  # runs calls
    ADMIN = "admin"  # a client; may also be the autoscaler
    JOIN = "join"  # a join token: may name one key, which is a node's from then on


MAY_SAY: Mapping[Role, Any] = {
    Role.CLIENT: ClientToScheduler,
    Role.ADMIN: AdminToScheduler,
    Role.NODE: NodeletToScheduler,
    Role.JOIN: JoiningToScheduler,
}


class Entry(
    Struct,
    frozen=True,
    rename={"added_s": "added", "revoked_s": "revoked", "expires_s": "expires"},
):
    """What is known of one public key; in the file, times are named without their unit."""

    role: Role
    user: str  # the person; of a node, its name
    added_s: float
    revoked_s: float | None = None
    expires_s: float | None = None  # of a join token, or a key that was replaced

    def is_valid(self, now_s: float) -> bool:
        """Return whether the key may do anything at all."""
        expired = self.expires_s is not None and now_s >= self.expires_s
        return self.revoked_s is None and not expired


Table = dict[str, Entry]  # by public key, as 64 hexadecimal digits


def role_of(table: Table, key: str, now_s: float) -> Role | None:
    """Return what `key` may act as; None: nothing."""
    entry = table.get(key)
    return entry.role if entry is not None and entry.is_valid(now_s) else None


def why_not(table: Table, key: str, now_s: float) -> str:
    """Return why a key has no role, for its holder."""
    entry = table.get(key)
    if entry is None:
        return "this key is not known to the scheduler"
    if entry.role is Role.JOIN:
        used = entry.revoked_s is not None
        return f"this join token {'was used before' if used else 'has expired'}"
    if entry.revoked_s is None and entry.expires_s is not None:
        return "this key was replaced by another one, and has expired"
    return "this key was revoked"


def is_name(user: str) -> bool:
    """Return whether a user or a node can be called so."""
    return 0 < len(user) <= NAME_CHARACTERS_MAX and user.isprintable()


def add(table: Table, key: str, role: Role, user: str, now_s: float) -> Table:
    """Return the table with one more key, or with a known one in another role or of another user.

    Raises:
        AdmissionError: the name is impossible, or the table is full.
    """
    if not is_name(user):
        raise AdmissionError(f"a name must have 1 to {NAME_CHARACTERS_MAX} printable characters")
    kept = prune(table, now_s)
    if key not in kept and len(kept) >= KEYS_MAX:
        raise AdmissionError(f"there are {KEYS_MAX} keys already: revoke some")
    expires_s = now_s + TOKEN_S if role is Role.JOIN else None
    return {**kept, key: Entry(role, user, now_s, None, expires_s)}


def revoke(table: Table, what: str, now_s: float) -> tuple[Table, list[str]]:
    """Return the table without rights for some keys, and which these are.

    Args:
        table: as it is.
        what: a key, the first 8 digits of one or more, or a user: then all of that user's keys.
        now_s: when.

    Raises:
        AdmissionError: no key is meant, or several keys begin with these digits.
    """
    begin = [key for key in table if len(what) >= 8 and key.startswith(what.lower())]
    if len(begin) > 1:
        raise AdmissionError(f"{len(begin)} keys begin with {what}")
    meant = begin or [key for key, entry in table.items() if entry.user == what]
    if not meant:
        raise AdmissionError(f"no key or user is called {what}")
    gone = {key: replace(table[key], revoked_s=table[key].revoked_s or now_s) for key in meant}
    return {**table, **gone}, meant


def join(table: Table, token: str, key: str, name: str, now_s: float) -> Table:
    """Return the table with a node's own key, and its join token used up.

    Raises:
        AdmissionError: the token is not good (any more), or the key has another role.
    """
    if role_of(table, token, now_s) is not Role.JOIN:
        raise AdmissionError(why_not(table, token, now_s))
    known = table.get(key)
    if known is not None and (known.role is not Role.NODE or known.revoked_s is not None):
        raise AdmissionError("this key was revoked, or has another role: make a new one")
    used = {**table, token: replace(table[token], revoked_s=now_s)}
    return add(used, key, Role.NODE, name, now_s)


def succeed(table: Table, old: str, new: str, now_s: float, overlap_s: float) -> Table:
    """Return the table with another key of the same rights; the old one expires.

    Said again of the same keys, it changes nothing.

    Raises:
        AdmissionError: the old key has no rights that last, the new one is known, or too many of
            this user are about to expire.
    """
    entry, newer = table.get(old), table.get(new)
    if entry is None or not entry.is_valid(now_s):
        raise AdmissionError("this key has no rights: use the newer one")
    if entry.expires_s is not None:
        is_same = newer is not None and newer.is_valid(now_s)
        if newer is not None and is_same and (newer.role, newer.user) == (entry.role, entry.user):
            return table  # said again: the answer was lost
        if entry.role is not Role.NODE:  # a nodelet that was killed has lost the key it had made
            raise AdmissionError("this key was replaced before: use the newer one")
    if newer is not None:
        raise AdmissionError("the new key is known already: make another one")
    expiring = sum(e.user == entry.user and e.expires_s is not None for e in table.values())
    if expiring >= REPLACED_MAX:
        raise AdmissionError(f"{expiring} keys of {entry.user} are about to expire: wait for some")
    until_s = entry.expires_s or now_s + min(overlap_s, OVERLAP_S_MAX)
    return add(
        {**table, old: replace(entry, expires_s=until_s)}, new, entry.role, entry.user, now_s
    )


def prune(table: Table, now_s: float) -> Table:
    """Return the table without expired tokens and nodes that were revoked long ago.

    Machines come and go, and each has a key of its own.
    """

    def is_needed(entry: Entry) -> bool:
        if entry.role is Role.NODE and entry.revoked_s is not None:
            return now_s < entry.revoked_s + NODE_REVOKED_S
        return entry.expires_s is None or now_s < entry.expires_s

    return {key: entry for key, entry in table.items() if is_needed(entry)}


class RateLimiter(Struct):
    """Lets through so much a second for each of a bounded number of names, and counts the rest."""

    per_second: int
    names_max: int
    held_back: int = 0
    _seen: dict[str, tuple[float, int]] = field(default_factory=dict)  # since when, how often

    def allows(self, name: str, now_s: float) -> bool:
        """Return whether it is `name`'s turn."""
        since_s, count = self._seen.get(name, (now_s, 0))
        if not since_s <= now_s < since_s + 1.0:
            since_s, count = now_s, 0
        if not count and len(self._seen) >= self.names_max:
            self._seen = {n: x for n, x in self._seen.items() if x[0] <= now_s < x[0] + 1.0}
        full = name not in self._seen and len(self._seen) >= self.names_max
        if full or count >= self.per_second:
            self.held_back += 1
            return False
        self._seen[name] = (since_s, count + 1)
        return True
