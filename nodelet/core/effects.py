"""Everything the nodelet's core can ask of its shell. Pure.

A worker is a number that the shell gives out, and never uses again. A cell is a place in a worker's
slate, which the core gives out; it is used again only after the worker said that it is through.
"""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from burla.protocol.messages import Message, Span, StartLease


class StoredLeaf(NamedTuple):
    """Inputs [lo, hi) of a batch, encoded together in `frames`, or in a file in memory."""

    batch: int
    lo: int
    hi: int
    frames: Sequence[bytes]
    size: int = 0  # of the file; 0: there is none
    number: int = 0  # of the file, as of a blob's


class Send(Struct, frozen=True):
    """Send a message to the scheduler."""

    message: Message
    payload: Sequence[bytes] = ()


class KeepBlanks(Struct, frozen=True):
    """Hold this many workers ready that have loaded nothing."""

    count: int


class BeginLease(Struct, frozen=True):
    """Workers made from now on serve this lease."""

    start: StartLease
    function: Sequence[bytes]
    keep: bool = False  # the workers of the last lease go on: they load this function, too
    blobs: tuple[int, ...] = ()  # numbers of those that `start` names
    packages: str = ""  # where imports look first; empty: as ever
    files: str = ""  # where they look before that for packages that came as files; empty: nowhere
    enters: bool = False  # the sandbox that was made for it by `EnterImage`


class GetPackages(Struct, frozen=True):
    """Have packages ready for a lease; tell of it with `packages_there` or `packages_failed`."""

    lease: bytes
    packed: bytes  # `package_messages.Packages`
    image: str = ""  # the files of the image that it runs in: these count as what is there


class GetFiles(Struct, frozen=True):
    """Have packages of a lease ready that its caller sent as files; answer by `files_there`."""

    lease: bytes
    owner: bytes  # whose they are
    blobs: tuple[tuple[int, int], ...]  # numbers and sizes, the list of the files first


class LetGoOfPackages(Struct, frozen=True):
    """A lease that was given packages needs none any more."""

    lease: bytes


class GetImage(Struct, frozen=True):
    """Have the files of an image ready for a lease; tell of it with `image_there`."""

    lease: bytes
    image: str  # its name
    place: str = ""  # where they are; then they are only to be kept


class EnterImage(Struct, frozen=True):
    """Make a sandbox with these files for a lease; tell of it with `image_entered`."""

    lease: bytes
    place: str


class LetGoOfImage(Struct, frozen=True):
    """A lease that was given an image needs it no more, nor a sandbox that waits for it."""

    lease: bytes


class KeepBlob(Struct, frozen=True):
    """Keep these bytes of a blob, which follow those that were kept before."""

    number: int
    start: int
    payload: Sequence[bytes]
    lease: bytes = b""  # whose input it is: the memory may be that of another one of it
    size: int = 0  # of all of that; 0: it is no input


class FinishBlob(Struct, frozen=True):
    """All of a blob is there: nobody may change it from now on."""

    number: int


class DropBlob(Struct, frozen=True):
    """Let go of what is kept of a blob."""

    number: int


class DropSpare(Struct, frozen=True):
    """Let go of memory that waits for other inputs."""


class LoadWorker(Struct, frozen=True):
    """Let one more worker load the function; `Loaded`, `LoadFailed` or `Died` tells of it."""


class MakeTemplate(Struct, frozen=True):
    """Let a worker do nothing from now on but fork others; answered by `TemplateServes`."""

    worker: int


class ForkWorker(Struct, frozen=True):
    """Let a template fork one more worker; `Copied`, `NotCopied` or `Died` tells of it."""

    template: int


class AssignSpan(Struct, frozen=True):
    """Open a cell and let a worker run a span, after those it has."""

    worker: int
    cell: int
    span: Span
    leaves: Sequence[StoredLeaf]  # all that the span lies in, ascending
    left: int  # inputs of the job that are with no worker yet, here or at the scheduler
    slots: int  # how many calls of the job run here at once; with `left` it bounds a stride
    careful: bool  # one call a stride: a death must be told from its neighbours
    files: Sequence[int] = ()  # numbers of what the leaves have in memory


class Steal(Struct, frozen=True):
    """Take from `middle` on what a worker has not claimed; answered by `stolen`, at once."""

    worker: int
    cell: int
    middle: int


class CutStride(Struct, frozen=True):
    """Let a worker write what it has run of its stride, and give back what it has not begun."""

    worker: int


class PauseReading(Struct, frozen=True):
    """Take nothing from the workers, or only from this one, who wait when their pipes are full."""

    worker: int | None = None


class ResumeReading(Struct, frozen=True):
    """Read from the workers again, but for those that were named; or from this one."""

    worker: int | None = None


class Interrupt(Struct, frozen=True):
    """Raise KeyboardInterrupt in a worker's call."""

    worker: int


class Expire(Struct, frozen=True):
    """Raise CallTimeout in the call of `index`, if the worker is still in it."""

    worker: int
    index: int


class Kill(Struct, frozen=True):
    """End a worker and its process group at once; answered by `Died`."""

    worker: int
    why: str = ""  # deaths.TIMEOUT; empty: it is known here


class EndWorkers(Struct, frozen=True):
    """Kill all processes of the lease, wipe its scratch; answered by `WorkersEnded`.

    Once more without a lease: end all that was kept for one that was to follow.
    """

    is_followed: bool = False  # the next lease may have what has only imported for this one


class Note(Struct, frozen=True):
    """Write a line to the log."""

    text: str


class Quit(Struct, frozen=True):
    """End the nodelet: the scheduler does not take it."""

    reason: str
    not_authorised: bool = False


class Heard(Struct, frozen=True):
    """Note, for whoever looks after this machine, that the scheduler answers."""


class Leave(Struct, frozen=True):
    """End the nodelet: it was asked to leave, and serves nobody any more."""


Effect = (
    Send
    | KeepBlanks
    | BeginLease
    | GetPackages
    | GetFiles
    | LetGoOfPackages
    | GetImage
    | EnterImage
    | LetGoOfImage
    | KeepBlob
    | FinishBlob
    | DropBlob
    | DropSpare
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
