"""What the shell tells the nodelet's core of workers. Pure.

A worker is a number that the shell gives out, and never uses again.
"""

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import NamedTuple

from msgspec import Struct, field

from burla.protocol.messages import Fragment, Kind
from burla.protocol.ranges import Range

Ending = tuple[str, int]  # ("exit", status; -1: unknown), ("signal", number), ("fork", errno)


class WorkerState(Enum):
    """What a worker is for."""

    BLANK = auto()  # forked, no function yet
    LOADING = auto()
    COPYING = auto()  # being forked from a template
    READY = auto()
    TEMPLATE = auto()  # has the function and only forks
    PRELOADER = auto()  # has imported modules and only forks those that load a function
    GONE = auto()


class Stride(NamedTuple):
    """The calls [lo, hi) of a cell that a worker is in or was in last, as its slate says."""

    cell: int
    lo: int
    hi: int
    claimed: int = 0  # the end of what it has claimed of the cell
    at: int = 0  # all before it have ended, if calls have a time limit: then it is noted


NO_STRIDE = Stride(0, 0, 0)
NOBODY: Range = (0, 0)


class CellReport(NamedTuple):
    """What a worker says in one message of the span in one of its cells."""

    cell: int
    lo: int
    hi: int  # the frames are the outcomes of [lo, hi); if that is empty there are none
    kind: Kind = Kind.RESULTS
    seconds: float = 0.0  # that the calls took
    frames: Sequence[bytes] = ()
    stop: int | None = None  # nothing from here on is run of this span, ever
    is_over: bool = False  # the span ended at `stop`; the cell may be used again
    fragment: Fragment | None = None  # the only frame is this part of a value
    retry_why: str | None = None  # type of an error after which the call may be called again
    told: tuple[str, str] = ("", "")  # type and text of an error, for people
    peak: int = 0  # bytes that its process had at most; 0: not known
    words: bytes = b""  # what the call has printed last, if that is to be told

    def is_whole(self) -> bool:
        """Return whether nothing follows that belongs to the same outcome."""
        part = self.fragment
        return part is None or part.at + len(self.frames[0]) == part.size


class Reported(Struct, frozen=True):
    """A worker has said something of its spans."""

    worker: int
    reports: Sequence[CellReport]


class Stolen(Struct, frozen=True):
    """The answer to a `Steal`: [lo, hi), perhaps empty, was taken, as the worker's slate says."""

    worker: int
    cell: int
    lo: int
    hi: int


class Printed(Struct, frozen=True):
    """A worker wrote to stdout (1) or stderr (2), or has a notice (3: one whole line).

    Told before what it reported later.
    """

    worker: int
    stream: int
    data: bytes
    # of one of these inputs; empty: of none that is known
    of: Range = NOBODY
    # else it is what the worker was in when this was read: what it printed before may be in it
    is_exact: bool = False


class Loaded(Struct, frozen=True):
    """A worker has loaded the function for the first time."""

    worker: int
    load_s: float  # that it took
    may_fork: bool  # it has no thread that forbids it


class LoadFailed(Struct, frozen=True):
    """A worker could not load the function, perhaps its second one, and is gone."""

    worker: int
    frames: Sequence[bytes]  # values.load_error says why


class TemplateServes(Struct, frozen=True):
    """A worker that was made the template waits for orders to fork."""

    worker: int


class Copied(Struct, frozen=True):
    """A worker was forked from the template, and has the function."""

    worker: int


class NotCopied(Struct, frozen=True):
    """The template is gone, and with it an order to fork: nobody's death."""


class Died(Struct, frozen=True):
    """A worker ended; told after all that it wrote."""

    worker: int
    how: Ending
    state: WorkerState  # when it died
    stride: Stride = NO_STRIDE
    killed_for: str = ""  # deaths.CLOSED, deaths.BROKEN: the shell killed it
    dump: str = ""  # where it crashed, as faulthandler wrote it
    # outcomes of calls with a time limit that it had noted: index of the first, and all, encoded
    notes: tuple[int, Sequence[bytes]] = (0, ())


class Looked(Struct, frozen=True):
    """The slates of busy workers were looked at."""

    strides: Mapping[int, Stride]  # by worker


class Reading(Struct, frozen=True):
    """The memory of a node, and of its workers, at one moment; all in bytes."""

    total: int  # what the node has, or its cgroup, or was given
    available: int  # of `total`
    swap: int = 0  # free
    oom_kills: int = 0  # by the kernel, since the last reading
    used: Mapping[int, int] = field(default_factory=dict)  # worker -> of its own, with descendants


class WorkersEnded(Struct, frozen=True):
    """All processes of the lease that was to end are gone, and its scratch is wiped."""


WorkerEvent = (
    Reported
    | Stolen
    | Printed
    | Loaded
    | LoadFailed
    | TemplateServes
    | Copied
    | NotCopied
    | Died
    | Looked
    | Reading
    | WorkersEnded
)
