"""What messages are made of: types and bounds of their fields, and the base of all. Pure."""

from enum import IntEnum
from typing import Annotated

from msgspec import Meta, Struct

from .digest import DIGEST_BYTES

BEAT_S = 1.0  # between two Heartbeats of a peer
NUMBER_MAX = 1 << 53  # of any count: more than a cluster has of anything; exact as a float, too
ENVIRONMENT_BYTES_MAX = 512 << 10  # of OpenJob.environment; all of os.environ may be in it
PAYLOAD_BYTES_MAX = 2 << 20  # payload of one message on the wire; more travels in pieces
PIECE_FRAMES_MAX = 1 << 14  # likewise; of tiny frames, whose number is what costs
HEADER_BYTES_MAX = 1 << 20  # msgpack bytes of one header
LEASE_OUTCOME_WINDOW = 32 << 20  # bytes of unacknowledged outcomes per lease; stops its workers
LEASE_OUTPUT_WINDOW = 1 << 20  # bytes of unacknowledged output per lease
JOB_INPUT_WINDOW = 128 << 20  # bytes of batches per job that have not all their outcomes yet
JOB_INPUT_COUNT = 1 << 21  # inputs per job that have no outcome yet
OUTPUT_CHUNKS_MAX = 4096  # chunks in one Output message
RANGES_MAX = 1 << 15  # of a job, in one message
PARTS_MAX = 1 << 17  # spans, leaves or batches in one message; its header has room for no more
HELD_MAX = 1 << 12  # leases of one node that have not ended
NODES_MAX = 1 << 14  # told of in one message
WISHES_MAX = 1000  # likewise jobs that may grow
WAIT_S_MAX = 3600.0  # before a call that has failed is called again
TRIED_MAX = 1 << 12  # failed tries in one message
RUNS_MAX = 256  # in one message: its header stays small, and its first outcome is not late
LONG_CALLS_MAX = 16  # told of one lease: those that have run for longest
RUN_TABLE_BYTES_MAX = 64 << 10  # of a message with RUNS_MAX runs, or one of 4 GiB in frames
BLOBS_MAX = 200  # of one job; so many descriptors go to a worker in one message
BLOBS_SHARE = 2  # one of so many parts of a node's memory may be blobs
BLOB_PIECE_BYTES = 1 << 20  # of a blob in one message
BLOB_WINDOW = 4 << 20  # bytes of one blob that are asked for and have not come

SHARED_IS = "an absolute path of at most 256 characters, outside of /tmp, /var/tmp and /dev/shm"
_PRIVATE = ("/tmp/", "/var/tmp/", "/dev/shm/")  # of each job, where nodes have isolation

SEAL_BYTES = 16  # of HMAC-SHA-256: enough against one who cannot try offline
SECRET_BYTES_MAX = 32

Id = Annotated[bytes, Meta(min_length=16, max_length=16)]
Key = Annotated[bytes, Meta(min_length=32, max_length=32)]
Secret = Annotated[bytes, Meta(max_length=SECRET_BYTES_MAX)]
Digest = Annotated[bytes, Meta(max_length=DIGEST_BYTES)]
BlobDigest = Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
Owner = Annotated[bytes, Meta(max_length=16)]  # a name for a tenant, made by the scheduler
Packed = Annotated[bytes, Meta(max_length=ENVIRONMENT_BYTES_MAX)]
Seal = Annotated[bytes, Meta(max_length=SEAL_BYTES)]
Count = Annotated[int, Meta(ge=0, le=NUMBER_MAX)]
HashSeed = Annotated[int, Meta(ge=0, le=2**32 - 1)]  # as PYTHONHASHSEED has it
Positive = Annotated[int, Meta(ge=1, le=NUMBER_MAX)]
Seconds = Annotated[float, Meta(ge=0, le=NUMBER_MAX)]
Version = Annotated[int, Meta(ge=0, le=NUMBER_MAX)]  # of the protocol
Stream = Annotated[int, Meta(ge=1, le=3)]  # of output
STDOUT, STDERR = 1, 2
NOTICE = 3  # whole lines that nodes have for the user: the first of a job goes to stderr
# Of what people see, control characters are replaced when it is decoded: words.py
Word = Annotated[str, Meta(max_length=256)]
Minor = Annotated[str, Meta(pattern=r"^[0-9]{1,2}\.[0-9]{1,3}\Z")]  # version of a Python
Names = Annotated[tuple[Word, ...], Meta(max_length=64)]
Opaque = Annotated[bytes, Meta(max_length=256)]
GPUS_MAX = 64  # of one node
Gpus = Annotated[tuple[Word, ...], Meta(max_length=GPUS_MAX)]  # the model of each
LINES = "lines"  # of a text: it may have several
Line = Annotated[str, Meta(max_length=64 << 10)]
Text = Annotated[str, Meta(max_length=64 << 10, extra={LINES: True})]
Done = Annotated[tuple[tuple[Count, Positive], ...], Meta(max_length=RANGES_MAX)]
Streams = Annotated[tuple[Stream, ...], Meta(max_length=OUTPUT_CHUNKS_MAX)]  # of chunks
# of chunks: each is of one of the inputs [lo, hi), as far as its nodelet can tell
Whose = Annotated[tuple[tuple[Count, Count], ...], Meta(max_length=OUTPUT_CHUNKS_MAX)]
# codec.pack_runs: opaque to the scheduler, which must not pay for each run of a thousand nodes
Runs = Annotated[bytes, Meta(max_length=RUN_TABLE_BYTES_MAX)]


def is_shared(path: str) -> bool:
    """Return whether a path may be where all nodes have one file system."""
    is_path = path.startswith("/") and path.isprintable() and len(path) <= 256
    return is_path and path.strip("/") != "" and not f"{path}/".startswith(_PRIVATE)


class Message(Struct, frozen=True, tag=True, array_like=True):
    """Base of all messages; the class name is the tag on the wire."""

    def __repr__(self) -> str:
        """Return the fields for people; never what is secret, or environment variables."""
        fields = (
            f"{name}={'...' if name in _UNSHOWN else repr(getattr(self, name))}"
            for name in self.__struct_fields__
        )
        return f"{type(self).__name__}({', '.join(fields)})"


_UNSHOWN = frozenset(("environment", "secret", "topic"))


class Bulk(Message, frozen=True, kw_only=True):
    """Base of messages whose payload may travel in pieces; each piece repeats the header."""

    piece: Count = 0
    pieces: Positive = 1


class Span(Struct, frozen=True, array_like=True):
    """A run of indices [lo, hi) of the job, all inside batch `batch`."""

    batch: Count
    lo: Count
    hi: Positive


class Leaf(Struct, frozen=True, array_like=True):
    """`count` inputs of batch `batch` from index `start` on, encoded in `frames` payload frames.

    One of `size` bytes has no frames: whoever is to run it asks for it, see input_messages.py.
    """

    batch: Count
    start: Count
    count: Positive
    frames: Count
    size: Count = 0


class BlobKind(IntEnum):
    """What a blob is to the worker."""

    PART = 0  # of the function, the next behind its frames: values/parts.py
    BYTES_PART = 1  # likewise, and it was a `bytes`
    NAMED = 2  # of the job, by its name


class Blob(Struct, frozen=True, array_like=True):
    """Bytes that a job needs and that are not sent with it: whoever lacks them asks for them."""

    digest: BlobDigest
    size: Positive
    kind: BlobKind = BlobKind.PART
    name: Word = ""


Blobs = Annotated[tuple[Blob, ...], Meta(max_length=BLOBS_MAX)]


POLICIES = "policies"  # a feature: who says so knows what jobs want of calls that fail
FOLLOWS = "follows"  # likewise: a lease may begin where that of the same session before it ended


class CallPolicy(Struct, frozen=True, array_like=True):
    """What calls need, and what becomes of those that fail; older nodes get no such job."""

    goes_on: bool = False  # a call that fails is the outcome of its input, not the end of the job
    timeout_s: Seconds = 0.0  # that one call may take; 0: as long as it wants
    retries: Count = 0  # so often it is called again after an error that its worker says is one of
    backoff_s: Seconds = 0.0  # before the first of them; twice as long before each further one
    jitter: Annotated[float, Meta(ge=0, le=1)] = 0.0  # up to this part of a wait is left out
    other_node: bool = False  # not on the node where it failed, if another can be had soon
    retries_timeouts: bool = False  # also calls that had to be killed
    retries_deaths: bool = False  # also calls whose workers died: as often, if that is more
    func_gpu: Count = 0  # devices of its own for each call

    def wait_s(self, tries: int, chance: float) -> float:
        """Return how long to wait after so many failed tries; 0 <= `chance` < 1."""
        wait_s = self.backoff_s * 2.0 ** min(tries - 1, 60)
        return min(WAIT_S_MAX, wait_s) * (1 - self.jitter * chance)


MACHINES = "machines"  # a feature: who says so knows what those are to be like


class Machines(Struct, frozen=True, array_like=True):
    """What machines that are made for a job are to be like; whoever makes them may not heed it."""

    region: Word = ""  # where; empty: anywhere
    disk_gb: Count = 0  # of each, at least; 0: as it is

    def said(self) -> dict[str, str | int]:
        """Return what is wanted, by the names that its caller knows."""
        values: dict[str, str | int] = {"region": self.region, "disk_gb": self.disk_gb}
        return {name: value for name, value in values.items() if value}


class Try(Struct, frozen=True, array_like=True):
    """A call that has failed and is to be called again."""

    index: Count
    tries: Positive  # that failed, so far
    wait_s: Seconds = 0.0  # until it may be called again
    # type of the last error, as UTF-8, told once: no text, which would be looked through each time
    why: Annotated[bytes, Meta(max_length=256)] = b""


Tried = Annotated[tuple[Try, ...], Meta(max_length=TRIED_MAX)]


class Kind(IntEnum):
    """What the frames of a run hold."""

    RESULTS = 0  # values.dump_results: results of the whole run
    RESULT = 1  # values.dump_result: one result; the run has one index
    ERROR = 2  # values.dump_error: the exception that one call raised; the run has one index
    DEATH = 3  # one frame, deaths.Death: the worker died each time; the run has one index


class Run(Struct, frozen=True, array_like=True):
    """Outcomes of the consecutive indices [lo, hi), in `frames` payload frames."""

    lo: Count
    hi: Positive
    kind: Kind
    frames: Positive


class LongCall(Struct, frozen=True, array_like=True):
    """A call that has run for long: of one of the indices [lo, hi), which is mostly just one."""

    lo: Count
    hi: Positive
    seconds: Seconds


LongCalls = Annotated[tuple[LongCall, ...], Meta(max_length=LONG_CALLS_MAX)]


class Fragment(Struct, frozen=True, array_like=True):
    """Where the payload lies in the outcome of `index`, which has `size` bytes: from `at` on."""

    index: Count
    at: Count
    size: Positive


class Held(Struct, frozen=True, array_like=True):
    """What a nodelet holds of a lease: `spans` are not run yet or not acknowledged yet."""

    lease: Id
    job: Id
    slots: Positive
    spans: Annotated[tuple[Span, ...], Meta(max_length=PARTS_MAX)]
    stopped: bool  # its workers are gone; only unacknowledged outcomes and output are left
    tried: Tried = ()  # of its calls that failed and were to be called again
