"""The table of keys in its file, and the scheduler's own keys: what lies in the key directory.

`burla auth` and a running scheduler both change the table: each takes the lock, reads, writes the
whole of it and renames it into place, so that readers never see half of it.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from burla.scheduler.core import admission
from burla.scheduler.core.admission import Entry, Role, Table
from burla.transport.keys import (
    KeyFileError,
    KeyFileMissingError,
    KeyPair,
    load_or_make_pair,
    load_pair,
    make_pair,
    parse_key,
    read_private,
    write_private,
)

if sys.platform != "win32":
    import fcntl


SERVER_KEY, TABLE, LOCK, AUDIT = "server.key", "keys.json", "keys.lock", "audit.log"
KNOWN_KEYS = "server-keys.json"  # those of this scheduler, each with the one after it
TABLE_BYTES_MAX = 8 << 20  # 10,000 keys with long names
LOCK_S = 2.0  # who has the lock writes one small file
LOCK_POLL_S = 0.01
FORMAT = 1
TOKEN_USER = "join token"  # whose key a join token is, in the table

Stamp = tuple[int, ...]  # differs whenever the file does: it is replaced, never written to


class _Content(msgspec.Struct, frozen=True):
    """What is in the file."""

    format: int
    keys: dict[str, Entry]


class KeyStore:
    """The key directory of one scheduler."""

    def __init__(self, directory: Path) -> None:
        """Look at nothing yet."""
        self.directory = directory
        self._path = str(directory / TABLE)

    def make(self) -> KeyPair:
        """Return the scheduler's keys, made now if there are none; likewise an empty table.

        Raises:
            KeyFileError: a file is open to others.
            OSError: the directory cannot be written to.
        """
        pair = load_or_make_pair(str(self.directory / SERVER_KEY), "a burla scheduler")
        if not os.path.lexists(self._path):
            write_private(self._path, _dump({}), replace=False)
        return pair

    def server_pair(self) -> KeyPair:
        """Return the scheduler's keys.

        Raises:
            KeyFileError: there are none, or the file is open to others.
        """
        return load_pair(str(self.directory / SERVER_KEY))

    def stamp(self) -> Stamp | None:
        """Return what tells this state of the file from others; None: it is not there."""
        return stamp_of(self._path)

    def read(self) -> Table:
        """Return the table as it stands in the file.

        Raises:
            KeyFileError: it is not there, is open to others, or is no table.
        """
        text = read_private(self._path, TABLE_BYTES_MAX)
        try:
            return _load(text)
        except ValueError as error:
            raise KeyFileError(f"{self._path} is not a table of keys: {error}") from None

    def change(self, change: Callable[[Table], Table], lock_s: float = LOCK_S) -> Table:
        """Replace the table by what `change` makes of it, and return that.

        Raises:
            KeyFileError: the file is refused, or another process keeps the lock.
            OSError: it cannot be written.
        """
        with self.locked(lock_s):
            table = change(self.read())
            write_private(self._path, _dump(table), replace=True)
        return table

    def make_token(self, lock_s: float = LOCK_S) -> KeyPair:
        """Return a new join token, now in the table: the secret half is what a node is given.

        Raises:
            AdmissionError: the table is full.
            KeyFileError: the file is refused, or somebody keeps the lock.
            OSError: it cannot be written.
        """
        pair = make_pair()
        key, now_s = pair.public.hex(), time.time()
        self.change(lambda table: admission.add(table, key, Role.JOIN, TOKEN_USER, now_s), lock_s)
        return pair

    @contextmanager
    def locked(self, lock_s: float = LOCK_S) -> Iterator[None]:
        """Keep others from changing what lies in the directory meanwhile.

        Raises:
            KeyFileError: there is no such directory, or another process keeps the lock.
        """
        path = self.directory / LOCK
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise KeyFileMissingError(f"{self._path} is not there") from None
        try:
            until_s = time.monotonic() + lock_s
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= until_s:
                        raise KeyFileError(f"{path} is locked by another process") from None
                    time.sleep(LOCK_POLL_S)
            yield
        finally:
            os.close(file)


def stamp_of(path: str) -> Stamp | None:
    """Return what tells this state of a file from others; None: it is not there."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size


def _dump(table: Table) -> str:
    content = msgspec.json.encode(_Content(FORMAT, table))
    return msgspec.json.format(content, indent=1).decode() + "\n"


def _load(text: str) -> Table:
    """Return the table that a file holds.

    Raises:
        ValueError: it is not one; all errors of msgspec are ValueErrors.
    """
    content = msgspec.json.decode(text, type=_Content)
    if content.format != FORMAT:
        raise ValueError(f"format {content.format}, expected {FORMAT}")
    return {parse_key(key).hex(): entry for key, entry in content.keys.items()}
