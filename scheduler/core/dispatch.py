"""Giving work to the leases of a job, and taking some back. Pure.

How much is policy (allocation.py). A lease that has room but nothing to take is among the
job's `idle` or `hungry`, so that new work finds it without a look at all leases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from burla.protocol import messages as m

from . import allocation
from .effects import Send
from .job import Job, Lease

if TYPE_CHECKING:
    from .board import Board

SCAN_LEASES_MAX = 64  # of a job: with more, who should give work away is not asked each time
SCAN_S = 0.02


def hand_out(board: Board, job: Job, now_s: float) -> None:
    """Assign what is pending to who has room."""
    if job.failed or now_s < job.hold_until_s:
        return
    only_one = len(job.leases) == 1  # it takes whatever comes
    for lease_id in list(job.leases) if only_one else [*job.idle, *job.hungry]:
        if not job.pending:
            break
        feed(board, job, job.leases[lease_id])
    balance(board, job, now_s)


def feed(board: Board, job: Job, lease: Lease) -> None:
    """Assign to a lease what it should have, or end it when it is drained."""
    count = 0 if lease.draining or job.failed else allocation.portion(job, lease)
    if count or lease.forget:
        dealt = job.deal(lease, count, allocation.report_s(len(job.leases)))
        board.effects.append(Send(board.nodes[lease.node].peer, *dealt))
    if lease.draining:
        _drain(board, job, lease)
    elif not job.pending and not lease.idle() and lease.held.total < allocation.target(job, lease):
        job.hungry[lease.id] = None
    else:
        job.hungry.pop(lease.id, None)


def balance(board: Board, job: Job, now_s: float) -> None:
    """Let those who have more than they run give some to those who have nothing to run."""
    if job.pending or job.failed or not (job.idle and job.unstarted):
        return
    if len(job.leases) > SCAN_LEASES_MAX:
        if now_s < job.scanned_s + SCAN_S:
            return
        job.scanned_s = now_s
    if (shed := allocation.shed_from(job)) is not None:
        _shed(board, *shed)


def _shed(board: Board, lease: Lease, count: int) -> None:
    lease.shedding = True
    board.effects.append(Send(board.nodes[lease.node].peer, m.Retract(lease.id, count)))


def _drain(board: Board, job: Job, lease: Lease) -> None:
    """Take back what is not begun; end the lease when nothing runs on it any more."""
    if not lease.held:
        board.end_lease(job, lease, discard=False)
        board.queue_up(job)
    elif not lease.shedding and not lease.shed_empty:
        _shed(board, lease, lease.held.total)
