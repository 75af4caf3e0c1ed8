"""The grid of nodes: a cell for each, filled with its user's colour as far as it runs."""

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from burla.protocol.node_messages import NodeState
from burla.protocol.overview_messages import NodeSeen

from .colours import Colours

LEVELS = 4  # of load: load-0 to load-4


class Cell(Struct, frozen=True):
    """One node in the grid."""

    name: str
    classes: str
    title: str


class Key(Struct, frozen=True):
    """What a colour in the grid means, and how many nodes have it."""

    classes: str
    text: str
    nodes: int


def cells(nodes: Sequence[NodeSeen], colours: Colours) -> list[Cell]:
    """Return a cell for each node, in their order."""
    return [
        Cell(seen.status.name, _classes(seen, colours), f"{seen.status.name}: {in_words(seen)}")
        for seen in nodes
    ]


def _classes(seen: NodeSeen, colours: Colours) -> str:
    state = seen.status.state
    if state is not NodeState.LEASED and not (state is NodeState.LEAVING and seen.slots):
        return state.value
    if not seen.slots:  # its last lease is ending
        return "leased user-other load-0"
    level = -(-LEVELS * seen.busy // seen.slots)
    leaving = " leaving" if state is NodeState.LEAVING else ""
    return f"leased {colours.of(seen.user)} load-{min(LEVELS, level)}{leaving}"


def in_words(seen: NodeSeen) -> str:
    """Return what a node does."""
    status = seen.status
    if status.state is NodeState.LOST:
        return f"lost{': ' * bool(status.why)}{status.why}"
    if not seen.slots:
        return {NodeState.LEASED: "its last job is ending"}.get(status.state, status.state.value)
    load = f"{seen.busy} of {seen.slots} calls"
    leaving = "leaving; " if status.state is NodeState.LEAVING else ""
    if not seen.user:
        return f"{leaving}{load}, for another user"
    return f"{leaving}{load} of {status.job or 'a function'} for {seen.user}"


def legend(nodes: Sequence[NodeSeen], colours: Colours) -> list[Key]:
    """Return what the colours mean: users first, by how much they have."""
    users = Counter(seen.user for seen in nodes if seen.slots)
    keys = [
        Key(f"leased {colours.of(user)} load-{LEVELS}", user or "other users", count)
        for user, count in users.most_common()
    ]
    states = Counter(seen.status.state for seen in nodes if not seen.slots)
    for state, text in (
        (NodeState.FREE, "free"),
        (NodeState.LEASED, "ending"),
        (NodeState.LEAVING, "leaving"),
        (NodeState.LOST, "lost"),
    ):
        if states[state]:
            classes = "leased user-other load-0" if state is NodeState.LEASED else state.value
            keys.append(Key(classes, text, states[state]))
    return keys
