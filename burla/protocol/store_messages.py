"""Messages about jobs that outlive their callers, which the scheduler keeps in its store. Pure.

A detached job is opened and given inputs as any other, with `OpenJob.detached`; the scheduler says
what is on its disk by `InputsStored`. From then on everybody who has a key of the same user may ask
about it. They go only to a scheduler that has said `STORE` among the features in its Welcome.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from .detach_messages import BeforeStored, DetachAsked, GivenBefore, OutcomesBefore
from .fields import Bulk, CallPolicy, Count, Id, Line, Message, Opaque, Seconds, Text, Word

STORE = "store"  # a feature of a Welcome: who says so keeps detached jobs
STORE_SIZES = "store-sizes"  # likewise: and asks for what is big of their inputs, piece by piece
STORED_TOLD_MAX = 1000  # jobs in one answer; their number is told, too
WAIT_S_MAX = 20.0  # that an answer may be waited for


class StoredState(StrEnum):
    """How far a detached job is."""

    SENT = "sent"  # its caller is still sending its inputs; calls may run already
    WAITING = "waiting"  # nothing of it runs
    RUNNING = "running"
    DONE = "done"  # all outcomes are here
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset((StoredState.DONE, StoredState.FAILED, StoredState.CANCELLED))


class StoredJob(Struct, frozen=True, array_like=True):
    """One detached job; times are Unix time."""

    job: Id
    name: Word  # of its function
    state: StoredState
    made_s: Seconds
    ended_s: Seconds  # 0: it has not ended
    until_s: Seconds  # when it is deleted; 0: it has not ended
    total: Count | None  # inputs; None: more may come
    done: Count  # inputs whose outcomes are on the disk
    failed: Count  # of these, exceptions and deaths
    size: Count  # bytes that it takes in the store
    said: Line  # why it waits, or failed
    key: Word  # public key under which it was opened, by which its seals are made (detached.py)
    policy: CallPolicy | None
    note: Opaque = b""  # its caller's, to who reads of it
    damaged: Count = 0  # records of it that were lost to damage of the disk
    notice: Line = ""  # that the user is to see, whatever becomes of it


# --- client -> scheduler ---


class AskStored(Message, frozen=True):
    """client -> scheduler: how are my detached jobs? Answered by StoredJobs."""

    job: Id | None  # None: all of them


class ReadStored(Message, frozen=True):
    """client -> scheduler: what is there of a job from here on? Answered by StoredPart.

    Without anything new the answer waits for up to `wait_s`. Asking again changes nothing.
    """

    job: Id
    segment: Count
    at: Count
    wait_s: Annotated[float, Meta(ge=0, le=WAIT_S_MAX)] = 0.0


class EndStored(Message, frozen=True):
    """client -> scheduler: stop this job, or forget all of it. Answered by StoredJobs."""

    job: Id
    delete: bool = False


ClientAboutStore = AskStored | ReadStored | EndStored | OutcomesBefore | GivenBefore

# --- scheduler -> client ---


class InputsStored(Message, frozen=True):
    """scheduler -> client: the inputs below `stop` are on the disk.

    With `total` that is all of the job: its caller may go.
    """

    job: Id
    stop: Count
    total: Count | None = None


class StoredJobs(Message, frozen=True):
    """scheduler -> client: answer to AskStored and EndStored: the newest first.

    Without the job that was asked for: there is no such job of this user.
    """

    jobs: Annotated[tuple[StoredJob, ...], Meta(max_length=STORED_TOLD_MAX)]
    total: Count  # of which the first are told
    about: Id | None = None  # which was asked for


class StoredPart(Bulk, frozen=True, kw_only=True):
    """scheduler -> client: answer to ReadStored. Payload: records (stored_records.py) in frames."""

    job: Id
    segment: Count  # as asked
    at: Count
    next_segment: Count  # where the next part begins
    next_at: Count
    is_all: bool  # there is nothing behind it now
    facts: StoredJob | None  # None: there is no such job of this user


SchedulerAboutStore = InputsStored | StoredJobs | StoredPart | BeforeStored | DetachAsked

# --- in the scheduler: to what keeps the jobs, and what that writes down ---


class LeaseBegan(Message, frozen=True):
    """A node serves the job."""

    job: Id
    lease: Id
    node: Word


class StoreOpened(Message, frozen=True):
    """The first record of a job: whose it is."""

    job: Id
    tenant: Word
    key: Word
    python: Word
    user: Word
    host: Word
    made_s: Seconds


class StoreEnded(Message, frozen=True):
    """The job has ended."""

    job: Id
    state: StoredState
    said: Text
    ended_s: Seconds
