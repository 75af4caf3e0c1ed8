"""Which key of a scheduler has taken the place of which: what addresses of before lead to.

A scheduler tells its next key over connections under the one of now, so who knew that one can
believe it. It is kept in a file of its own: beside a user's key, a node's, and the scheduler's.
"""

import contextlib
import os
import time
from collections.abc import Callable

import msgspec

from .addresses import full_address, take_apart
from .keys import KeyFileError, parse_key, read_private, write_private

FORMAT = 1
KEYS_MAX = 256  # that were replaced, of all schedulers that somebody knows; the oldest go first
STEPS_MAX = 32  # from one key to the one of now
FILE_BYTES_MAX = 64 << 10


class Next(msgspec.Struct, frozen=True):
    """What has taken, or will take, the place of a key."""

    key: str  # 64 hexadecimal digits
    from_s: float  # Unix time


class _Content(msgspec.Struct, frozen=True):
    """What is in the file."""

    format: int
    replaced: dict[str, Next]  # by the key of before


class ServerKeys:
    """The file; without a path, or if it cannot be written, what is learnt holds in memory only."""

    def __init__(self, path: str | None = None, clock_s: Callable[[], float] = time.time) -> None:
        """Read nothing yet."""
        self._path, self._clock_s = path, clock_s
        self._learnt: dict[str, Next] = {}

    def learn(self, key: bytes, new: bytes, from_s: float) -> None:
        """Note that from some time on `new` is in the place of `key`."""
        if new == key:
            return
        known = self._read()
        learnt = Next(new.hex(), from_s)
        if known.get(key.hex()) == learnt:
            return
        self._learnt[key.hex()] = learnt
        known.pop(key.hex(), None)
        known[key.hex()] = learnt
        known = dict(list(known.items())[-KEYS_MAX:])
        text = msgspec.json.format(msgspec.json.encode(_Content(FORMAT, known)), indent=1).decode()
        if self._path is not None:
            with contextlib.suppress(KeyFileError, OSError):  # it is told again the next time
                write_private(self._path, text + "\n", replace=True)

    def candidates(self, key: bytes) -> list[bytes]:
        """Return the keys that the scheduler with this key may have: the likeliest first."""
        known, now_s = self._read(), self._clock_s()
        line, due = [key.hex()], 0  # one after the other; the last one that counts by now
        while (new := known.get(line[-1])) and new.key not in line and len(line) < STEPS_MAX:
            line.append(new.key)
            due = len(line) - 1 if new.from_s <= now_s else due
        order = [line.pop(due), *reversed(line)]
        return [bytes.fromhex(text) for text in order]

    def now(self, key: bytes) -> bytes:
        """Return the key that the scheduler with this key should have by now."""
        return self.candidates(key)[0]

    def first(self, key: bytes) -> bytes:
        """Return the key that it had first, as far as is known."""
        known, text = self._read(), key.hex()
        for _ in range(STEPS_MAX):
            before = _before(known, text)
            if not before:
                break
            text = before
        return bytes.fromhex(text)

    def _read(self) -> dict[str, Next]:
        """Return all that is known; of a file that is refused nothing is believed."""
        found: dict[str, Next] = {}
        if self._path is not None and os.path.lexists(self._path):
            try:
                content = msgspec.json.decode(
                    read_private(self._path, FILE_BYTES_MAX), type=_Content
                )
                found = {
                    parse_key(key).hex(): Next(parse_key(new.key).hex(), new.from_s)
                    for key, new in content.replaced.items()
                    if content.format == FORMAT
                }
            except (KeyFileError, ValueError):
                found = {}
        return found | self._learnt


def renewed(address: str, keys: ServerKeys) -> str:
    """Return an address with the key that its scheduler should have by now."""
    where = take_apart(address)
    return address if where.key is None else full_address(where.endpoint, keys.now(where.key))


def _before(known: dict[str, Next], text: str) -> str:
    """Return the key in whose place one is; empty: none is known."""
    return next((key for key, new in known.items() if new.key == text), "")
