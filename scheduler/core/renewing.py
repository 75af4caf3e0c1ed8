"""Keys that change in the middle of jobs: that of the scheduler, and those of nodes. Pure."""

from burla.protocol import admin_messages as am
from burla.protocol.key_messages import RenewKey, ServerKey

from .client import Client
from .node import Node
from .state import State

BACK_S = 15.0  # a node that connects under its new key does so within a second


def announce(state: State, coming: ServerKey) -> None:
    """Tell the scheduler's next key to all who understand it, now and when they come."""
    state.server_key = coming
    for who in list(state.peers.values()):
        tell(state, who)


def tell(state: State, who: Client | Node) -> None:
    """Tell a peer the scheduler's next key, if there is one."""
    if state.server_key is not None and who.knows_keys and who.peer:
        state.send(who.peer, state.server_key)


def renew(state: State, asker: bytes, name: str) -> None:
    """Have a node make itself a new key; who asks is answered when it is back under that."""
    named = [node for node in state.nodes.values() if node.name == name and node.peer]
    why = ""
    if not named:
        why = f"no node {name} is connected"
    elif not all(node.knows_keys for node in named):
        why = f"the node {name} runs an older burla, which cannot: `burla up` upgrades it"
    if why:
        state.send(asker, am.KeysManaged(why=why))
        return
    for node in named:
        node.asker = asker
        state.send(node.peer, RenewKey())


def key_taken(state: State, node: Node, key: str) -> None:
    """Note that a node has another key, under which it will come back at once."""
    node.heir, node.back_by_s = key, state.now_s + BACK_S


def has_renewed(state: State, node: Node) -> None:
    """Take a node up under its new key, and tell who asked for it."""
    state.record(node.user, f"go on as key {node.heir[:16]}", None, "ok")
    node.user, node.heir, node.back_by_s = node.heir, "", 0.0
    state.note(f"node {node.name} has another key")
    if node.asker:
        state.send(node.asker, am.KeysManaged(total=1))
        node.asker = b""
