"""Everything the nodelet's core can ask of its shell. Pure.

A worker is a number that the shell gives out, and never uses again. A cell is a number that the
core gives out; it is never used again within its worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from burla.protocol.messages import Leaf, Message, Span, StartLease

LeafFrames = tuple[Leaf, Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to the scheduler."""

    message: Message
    payload: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class KeepBlanks:
    """Hold this many workers ready that have loaded nothing."""

    count: int


@dataclass(frozen=True, slots=True)
class BeginLease:
    """Workers added from now on serve this lease."""

    start: StartLease
    function: Sequence[bytes]
    keep: bool = False  # the workers of the last lease go on: they load this function, too


@dataclass(frozen=True, slots=True)
class AddWorkers:
    """Let so many more workers load the function; each answered by `ready` or by its end."""

    count: int


@dataclass(frozen=True, slots=True)
class DropTemplate:
    """Fork no more workers of this lease from one that has loaded the function: they don't live."""


@dataclass(frozen=True, slots=True)
class DealSpan:
    """Open a cell and let a worker run a span, after those it has."""

    worker: int
    cell: int
    span: Span
    leaves: Sequence[LeafFrames]
    left: int  # inputs of the job that are with no worker yet, here or at the scheduler
    careful: bool  # one call a stride: a death must be told from its neighbours


@dataclass(frozen=True, slots=True)
class Steal:
    """Take from `middle` on what a worker has not claimed; answered by `stolen`, at once."""

    worker: int
    cell: int
    middle: int


@dataclass(frozen=True, slots=True)
class PauseReading:
    """Take nothing from the workers, so that they wait when their pipes are full."""


@dataclass(frozen=True, slots=True)
class ResumeReading:
    """Read from the workers again."""


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Raise KeyboardInterrupt in a worker's call."""

    worker: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End a worker and its process group at once; answered by `died`."""

    worker: int


@dataclass(frozen=True, slots=True)
class EndWorkers:
    """Kill all processes of the lease, wipe its scratch; answered by `ended` when that is done."""


@dataclass(frozen=True, slots=True)
class Note:
    """Write a line to the log."""

    text: str


@dataclass(frozen=True, slots=True)
class Quit:
    """End the nodelet: the scheduler does not take it."""

    reason: str
    not_authorised: bool = False


@dataclass(frozen=True, slots=True)
class Heard:
    """Note, for whoever looks after this machine, that the scheduler answers."""


@dataclass(frozen=True, slots=True)
class Leave:
    """End the nodelet: it was asked to leave, and serves nobody any more."""


Effect = (
    Send
    | KeepBlanks
    | BeginLease
    | AddWorkers
    | DropTemplate
    | DealSpan
    | Steal
    | PauseReading
    | ResumeReading
    | Interrupt
    | Kill
    | EndWorkers
    | Note
    | Quit
    | Heard
    | Leave
)
