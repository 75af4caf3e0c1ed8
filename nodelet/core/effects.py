"""Everything the nodelet's core can ask of its shell. Pure.

A worker is a number that the shell gives out, and never uses again. A cell is a place in a worker's
slate, which the core gives out; it is used again only after the worker said that it is through.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from burla.protocol.messages import Message, Span, StartLease


class StoredLeaf(NamedTuple):
    """Inputs [lo, hi) of a batch, encoded together in `frames`."""

    batch: int
    lo: int
    hi: int
    frames: Sequence[bytes]


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
    """Workers made from now on serve this lease."""

    start: StartLease
    function: Sequence[bytes]
    keep: bool = False  # the workers of the last lease go on: they load this function, too
    blobs: tuple[int, ...] = ()  # numbers of those that `start` names


@dataclass(frozen=True, slots=True)
class KeepBlob:
    """Keep these bytes of a blob, which follow those that were kept before."""

    number: int
    start: int
    payload: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class FinishBlob:
    """All of a blob is there: nobody may change it from now on."""

    number: int


@dataclass(frozen=True, slots=True)
class DropBlob:
    """Let go of what is kept of a blob."""

    number: int


@dataclass(frozen=True, slots=True)
class LoadWorker:
    """Let one more worker load the function; `Loaded`, `LoadFailed` or `Died` tells of it."""


@dataclass(frozen=True, slots=True)
class MakeTemplate:
    """Let a worker do nothing from now on but fork others; answered by `TemplateServes`."""

    worker: int


@dataclass(frozen=True, slots=True)
class ForkWorker:
    """Let a template fork one more worker; `Copied`, `NotCopied` or `Died` tells of it."""

    template: int


@dataclass(frozen=True, slots=True)
class AssignSpan:
    """Open a cell and let a worker run a span, after those it has."""

    worker: int
    cell: int
    span: Span
    leaves: Sequence[StoredLeaf]  # all that the span lies in, ascending
    left: int  # inputs of the job that are with no worker yet, here or at the scheduler
    slots: int  # how many calls of the job run here at once; with `left` it bounds a stride
    careful: bool  # one call a stride: a death must be told from its neighbours


@dataclass(frozen=True, slots=True)
class Steal:
    """Take from `middle` on what a worker has not claimed; answered by `stolen`, at once."""

    worker: int
    cell: int
    middle: int


@dataclass(frozen=True, slots=True)
class CutStride:
    """Let a worker write what it has run of its stride, and give back what it has not begun."""

    worker: int


@dataclass(frozen=True, slots=True)
class PauseReading:
    """Take nothing from the workers, or only from this one, who wait when their pipes are full."""

    worker: int | None = None


@dataclass(frozen=True, slots=True)
class ResumeReading:
    """Read from the workers again, but for those that were named; or from this one."""

    worker: int | None = None


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Raise KeyboardInterrupt in a worker's call."""

    worker: int


@dataclass(frozen=True, slots=True)
class Expire:
    """Raise CallTimeout in the call of `index`, if the worker is still in it."""

    worker: int
    index: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End a worker and its process group at once; answered by `Died`."""

    worker: int
    why: str = ""  # deaths.TIMEOUT; empty: it is known here


@dataclass(frozen=True, slots=True)
class EndWorkers:
    """Kill all processes of the lease, wipe its scratch; answered by `WorkersEnded`."""


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
    | KeepBlob
    | FinishBlob
    | DropBlob
    | LoadWorker
    | MakeTemplate
    | ForkWorker
    | AssignSpan
    | Steal
    | CutStride
    | PauseReading
    | ResumeReading
    | Interrupt
    | Expire
    | Kill
    | EndWorkers
    | Note
    | Quit
    | Heard
    | Leave
)
