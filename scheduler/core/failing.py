"""How a job fails that its client is told of: by a word of the scheduler, not by a call's error."""

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
) -> None:
    """Tell the client that its job never can be done; `index`: which input is why."""
    job.failed, job.failure = True, m.JobFailed(job.id, argument, text, index, nodes)
    state.tell(job, job.failure)
