"""Making what the scheduler knows and what a nodelet says it holds agree, when it (re)connects.

A nodelet may say anything. A lease that is known as another node's, or as another job's, is none
of its business; and no word of it makes a lease go where its state does not lead.
"""

from collections.abc import Sequence

from burla.protocol import messages as m
from burla.protocol.ranges import Ranges

from . import leases, retries
from .job import Job
from .lease import Lease, LeaseState
from .node import Node
from .state import State

ORPHAN_S = 15.0  # how long a lease of an unknown job is kept for its client to come back


def compare(state: State, node: Node, held: Sequence[m.Held]) -> None:
    """Take note of what a nodelet that (re)connected holds, and of what it does not."""
    by_lease = {claim.lease: claim for claim in held}
    for lease in list(node.stopping.values()):
        if lease.id not in by_lease:
            leases.workers_are_gone(state, lease)
    if node.warm is not None:  # nodelets end those by themselves when their connection is new
        leases.workers_are_gone(state, node.warm)
    if (serving := node.lease) is not None:
        _compare_serving(state, node, serving, by_lease.pop(serving.id, None))
    for lease in list(node.orphans.values()):
        if lease.id not in by_lease:
            leases.move(state, lease, LeaseState.GONE)
    for claim in by_lease.values():
        _take(state, node, claim)
    state.marks.nodes[node.id] = None


def _compare_serving(state: State, node: Node, lease: Lease, claim: m.Held | None) -> None:
    """Requeue what the lease that serves a job does not hold; all of it, if it is gone."""
    if claim is None:
        leases.lose(state, lease)
        # it may have been begun when the nodelet had said so already: then it is on its way there
        state.send(node.peer, m.EndLease(lease.id, discard=True))
        return
    if claim.stopped:
        leases.move(state, lease, LeaseState.PAST)  # what it has run comes
        return
    job = state.jobs[lease.job]
    retries.note(state, job, lease, claim.tried)
    has = Ranges((span.lo, span.hi) for span in claim.spans)
    for lo, hi in list(lease.held):
        for gap in has.missing(lo, hi):  # assigned, but it never arrived
            job.work.give_back(lease, *gap)
    lease.sent = Ranges()  # nor did leaves, perhaps
    state.inputs.drop_lease(lease.id, job.id)  # it asks anew
    lease.is_retracting = False
    state.marks.jobs[job.id] = None
    state.marks.leases[lease.id] = lease


def _take(state: State, node: Node, claim: m.Held) -> None:
    """Decide about a lease that a nodelet holds and that does not serve a job for us."""
    lease = state.leases.get(claim.lease)
    job = state.jobs.get(claim.job)
    if lease is not None and (lease.node != node.id or lease.job != claim.job):
        state.send(node.peer, m.EndLease(claim.lease, discard=True))  # no honest word
    elif lease is not None and lease.state is not LeaseState.ORPHAN:
        _end_again(state, node, lease)
    elif job is not None and node.lease is None:
        _adopt(state, node, job, claim)
    elif job is not None or claim.lease.startswith(state.instance[:8]):
        # its job has a lease here already; or it is a lease of ours, so its job is closed
        if lease is None:
            leases.enter(state, _lease_of(state, node, claim, LeaseState.STOPPING))
            state.send(node.peer, m.EndLease(claim.lease, discard=True))
        else:
            leases.end(state, lease, discard=True)
    elif lease is None:
        lease = _lease_of(state, node, claim, LeaseState.ORPHAN)
        lease.claim, lease.until_s = claim, state.now_s + ORPHAN_S
        leases.enter(state, lease)
    else:
        lease.claim = claim  # its time does not begin anew with each connection


def _lease_of(state: State, node: Node, claim: m.Held, at: LeaseState) -> Lease:
    """Return a lease that begins here in the middle of its life."""
    since_s = state.now_s
    return Lease(claim.lease, node.id, claim.job, claim.slots, since_s, at, wanted=False)


def _end_again(state: State, node: Node, lease: Lease) -> None:
    """Tell a nodelet once more to end a lease that has ended for us."""
    assert lease.state in (LeaseState.STOPPING, LeaseState.PAST), lease
    if lease.state is LeaseState.PAST and not lease.wanted:
        del node.untold[lease.id]  # it is told now
        leases.end(state, lease, discard=True)
        return
    state.send(node.peer, m.EndLease(lease.id, discard=not lease.wanted))


def adopt_orphans(state: State, node: Node, job: Job) -> None:
    """Go on with leases of a job that was not known when the nodelet told of them."""
    for lease in list(node.orphans.values()):
        if lease.job == job.id and node.lease is None:
            assert lease.claim is not None, lease
            _adopt(state, node, job, lease.claim)
            # what it has said since its Hello came before the job, and went nowhere
            state.send(node.peer, m.HelloRequired())


def _adopt(state: State, node: Node, job: Job, claim: m.Held) -> None:
    """Go on with a lease that an earlier scheduler gave, or that we thought lost."""
    cap = job.spec.max_parallelism
    if claim.stopped:
        to = LeaseState.PAST  # what it has run is welcome
    elif cap is not None and job.work.slots + claim.slots > cap:
        to = LeaseState.STOPPING  # likewise
    else:
        to = LeaseState.ACTIVE
    lease = state.leases.get(claim.lease)
    if lease is None:
        lease = _lease_of(state, node, claim, to)
        lease.wanted = True  # its job is open
        leases.enter(state, lease)
    else:
        lease.slots, lease.wanted = claim.slots, True
        leases.move(state, lease, to)
    if to is LeaseState.STOPPING:
        state.send(node.peer, m.EndLease(lease.id, discard=False))
    elif to is LeaseState.ACTIVE:
        retries.note(state, job, lease, claim.tried)
        for span in claim.spans:
            job.work.adopt(lease, span.lo, span.hi)
        state.marks.jobs[job.id] = None


def await_jobs(state: State, now_s: float) -> None:
    """Take note that jobs which nodes may hold something of are still being read from a disk.

    To be said again and again meanwhile: nodes go on with what they have of them.
    """
    until_s = now_s + ORPHAN_S
    state.former.settled_s = max(state.former.settled_s, until_s)
    for node in state.nodes.values():
        for lease in node.orphans.values():
            lease.until_s = max(lease.until_s, until_s)


def expire(state: State, node: Node) -> None:
    """End the leases whose client did not come back in time."""
    for lease in list(node.orphans.values()):
        if state.now_s >= lease.until_s:
            leases.end(state, lease, discard=True)
