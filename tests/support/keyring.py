"""The keys of a test's cluster: of its scheduler, its nodes, its users, and of strangers."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from burla.scheduler.auth.key_store import KeyStore
from burla.scheduler.core import admission
from burla.scheduler.core.admission import Role
from burla.transport.keys import ClientCurve, KeyPair, load_or_make_pair, make_pair


class Keyring:
    """A key directory, and what goes into its table."""

    def __init__(self, directory: Path) -> None:
        self.key_store = KeyStore(directory)
        self.server = self.key_store.make()

    def add(self, pair: KeyPair, role: Role, user: str) -> KeyPair:
        """Let a key do something."""
        self.key_store.change(
            lambda table: admission.add(table, pair.public.hex(), role, user, time.time())
        )
        return pair

    def make(self, role: Role, user: str = "somebody") -> KeyPair:
        """Return new keys that may do something."""
        return self.add(make_pair(), role, user)

    def revoke(self, pair: KeyPair) -> None:
        """Take all rights from a key."""
        self.key_store.change(
            lambda table: admission.revoke(table, pair.public.hex(), time.time())[0]
        )

    def curve(self, pair: KeyPair) -> ClientCurve:
        """Return what a socket needs to connect under these keys."""
        return ClientCurve(pair, self.server.public)

    def audit(self) -> str:
        """Return what the scheduler has written down."""
        return (self.key_store.directory / "audit.log").read_text()


@contextmanager
def settings(directory: Path) -> Iterator[Keyring]:
    """Make `directory` BURLA_CONFIG_DIR meanwhile, with keys of a scheduler, a user and a node."""
    before = os.environ.get("BURLA_CONFIG_DIR")
    os.environ["BURLA_CONFIG_DIR"] = str(directory)
    try:
        ring = Keyring(directory / "scheduler")
        ring.add(load_or_make_pair(str(directory / "user.key"), "a test"), Role.CLIENT, "user")
        ring.add(load_or_make_pair(str(directory / "node.key"), "a test"), Role.NODE, "node")
        yield ring
    finally:
        if before is None:
            del os.environ["BURLA_CONFIG_DIR"]
        else:
            os.environ["BURLA_CONFIG_DIR"] = before
