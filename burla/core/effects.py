"""What the pure core asks of its shell. Effects that belong to a job name it. Pure."""

from collections.abc import Sequence
from typing import Literal, Protocol

from msgspec import Struct

from burla.protocol import messages as m
from burla.protocol.job_messages import JobRecord
from burla.protocol.ranges import Range

Frames = Sequence[bytes]


class Content(Protocol):
    """A big leaf that stays where it is: parts of it are read when they are asked for."""

    size: int  # bytes, as it is read in parts

    def read(self, start: int, stop: int) -> Frames:
        """Return a part."""

    def frames(self) -> Frames:
        """Return all of it, as it is sent whole."""


# --- for the sockets ---


class Send(Struct, frozen=True):
    """Send this to the scheduler."""

    message: m.Message
    payload: Frames = ()


class Subscribe(Struct, frozen=True):
    """Follow this publisher, where the output of all jobs comes from."""

    publisher: str


class Forget(Struct, frozen=True):
    """Forget what was to be sent and what came in pieces: all of it is said again."""


# --- for the caller of a job, while it goes on ---


class Part(Struct, frozen=True):
    """A run of outcomes; `fresh` are the indices in it that are new, ascending."""

    run: m.Run
    fresh: tuple[Range, ...]
    frames: Frames


class Deliver(Struct, frozen=True):
    """Hand these outcomes to the caller; `Consumed` is to follow unless it is acknowledged."""

    job: bytes
    lease: bytes
    seq: int
    node: str
    parts: tuple[Part, ...]
    inputs: int  # how many are new
    freed_bytes: int  # of batches that are complete now
    call_s: float = 0.0  # mean duration of recent calls where they come from; 0: not known


class Slots(Struct, frozen=True):
    """Note how many calls of the job may run at once now; told if its inputs are lazy."""

    job: bytes
    slots: int


class Write(Struct, frozen=True):
    """Write chunks up to `number` of this lease's output; `Written` is to follow."""

    job: bytes
    lease: bytes
    number: int
    streams: tuple[int, ...]  # messages.Stream, per chunk
    chunks: Frames


class Warn(Struct, frozen=True):
    """Tell the user that something is lost."""

    job: bytes
    text: str


class ReportWaiting(Struct, frozen=True):
    """Tell the user why nothing happens."""

    job: bytes
    text: str


class ReportHanging(Struct, frozen=True):
    """Tell the user which calls still run."""

    job: bytes
    text: str


class ReportRetried(Struct, frozen=True):
    """Tell the user which calls were called again."""

    job: bytes
    text: str


class Status(Struct, frozen=True):
    """Note how the job stands, as the scheduler says."""

    job: bytes
    record: JobRecord


class Lacking(Struct, frozen=True):
    """A node cannot have packages that the job needs: it is opened anew with files, or fails."""

    job: bytes
    packages: tuple[str, ...]
    text: str  # why, for people


class DetachWanted(Struct, frozen=True):
    """Somebody wants the job to be detached."""

    job: bytes
    by: str = ""  # who, if it was not the user at the terminal


class Held(Struct, frozen=True):
    """No further outcomes of the job come; these inputs have theirs."""

    job: bytes
    done: tuple[Range, ...]


# --- the last of a job ---


class Finish(Struct, frozen=True):
    """All outcomes, or the first error, and all output ahead of them have been handed over."""

    job: bytes


class Fail(Struct, frozen=True):
    """The job cannot go on. `argument` is the one that cannot be satisfied, or empty."""

    job: bytes
    argument: str
    text: str
    index: int | None = None  # of the input that is why
    nodes: tuple[str, ...] = ()  # that were lost with it
    away_s: float = 0.0  # not 0: it was given up because this process was not heard for so long,
    limit_s: float = 0.0  # which is longer than this


class Broken(Struct, frozen=True):
    """The job cannot go on: the cluster is not there, or not any more."""

    job: bytes
    how: Literal["unreachable", "lost", "ended"]  # no answer; silent since; known to have ended
    why: str


class Rejected(Struct, frozen=True):
    """The scheduler does not take this client: so for all jobs."""

    job: bytes
    reason: str
    not_authorised: bool  # a matter of keys


End = Finish | Fail | Broken | Rejected
Report = ReportWaiting | ReportHanging | ReportRetried
Asked = Lacking | DetachWanted | Held
ForCaller = Deliver | Slots | Status | Asked | Write | Warn | Report | End
Effect = Send | Subscribe | Forget | ForCaller
