"""How a scheduler gets another key in the middle of jobs: it tells the next one before it counts.

libzmq has one key a listener, and those who dial know one address. So the next key lies ready in a
file beside the one of now, everybody who is connected until it counts learns it, and then the
scheduler listens anew, under that key.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable

import msgspec

from burla.protocol.key_messages import ServerKey
from burla.transport.keys import (
    KeyFileError,
    KeyPair,
    make_pair,
    pair_of,
    parse_key,
    read_private,
    write_private,
)
from burla.transport.server_keys import ServerKeys

from .key_store import KNOWN_KEYS, LOCK_S, SERVER_KEY, KeyStore, stamp_of

NEXT = "server.next"
FORMAT = 1
LEAD_S = 3.0  # at least: whoever is connected hears it
LOOK_S = 0.25  # between two looks at the file

log = logging.getLogger(__name__)


class _Content(msgspec.Struct, frozen=True):
    """What is in the file."""

    format: int
    secret: str  # 64 hexadecimal digits
    from_s: float  # Unix time


def prepare(key_store: KeyStore, overlap_s: float, lock_s: float = LOCK_S) -> ServerKey:
    """Make the scheduler's next key, or say of one that is there already when it counts.

    Raises:
        KeyFileError: the scheduler has no keys yet, or the files are refused.
        OSError: they cannot be written.
    """
    path = str(key_store.directory / NEXT)
    with key_store.locked(lock_s):
        key_store.server_pair()  # complains
        there = _read(path)
        pair = make_pair() if there is None else there[0]
        from_s = time.time() + max(LEAD_S, overlap_s)
        text = msgspec.json.encode(_Content(FORMAT, pair.secret.hex(), from_s)).decode()
        write_private(path, text + "\n", replace=True)
    return ServerKey(pair.public, from_s)


def take(key_store: KeyStore, clock_s: Callable[[], float] = time.time) -> bool:
    """Make the next key that of the scheduler if it is time to; return whether it was.

    Raises:
        KeyFileError: a file is refused.
        OSError: one cannot be written.
    """
    path = str(key_store.directory / NEXT)
    if (there := _read(path)) is None or clock_s() < there[1]:
        return False
    with key_store.locked():
        pair, from_s = there
        before = key_store.server_pair().public
        known_keys(key_store).learn(before, pair.public, from_s)  # first: addresses lead on
        text = f"# secret key of a burla scheduler: never share it\n{pair.secret.hex()}\n"
        write_private(str(key_store.directory / SERVER_KEY), text, replace=True)
        os.unlink(path)
    return True


def known_keys(key_store: KeyStore) -> ServerKeys:
    """Return which keys this scheduler had before."""
    return ServerKeys(str(key_store.directory / KNOWN_KEYS))


async def follow(key_store: KeyStore, tell: Callable[[ServerKey], None]) -> None:
    """Tell the next key when there is one; return when it is time to listen under it."""
    path = str(key_store.directory / NEXT)
    known: object = None
    said: ServerKey | None = None
    while said is None or time.time() < said.from_s:
        if (stamp := stamp_of(path)) != known:
            known = stamp
            try:
                there = _read(path)
            except KeyFileError as error:
                log.error("there is no next key: %s", error)
            else:
                said = None if there is None else ServerKey(there[0].public, there[1])
                if said is not None:
                    tell(said)
        await asyncio.sleep(LOOK_S)
    log.info("the key of this scheduler is replaced: listening anew")


def _read(path: str) -> tuple[KeyPair, float] | None:
    """Return the next key, and from when on it counts; None: there is none.

    Raises:
        KeyFileError: the file is refused, or is none of ours.
    """
    if not os.path.lexists(path):
        return None
    try:
        found = msgspec.json.decode(read_private(path), type=_Content)
        return pair_of(parse_key(found.secret)), found.from_s
    except ValueError as error:  # all of msgspec are
        raise KeyFileError(f"{path} holds no key: {error}") from None
