"""What administrators see and do: open jobs, the end of all, nodes that were lost. Pure."""

from itertools import islice

from msgspec.structs import replace

from burla.protocol import admin_messages as am, messages as m

from . import jobs
from .job import Job
from .node import Node
from .state import LostNode, State

LOST_KEPT_S = 7 * 86400.0  # what is lost on a Friday is still seen on a Monday
LOST_MAX = 1000  # the oldest go first


def open_jobs(state: State) -> am.Jobs:
    """Return which jobs are open, the oldest first. Costs O(jobs)."""
    told = tuple(_told(state, job) for job in islice(state.jobs.values(), am.JOBS_TOLD_MAX))
    return am.Jobs(told, len(state.jobs))


def end_jobs(state: State, by: str) -> am.Jobs:
    """End all jobs, and tell their callers; return which these were."""
    ended = open_jobs(state)
    for session in dict.fromkeys(job.owner for job in state.jobs.values()):
        client = state.clients.get(session)
        if client is not None and client.peer:
            state.send(client.peer, m.ClusterEnded(by))
    for job in list(state.jobs.values()):
        state.record(job.tenant, "job is ended", job.id, by)
        jobs.close(state, job, by)
    state.note(f"ended all jobs ({ended.total}): {by}")
    return ended


def _told(state: State, job: Job) -> am.OpenedJob:
    work = job.work
    sent = work.batches.entered if work.total is None else work.total
    return am.OpenedJob(
        user=jobs.user_of(state, job),
        name=job.spec.name,
        open_s=max(0.0, state.now_s - job.opened_s),
        left=max(0, sent - work.done.total),
        nodes=len(work.leases),
    )


# --- nodes that were lost ---


def remember(state: State, node: Node, why: str) -> None:
    """Keep a lost node listed, unless it was about to go, or is back in another life."""
    is_back = any(other.name == node.name for other in state.nodes.values())
    if node.leaving or node.retiring or is_back:
        return
    state.lost.pop(node.name, None)  # for the order
    state.lost[node.name] = LostNode(node.status("", state.now_s), state.now_s, why)
    while len(state.lost) > LOST_MAX:
        del state.lost[next(iter(state.lost))]


def forget(state: State, names: tuple[str, ...]) -> None:
    """List nodes no longer: they are back, or were removed on purpose."""
    for name in names:
        state.lost.pop(name, None)


def expire(state: State) -> None:
    """Forget nodes that were lost long ago."""
    while state.lost:
        name, lost = next(iter(state.lost.items()))
        if state.now_s < lost.lost_s + LOST_KEPT_S:
            break
        del state.lost[name]


def lost_statuses(state: State) -> list[m.NodeStatus]:
    """Return how the lost nodes were, and why and for how long they have been lost."""
    return [
        replace(
            lost.status,
            state=m.NodeState.LOST,
            idle_s=0.0,
            lost_s=max(0.0, state.now_s - lost.lost_s),
            why=lost.why,
        )
        for lost in state.lost.values()
    ]
