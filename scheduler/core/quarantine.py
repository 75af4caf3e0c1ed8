"""Running inputs alone that nodes may have died of, and naming the one that they died of.

A lease tries one input at a time, with nothing else on its node, while the others go on with the
rest. Who may be the one: suspects.py.
"""

from burla.protocol.ranges import Ranges

from . import allocation, big_inputs, jobs, leases, retries
from .job import Job
from .lease import Lease, LeaseState
from .state import State
from .suspects import Loss
from .work import Work

FRESH_S = 0.3  # a node that spoke this lately is alive: it has not died of something else before


def count_loss(work: Work, lease: Lease, name: str, now_s: float, *, orderly: bool) -> None:
    """Take note that the node of a lease is lost, with what it holds; before it is dropped."""
    work.suspects.prune(work.done)
    held = Ranges(lease.held)
    if lease.amid is not None and lease.amid in held:  # its call was over
        held.remove(lease.amid, lease.amid + 1)
    alone = lease.trial if held.total == 1 else None
    work.suspects.add(Loss(lease.node, name, held, now_s, alone, orderly))


def acquit(work: Work, node: bytes) -> None:
    """Take note that a node which was thought lost lives: nothing that it had counts for it."""
    if work.suspects.undo(node):
        work.suspects.prune(work.done)
        for lo, hi in list(work.quarantine):
            work.quarantine.remove(lo, hi)
            work.queue(lo, hi)


def isolate(state: State, job: Job) -> None:
    """Let leases run inputs of the quarantine alone: half of them, and those that are idle."""
    work = job.work
    if _next(job) is None:
        return
    active = [lease for lease in work.leases.values() if lease.state is LeaseState.ACTIVE]
    alone = [lease for lease in active if lease.is_alone]
    may_be_idle = not work.pending.total
    bad_names = work.suspects.names()

    def order(lease: Lease) -> tuple[bool, int]:
        """Other machines than those that died first; then who is free first."""
        return state.nodes[lease.node].name in bad_names, lease.held.total

    for lease in sorted((each for each in active if not each.is_alone), key=order):
        is_idle = may_be_idle and not lease.held.total
        if len(alone) >= work.quarantine.total:
            break
        if is_idle or len(alone) < max(1, len(active) // 2):
            work.begin_alone(lease)
            alone.append(lease)
    state.marks.leases.update({lease.id: lease for lease in alone})


def go_on(state: State, job: Job, lease: Lease) -> None:
    """Give a lease its next input, once it has nothing else; or let it be as the others again."""
    work = job.work
    if lease.held.total:
        if lease.trial is None and not lease.is_retracting and not lease.had_nothing:
            leases.retract(state, lease, lease.held.total)
        return
    index = _next(job)
    if index is not None:
        if state.now_s > state.nodes[lease.node].heard_s + FRESH_S:
            return  # until it is heard
        if work.batches.announced and not big_inputs.can_take(state, job, lease, index):
            return  # until it is here
        report_s = allocation.report_s(len(work.leases))
        lease.trial = index
        assigned = work.assign(lease, 1, report_s)
        retries.send(state, job, lease, assigned)
        return
    work.end_alone(lease)
    cap = job.spec.max_parallelism
    if cap is not None and work.slots > cap:  # others have come meanwhile
        leases.drain(state, lease)
    else:
        state.marks.jobs[job.id] = None


def _next(job: Job) -> int | None:
    """Return the first input of the quarantine that may be tried now."""
    for lo, hi in job.work.quarantine:
        for index in range(lo, hi):
            if not job.work.suspects.awaits_verdict(index):
                return index
    return None


def expire(state: State, job: Job) -> None:
    """Fail a job that has an input of which its nodes die; go on with what may be tried."""
    work = job.work
    if job.failed or not (work.suspects.is_open or work.quarantine):
        return
    work.suspects.prune(work.done)
    guilty = work.suspects.guilty(state.now_s)
    if guilty is not None and job.goes_on:
        jobs.lose_call(state, job, guilty.index, guilty.nodes)
    elif guilty is not None:
        text = (
            f"input {guilty.index}: each node that ran it was lost ({', '.join(guilty.nodes)}), the"
            " last one while it ran nothing else"
        )
        jobs.fail(state, job, "", text, index=guilty.index, nodes=guilty.nodes)
    elif work.quarantine:
        state.marks.jobs[job.id] = None
