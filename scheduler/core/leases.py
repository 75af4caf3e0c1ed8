"""The life of leases: one table, and what nodes and jobs point to in it.

`move` is the only place where a lease changes its state, and `enter` the only one where it begins:
so the table and the indices (`Node.lease`, `Job.past`, ...) cannot disagree.
"""

from burla.protocol import messages as m

from . import records
from .job import Job
from .lease import ENDED, OCCUPYING, SERVING, Lease, LeaseState
from .node import Node
from .state import GoneLease, State


def enter(state: State, lease: Lease) -> None:
    """Put a lease into the table that is not there yet."""
    assert lease.id not in state.leases, lease.id
    state.leases[lease.id] = lease
    _put_in(state, lease, state.nodes[lease.node], state.job_of(lease))
    if lease.state in OCCUPYING:
        state.free.pop(lease.node, None)


def move(state: State, lease: Lease, to: LeaseState) -> None:
    """Change the state of a lease, and all that follows from it for its node and its job.

    Raises:
        WrongTransition: the lease cannot go there; nothing has changed.
    """
    before = lease.state
    lease.move(to, state.now_s)
    node, job = state.nodes[lease.node], state.job_of(lease)
    _take_out(state, lease, before, node, job)
    _put_in(state, lease, node, job)
    if to in OCCUPYING:
        state.free.pop(lease.node, None)
    elif before in OCCUPYING:
        state.marks.nodes[lease.node] = None  # it may be free now


def _take_out(state: State, lease: Lease, before: LeaseState, node: Node, job: Job | None) -> None:
    """Take a lease out of the indices where it was."""
    if before in SERVING:
        node.lease = lease.running = None
        assert job is not None, lease.id
        job.work.drop_lease(lease)
        if state.inputs.lines or state.inputs.early:
            state.inputs.drop_lease(lease.id, job.id)
        is_last = not job.work.leases and not job.work.is_complete()
        record = state.records.open[job.id]
        records.lease_ends(record, node.name, state.now_s, is_last=is_last)
        if job.work.waiting():
            state.marks.jobs[job.id] = None  # what it held is pending again
    elif before is LeaseState.WARM:
        node.warm, lease.reuse_key = None, ()
    elif before is LeaseState.STOPPING:
        del node.stopping[lease.id]
    elif before is LeaseState.ORPHAN:
        del node.orphans[lease.id]
        lease.claim = None
    if before in ENDED and job is not None:
        del job.past[lease.id]


def _put_in(state: State, lease: Lease, node: Node, job: Job | None) -> None:
    """Put a lease into the indices where it is now."""
    match lease.state:
        case LeaseState.ACTIVE | LeaseState.DRAINING:
            assert job is not None, lease.id
            assert node.lease is None, lease.id
            node.lease = lease
            job.work.add_lease(lease)
            record = state.records.open[job.id]
            records.lease_begins(record, lease, node.name, state.now_s)
        case LeaseState.WARM:
            node.warm = lease
        case LeaseState.STOPPING:
            node.stopping[lease.id] = lease
        case LeaseState.ORPHAN:
            node.orphans[lease.id] = lease
        case LeaseState.GONE:
            node.untold.pop(lease.id, None)
            del state.leases[lease.id]
            gone = GoneLease(lease.id, node.name, lease.job, tuple(lease.history))
            state.gone.append(gone)
        case LeaseState.PAST:
            pass
    if lease.state in ENDED and job is not None:
        job.past[lease.id] = lease


def drain(state: State, lease: Lease) -> None:
    """Assign a serving lease no more work; it is ended when it holds nothing."""
    if lease.state is LeaseState.ACTIVE:
        lease.move(LeaseState.DRAINING, state.now_s)  # it is where it was in all indices
    lease.had_nothing = False
    state.marks.leases[lease.id] = lease


def retract(state: State, lease: Lease, inputs: int) -> None:
    """Ask a nodelet to give back what it has not begun."""
    lease.is_retracting = True
    state.send(state.nodes[lease.node].peer, m.Retract(lease.id, inputs))


def end(state: State, lease: Lease, *, discard: bool) -> None:
    """Tell a nodelet to end a lease; its node is free when it says Stopped."""
    move(state, lease, LeaseState.STOPPING)
    state.send(state.nodes[lease.node].peer, m.EndLease(lease.id, discard))


def lose(state: State, lease: Lease) -> None:
    """Take note that nothing more comes of a lease: its nodelet does not have it any more."""
    if job := state.job_of(lease):
        state.journal.add(state.now_s, _lost, state, job, lease)
        state.tell(job, m.LeaseLost(job.id, lease.id, state.nodes[lease.node].name))
    move(state, lease, LeaseState.GONE)


def _lost(state: State, job: Job, lease: Lease) -> str:
    node = state.nodes[lease.node].name
    return f"job {job.id.hex()[:8]} has lost node {node}: lease {lease.id.hex()}"


def workers_are_gone(state: State, lease: Lease) -> None:
    """Take note that a lease has ended, or that its workers go on with another one."""
    is_kept = lease.wanted or lease.id in state.nodes[lease.node].untold
    move(state, lease, LeaseState.PAST if is_kept else LeaseState.GONE)


def disown(job: Job, lease: Lease) -> None:
    """Take note that the job of an ended lease is closed: nobody wants what is left of it."""
    del job.past[lease.id]
    lease.wanted = False


def take_untold(state: State, node: Node) -> tuple[bytes, ...]:
    """Return the leases that a nodelet is to be told to forget, which the caller now does."""
    untold, node.untold = node.untold, {}
    for lease in untold.values():
        if lease.state is LeaseState.PAST:
            move(state, lease, LeaseState.GONE)
    return tuple(untold)
