"""The words between the agent, the zygotes and the supervisor: each is declared here, once.

One word is one message of a SOCK_SEQPACKET socket: a msgpack array, the name first. Named tuples
and msgpack, not msgspec: a zygote imports what every worker needs, and no worker needs that.
"""

from typing import NamedTuple, TypeVar

import msgpack

BYTES_MAX = 64 << 10  # of one word

# --- any -> agent ---


class Ready(NamedTuple):
    """I serve from now on: the first word."""


class Unusable(NamedTuple):
    """There will be no workers: the first word, and the last."""

    why: str


# --- agent -> zygote ---


class Fork(NamedTuple):
    """Fork a worker; answered by Forked or NotForked. Carries its socket, stdout and stderr."""

    page: int  # of its slate; a name for it until its pid is known
    hash_seed: int | None = None  # not ours: it is to start a Python of its own


class Adopt(NamedTuple):
    """Reap this worker, which a template has forked, as if it were yours."""

    pid: int


class Signal(NamedTuple):
    """Send a signal to a worker that has not been reaped."""

    pid: int
    number: int


class Kill(NamedTuple):
    """Kill a worker, its process group and all that is below it."""

    pid: int


class Share(NamedTuple):
    """Let all that you fork, and have forked, write to this directory, if you have shut it."""

    directory: str


class EndLease(NamedTuple):
    """Kill all below you but the workers of these pages, wipe the scratch; answered by Ended."""

    kept: list[int]
    preloader: int = -1  # the one of them that forks others: those go, too


# --- zygote -> agent ---


class Forked(NamedTuple):
    """The worker of this page is there."""

    page: int
    pid: int


class NotForked(NamedTuple):
    """There is no worker for this page."""

    page: int
    errno: int


class Died(NamedTuple):
    """A worker was reaped."""

    pid: int
    how: str  # "exit", "signal"
    status: int  # exit status, number of the signal


class Ended(NamedTuple):
    """Nothing is left of the lease."""

    is_clean: bool = True  # another may begin here


# --- agent -> supervisor ---


class Confine(NamedTuple):
    """Sandboxes are to be like this: how far leases are shut in is decided. Answers Tried."""

    confinement: str  # sandbox.Confinement, as text


class OpenSandbox(NamedTuple):
    """Make a sandbox; answered by Opened or Failed. Carries its control socket and the slates."""

    number: int  # a name for it
    image: str = ""  # a directory with the files of an image, in which workers run; empty: none
    shown: list[str] = []  # noqa: RUF012 - never changed. What else they see of the node there
    is_tried: bool = False  # workers have run in this image, so it need not be found out


# --- supervisor -> agent ---


class Tried(NamedTuple):
    """So far can leases be shut in here: the first word, if it was to try; answered by Confine."""

    tier: str
    why: str  # it is no better one


class Opened(NamedTuple):
    """The sandbox is there; its init says Ready by itself."""

    number: int
    pid: int  # of its init, as we see it


class Failed(NamedTuple):
    """There is no sandbox of this number."""

    number: int
    why: str


class Gone(NamedTuple):
    """The init of a sandbox has ended, and nothing is left of it."""

    number: int
    status: int


# --- agent -> worker ---


class LoadSettings(NamedTuple):
    """How a function is loaded, besides its bytes: the first frame of a LOAD message."""

    unpack: bool | None = False  # inputs hold positional arguments; None: those that are tuples
    environment: bytes = b""  # msgpack of values.Environment, as the client packed it
    variables: dict[str, str] = {}  # noqa: RUF012 - never changed. BURLA_JOB_ID, BURLA_NODE, ...
    func_cpu: int = 1  # threads of numeric libraries, unless the environment sets them
    node: str = ""  # what this machine is called in errors
    fragments: bool = False  # big results may go in fragments
    # Digest, size, kind (protocol.messages.BlobKind), name; their descriptors come with the message
    blobs: list[tuple[bytes, int, int, str]] = []  # noqa: RUF012 - never changed
    timeout_s: float = 0.0  # that one call may take; 0: as long as it wants
    packages: str = (
        ""  # a directory where imports look before they look where this Python has its own
    )
    func_ram: int = 0  # bytes that one call may use; 0: no limit
    in_image: bool = False  # what is called as the caller's directory is another one here

    def __repr__(self) -> str:
        return f"LoadSettings({self.node!r}, ...)"  # there may be passwords in the environment


class Modules(NamedTuple):
    """Installed modules: in a LOADED message, what was imported; in a PRELOAD, what is to be."""

    names: list[str]


ToZygote = Fork | Adopt | Signal | Kill | Share | EndLease
FromZygote = Ready | Unusable | Forked | NotForked | Died | Ended
ToSupervisor = Confine | OpenSandbox
FromSupervisor = Tried | Ready | Opened | Failed | Gone
Word = ToZygote | FromZygote | ToSupervisor | FromSupervisor | LoadSettings | Modules

_WORDS: dict[str, type[Word]] = {
    word.__name__: word
    for word in (
        *(Ready, Fork, Adopt, Signal, Kill, Share, EndLease, Forked, NotForked, Died, Ended),
        *(Unusable, Tried, Confine, OpenSandbox, Opened, Failed, Gone, LoadSettings, Modules),
    )
}
_W = TypeVar("_W", bound=Word)


def encode(word: Word) -> bytes:
    """Return the bytes of a word."""
    data: bytes = msgpack.packb([type(word).__name__, *word])
    return data


def decode(data: bytes) -> Word:
    """Return the word that these bytes are.

    Raises:
        ValueError: they are none of ours.
    """
    name, *fields = msgpack.unpackb(data)
    word = _WORDS.get(name)
    if word is None or len(fields) != len(word._fields):
        raise ValueError(f"not a word between agent and zygote: {name} with {len(fields)} fields")
    return word._make(fields)
