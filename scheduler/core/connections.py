"""Who speaks on which connection: Hellos, and connections that change hands or are given up."""

from burla.protocol import messages as m
from burla.protocol.detach_messages import ADOPT
from burla.protocol.key_messages import KEYS

from . import jobs, nodes, operators, quarantine, renewing
from .client import Client
from .effects import Forget
from .node import Node
from .state import State

REOPEN_S = 10.0  # a client that reconnected names its open jobs at once


def client_hello(state: State, peer: bytes, hello: m.ClientHello, user: str) -> bool:
    """Take up a client, or one that was here before; return whether it is welcome."""
    old = state.clients.get(hello.session)
    if old is not None and old.user != user:
        _refuse_theft(state, peer, user, "take over a session")
        return False
    if old is not None and old.peer != peer:
        forget(state, old.peer)
    _be_only(state, peer, hello.session)
    name = f"key {user[:8]}" if user else f"{hello.user}@{hello.host}"
    client = Client(hello.session, peer, hello.python, name, state.now_s, user=user)
    client.knows_keys = KEYS in hello.features
    client.can_detach = ADOPT in hello.features
    state.clients[hello.session] = state.peers[peer] = client
    if old is not None:  # its CloseJob may have been lost
        for job in state.jobs.values():
            if job.owner == hello.session:
                job.reopen_by_s = state.now_s + REOPEN_S
    return True


def node_hello(state: State, peer: bytes, hello: m.NodeHello, user: str) -> Node | None:
    """Take up a node, or one that was here before; return it, if it is welcome.

    What it holds is compared when it has been told so.
    """
    node = state.nodes.get(hello.node)
    if node is not None and user and node.heir == user:
        renewing.has_renewed(state, node)
    if node is not None and node.user != user:
        _refuse_theft(state, peer, user, "take over a node")
        return None
    _be_only(state, peer, hello.node)
    if node is None:
        node = state.nodes[hello.node] = Node.from_hello(peer, hello, state.now_s)
        node.user = user
        operators.forget(state, (node.name,))
        state.record(user, f"join as node {node.name}", None, "ok")
        state.note(f"node {node.name} joined: {node.cpus} CPUs")
        for job in state.jobs.values():
            quarantine.acquit(job.work, node.id)
    else:
        if node.peer != peer:
            forget(state, node.peer)
        node.peer, node.heard_s, node.unreachable_s = peer, state.now_s, None
    state.peers[peer] = node
    return node


def _be_only(state: State, peer: bytes, name: bytes) -> None:
    """Give up what a connection was if it says Hello as something else: it is one thing."""
    who = state.peers.get(peer)
    if isinstance(who, Client) and who.session != name:
        lose_client(state, who)
    elif isinstance(who, Node) and who.id != name:
        forget(state, peer)
        nodes.lose(state, who, "its connection is another node's now")


def _refuse_theft(state: State, peer: bytes, user: str, what: str) -> None:
    text = "another key has this session already: start a new process"
    state.send(peer, m.Refused(text, not_authorised=True))
    state.record(user, what, None, "refused")


def forget(state: State, peer: bytes) -> None:
    """Drop all that is kept for a connection."""
    state.peers.pop(peer, None)
    state.effects.append(Forget(peer))


def cut_off(state: State, peer: bytes, who: Client | Node) -> None:
    """Send nothing more to where `peer` was; it comes back on a new connection, or is lost."""
    forget(state, peer)
    who.peer = b""  # unreachable
    who.unreachable_s = state.now_s


def lose_client(state: State, client: Client) -> None:
    """Give up a client: its jobs are closed."""
    forget(state, client.peer)
    del state.clients[client.session]
    jobs.end_session(state, client.session)


def expel(state: State, peer: bytes, refused: m.Refused) -> None:
    """Give up the peer on a connection, and tell it why."""
    who = state.peers[peer]
    state.send(peer, refused)
    state.record(who.user, "go on", None, "refused")
    if isinstance(who, Client):
        lose_client(state, who)
    else:
        forget(state, peer)
        nodes.lose(state, who, refused.reason)
