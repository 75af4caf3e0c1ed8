"""Bringing the board and what a nodelet says it holds to agree, when it (re)connects. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from burla.protocol import messages as m
from burla.protocol.ranges import Ranges

from .effects import Send
from .job import Job, Lease
from .node import ORPHAN_S, Node, Orphan

if TYPE_CHECKING:
    from .board import Board


def compare(board: Board, node: Node, held: Sequence[m.Held], now_s: float) -> None:
    """Take note of what a nodelet that (re)connected holds, and of what it does not."""
    by_lease = {h.lease: h for h in held}
    for lease_id in [e for e in node.stopping if e not in by_lease]:
        del node.stopping[lease_id]
    node.lingering = None  # it ends those by itself when its connection is new
    if node.lease is not None:
        job = board.lease_jobs[node.lease]
        _compare_lease(board, job, job.leases[node.lease], by_lease.get(node.lease))
    orphans, node.orphans = node.orphans, {}
    for h in held:
        if h.lease != node.lease:
            known = orphans.get(h.lease)  # its time does not begin anew with each connection
            until_s = known.until_s if known else now_s + ORPHAN_S
            _take(board, node, h, until_s, now_s)
    board.look_at(node)


def _compare_lease(board: Board, job: Job, lease: Lease, held: m.Held | None) -> None:
    if held is None or held.stopped:
        board.lose_lease(job, lease)
        return
    has = Ranges((span.lo, span.hi) for span in held.spans)
    for lo, hi in list(lease.held):
        for gap in has.missing(lo, hi):  # dealt, but it never arrived
            job.give_back(lease, *gap)
    lease.sent = Ranges()  # nor did leaves, perhaps
    lease.shedding = False
    board.touch(job)
    board.touch_lease(lease)


def _take(board: Board, node: Node, held: m.Held, until_s: float, now_s: float) -> None:
    """Decide about a lease that is not the one the node serves for us."""
    job = board.jobs.get(held.job)
    if _is_anothers(board, node, held):
        board.effects.append(Send(node.peer, m.EndLease(held.lease, discard=True)))
        return
    ours = held.lease.startswith(board.instance[:8])  # then its job is closed, not unknown
    if job is None and not ours and held.lease not in node.stopping:
        node.orphans[held.lease] = Orphan(held, until_s)
    elif job is not None and held.lease in job.past:
        board.effects.append(Send(node.peer, m.EndLease(held.lease, discard=False)))
    elif job is not None and held.lease not in node.stopping and node.lease is None:
        _adopt(board, node, job, held, now_s)
    else:
        node.stopping[held.lease] = None
        board.effects.append(Send(node.peer, m.EndLease(held.lease, discard=True)))


def _is_anothers(board: Board, node: Node, held: m.Held) -> bool:
    """Return whether a lease is known, and not as this node's for this job: no honest word."""
    job = board.lease_jobs.get(held.lease)
    return job is not None and (job.id != held.job or job.past.get(held.lease) != node.id)


def adopt_orphans(board: Board, node: Node, job: Job, now_s: float) -> None:
    """Go on with leases of a job that was not known when the nodelet told of them."""
    for lease_id, orphan in list(node.orphans.items()):
        if orphan.held.job == job.id and node.lease is None:
            del node.orphans[lease_id]
            if _is_anothers(board, node, orphan.held):
                continue
            _adopt(board, node, job, orphan.held, now_s)
            # what it has said since its Hello came before the job, and went nowhere
            board.effects.append(Send(node.peer, m.HelloRequired()))


def _adopt(board: Board, node: Node, job: Job, held: m.Held, now_s: float) -> None:
    """Go on with a lease that an earlier scheduler gave, or that we thought lost."""
    board.lease_jobs[held.lease] = job
    cap = job.spec.max_parallelism
    if held.stopped or (cap is not None and job.slots + held.slots > cap):
        job.past[held.lease] = node.id  # what it has run is welcome
        if not held.stopped:
            node.stopping[held.lease] = None
            board.effects.append(Send(node.peer, m.EndLease(held.lease, discard=False)))
        return
    lease = Lease(held.lease, node.id, held.slots, now_s)
    job.add_lease(lease)
    node.lease = held.lease
    for span in held.spans:
        job.adopt(lease, span.lo, span.hi)
    board.touch(job)


def end_orphans(board: Board, node: Node, now_s: float) -> None:
    """End the leases whose client did not come back in time."""
    for lease_id, orphan in list(node.orphans.items()):
        if now_s >= orphan.until_s:
            del node.orphans[lease_id]
            node.stopping[lease_id] = None
            board.look_at(node)
            board.effects.append(Send(node.peer, m.EndLease(lease_id, discard=True)))
