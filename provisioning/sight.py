"""What `burla status` sees: what the scheduler says goes before what a machine believes.

A nodelet may run and be lost all the same, and a scheduler may have a process and not answer.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from burla.protocol.messages import NodeState, NodeStatus
from burla.provisioning.core.machines import ProvisioningError

from .admin import NoAnswer, NotTaken
from .head import SCHEDULER, Head
from .result import Result

READY, SILENT, STOPPED = "ready", "silent", "stopped"
Told = Mapping[str, NodeStatus]  # what the scheduler says of nodes, by name


def ask(head: Head) -> tuple[Result, Told]:
    """Return how the scheduler is, and what it says of its nodes; None of them is known if not."""
    if not head.is_away and head.scheduler.pid() is None:
        return Result(SCHEDULER, STOPPED, "it does not run: `burla up` starts it"), {}
    try:
        nodes = head.admin().nodes()
    except NotTaken as error:
        return Result(SCHEDULER, "unknown", f"it runs, but does not answer you: {error}"), {}
    except (NoAnswer, ProvisioningError) as error:
        return Result(SCHEDULER, SILENT, f"{error}; see its log"), {}
    # of several of one name, as after a restart, the one that lives counts
    order = sorted(nodes, key=lambda node: node.state is not NodeState.LOST)
    return Result(SCHEDULER, READY), {node.name: node for node in order}


def compare(seen: Result, scheduler: Result, told: Told) -> Result:
    """Return the truth about a node.

    Args:
        seen: what was found on its machine, or said by its provider.
        scheduler: how that is.
        told: what it says of its nodes.
    """
    node = told.get(seen.name)
    if scheduler.phase == "unknown":  # it may say one thing or the other
        return seen
    if scheduler.phase != READY:
        if seen.phase != READY:
            return seen
        return replace(seen, phase=SILENT, why=f"its scheduler is {scheduler.phase}")
    if node is not None and node.state is NodeState.LOST:
        if seen.phase in (STOPPED, "absent"):  # which is why
            return replace(seen, why=lost_since(node)) if node.why else seen
        why = f"{lost_since(node)}; {seen.why}" if seen.why else lost_since(node)
        return replace(seen, phase="lost", why=why)
    if node is None and seen.phase == READY:
        return replace(seen, phase=SILENT, why="it runs, but the scheduler does not have it")
    return seen


def lost_since(node: NodeStatus) -> str:
    """Return since when and why a node is lost."""
    if not node.why:
        return "its connection is gone"  # just now: it may come back
    since = datetime.fromtimestamp(time.time() - node.lost_s, UTC)
    return f"since {since.isoformat(' ', 'seconds').removesuffix('+00:00')} UTC: {node.why}"
