"""Leases whose job is over: workers that wait for a job like it, outcomes that nobody wants.

The node of a warm lease is free all the same; what is here decides what becomes of the workers
when the node is given to a job, and when they have waited in vain.
"""

from typing import NamedTuple

from burla.protocol import messages as m

from . import leases
from .job import Job
from .lease import Lease, LeaseState
from .node import Node
from .state import State

# Workers wait so long for a job like theirs: a loop of small maps forks only once.
WARM_S = 3.0
# They may have imported for seconds, which nobody sees from outside but by how long a job took that
# they ran: no more than that is lost with them. So they wait for some times the longest of these.
WARM_TIMES, WARM_S_MAX = 10, 60.0


def retire(state: State, job: Job, lease: Lease) -> None:
    """Take a node back from a job that is complete; a job like it may follow at once."""
    key = job.reuse_key()
    if job.failed or lease.state is LeaseState.DRAINING or not key:
        leases.end(state, lease, discard=False)
        return
    lease.reuse_key, lease.owner = key, job.owner
    lease.longest_s = max(lease.longest_s, state.now_s - lease.since_s)
    lease.until_s = state.now_s + min(WARM_S_MAX, max(WARM_S, WARM_TIMES * lease.longest_s))
    leases.move(state, lease, LeaseState.WARM)


class Heritage(NamedTuple):
    """What a lease has of the one that waited on its node: their ids; None: nothing."""

    keep: bytes | None = None  # its workers
    follows: bytes | None = None  # the place where they were, and what it has imported


def take_over(state: State, node: Node, job: Job, lease: Lease) -> Heritage:
    """Return what `job` goes on with on this node.

    There may be more workers or fewer than it has slots here: that is for the nodelet to see to.

    Args:
        state: of all.
        node: that is given to the job.
        job: that gets it.
        lease: of the job, which has begun.
    """
    warm = node.warm
    if warm is None:
        return Heritage()
    if warm.reuse_key == job.reuse_key():
        lease.longest_s = warm.longest_s
        leases.workers_are_gone(state, warm)
        return Heritage(keep=warm.id)
    # detached jobs of one user have one session, though they may be of several programs
    if warm.owner == job.owner and node.takes_followers and job.spec.detached is None:
        leases.move(state, warm, LeaseState.STOPPING)  # which the next message says
        return Heritage(follows=warm.id)
    end(state, warm)
    return Heritage()


def end(state: State, lease: Lease) -> None:
    """End workers that have waited in vain. The nodelet begins no lease before that."""
    leases.end(state, lease, discard=not lease.wanted)


def close(state: State, job: Job, lease: Lease) -> None:
    """Take note that nobody wants what is left of an ended lease.

    If its workers have ended, will, or serve another lease, the nodelet need not be woken for it.
    """
    leases.disown(job, lease)
    node = state.nodes[lease.node]
    if lease.state is LeaseState.WARM:
        state.send(node.peer, m.Linger(lease.id))
    else:
        node.untold[lease.id] = lease


def expire(state: State, node: Node) -> None:
    """End workers whose time is over; tell a nodelet what no next lease has told it meanwhile."""
    if node.warm is not None and state.now_s >= node.warm.until_s:
        end(state, node.warm)
    for lease_id in leases.take_untold(state, node):
        state.send(node.peer, m.EndLease(lease_id, discard=True))


def end_session(state: State, session: bytes) -> None:
    """End the workers that wait for jobs of a client that is gone."""
    for node in state.nodes.values():
        if node.warm is not None and node.warm.owner == session:
            end(state, node.warm)
