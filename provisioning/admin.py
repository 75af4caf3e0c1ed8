"""What an administrator asks a scheduler that runs, and tells it."""

from dataclasses import dataclass
from typing import TypeVar

from burla.protocol import admin_messages as am, messages as m
from burla.transport import request
from burla.transport.keys import KeyPair
from burla.transport.request import NoAnswer, NotTaken

from .keys import server_keys

A = TypeVar("A", bound=m.Message)
ANSWER_S = 2.0  # a scheduler answers within milliseconds; who asks waits for nothing else


@dataclass(frozen=True)
class Admin:
    """Asks one scheduler, on a connection of its own each time. All raise NoAnswer or NotTaken."""

    address: str
    pair: KeyPair | None

    def nodes(self) -> list[m.NodeStatus]:
        """Return all nodes, also those that are lost."""
        return list(self._ask(m.ListNodes(), m.Nodes).nodes)

    def end_jobs(self, by: str) -> am.Jobs:
        """End all jobs, and tell their callers who did; return which these were."""
        return self._ask(am.EndJobs(by), am.Jobs)

    def forget_nodes(self, names: list[str]) -> None:
        """Have nodes that were removed on purpose listed as lost no longer."""
        for start in range(0, len(names), am.NAMES_MAX):
            self._ask(am.ForgetNodes(tuple(names[start : start + am.NAMES_MAX])), m.Nodes)

    def _ask(self, question: m.Message, answer: type[A]) -> A:
        direction = am.SchedulerToAdmin
        known = server_keys()
        return request.ask(self.address, self.pair, question, answer, direction, ANSWER_S, known)


__all__ = ["Admin", "NoAnswer", "NotTaken"]
