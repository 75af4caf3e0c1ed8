"""Leases whose job is over: workers that wait for a job like it, outcomes that nobody wants. Pure.

The node of a lingering lease is free all the same; what is here decides what becomes of the workers
when the node is given to somebody, and when they have waited in vain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from burla.protocol import messages as m

from .effects import Send
from .job import Job, Lease
from .node import Lingering, Node

if TYPE_CHECKING:
    from .board import Board

LINGER_S = 3.0  # workers wait so long for a job like theirs; a loop of small maps forks only once


def retire(board: Board, job: Job, lease: Lease, now_s: float) -> None:
    """Take a node back from a job that is complete; a job like it may follow at once."""
    if job.failed or lease.draining or not job.likeness():
        board.end_lease(job, lease, discard=False)
        return
    board.forget_lease(job, lease)
    job.past[lease.id] = lease.node
    board.nodes[lease.node].lingering = Lingering(
        lease.id, job.likeness(), job.owner, lease.slots, now_s + LINGER_S
    )


def keep(board: Board, node: Node, job: Job, slots: int) -> bytes | None:
    """Return the lease whose workers go on with `job`; None: there is none, or not any more."""
    waiting = node.lingering
    if waiting is None:
        return None
    if node.waits_for(job) and slots == waiting.slots:
        node.lingering = None
        return waiting.lease
    end(board, node)
    return None


def end(board: Board, node: Node) -> None:
    """End the workers that have waited in vain. The nodelet begins no lease before that."""
    assert node.lingering is not None
    lease_id, node.lingering = node.lingering.lease, None
    node.stopping[lease_id] = None
    board.look_at(node)
    discard = lease_id not in board.lease_jobs
    board.effects.append(Send(node.peer, m.EndLease(lease_id, discard)))


def close(board: Board, node: Node, lease_id: bytes) -> None:
    """Take note that nobody wants what is left of a past lease.

    Its workers have ended, will, or serve another lease: then the nodelet need not be woken for it.
    """
    if node.lingering is not None and node.lingering.lease == lease_id:
        board.effects.append(Send(node.peer, m.Linger(lease_id)))
    else:
        node.over[lease_id] = None


def take_over(node: Node) -> tuple[bytes, ...]:
    """Return the leases that a nodelet is to forget, as its next lease begins."""
    over, node.over = tuple(node.over), {}
    return over


def tell_over(board: Board, node: Node) -> None:
    """Tell a nodelet what it is to forget, if no other lease has begun there meanwhile."""
    for lease_id in take_over(node):
        board.effects.append(Send(node.peer, m.EndLease(lease_id, discard=True)))
