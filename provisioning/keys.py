"""The keys of a cluster whose scheduler `burla up` starts, and those of whoever runs it.

The scheduler's keys lie in a folder beside the state of the cluster, and go with it.
"""

import getpass
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from burla.provisioning.core.machines import ProvisioningError
from burla.scheduler.auth.key_store import KeyStore
from burla.scheduler.auth.quota_store import Limits, QuotaStore, QuotaTable
from burla.scheduler.config import ConfigError, keys_directory
from burla.scheduler.core import admission
from burla.scheduler.core.admission import AdmissionError, Role
from burla.system.paths import SERVER_KEYS_FILE, USER_KEY_FILE, settings_directory
from burla.transport.keys import KeyFileError, KeyPair, load_or_make_pair
from burla.transport.server_keys import ServerKeys

LOCK_S = 30.0  # many machines want a token at once; each holds the table for some milliseconds


class NoKeys(ProvisioningError):
    """A key or a join token is not available; the text says why."""


@dataclass(frozen=True)
class Keys:
    """The keys of one scheduler on this machine."""

    directory: Path | None  # None: where `burla-scheduler init` puts them by default

    def make(self) -> None:
        """Make the scheduler's keys, unless there are some.

        Raises:
            NoKeys: the folder is open to others, or not writable.
        """
        with _in_words("cannot make the scheduler's keys"):
            self._store().make()

    def let_in_user(self) -> None:
        """Let whoever runs this use the cluster, by their key; it is made if there is none.

        Raises:
            NoKeys: their key is open to others, or there is no place for it.
        """
        key, user = user_pair().public.hex(), getpass.getuser()
        with _in_words("cannot let you in by your key"):
            # whoever has the folder of the keys is the administrator of the cluster
            self._store().change(
                lambda table: admission.add(table, key, Role.ADMIN, user, time.time()), LOCK_S
            )

    def revoke(self, user: str) -> None:
        """Revoke the keys of a user or a node.

        Raises:
            NoKeys: there are none.
        """
        with _in_words(f"cannot revoke the keys of {user}"):
            self._store().change(
                lambda table: admission.revoke(table, user, time.time())[0], LOCK_S
            )

    def set_quotas(self, everybody: Limits, users: Mapping[str, Limits]) -> None:
        """Replace what users may have at once.

        Raises:
            NoKeys: the scheduler's keys are not on this machine.
        """
        table = QuotaTable(everybody=everybody, users=dict(users))
        with _in_words("cannot set the quotas"):
            QuotaStore(self._store()).change(lambda before: table)

    def token(self) -> bytes:
        """Return a fresh join token: it makes one machine a node, within `admission.TOKEN_S`.

        Raises:
            NoKeys: the scheduler's keys are not on this machine.
        """
        where = "" if self.directory else ". Run this on the scheduler's machine"
        with _in_words("cannot make a join token", where):
            return self._store().make_token(LOCK_S).secret.hex().encode() + b"\n"

    def _store(self) -> KeyStore:
        return KeyStore(self.directory or keys_directory(None))


def user_pair() -> KeyPair:
    """Return the keys of whoever runs this; they are made if there are none.

    Raises:
        NoKeys: they are open to others, or there is no place for them.
    """
    settings = settings_directory()
    if settings is None:
        raise NoKeys("cannot find a place for your key (no HOME): set BURLA_CONFIG_DIR")
    with _in_words("cannot use your key"):
        return load_or_make_pair(os.path.join(settings, USER_KEY_FILE), "a user of burla")


def server_keys() -> ServerKeys:
    """Return what whoever runs this knows of keys of schedulers that were replaced."""
    settings = settings_directory()
    return ServerKeys(None if settings is None else os.path.join(settings, SERVER_KEYS_FILE))


@contextmanager
def _in_words(what: str, remedy: str = "") -> Iterator[None]:
    try:
        yield
    except (AdmissionError, ConfigError, KeyFileError, OSError) as error:
        raise NoKeys(f"{what}: {error}{remedy}") from None
