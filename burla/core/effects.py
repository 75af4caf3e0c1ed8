"""What a session can ask of its shell, and the caller's side of flow control. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from burla.protocol import messages as m
from burla.protocol.ranges import Range

Frames = Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Send:
    """Send this to the scheduler."""

    message: m.Message
    payload: Frames = ()
    is_late: bool = False  # it may wait a moment for others, that the scheduler is woken but once


@dataclass(frozen=True, slots=True)
class Part:
    """A run of outcomes; `fresh` are the indices in it that are new, ascending."""

    run: m.Run
    fresh: tuple[Range, ...]
    frames: Frames


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand these outcomes to the caller; to be followed by `consumed` unless they are acked."""

    lease: bytes
    seq: int
    node: str
    parts: tuple[Part, ...]
    inputs: int  # how many are new
    freed_bytes: int  # of batches that are complete now


@dataclass(frozen=True, slots=True)
class Write:
    """Write chunks up to `number` of this lease's output; to be followed by `shown`."""

    lease: bytes
    number: int
    streams: tuple[int, ...]  # 1: stdout, 2: stderr, per chunk
    chunks: Frames


@dataclass(frozen=True, slots=True)
class Warn:
    """Tell the user that something is lost."""

    text: str


@dataclass(frozen=True, slots=True)
class ReportWaiting:
    """Tell the user why nothing happens."""

    text: str


@dataclass(frozen=True, slots=True)
class Finish:
    """All outcomes, or the first error, and all output ahead of them have been handed over."""


@dataclass(frozen=True, slots=True)
class Fail:
    """The job can not go on. `argument` is the one that can not be satisfied, or empty."""

    argument: str
    text: str


Effect = Send | Deliver | Write | Warn | ReportWaiting | Finish | Fail


@dataclass(slots=True)
class Window:
    """How much more the caller may hand in; kept by the caller, told by Deliver."""

    inputs: int = 0  # without outcome
    bytes: int = 0  # of batches without all outcomes

    def add(self, inputs: int, size: int) -> None:
        """Note a batch that was handed in."""
        self.inputs += inputs
        self.bytes += size

    def free(self, delivered: Deliver) -> None:
        """Note outcomes."""
        self.inputs -= delivered.inputs
        self.bytes -= delivered.freed_bytes

    def has_room(self) -> bool:
        """Return whether one more batch may be handed in; one always may."""
        return self.bytes < m.JOB_INPUT_WINDOW and self.inputs < m.JOB_INPUT_COUNT
