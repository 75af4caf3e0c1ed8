"""What nodes install for a job before it begins there, as its caller is told."""

from burla.protocol import messages as m

from .job import Job
from .lease import SERVING
from .node import Node
from .state import State


def hear(state: State, node: Node, said: m.Preparing) -> None:
    """Take note of what a node does for a lease, or that it is done."""
    lease = state.leases.get(said.lease)
    job = state.job_of(lease)
    if lease is None or job is None or lease.node != node.id or lease.state not in SERVING:
        return
    preparing = job.work.preparing
    if said.text:
        preparing[lease.id] = said.text
    else:
        preparing.pop(lease.id, None)
    if not job.failed:
        _tell(state, job)


def _tell(state: State, job: Job) -> None:
    """Say why a job has not begun, if all of its nodes are still being prepared."""
    preparing, why = job.work.preparing, ""
    if preparing and len(preparing) == len(job.work.leases):
        lease, text = next(iter(preparing.items()))
        why = f"{state.nodes[state.leases[lease].node].name}: {text}"
        if len(preparing) > 1:
            why = f"{why} (and {len(preparing) - 1} more nodes)"
    if why != job.said:
        job.said = why
        state.tell(job, m.JobStatus(job.id, why, job.slots_said))
