"""The seed of `hash()` of texts and bytes: that of this process, and that of a cluster.

A seed can only be chosen when a Python starts. Workers of one job must have the same one on all
nodes, or `hash(key) % n` means something else on each: the caller's own if it was set, else that of
the cluster. The latter follows from what all nodes know and strangers do not; among the users of a
cluster it is no secret.
"""

import functools
import os
import sys
from contextlib import suppress

VARIABLE = "PYTHONHASHSEED"
SEED_MAX = 2**32 - 1
_SECRET_BYTES = 24  # CPython's _Py_HashSecret


@functools.cache
def own_seed() -> int | None:
    """Return the PYTHONHASHSEED that this process has; None: its hashes are random."""
    if not sys.flags.hash_randomization:
        return 0
    for text in (_variable_at_start(), os.environ.get(VARIABLE, "")):
        if text.isdecimal() and 0 < int(text) <= SEED_MAX and _is_own(int(text)):
            return int(text)
    return None


def seed_of(cluster: str) -> int:
    """Return the seed of the cluster that has this key, or this socket."""
    from hashlib import sha256  # which loads OpenSSL

    return 1 + int.from_bytes(sha256(cluster.encode()).digest()[:8], "big") % SEED_MAX


def random_seed() -> int:
    """Return a seed that nobody can guess."""
    return 1 + int.from_bytes(os.urandom(8)) % SEED_MAX


def _variable_at_start() -> str:
    """Return the variable as this process got it; it may have been changed since."""
    with suppress(OSError), open("/proc/self/environ", "rb") as file:
        for entry in file.read().split(b"\0"):
            name, _, value = entry.partition(b"=")
            if name == VARIABLE.encode():
                return value.decode("ascii", "replace")
    return ""


def _is_own(seed: int) -> bool:
    """Return whether Python took this seed; `-E`, `-I` and `-R` have it ignore the variable."""
    import ctypes  # only where a seed is set

    try:
        secret = bytes((ctypes.c_ubyte * _SECRET_BYTES).in_dll(ctypes.pythonapi, "_Py_HashSecret"))
    except ValueError:  # a Python that hides it
        return not sys.flags.ignore_environment
    return secret == secret_of(seed)


def secret_of(seed: int) -> bytes:
    """Return what CPython makes of a seed: `lcg_urandom` in Python/bootstrap_hash.c."""
    secret = bytearray()
    for _ in range(_SECRET_BYTES):
        seed = (seed * 214013 + 2531011) & 0xFFFFFFFF
        secret.append((seed >> 16) & 0xFF)
    return bytes(secret)
