"""Keys: who is at the other end of a TCP connection. How they are made, stored, read and named.

A key is 32 bytes (Curve25519), written as 64 hexadecimal digits wherever people and files see one:
a shell, an address and a JSON file take those as they are. A secret key lies in a file of its own
that only its owner can read, in a place where only its owner can exchange it; everything else
is refused, not repaired.
"""

import contextlib
import errno
import os
import stat
import sys
from typing import Protocol

from msgspec import Struct

from .addresses import KEY_TEXT

KEY_BYTES = 32
FINGERPRINT_DIGITS = 16  # of the public key: for people and logs
FILE_BYTES_MAX = 4096  # a key file has two lines

# O_BINARY: or Windows ends lines in its own way
_FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY"))


class KeyFileError(Exception):
    """A key file that is not there, or that others could have read or written; says which."""


class KeyFileMissingError(KeyFileError):
    """A key file that is not there."""


class KeyPair(Struct, frozen=True):
    """One identity; the secret half never leaves the process but to its file."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        """Name it without its secret."""
        return f"KeyPair({fingerprint(self.public)})"


class Replaced(Protocol):
    """What is known of keys of schedulers that were replaced: server_keys.py has it in a file."""

    def candidates(self, key: bytes) -> list[bytes]:
        """Return the keys that the scheduler with this key may have: the likeliest first."""

    def learn(self, key: bytes, new: bytes, from_s: float) -> None:
        """Note that from some time on `new` is in the place of `key`."""


class ClientCurve(Struct, frozen=True):
    """What a connecting socket needs: its own keys, and whom it expects."""

    pair: KeyPair
    server: bytes  # public key
    known: "Replaced | None" = None  # what may be in its place


class ServerCurve(Struct, frozen=True):
    """What a listening socket needs."""

    pair: KeyPair
    domain: str  # told to the ZAP handler: which socket somebody knocks at


def parse_key(text: str) -> bytes:
    """Return the key that `text` says.

    Raises:
        ValueError: it is not 64 hexadecimal digits.
    """
    if not KEY_TEXT.fullmatch(text.strip().lower()):
        raise ValueError("a key has 64 hexadecimal digits")
    return bytes.fromhex(text.strip())


def fingerprint(public: bytes) -> str:
    """Return a short name of a public key."""
    return public.hex()[:FINGERPRINT_DIGITS]


def make_pair() -> KeyPair:
    """Return new keys."""
    import zmq  # not for those who only read addresses
    from zmq.utils import z85

    public, secret = zmq.curve_keypair()
    return KeyPair(z85.decode(public), z85.decode(secret))


def pair_of(secret: bytes) -> KeyPair:
    """Return the keys that `secret` is the secret half of."""
    import zmq
    from zmq.utils import z85

    return KeyPair(z85.decode(zmq.curve_public(z85.encode(secret))), secret)


def load_pair(path: str) -> KeyPair:
    """Return the keys in a file.

    Raises:
        KeyFileError: there is none, or others could read or exchange it.
    """
    text = read_private(path)
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    try:
        return pair_of(parse_key(lines[0] if len(lines) == 1 else ""))
    except ValueError:
        text = f"{path} holds no secret key: bring it back from a copy, or remove it and make a new"
        raise KeyFileError(f"{text} one, as `burla login ADDRESS` does") from None


def load_or_make_pair(path: str, what: str) -> KeyPair:
    """Return the keys in a file, made now if there is none; whoever comes second reads the first's.

    Args:
        path: of the file.
        what: whose key it is, for the comment in it.

    Raises:
        KeyFileError: it, or the place where it would be, is open to others.
        OSError: it cannot be written.
    """
    if not os.path.lexists(path):
        pair = make_pair()
        text = f"# secret key of {what}: never share it\n{pair.secret.hex()}\n"
        write_private(path, text, replace=False)
    return load_pair(path)


def overwrite_pair(path: str, pair: KeyPair) -> None:
    """Put other keys into a key file, in the very file: what hides it from others goes on to.

    Raises:
        KeyFileError: it is not there, is open to others, or holds no key.
        OSError: it cannot be written.
    """
    before = load_pair(path)
    at = read_private(path).encode().index(before.secret.hex().encode())
    file = os.open(path, os.O_WRONLY | _FLAGS)
    try:
        os.lseek(file, at, os.SEEK_SET)
        os.write(file, pair.secret.hex().encode())  # one write of one block, of equal length
        os.fsync(file)
    finally:
        os.close(file)


def read_private(path: str, bytes_max: int = FILE_BYTES_MAX) -> str:
    """Return what is in a file that only this user can read or write.

    Raises:
        KeyFileError: it is not there, or is open to others.
    """
    _check_place(path)
    try:
        file = os.open(path, os.O_RDONLY | _FLAGS | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise KeyFileMissingError(f"{path} is not there") from None
    except OSError as error:
        why = "it is a symbolic link" if os.path.islink(path) else error.strerror
        raise KeyFileError(f"{path} is refused: {why}") from None
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise KeyFileError(f"{path} is refused: it is not a file")
        _check_owner(path, found)
        data = os.read(file, bytes_max + 1)
        while data and len(data) <= bytes_max and (more := os.read(file, bytes_max)):
            data += more
    finally:
        os.close(file)
    if len(data) > bytes_max:
        raise KeyFileError(f"{path} is refused: it has more than {bytes_max} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise KeyFileError(f"{path} is refused: it is not text") from None


def _check_owner(path: str, found: os.stat_result) -> None:
    """Raise KeyFileError if somebody else has a file, or may read it.

    Windows says it in lists of rights that a file has from its folder: a user's profile, where
    ours are, is open to that user, the system and administrators.
    """
    if sys.platform == "win32":
        return
    if found.st_uid not in (os.geteuid(), 0):
        raise KeyFileError(f"{path} is refused: it belongs to user {found.st_uid}")
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise KeyFileError(
            f"{path} is refused: other users can access it (mode {mode:04o}). If none of "
            f"them has read it, run chmod 600 {path}; else make new keys"
        )


def write_private(path: str, text: str, *, replace: bool) -> None:
    """Write a file that only this user can read; nobody ever sees half of it.

    Args:
        path: of the file; its directory is made if it is not there.
        text: what to write.
        replace: take the place of a file that is there; else that one stays as it is.

    Raises:
        KeyFileError: the place is open to others.
        OSError: it cannot be written.
    """
    directory = os.path.dirname(os.path.abspath(path))
    os.makedirs(directory, 0o700, exist_ok=True)
    _check_place(path)
    draft = os.path.join(directory, f".{os.path.basename(path)}.{os.urandom(8).hex()}")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
    try:
        try:
            if sys.platform != "win32":
                os.fchmod(file, 0o600)  # whatever the umask is
            data = text.encode()
            if os.write(file, data) < len(data):  # a full disk takes a part without a word
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            os.fsync(file)
        finally:
            os.close(file)
        if replace:
            os.replace(draft, path)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)  # unlike a rename, it never replaces
    finally:
        if os.path.lexists(draft):
            os.unlink(draft)


def _check_place(path: str) -> None:
    """Raise KeyFileError if others could put another file in the place of `path`."""
    if sys.platform == "win32":
        return
    here = os.path.realpath(os.path.dirname(os.path.abspath(path)))
    first = True
    while True:
        try:
            mode = os.stat(here).st_mode
        except OSError as error:
            raise KeyFileMissingError(f"{path} is not there: {here}: {error.strerror}") from None
        # in a sticky directory, as /tmp is, others can make files but not exchange ours
        if mode & 0o002 and (first or not mode & stat.S_ISVTX):
            text = f"{path} is refused: every user can write to {here}, and so exchange it."
            raise KeyFileError(f"{text} If none has, run chmod o-w {here}; else make new keys")
        if here == os.path.dirname(here):
            return
        here, first = os.path.dirname(here), False
