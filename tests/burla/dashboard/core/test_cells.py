"""The grid of nodes: whose a node is as a colour, how much it runs as how full it is."""

import pytest
from overviews import seen, status

from burla.dashboard.core.cells import Cell, Key, cells, legend
from burla.dashboard.core.colours import COLOURS, Colours
from burla.protocol.messages import NodeState
from burla.protocol.overview_messages import NodeSeen


def test_users_have_colours_of_their_own_that_stay() -> None:
    colours = Colours()
    assert [colours.of(user) for user in ("anna", "bert", "anna", "")] == [
        "user-0",
        "user-1",
        "user-0",
        "user-other",
    ]
    assert {colours.of(f"u{number}") for number in range(100)} == {
        f"user-{number}" for number in range(COLOURS)
    }


@pytest.mark.parametrize(
    ("busy", "level"), [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (7, 4), (8, 4)]
)
def test_a_node_is_the_fuller_the_more_of_its_slots_run_calls(busy: int, level: int) -> None:
    (cell,) = cells([seen("n1", slots=8, busy=busy)], Colours())
    assert cell.classes == f"leased user-0 load-{level}"
    assert cell.title == f"n1: {busy} of 8 calls of parse for anna"


@pytest.mark.parametrize(
    ("node", "cell"),
    [
        (NodeSeen(status("n")), Cell("n", "free", "n: free")),
        (
            NodeSeen(status("n", NodeState.LOST, why="no word for 15 s")),
            Cell("n", "lost", "n: lost: no word for 15 s"),
        ),
        (NodeSeen(status("n", NodeState.LEAVING)), Cell("n", "leaving", "n: leaving")),
        (
            NodeSeen(status("n", NodeState.LEASED)),
            Cell("n", "leased user-other load-0", "n: its last job is ending"),
        ),
        (
            seen("n", "", 4, 1),
            Cell("n", "leased user-other load-1", "n: 1 of 4 calls, for another user"),
        ),
        (
            NodeSeen(status("n", NodeState.LEAVING, job="f"), "anna", b"j" * 16, 2, 2),
            Cell("n", "leased user-0 load-4 leaving", "n: leaving; 2 of 2 calls of f for anna"),
        ),
    ],
)
def test_what_a_node_does_is_told(node: NodeSeen, cell: Cell) -> None:
    assert cells([node], Colours()) == [cell]


def test_the_legend_names_users_by_how_many_nodes_they_have_then_states() -> None:
    nodes = [seen("a", "anna"), seen("b", "bert"), seen("c", "bert"), seen("d", "")]
    nodes += [NodeSeen(status("e")), NodeSeen(status("f", NodeState.LOST))]
    assert legend(nodes, Colours()) == [
        Key("leased user-0 load-4", "bert", 2),
        Key("leased user-1 load-4", "anna", 1),
        Key("leased user-other load-4", "other users", 1),
        Key("free", "free", 1),
        Key("lost", "lost", 1),
    ]
