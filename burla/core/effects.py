"""What the pure core asks of its shell. Effects that belong to a job name it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from burla.protocol import messages as m
from burla.protocol.ranges import Range

Frames = Sequence[bytes]

# --- for the sockets ---


@dataclass(frozen=True, slots=True)
class Send:
    """Send this to the scheduler."""

    message: m.Message
    payload: Frames = ()


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Follow this publisher, where the output of all jobs comes from."""

    publisher: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Forget what was to be sent and what came in pieces: all of it is said again."""


# --- for the caller of a job, while it goes on ---


@dataclass(frozen=True, slots=True)
class Part:
    """A run of outcomes; `fresh` are the indices in it that are new, ascending."""

    run: m.Run
    fresh: tuple[Range, ...]
    frames: Frames


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand these outcomes to the caller; `Consumed` is to follow unless it is acknowledged."""

    job: bytes
    lease: bytes
    seq: int
    node: str
    parts: tuple[Part, ...]
    inputs: int  # how many are new
    freed_bytes: int  # of batches that are complete now
    call_s: float = 0.0  # mean duration of recent calls where they come from; 0: not known


@dataclass(frozen=True, slots=True)
class Slots:
    """Note how many calls of the job may run at once now; told if its inputs are lazy."""

    job: bytes
    slots: int


@dataclass(frozen=True, slots=True)
class Write:
    """Write chunks up to `number` of this lease's output; `Written` is to follow."""

    job: bytes
    lease: bytes
    number: int
    streams: tuple[int, ...]  # messages.Stream, per chunk
    chunks: Frames


@dataclass(frozen=True, slots=True)
class Warn:
    """Tell the user that something is lost."""

    job: bytes
    text: str


@dataclass(frozen=True, slots=True)
class ReportWaiting:
    """Tell the user why nothing happens."""

    job: bytes
    text: str


@dataclass(frozen=True, slots=True)
class ReportHanging:
    """Tell the user which calls still run."""

    job: bytes
    text: str


@dataclass(frozen=True, slots=True)
class ReportRetried:
    """Tell the user which calls were called again."""

    job: bytes
    text: str


# --- the last of a job ---


@dataclass(frozen=True, slots=True)
class Finish:
    """All outcomes, or the first error, and all output ahead of them have been handed over."""

    job: bytes


@dataclass(frozen=True, slots=True)
class Fail:
    """The job cannot go on. `argument` is the one that cannot be satisfied, or empty."""

    job: bytes
    argument: str
    text: str
    index: int | None = None  # of the input that is why
    nodes: tuple[str, ...] = ()  # that were lost with it
    away_s: float = 0.0  # not 0: it was given up because this process was not heard for so long,
    limit_s: float = 0.0  # which is longer than this


@dataclass(frozen=True, slots=True)
class Broken:
    """The job cannot go on: the cluster is not there, or not any more."""

    job: bytes
    how: Literal["unreachable", "lost", "ended"]  # no answer; silent since; known to have ended
    why: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The scheduler does not take this client: so for all jobs."""

    job: bytes
    reason: str
    not_authorised: bool  # a matter of keys


End = Finish | Fail | Broken | Rejected
ForCaller = Deliver | Slots | Write | Warn | ReportWaiting | ReportHanging | ReportRetried | End
Effect = Send | Subscribe | Forget | ForCaller
