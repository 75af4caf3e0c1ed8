"""Everything the keeper of detached jobs can ask of its shell. Pure."""

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from burla.protocol.messages import InputWanted, Message
from burla.protocol.store_messages import ReadStored, StoredJob

from .leaves import LeafAt, Place


class Log(StrEnum):
    """What of a job lies in files of its own, one after the other."""

    INPUTS = "inputs"
    OUTCOMES = "outcomes"


class Append(Struct, frozen=True):
    """Write a record of a job, and tell `written` or `not_written` when that is known."""

    job: bytes
    log: Log
    segment: int
    at: int
    frames: Sequence[bytes]
    is_first: bool = False  # whatever lies there or behind it is to go


class SaveFacts(Struct, frozen=True):
    """Write down how a job is, for who looks for it."""

    tenant: str
    facts: StoredJob


class WriteBlob(Struct, frozen=True):
    """Write bytes of a blob; told as `Append` is."""

    job: bytes
    tenant: str
    digest: bytes
    start: int
    frames: Sequence[bytes]
    is_last: bool  # all of it is there, and is what its name says


class DropBlob(Struct, frozen=True):
    """Delete a blob that no job has any more."""

    tenant: str
    digest: bytes


class Delete(Struct, frozen=True):
    """Delete all that there is of a job."""

    job: bytes


class LoadBatch(Struct, frozen=True):
    """Read a batch, and tell `loaded`."""

    job: bytes
    number: int
    segment: int
    at: int
    end: int


class LoadPieces(Struct, frozen=True):
    """Read bytes of a big leaf, which lie in the pieces from `first` on; tell `pieces_loaded`."""

    job: bytes
    wanted: InputWanted
    first: int
    places: tuple[Place, ...]


class LoadWhole(Struct, frozen=True):
    """Read a batch with its big leaves, as it goes to who takes it whole; tell `whole_loaded`."""

    job: bytes
    number: int
    segment: int
    at: int
    end: int
    leaves: tuple[LeafAt, ...]


class LoadSpec(Struct, frozen=True):
    """Read how a job was opened, with its function, and tell `spec_loaded`."""

    job: bytes
    at: int
    end: int


class LoadBlob(Struct, frozen=True):
    """Read bytes of a blob, and tell `blob_loaded`."""

    job: bytes
    tenant: str
    digest: bytes
    start: int
    stop: int


class ReadPart(Struct, frozen=True):
    """Read records for a client, up to a place, and send them as the answer to `asked`."""

    peer: bytes
    asked: ReadStored
    stop: tuple[int, int]  # segment, at: there is nothing behind
    facts: StoredJob


class Recheck(Struct, frozen=True):
    """Look at all outcomes of a job, some of which are damaged, and tell `rechecked`."""

    job: bytes


class ToCore(Struct, frozen=True):
    """Let the core of the scheduler hear a message of a client that the keeper is."""

    peer: bytes
    user: str  # public key
    message: Message
    payload: Sequence[bytes] = ()


class ToPeer(Struct, frozen=True):
    """Send a message to a client."""

    peer: bytes
    message: Message
    payload: Sequence[bytes] = ()


class Note(Struct, frozen=True):
    """Write a line to the log."""

    text: str


Effect = (
    Append
    | SaveFacts
    | WriteBlob
    | DropBlob
    | Delete
    | LoadBatch
    | LoadPieces
    | LoadWhole
    | LoadSpec
    | LoadBlob
    | ReadPart
    | Recheck
    | ToCore
    | ToPeer
    | Note
)
