"""What the calling thread asks of a job. Pure; `Session.handle` is where each of them is done."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from burla.protocol.detach_messages import GivenBefore, OutcomesBefore
from burla.protocol.messages import OpenJob

from .effects import Content, Frames


class AddBatch(Struct, frozen=True):
    """Send the next inputs of the job."""

    job: bytes
    leaves: Sequence[tuple[int, Frames | Content]]  # how many inputs, and their frames
    size: int  # bytes of all
    coming: int | None = None  # so many follow; 0: it is the last; None: nobody knows


class EndInputs(Struct, frozen=True):
    """No more inputs come; the last batch could not know that it was the last."""

    job: bytes


class Consumed(Struct, frozen=True):
    """The user has all outcomes of message `seq` of this lease."""

    job: bytes
    lease: bytes
    seq: int


class Written(Struct, frozen=True):
    """Output of this lease is written up to chunk `number`."""

    job: bytes
    lease: bytes
    number: int


class Reopen(Struct, frozen=True):
    """Open the job anew, of which nothing has begun, with files of what its node lacked."""

    job: bytes
    spec: OpenJob
    contents: Mapping[bytes, memoryview]  # of its blobs, by digest
    lacking: frozenset[str]  # packages that go with it in files


class Close(Struct, frozen=True):
    """End the job, whatever it has reached."""

    job: bytes


class AskStatus(Struct, frozen=True):
    """Ask the scheduler how the job stands, if it can say; `Status` is to follow."""

    job: bytes


class AddBefore(Struct, frozen=True):
    """Let an adopted job have outcomes from before it was detached."""

    job: bytes
    message: OutcomesBefore | GivenBefore
    payload: Frames = ()


class HandInputs(Struct, frozen=True):
    """Let an adopted job have the inputs of another one that have no outcome."""

    job: bytes
    of: bytes


class Hold(Struct, frozen=True):
    """Take no further outcomes of the job, and say `Held`: it is being detached."""

    job: bytes


class Release(Struct, frozen=True):
    """Take outcomes of the job again: all that was not acknowledged is told anew."""

    job: bytes


ForSession = AskStatus | AddBatch | EndInputs | Consumed | Written | Reopen | Close | AddBefore
Command = ForSession | HandInputs | Hold | Release
