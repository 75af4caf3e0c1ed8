"""What jobs that wait for a node are told: their place, for whom they wait, who does not fit. Pure.

All of them are told in one pass, so that many waiting jobs don't cost the square of their number.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from .assignment import Shares, wants_node
from .job import Job
from .lease import LeaseState
from .node import Node

MISFITS_SAID = 4  # nodes named in one line
USERS_SAID = 3
LOST_SAID = 4  # nodes, the last ones
# of nodes: python, func_cpu, func_ram, func_gpu, image
Needs = tuple[str, int, int | None, int, str]


def needs_of(job: Job) -> Needs:
    """Return what decides which nodes fit a job."""
    return job.python, job.spec.func_cpu, job.spec.func_ram, job.func_gpu, job.spec.image


def reasons(
    waiting: Iterable[Job], jobs: Collection[Job], nodes: Sequence[Node]
) -> dict[bytes, str]:
    """Return one line for the caller of each of the `waiting` jobs, by id."""
    shares = Shares(jobs)
    line = sorted((job for job in waiting if wants_node(job)), key=shares.claim)
    serving = _serving(jobs)
    handed_over = _handed_over(jobs, nodes)
    found: dict[Needs, tuple[int, list[str]]] = {}
    said = {}
    for place, job in enumerate(line, 1):
        needs = needs_of(job)
        if needs not in found:
            misfits = [why for node in nodes if (why := node.misfit(job)[1])]
            found[needs] = len(nodes) - len(misfits), misfits
        fitting, misfits = found[needs]
        if not nodes:
            said[job.id] = f"no node is connected to the cluster{_lost(job)}"
        elif not fitting:
            said[job.id] = f"no connected node fits: {'; '.join(misfits[:MISFITS_SAID])}"
        else:
            text = f"all {fitting} nodes that fit are busy" if fitting > 1 else "the node is busy"
            said[job.id] = f"number {place} in line, {text}{serving}{handed_over}"
    return said


def _lost(job: Job) -> str:
    """Say which nodes were lost while they ran the job, if any were."""
    names = [loss.name for loss in job.work.suspects.losses]
    if not names:
        return ""
    more = ", ..." if len(names) > LOST_SAID else ""
    return f"; lost while they ran this job: {', '.join(names[-LOST_SAID:])}{more}"


def _serving(jobs: Iterable[Job]) -> str:
    users: Counter[str] = Counter()
    for job in jobs:
        users[job.user] += len(job.work.leases)
    most = [f"{user}: {count}" for user, count in users.most_common(USERS_SAID) if count]
    return f" ({', '.join(most)}{', ...' if len(+users) > USERS_SAID else ''})" if most else ""


def _handed_over(jobs: Iterable[Job], nodes: Sequence[Node]) -> str:
    """Say which call the next node is waited for, if one is being handed over."""
    for job in jobs:
        for lease in job.work.leases.values():
            if lease.state is LeaseState.DRAINING and (first := lease.held.first()):
                name = next((node.name for node in nodes if node.id == lease.node), "a node")
                return f"; {name} is handed over when input {first[0]} of {job.spec.name} has run"
    return ""


def unsatisfiable(
    job: Job, nodes: Iterable[Node], *, is_private: bool = False
) -> tuple[str, str] | None:
    """Return the argument that no connected node can satisfy, and why; None: some node fits."""
    misfits = []
    for node in nodes:
        argument, why = node.misfit(job)
        if not why:
            return None
        misfits.append((argument, why))
    if not misfits:
        return None
    argument = misfits[0][0]
    reasons = "; ".join(why for _, why in misfits[:MISFITS_SAID])
    if argument == "python":  # not an argument of the call
        text = f"no node of the cluster runs this Python version ({reasons})"
        remedy = (
            f"an administrator makes nodes with {job.python}: on the scheduler's own machine by"
            f" running `burla up` with Python {job.python}, elsewhere by"
            f' python = "{job.python}" in the cluster\'s file'
        )
        return "", f"{text}: run your script with one that they run, or {remedy}"
    if argument == "policy":  # of several, of which the caller knows those that were given
        text = "no node of the cluster knows return_exceptions, timeout, retries and func_gpu"
        upgrade = "an administrator upgrades them with `burla up`, or leave these arguments out"
        return "", f"{text} ({reasons}): {upgrade}"
    if argument == "image":  # nobody can lower it
        text = f"image={job.spec.image!r}: no node of the cluster runs images ({reasons})"
        remedy = "an administrator installs podman on the nodes and starts them again"
        return "", f"{text}: {remedy}, or leave image out"
    if is_private:
        text = "no cluster is set (BURLA_CLUSTER, `burla login`), so calls run on this machine:"
        return argument, f"{text} {reasons}"
    return argument, f"no node of the cluster can run one such call ({reasons})"
