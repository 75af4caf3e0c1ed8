"""The life of nodes: they are lost, or leave."""

from . import leases, operators, quarantine, reconcile, warm_leases
from .effects import Forget
from .node import SILENCE_S, Node
from .state import State


def expected(state: State) -> frozenset[bytes] | None:
    """Return the ids of the nodes that a next life of the scheduler should wait for.

    None: nothing is known yet, neither of those before nor of any now.
    """
    if state.now_s >= state.former.settled_s:
        return frozenset(state.nodes)
    if state.former.awaited is None and not state.nodes:
        return None
    return frozenset(state.nodes).union(state.former.awaited or ())


def awaited(state: State) -> frozenset[bytes]:
    """Return the ids of those of an earlier life that are not back."""
    return frozenset(state.former.awaited or ()).difference(state.nodes)


def is_back(state: State, node: Node) -> None:
    """Note that a node has said what it holds: if it is the last one, nobody waits any longer."""
    if not state.former.awaited:
        return
    state.former.awaited.discard(node.id)
    if not state.former.awaited:
        for job in state.jobs.values():
            if state.now_s < job.hold_until_s:
                job.hold_until_s = state.now_s
                state.marks.jobs[job.id] = None


def lose(state: State, node: Node, why: str, *, has_died: bool = False) -> None:
    """Give up a node: its spans are pending at once; `has_died`: perhaps of one of them."""
    state.note(f"node {node.name} is lost: {why}")
    if has_died:
        _count(state, node)
    for lease in [lease for lease in state.leases.values() if lease.node == node.id]:
        leases.lose(state, lease)
    del state.nodes[node.id]
    state.free.pop(node.id, None)


def _count(state: State, node: Node) -> None:
    """Count a node that has died, perhaps of what it ran, in each job."""
    orderly = node.leaving or node.retiring
    for job in state.jobs.values():
        if node.lease is not None and node.lease.id in job.work.leases:
            quarantine.count_loss(job.work, node.lease, node.name, state.now_s, orderly=orderly)
        elif not orderly:
            job.work.suspects.elsewhere += 1


def drain(state: State, node: Node) -> None:
    """Give a node no more work; it is released when it serves nobody."""
    node.leaving = True
    state.marks.nodes[node.id] = None
    if node.warm is not None:
        warm_leases.end(state, node.warm)
    if node.lease is not None:
        leases.drain(state, node.lease)


def expire(state: State) -> None:
    """Give up the nodes that are silent; end what has waited too long on the others."""
    for node in list(state.nodes.values()):
        if node.is_lost(state.now_s):
            is_silent = node.unreachable_s is None
            state.peers.pop(node.peer, None)
            state.effects.append(Forget(node.peer))
            why = f"nothing heard for {SILENCE_S:g} s" if is_silent else "its connection is gone"
            lose(state, node, why, has_died=True)
            operators.remember(state, node, why)
        else:
            reconcile.expire(state, node)
            warm_leases.expire(state, node)
