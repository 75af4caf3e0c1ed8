"""Which free node goes to which job, and who must give one up. Pure policy.

Users first, then their jobs: whoever has the fewest nodes gets the next one; among equals, who came
first.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial

from .jobs import Job, Lease
from .nodes import Node

MISFITS_SAID = 4  # nodes named in one line


def wants_node(job: Job) -> bool:
    """Return whether one more node would help `job` now."""
    if job.failed or job.is_complete():
        return False
    cap = job.spec.max_parallelism
    if cap is not None and job.slots() >= cap:
        return False
    if not job.leases:
        return True
    unstarted = sum(max(0, e.held.total - e.slots) for e in job.leases.values())
    empty = sum(not lease.held for lease in job.leases.values())  # each takes an input or more
    return job.pending.total + unstarted > empty


def in_turn(candidates: Iterable[Job], jobs: Iterable[Job]) -> list[Job]:
    """Return those `candidates` that want a node, the most entitled first among all `jobs`."""
    wanting = [job for job in candidates if wants_node(job)]
    if len(wanting) < 2:
        return wanting
    by_user: Counter[bytes] = Counter()
    for job in jobs:
        by_user[job.owner] += len(job.leases)
    # who has nothing to run yet comes last: it might never have
    return sorted(
        wanting,
        key=lambda job: (not job.pending, by_user[job.owner], len(job.leases), job.opened_s),
    )


def choose(jobs: Sequence[Job], nodes: Sequence[Node]) -> tuple[Job, Node] | None:
    """Return the job in `jobs` that gets a node next, and which; None: no node fits any of them."""
    for job in jobs:
        fitting = [node for node in nodes if node.slots(job)]
        if fitting:
            return job, max(fitting, key=partial(_preference, job))
    return None


def _preference(job: Job, node: Node) -> tuple[bool, bool, int]:
    """Return what makes `node` the better one for `job`, the most important first."""
    return node.waits_for(job), node.lingering is None, node.slots(job)


def to_drain(jobs: Iterable[Job], nodes: dict[bytes, Node]) -> Lease | None:
    """Return a lease that should be handed over to a job that has none; None: nobody waits so.

    Taken from a job that has nothing to run on it now (its inputs come slowly, perhaps from the job
    that waits), else from the one with the most nodes, if it keeps at least one. Never two for one
    waiting job.
    """
    jobs = list(jobs)
    waiting = [job for job in jobs if not job.leases and wants_node(job)]
    under_way = sum(lease.draining for job in jobs for lease in job.leases.values())
    under_way += sum(bool(node.stopping) for node in nodes.values())
    if len(waiting) <= under_way:
        return None
    with_work = [job for job in waiting if job.pending]  # two idle jobs must not take turns
    for idle in (job for job in jobs if with_work and not job.pending):
        for lease in idle.leases.values():
            node = nodes[lease.node]
            if not (lease.held or lease.draining) and any(map(node.slots, with_work)):
                return lease
    for rich in sorted(jobs, key=lambda job: -len(job.leases)):
        leases = [lease for lease in rich.leases.values() if not lease.draining]
        if len(leases) < 2:
            continue
        fits = [e for e in leases if any(nodes[e.node].slots(job) for job in waiting)]
        if fits:
            return min(fits, key=lambda lease: lease.held.total)
    return None


def why_waiting(job: Job, jobs: Iterable[Job], nodes: Iterable[Node]) -> str:
    """Return one line for the caller of `job`, which has no node."""
    nodes = list(nodes)
    if not nodes:
        return "no node is connected to the cluster"
    misfits = [why for node in nodes if (why := node.misfit(job)[1])]
    fitting = len(nodes) - len(misfits)
    if not fitting:
        return f"no connected node fits: {'; '.join(misfits[:MISFITS_SAID])}"
    others = [other for other in jobs if other is not job]
    serving = sum(len(other.leases) for other in others)
    ahead = sum(not o.leases and o.opened_s < job.opened_s and wants_node(o) for o in others)
    text = (
        f"all {fitting} fitting nodes are busy" if fitting > 1 else "the only fitting node is busy"
    )
    text += f" ({serving} serve other jobs" + (f", {ahead} jobs are ahead)" if ahead else ")")
    return text


def unsatisfiable(job: Job, nodes: Iterable[Node]) -> tuple[str, str] | None:
    """Return the argument that no connected node can satisfy, and why; None: some node fits."""
    misfits = [node.misfit(job) for node in nodes]
    if not misfits or not all(why for _, why in misfits):
        return None
    argument = misfits[0][0]
    reasons = "; ".join(why for _, why in misfits[:MISFITS_SAID])
    if argument == "python":  # not an argument of the call
        return "", f"no node of the cluster runs this Python version ({reasons})"
    return argument, f"no node of the cluster can run one such call ({reasons})"
