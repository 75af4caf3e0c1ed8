"""Everything the scheduler's core can ask of its shell. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from burla.wire.messages import Message


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to one peer over the ROUTER."""

    peer: bytes  # routing id
    message: Message
    payload: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Publish:
    """Send a message to all who follow `topic`, over the PUB channel."""

    topic: bytes
    message: Message
    payload: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Note:
    """Write a line to the log."""

    text: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop what is kept for a peer that will not be heard of again."""

    peer: bytes


Effect = Send | Publish | Note | Forget
