"""Messages by which a job is detached while it runs. Pure.

Its client opens another job, which is stored (`OpenJob.adopted`), says what outcomes it has, and
gives it the inputs that are open. That goes only to a scheduler that has said `ADOPT` among the
features in its Welcome; and it is asked for only of clients that have said so in their Hello.
"""

import hashlib

from .fields import Bulk, Done, Fragment, Id, Message, Positive, Runs, Seal, Word

ADOPT = "adopt"  # a feature
BEFORE_WINDOW = 16 << 20  # bytes of outcomes of a job that are on their way to the disk
TRIES_MAX = 8  # ids that a job may have once it is detached, one for each try


def id_of(job: bytes, tried: int) -> bytes:
    """Return the id under which a job is stored that is detached, so that who asked finds it."""
    return hashlib.sha256(b"detached" + job + bytes([tried])).digest()[:16]


class OutcomesBefore(Bulk, frozen=True, kw_only=True):
    """client -> scheduler: outcomes from before the job was detached. Payload: its runs.

    Written down as JobOutcomes, whose fields these are: so they are sealed and read as such.
    """

    job: Id
    lease: Id  # of none: names the client
    seq: Positive  # from 1, with GivenBefore: all are written down in this order
    node: Word
    runs: Runs
    seal: Seal = b""
    fragment: Fragment | None = None


class GivenBefore(Message, frozen=True):
    """client -> scheduler: outcomes that the caller's iterator has yielded: nobody has them now."""

    job: Id
    seq: Positive
    ranges: Done


class BeforeStored(Message, frozen=True):
    """scheduler -> client: what was said of outcomes is on the disk, up to message `seq`."""

    job: Id
    seq: Positive


class DetachAsked(Message, frozen=True):
    """scheduler -> client: somebody who may wants this job to be detached."""

    job: Id
    by: Word
