"""Everything the scheduler's core can ask of its shell. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from burla.protocol.messages import JobOutput, Message


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to one peer over the ROUTER."""

    peer: bytes  # routing id
    message: Message
    payload: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Publish:
    """Send output of a job to its client, over the PUB channel if that follows `topic`."""

    topic: bytes
    message: JobOutput
    payload: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Note:
    """Write a line to the log; so many a second if it is about what a peer says."""

    text: str
    peer: bytes = b""


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop what is kept for a peer that will not be heard of again."""

    peer: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """Write a line to the audit log: what a key did, or was kept from doing."""

    user: str  # public key of who it was; empty where there are no keys
    operation: str
    job: bytes | None
    result: str  # "ok", or why not


Effect = Send | Publish | Note | Forget | Record
