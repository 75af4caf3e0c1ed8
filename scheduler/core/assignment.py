"""Which node goes to which job, and who must give one up. Pure policy.

Fair shares: users first, then their jobs. Whoever has the fewest nodes gets the next one; among
equals, who came first. Where nobody has two more than the poorest there is nothing to share out;
then those who have nothing take turns with those who have had theirs for a while.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial

from .job import Job
from .lease import Lease, LeaseState
from .node import Node
from .work import Work

TURN_S = 2.0  # with more jobs than nodes: so long a job keeps a node that others wait for
NEARLY_DONE_S = 0.5  # a job that will be done this soon keeps its nodes: a change takes as long
DRAINS_MAX = 32  # begun at once: each looks at all jobs


def wants_node(job: Job) -> bool:
    """Return whether one more node would help `job` now."""
    work = job.work
    if job.failed or job.is_away or not job.has_room or work.is_complete():
        return False
    cap = job.spec.max_parallelism
    if cap is not None and work.slots >= cap:
        return False
    # each lease without anything takes an input or more
    shunned = len(job.failed_calls) if job.moves_failed else 0  # by a lease that may be empty
    return not work.leases or work.waiting() > max(0, work.empty - shunned)


def in_turn(candidates: Iterable[Job], jobs: Iterable[Job]) -> list[Job]:
    """Return those `candidates` that want a node, the most entitled first among all `jobs`."""
    wanting = [job for job in candidates if wants_node(job)]
    if len(wanting) < 2:
        return wanting
    shares = Shares(jobs)
    return sorted(wanting, key=shares.claim)


def choose(jobs: Sequence[Job], nodes: Sequence[Node]) -> tuple[Job, Node] | None:
    """Return the job in `jobs` that gets a node next, and which; None: no node fits any of them."""
    for job in jobs:
        fitting = [node for node in nodes if node.slots(job)]
        if len(fitting) == 1:
            return job, fitting[0]
        if fitting:
            return job, max(fitting, key=partial(_preference, job))
    return None


def _preference(job: Job, node: Node) -> tuple[bool, bool, int]:
    """Return what makes `node` the better one for `job`, the most important first."""
    return node.has_workers_for(job), node.warm is None, node.slots(job)


class Shares:
    """How many nodes each user and job has; those that are being drained count no more."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        """Count what they have now."""
        self.users: Counter[str] = Counter()
        self.jobs: Counter[bytes] = Counter()
        for job in jobs:
            kept = sum(e.state is LeaseState.ACTIVE for e in job.work.leases.values())
            self.users[job.user] += kept
            self.jobs[job.id] += kept

    def claim(self, job: Job) -> tuple[bool, int, int, int]:
        """Return what jobs are sorted by, the most entitled first."""
        # who has nothing to run yet comes last: it might never have
        return (not job.work.waiting(), self.users[job.user], self.jobs[job.id], job.turn)

    def move(self, lender: Job | None, taker: Job) -> None:
        """Count one node from one job to another; None: it was free."""
        if lender is not None:
            self.users[lender.user] -= 1
            self.jobs[lender.id] -= 1
        self.users[taker.user] += 1
        self.jobs[taker.id] += 1

    def may_take(self, lender: Job, taker: Job) -> bool:
        """Return whether the taker is so much poorer that a node should change hands."""
        if lender.user != taker.user:
            return self.users[lender.user] >= self.users[taker.user] + 2
        return self.jobs[lender.id] >= self.jobs[taker.id] + 2

    def wealth(self, job: Job) -> tuple[int, int]:
        """Return how rich a job is, its user first."""
        return self.users[job.user], self.jobs[job.id]


def to_drain(jobs: Iterable[Job], nodes: dict[bytes, Node], now_s: float) -> list[Lease]:
    """Return the leases that should be handed over to jobs that are entitled to more.

    They are taken from jobs whose caller is away; then from jobs that have nothing to run on them
    now (their inputs come slowly, perhaps from the job that waits), else from the richest that has
    two more than the poorest; and for a job that has none, from one that has had its node for
    TURN_S.
    """
    jobs = list(jobs)
    wanting = [job for job in jobs if wants_node(job)]
    if not wanting or (len(wanting) == len(jobs) == 1):
        return []
    shares = Shares(jobs)
    draining = LeaseState.DRAINING
    coming = sum(e.state is draining for job in jobs for e in job.work.leases.values())
    coming += sum(bool(node.stopping) and node.lease is None for node in nodes.values())
    chosen: dict[bytes, Lease] = {}
    for _ in range(DRAINS_MAX):
        taker = min(wanting, key=shares.claim, default=None)
        if taker is None:
            break
        if coming:  # a node that will be free goes to whoever is next in turn
            coming -= 1
            shares.move(None, taker)
        elif found := _lease_for(taker, jobs, nodes, shares, chosen, now_s):
            lender, lease = found
            chosen[lease.id] = lease
            shares.move(lender, taker)
        else:
            wanting.remove(taker)
            continue
        if shares.jobs[taker.id] >= _most_nodes(taker.work):
            wanting.remove(taker)
    return list(chosen.values())


def likely_nodes(work: Work, free: int) -> int:
    """Return how many nodes a job will have in a moment, when so many are free."""
    if work.waiting():
        return len(work.leases) + min(free, _most_nodes(work) - len(work.leases))
    return len(work.leases)


def _most_nodes(work: Work) -> int:
    """Return with how many nodes a job can do something: an input for each."""
    return len(work.leases) + max(1, work.waiting() - work.empty)


def _lease_for(
    taker: Job,
    jobs: Sequence[Job],
    nodes: dict[bytes, Node],
    shares: Shares,
    chosen: dict[bytes, Lease],
    now_s: float,
) -> tuple[Job, Lease] | None:
    """Return a lease that `taker` should get, and whose it is."""

    def leases_of(job: Job) -> list[Lease]:
        active = (e for e in job.work.leases.values() if e.state is LeaseState.ACTIVE)
        return [e for e in active if e.id not in chosen and nodes[e.node].slots(taker)]

    for job in jobs:
        if job.is_away and (leases := leases_of(job)):
            return job, min(leases, key=lambda lease: lease.held.total)
    if taker.work.waiting():  # two jobs that have nothing to run must not take turns
        for job in jobs:
            if job is not taker and not job.work.waiting():
                for lease in leases_of(job):
                    if not lease.held:
                        return job, lease
    for job in sorted(jobs, key=shares.wealth, reverse=True):
        if job is taker or _is_nearly_done(job):
            continue
        leases = leases_of(job)
        if not shares.may_take(job, taker):
            leases = [] if shares.jobs[taker.id] else [e for e in leases if _had_its_turn(e, now_s)]
            if shares.users[job.user] < shares.users[taker.user]:
                leases = []
        if leases:
            return job, min(leases, key=lambda lease: lease.held.total)
    return None


def _had_its_turn(lease: Lease, now_s: float) -> bool:
    return now_s - lease.since_s >= TURN_S


def _is_nearly_done(job: Job) -> bool:
    work = job.work
    call_s = max((lease.call_s for lease in work.leases.values()), default=0.0)
    if work.total is None or not call_s or not work.slots:
        return False
    return (work.total - work.done.total) * call_s / work.slots < NEARLY_DONE_S
