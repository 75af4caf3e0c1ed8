"""Which exception the caller sees when a job ends early, for another reason than one call."""

from collections.abc import Mapping
from typing import assert_never

from burla.core.effects import (
    Broken,
    Deliver,
    DetachWanted,
    Fail,
    Finish,
    Held,
    Lacking,
    Rejected,
    Slots,
)
from burla.errors import (
    CallerAway,
    ClusterError,
    ClusterLost,
    ClusterUnreachable,
    InputTooLarge,
    JobFailed,
    NodeLost,
    NotAuthorised,
    Refused,
    Unsatisfiable,
)
from burla.transport.addresses import take_apart
from burla.transport.reaching import why_unreachable

from .command_queue import LocalError
from .delivery import Opener
from .job import Event, Job
from .stored import StoredJob


def raise_if_bad(
    event: Event, job: Job | StoredJob, limits: Mapping[str, object], opener: Opener
) -> None:
    """Raise what an event means for the caller, if it ends the job early.

    Args:
        event: of the job.
        job: which it is.
        limits: arguments of the call by name.
        opener: knows its inputs.
    """
    address = job.address
    match event:
        case Broken(how="lost"):
            raise ClusterLost(address, event.why)
        case Broken(how="ended"):
            raise ClusterError(f"{event.why}\nThe next call starts a new private cluster")
        case Broken():
            why = why_unreachable(take_apart(address).endpoint)
            raise ClusterUnreachable(address, f"{event.why}; {why}" if why else event.why)
        case Rejected(not_authorised=True):
            raise NotAuthorised(f"{address.partition('?')[0]}: {event.reason}")
        case Rejected():
            raise Refused(event.reason)
        case Fail(index=int(index), nodes=(_, *_) as nodes):
            raise NodeLost(index, nodes, call=opener.note(index, nodes[-1]))
        case Fail(index=int(index), text=text):
            raise InputTooLarge(index, text)
        case Fail(away_s=away_s) if away_s:
            raise CallerAway(event.text, away_s, event.limit_s)
        case Fail(argument="", text=text):
            raise JobFailed(text)
        case Fail():
            value = limits.get(event.argument)
            raise Unsatisfiable(event.argument, value, event.text, is_private=job.is_private)
        case LocalError():
            raise event.error
        case Finish() | Deliver() | Slots() | Lacking() | DetachWanted() | Held():
            pass
        case _:
            assert_never(event)
