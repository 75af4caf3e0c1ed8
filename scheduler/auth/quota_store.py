"""What each user may have at once: a file beside the table of keys, followed by the scheduler.

The command line of the scheduler says what everybody may have; the file says what differs, for
everybody or for one user. Like the table of keys it is replaced as a whole.
"""

import logging
import os
from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from burla.scheduler.core.quotas import Quotas, Tenants
from burla.transport.descriptors import spare
from burla.transport.keys import KeyFileError, read_private, write_private

from .key_store import KeyStore, Stamp, stamp_of

QUOTAS = "quotas.json"
FILE_BYTES_MAX = 8 << 20
FORMAT = 1
LOOK_S = 0.5  # between two looks at the files
AT_LEAST_1 = Annotated[int, Meta(ge=1, le=1 << 53)]

log = logging.getLogger(__name__)


class Limits(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one user, or everybody, may have at once; None: what holds for everybody."""

    jobs: AT_LEAST_1 | None = None
    inputs: AT_LEAST_1 | None = None
    bytes: AT_LEAST_1 | None = None
    opens: AT_LEAST_1 | None = None  # a second

    def over(self, base: Quotas) -> Quotas:
        """Return `base` with what is said here."""
        return Quotas(
            base.jobs_max if self.jobs is None else self.jobs,
            base.inputs_max if self.inputs is None else self.inputs,
            base.bytes_max if self.bytes is None else self.bytes,
            base.opens_per_s if self.opens is None else self.opens,
        )

    def updated(self, other: "Limits") -> "Limits":
        """Return this with what `other` says."""
        said = {
            name: value
            for name in other.__struct_fields__
            if (value := getattr(other, name)) is not None
        }
        return replace(self, **said)


class QuotaTable(Struct, frozen=True, forbid_unknown_fields=True):
    """What is in the file."""

    format: int = FORMAT
    everybody: Limits = Limits()
    users: dict[str, Limits] = {}

    def changed(self, user: str | None, limits: Limits | None) -> "QuotaTable":
        """Return the table with limits of a user or, None, of everybody; None: without any."""
        if user is None:
            new = Limits() if limits is None else self.everybody.updated(limits)
            return replace(self, everybody=new)
        users = {name: own for name, own in self.users.items() if name != user}
        if limits is not None:
            users[user] = self.users.get(user, Limits()).updated(limits)
        return replace(self, users=users)

    def tenants(self, base: Quotas, users: dict[str, str]) -> Tenants:
        """Return who the tenants are, and what each may have.

        Args:
            base: what everybody may have if nothing is said.
            users: public key -> user.
        """
        default = self.everybody.over(base)
        own = {user: limits.over(default) for user, limits in self.users.items()}
        return Tenants(default, own, users)


class QuotaStore:
    """The file of quotas in a key directory."""

    def __init__(self, key_store: KeyStore) -> None:
        """Look at nothing yet."""
        self._key_store = key_store
        self._path = str(key_store.directory / QUOTAS)

    def stamp(self) -> Stamp | None:
        """Return what tells this state of the file from others; None: it is not there."""
        return stamp_of(self._path)

    def read(self) -> QuotaTable:
        """Return what the file says; nothing if there is none.

        Raises:
            KeyFileError: it is open to others, or is no table of quotas.
        """
        if not os.path.lexists(self._path):
            return QuotaTable()
        try:
            table = msgspec.json.decode(read_private(self._path, FILE_BYTES_MAX), type=QuotaTable)
        except ValueError as error:  # all of msgspec are
            raise KeyFileError(f"{self._path} is not a table of quotas: {error}") from None
        if table.format != FORMAT:
            raise KeyFileError(f"{self._path} has format {table.format}, expected {FORMAT}")
        return table

    def change(self, change: Callable[[QuotaTable], QuotaTable]) -> QuotaTable:
        """Replace the table by what `change` makes of it, and return that.

        Raises:
            KeyFileError: the file is refused, or another process keeps the lock.
            OSError: it cannot be written.
        """
        with self._key_store.locked():
            table = change(self.read())
            text = msgspec.json.format(msgspec.json.encode(table), indent=1).decode() + "\n"
            write_private(self._path, text, replace=True)
        return table


async def follow(key_store: KeyStore, base: Quotas, take: Callable[[Tenants], None]) -> None:
    """Call `take` now and whenever users or quotas have changed, until cancelled.

    A file that is refused is complained of once, and what was known before stays in use.
    """
    import asyncio  # commands take the table from here, too, and wait for nothing

    quotas = QuotaStore(key_store)
    known: object = None
    while True:
        stamps = key_store.stamp(), quotas.stamp()
        if stamps != known:
            first, known = known is None, stamps
            try:
                with spare():
                    users = {key: entry.user for key, entry in key_store.read().items()}
                    table = quotas.read()
                take(table.tenants(base, users))
            except (KeyFileError, OSError) as error:
                log.error("the quotas in use stay: %s", error)
            else:
                if not first:
                    log.info("reloaded users and quotas")
        await asyncio.sleep(LOOK_S)
