"""A snapshot of the nodes, for people and for the autoscaler. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from burla.protocol.messages import NodeStatus

if TYPE_CHECKING:
    from .board import Board


def node_statuses(board: Board, user: str, now_s: float) -> tuple[NodeStatus, ...]:
    """Return how all nodes are, by name; what they run, only of `user`. Costs O(nodes)."""
    found = []
    for node in board.nodes.values():
        job = board.lease_jobs.get(node.lease or b"")
        ours = job is not None and job.user == user
        found.append(node.status(job.spec.name if job is not None and ours else "", now_s))
    return tuple(sorted(found, key=lambda node: node.name))
