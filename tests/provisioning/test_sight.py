"""What `burla status` makes of what a machine believes and what the scheduler says."""

import pytest

from burla.protocol.messages import NodeState, NodeStatus
from burla.provisioning.result import Result
from burla.provisioning.sight import compare

WELL = Result("scheduler", "ready")


def node(state: NodeState, lost_s: float = 0.0, why: str = "") -> dict[str, NodeStatus]:
    return {"n": NodeStatus("n", "uid", 1, 1, "3.11", state, "", 0.0, lost_s, why)}


@pytest.mark.parametrize(
    ("seen", "scheduler", "told", "phase", "why"),
    [
        ("ready", WELL, node(NodeState.FREE), "ready", ""),
        ("ready", WELL, {}, "silent", "the scheduler does not have it"),
        ("ready", WELL, node(NodeState.LOST, 60.0, "silence"), "lost", "UTC: silence"),
        ("ready", WELL, node(NodeState.LOST), "lost", "its connection is gone"),
        ("stopped", WELL, node(NodeState.LOST), "stopped", ""),  # it has just been drained
        ("stopped", WELL, node(NodeState.LOST, 60.0, "silence"), "stopped", "UTC: silence"),
        ("unknown", WELL, node(NodeState.LOST, 60.0, "silence"), "lost", "UTC: silence"),
        ("ready", Result("s", "stopped", "x"), {}, "silent", "its scheduler is stopped"),
        ("ready", Result("s", "silent", "x"), {}, "silent", "its scheduler is silent"),
        ("stopped", Result("s", "silent", "x"), {}, "stopped", ""),
        ("ready", Result("s", "unknown", "not for you"), {}, "ready", ""),
    ],
)
def test_nothing_is_ready_of_which_the_scheduler_does_not_say_so(
    seen: str, scheduler: Result, told: dict[str, NodeStatus], phase: str, why: str
) -> None:
    found = compare(Result("n", seen), scheduler, told)
    assert found.phase == phase
    assert why in found.why
    assert bool(why) == bool(found.why)
