"""Messages by which people look at jobs and stop them, and what is kept of each. Pure.

They go only to a scheduler that has said `JOBS` among the features in its Welcome. What anybody
sees are the jobs of the same user; administrators see all.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from .fields import LINES, Count, Id, LongCall, LongCalls, Message, Minor, Positive, Seconds, Word

JOBS = "jobs"  # a feature: who says so answers the messages here
LISTED_MAX = 1000  # jobs in one answer; their number is told, too
FAULTS_TOLD_MAX = 8  # in one report of a lease; their number is told, too
FAULTS_MAX = 32  # kept of one job, the first ones
SLOW_MAX = 16  # calls of one job, the slowest ones
NODES_KEPT_MAX = 64  # of one job, the first ones
WAITS_MAX = 16  # reasons of one job, the last ones
WHY_CHARS_MAX = 1000
FAULT_CHARS_MAX = 500
LASTED_S = 1.0  # a call that took so long is on the time line of its job
LASTED_TOLD_MAX = 32  # of them in one report of a lease
TYPES_TOLD_MAX = 8  # of errors, in one report of a lease
TYPES_MAX = 32  # of errors that are counted of one job
LINE_NODE_CHARS = 64  # of the name of a node on the time line
LEASES_KEPT_MAX = 128  # of one job, the last ones
CALLS_KEPT_MAX = 256  # that lasted, of one job, the last ones
RUNNING_MAX = 256  # calls of one job that last now
LAST_WORDS_MAX = 1000  # characters that a call has printed last
# Durations are counted by powers of two: bucket b holds [2**(b-1), 2**b) microseconds, 0 less than
# one. The last one has all that took longer than nine years.
BUCKETS = 50

Bucket = Annotated[int, Meta(ge=0, le=BUCKETS - 1)]
Durations = Annotated[tuple[tuple[Bucket, Count], ...], Meta(max_length=BUCKETS)]
Why = Annotated[str, Meta(max_length=WHY_CHARS_MAX, extra={LINES: True})]
LastWords = Annotated[str, Meta(max_length=LAST_WORDS_MAX, extra={LINES: True})]
Label = Annotated[str, Meta(max_length=LINE_NODE_CHARS)]
FaultText = Annotated[str, Meta(max_length=FAULT_CHARS_MAX, extra={LINES: True})]


def bucket_of(seconds: float) -> int:
    """Return the bucket in which a duration is counted."""
    return min(int(seconds * 1e6).bit_length(), BUCKETS - 1)


def bucket_end_s(bucket: int) -> float:
    """Return what all durations of a bucket are shorter than."""
    return float(1 << bucket) / 1e6


class ToldFault(Struct, frozen=True, array_like=True):
    """A call that has failed, as its nodelet tells it.

    Its words are UTF-8, and no text, which would be looked through in each report.
    """

    index: Count  # of its input
    type: Annotated[bytes, Meta(max_length=256)]  # of the error, or how its worker died
    text: Annotated[bytes, Meta(max_length=4 * FAULT_CHARS_MAX)]  # the beginning
    tries: Positive = 1
    seconds: Seconds = 0.0  # that it took; 0: not known
    memory: Count = 0  # that its worker had of its own at most meanwhile; 0: not seen
    words: Annotated[bytes, Meta(max_length=4 * LAST_WORDS_MAX)] = b""  # that it printed last


class EndedCall(Struct, frozen=True, array_like=True):
    """A call that lasted and has ended: of one of [lo, hi), which is mostly just one."""

    lo: Count
    hi: Positive
    seconds: Seconds
    failed: bool = False


class Tally(Struct, frozen=True, array_like=True):
    """What one report of a lease says of its calls besides their outcomes, for people."""

    durations: Durations = ()  # how many calls took how long
    failed: Count = 0  # calls whose outcome is an error or a death
    faults: Annotated[tuple[ToldFault, ...], Meta(max_length=FAULTS_TOLD_MAX)] = ()  # the first
    slow: LongCall | None = None  # the one that took longest, if that is long
    busy_s: Seconds = 0.0  # that the calls took together
    slow_memory: Count = 0  # of `slow`, as of a fault
    slow_words: Annotated[bytes, Meta(max_length=4 * LAST_WORDS_MAX)] = b""
    # calls that took `LASTED_S`, and have ended
    ended: Annotated[tuple[EndedCall, ...], Meta(max_length=LASTED_TOLD_MAX)] = ()
    # how many of `failed` were of which type, the first ones
    types: Annotated[
        tuple[tuple[Annotated[bytes, Meta(max_length=256)], Count], ...],
        Meta(max_length=TYPES_TOLD_MAX),
    ] = ()


# --- what is kept of a job ---


class JobState(StrEnum):
    """How a job stands, or how it ended."""

    WAITING = "waiting"  # nothing of it runs; see `why`
    RUNNING = "running"
    FAILING = "failing"  # an error is on its way to its caller; nothing more is begun
    COMPLETE = "complete"  # every input has its outcome
    FAILED = "failed"
    CANCELLED = "cancelled"  # by `burla jobs cancel`
    ENDED = "ended"  # before all was done: by its caller, or because that is gone
    LOST = "lost"  # the scheduler was started anew, and its caller has not come back


class Fault(Struct, frozen=True, array_like=True):
    """A call that has failed: by an error, or because its worker died."""

    index: Count  # of its input
    type: Word  # of the error, or how its worker died
    text: FaultText  # the beginning
    node: Word
    tries: Positive = 1
    seconds: Seconds = 0.0  # that it took; 0: not known
    memory: Count = 0  # bytes that its worker had of its own at most meanwhile; 0: not seen
    last_words: LastWords = ""  # the last lines that it printed


class SlowCall(Struct, frozen=True, array_like=True):
    """A call that took long: of one of [lo, hi), which is mostly just one."""

    lo: Count
    hi: Positive
    seconds: Seconds
    node: Word
    memory: Count = 0  # as of a fault
    last_words: LastWords = ""


class ErrorCount(Struct, frozen=True, array_like=True):
    """How many calls have failed with an error of a type."""

    type: Word
    calls: Count


class LeaseSpan(Struct, frozen=True, array_like=True):
    """When a node served the job."""

    node: Label
    after_s: Seconds  # since the job was opened
    seconds: Seconds
    slots: Count
    is_leased: bool = False  # now


class CallSpan(Struct, frozen=True, array_like=True):
    """When a call ran that lasted: of one of [lo, hi), which is mostly just one."""

    node: Label
    lo: Count
    hi: Positive
    after_s: Seconds  # since the job was opened, about: as the report of its end came
    seconds: Seconds
    failed: bool = False


OPEN_STATES = frozenset((JobState.WAITING, JobState.RUNNING, JobState.FAILING))


class JobSummary(Struct, frozen=True, array_like=True):
    """One job in a line."""

    job: Id
    user: Word
    name: Word  # of its function
    state: JobState
    opened_ago_s: Seconds
    took_s: Seconds  # from then until its end, or until now
    total: Count | None  # inputs; None: more may come
    done: Count  # inputs with an outcome
    failed: Count  # of these, errors and deaths
    retried: Count  # calls that failed and were called again
    slots: Count  # calls that may run at once now
    nodes: Count  # that serve it now
    why: Why  # it waits, or has ended so
    maps: Positive = 1  # equal short ones that followed each other, told as one


class JobOptions(Struct, frozen=True, array_like=True):
    """What its caller has asked for."""

    func_cpu: Positive
    func_ram: Positive | None  # bytes
    max_parallelism: Positive | None
    grow: bool
    goes_on: bool  # an error is the outcome of its input
    timeout_s: Seconds  # 0: none
    retries: Count
    func_gpu: Count = 0


class Wait(Struct, frozen=True, array_like=True):
    """A time in which nothing of a job ran."""

    why: Why
    after_s: Seconds  # since it was opened
    seconds: Seconds


class NodeShare(Struct, frozen=True, array_like=True):
    """What one node has done for a job."""

    node: Word
    leases: Positive
    slots: Count  # of the last lease
    leased_s: Seconds
    calls: Count  # with outcomes
    is_leased: bool  # now


class Lasting(Struct, frozen=True, array_like=True):
    """A call that lasts now, of one of [lo, hi); of none of them: the function is being loaded."""

    node: Word
    lo: Count
    hi: Count
    seconds: Seconds


class JobRecord(Struct, frozen=True, array_like=True):
    """All that is kept of a job."""

    summary: JobSummary
    options: JobOptions
    python: Minor
    waited_s: Seconds  # in all
    waits: Annotated[tuple[Wait, ...], Meta(max_length=WAITS_MAX)]
    nodes: Annotated[tuple[NodeShare, ...], Meta(max_length=NODES_KEPT_MAX)]
    more_nodes: Count  # that are not listed
    faults: Annotated[tuple[Fault, ...], Meta(max_length=FAULTS_MAX)]
    slow: LongCalls  # calls that took longest
    durations: Durations
    bytes_in: Count  # of inputs, as sent
    bytes_out: Count  # of outcomes, as sent
    lasting: Annotated[tuple[Lasting, ...], Meta(max_length=SLOW_MAX)] = ()
    busy_s: Seconds = 0.0  # that its calls took together
    slowest: Annotated[tuple[SlowCall, ...], Meta(max_length=SLOW_MAX)] = ()  # `slow`, with more
    error_types: Annotated[tuple[ErrorCount, ...], Meta(max_length=TYPES_MAX)] = ()
    # the time line: leases, calls that lasted, and those that last now, as of `lasting`
    leases: Annotated[tuple[LeaseSpan, ...], Meta(max_length=LEASES_KEPT_MAX)] = ()
    calls: Annotated[tuple[CallSpan, ...], Meta(max_length=CALLS_KEPT_MAX)] = ()
    running: Annotated[tuple[Lasting, ...], Meta(max_length=RUNNING_MAX)] = ()


# --- client -> scheduler ---


class ListJobs(Message, frozen=True):
    """client -> scheduler: which jobs are there? Answered by JobList."""

    limit: Annotated[int, Meta(ge=1, le=LISTED_MAX)]
    only_open: bool = False


class ShowJob(Message, frozen=True):
    """client -> scheduler: what is kept of a job? Answered by JobShown."""

    job: Word  # the first hexadecimal digits of its id; empty: the one that was opened last
    brief: bool = False  # without errors, durations and the like: asked for again and again


class CancelJob(Message, frozen=True):
    """client -> scheduler: stop a job; its caller is told. Answered by JobShown."""

    job: Word  # as in ShowJob, but never empty


class DetachJob(Message, frozen=True):
    """client -> scheduler: let a job be detached by its client. Answered by JobShown.

    Only to a scheduler that has said `ADOPT`. With `why` in the answer its client is not asked.
    """

    job: Word  # as in ShowJob


JobQuestion = ListJobs | ShowJob | CancelJob | DetachJob

# --- scheduler -> client ---


class JobList(Message, frozen=True):
    """scheduler -> client: answer to ListJobs: the open ones first, each part newest first."""

    jobs: Annotated[tuple[JobSummary, ...], Meta(max_length=LISTED_MAX)]
    total: Count  # of which the first are told


class JobShown(Message, frozen=True):
    """scheduler -> client: answer to ShowJob, CancelJob and DetachJob."""

    record: JobRecord | None
    why: Why = ""  # there is none, or nothing was done, and why


JobAnswer = JobList | JobShown
