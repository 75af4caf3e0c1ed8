"""How a job fails that its client is told of: by a word of the scheduler, not by a call's error."""

from msgspec.structs import replace

from burla.protocol import messages as m

from .job import Job
from .state import State


def fail(
    state: State,
    job: Job,
    argument: str,
    text: str,
    *,
    index: int | None = None,
    nodes: tuple[str, ...] = (),
    packages: tuple[str, ...] = (),
    momentary: bool = False,
) -> None:
    """Tell the client that its job never can be done; `index`: which input is why.

    `packages`: that a node cannot have, if that is why: its client may open it again with them.
    `momentary`: only for now: its client may open it again in a while.
    """
    job.failed = True
    job.failure = m.JobFailed(job.id, argument, text, index, nodes)
    job.failure = replace(job.failure, packages=packages, momentary=momentary)
    state.tell(job, job.failure)
