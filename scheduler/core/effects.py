"""Everything the scheduler's core can ask of its shell. Pure."""

from collections.abc import Sequence

from msgspec import Struct

from burla.protocol.job_messages import JobRecord
from burla.protocol.messages import BlobPiece, JobOutput, Message
from burla.protocol.output_messages import KeptOutput

from .outputs import Filed, Reading


class Send(Struct, frozen=True):
    """Send a message to one peer over the ROUTER."""

    peer: bytes  # routing id
    message: Message
    payload: Sequence[bytes] = ()
    # Whose bytes follow the first frame of the payload, for who takes a function whole
    blobs: tuple[int, ...] = ()


class KeepBlob(Struct, frozen=True):
    """Keep these bytes of a blob, which follow those that were kept before."""

    number: int
    start: int
    payload: Sequence[bytes]


class SendBlob(Struct, frozen=True):
    """Send the bytes of a blob from `message.start` to `stop`, when it is their turn."""

    peer: bytes
    message: BlobPiece
    number: int
    stop: int


class DropBlob(Struct, frozen=True):
    """Let go of what is kept of a blob."""

    number: int


class Publish(Struct, frozen=True):
    """Send output of a job to its client, over the PUB channel if that follows `topic`."""

    topic: bytes
    message: JobOutput
    payload: Sequence[bytes] = ()


class Note(Struct, frozen=True):
    """Write a line to the log; so many a second if it is about what a peer says."""

    text: str
    peer: bytes = b""


class Forget(Struct, frozen=True):
    """Drop what is kept for a peer that will not be heard of again."""

    peer: bytes


class Record(Struct, frozen=True):
    """Write a line to the audit log: what a key did, or was kept from doing."""

    user: str  # public key of who it was; empty where there are no keys
    operation: str
    job: bytes | None
    result: str  # "ok", or why not


class KeepRecords(Struct, frozen=True):
    """Put these into the file of jobs, in place of what it has of the same ones."""

    rows: tuple[tuple[str, JobRecord], ...]  # tenants, and what is kept of their jobs


class Follow(Struct, frozen=True):
    """Publish output of a job, if who follows it has subscribed to its topic under its key."""

    topic: bytes
    user: str
    message: KeptOutput
    payload: Sequence[bytes]


class KeepOutput(Struct, frozen=True):
    """Put output of jobs into the file."""

    filed: tuple[Filed, ...]


class FetchOutput(Struct, frozen=True):
    """Look into the file for output of a job, and answer who wants to read it."""

    reading: Reading


ToFile = KeepRecords | KeepOutput | FetchOutput
Effect = ToFile | Follow | Send | KeepBlob | SendBlob | DropBlob | Publish | Note | Forget | Record
