"""The seal on outcomes: without the job's secret none can be made or changed. Pure.

The client makes a secret for each job; the scheduler relays it to the nodelets that are leased, and
is trusted with it. A nodelet seals each message of outcomes, and the client looks at the seal once
per message, before anything in it is unpickled. It covers all that the client acts on: from which
lease, which number, which indices, and every byte of the payload with the borders of its frames.
"""

import hmac
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import msgpack

from .messages import SEAL_BYTES, JobOutcomes, Outcomes

NOT_SEALED = (
    "outcomes that claim to come from node {} do not bear the seal of this job: they were changed "
    "in transit, or forged. None of them was opened; report it to the cluster's administrator"
)


BLAKE3_KEY = "burla 2026 seal of outcomes"  # what the key of BLAKE3 is derived for


def seal(
    secret: bytes,
    message: Outcomes | JobOutcomes,
    payload: Sequence[bytes],
    *,
    blake3: bool = False,
) -> bytes:
    """Return the seal of one whole message; empty without a secret.

    `blake3`: who looks at it takes one of BLAKE3, too, which takes a fifth of the time.
    """
    if not secret:
        return b""
    sizes = [len(frame) for frame in payload]
    told: list[object] = [message.lease, message.seq, message.output, message.runs, sizes]
    if (fragment := message.fragment) is not None:
        told += (fragment.index, fragment.at, fragment.size)
    facts = msgpack.packb(told)
    begin = len(facts).to_bytes(8, "big") + facts
    hasher = _blake3() if blake3 else None
    if hasher is not None:
        made = hasher(begin, key=hasher(secret, derive_key_context=BLAKE3_KEY).digest())
    else:  # not BLAKE2: processors have instructions for SHA-256, so it is twice as fast or more
        made = hmac.new(secret, begin, "sha256")
    for frame in payload:
        made.update(frame)
    return bytes(made.digest()[:SEAL_BYTES])


def is_sealed(
    secret: bytes, message: JobOutcomes, payload: Sequence[bytes], *, blake3: bool = False
) -> bool:
    """Return whether the message bears a right seal; without a secret none is needed.

    `blake3`: its maker was told that it may be one of BLAKE3; not all know that.
    """
    if not secret:
        return True
    if blake3 and has_blake3():
        made = seal(secret, message, payload, blake3=True)
        if hmac.compare_digest(message.seal, made):
            return True
    return hmac.compare_digest(message.seal, seal(secret, message, payload))


def has_blake3() -> bool:
    """Return whether seals of BLAKE3 can be made and looked at here."""
    return _blake3() is not None


@cache
def _blake3() -> Callable[..., Any] | None:
    try:  # few processes need it, and there is no wheel of it for some machines
        from blake3 import blake3
    except ImportError:  # or a file of the user has its name
        return None
    made: Callable[..., Any] = blake3
    return made
