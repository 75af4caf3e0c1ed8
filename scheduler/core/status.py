"""How the nodes are, for people and for the autoscaler."""

from burla.protocol.messages import NodeStatus

from .state import State


def node_statuses(state: State, user: str) -> tuple[NodeStatus, ...]:
    """Return how all nodes are, by name; what they run, only of `user`. Costs O(nodes)."""
    found = []
    for node in state.nodes.values():
        job = state.job_of(node.lease)
        name = job.spec.name if job is not None and job.user == user else ""
        found.append(node.status(name, state.now_s))
    return tuple(sorted(found, key=lambda node: node.name))
