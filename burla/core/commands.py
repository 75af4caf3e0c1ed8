"""What the calling thread asks of a job. Pure; `Session.handle` is where each of them is done."""

from collections.abc import Sequence
from dataclasses import dataclass

from .effects import Frames


@dataclass(frozen=True, slots=True)
class AddBatch:
    """Send the next inputs of the job."""

    job: bytes
    leaves: Sequence[tuple[int, Frames]]  # how many inputs, and their frames
    size: int  # bytes of all frames
    last: bool = False  # no more inputs come


@dataclass(frozen=True, slots=True)
class EndInputs:
    """No more inputs come; the last batch could not know that it was the last."""

    job: bytes


@dataclass(frozen=True, slots=True)
class Consumed:
    """The user has all outcomes of message `seq` of this lease."""

    job: bytes
    lease: bytes
    seq: int


@dataclass(frozen=True, slots=True)
class Written:
    """Output of this lease is written up to chunk `number`."""

    job: bytes
    lease: bytes
    number: int


@dataclass(frozen=True, slots=True)
class Close:
    """End the job, whatever it has reached."""

    job: bytes


Command = AddBatch | EndInputs | Consumed | Written | Close
