"""What the autoscaler says and is told: how much work waits that more machines could do. Pure.

The scheduler makes no machines. It tells how idle its nodes are and what jobs with `grow=True` wait
for, and tells the callers of those what the autoscaler says that it does about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from burla.wire import messages as m

from .jobs import Job
from .nodes import Node
from .status import node_statuses

if TYPE_CHECKING:
    from .board import Board

HEARD_S = 30.0  # what an autoscaler said counts this long; it asks every few seconds
NOT_HERE = "; nothing makes machines for this cluster: `burla up` with [grow] in its file does"


@dataclass(slots=True)
class Autoscaler:
    """What the scheduler believes about the autoscaler; there may be none."""

    doing: str = ""
    cpus: int = 0  # of a node that it would make; 0: it makes none
    ram: int = 0  # likewise, in bytes; 0: not known
    until_s: float | None = None  # when all of this is forgotten; None: nothing was said

    def ask(self, board: Board, said: m.AskDemand, user: str, now_s: float) -> m.Demand:
        """Take what it says; return what it wants to know. Costs O(nodes + jobs that grow)."""
        self.doing, self.cpus, self.ram = said.doing, said.cpus, said.ram
        self.until_s = now_s + HEARD_S
        _retire(board, frozenset(said.retire))
        return m.Demand(node_statuses(board, user, now_s), tuple(_wishes(board, now_s)))

    def expire(self, board: Board, now_s: float) -> None:
        """Forget what was said too long ago; nodes that were about to be deleted are leased."""
        if self.until_s is not None and now_s >= self.until_s:
            self.doing, self.cpus, self.ram, self.until_s = "", 0, 0, None
            _retire(board, frozenset())

    def said_of(self, job: Job) -> str:
        """Return what the caller of a job that waits is told about machines."""
        if not job.spec.grow:
            return ""
        if self.until_s is None:
            return NOT_HERE
        return f"; {self.doing}" if self.doing else ""

    def would_fit(self, job: Job) -> bool:
        """Return whether a node that would be made could run a job; its Python is not known."""
        spec = job.spec
        fits = not self.ram or spec.func_ram is None or spec.func_ram <= self.ram
        return spec.grow and fits and spec.func_cpu <= self.cpus


def _retire(board: Board, names: frozenset[str]) -> None:
    """Lease these nodes no more, if they are idle; and those again that are not named any more."""
    for node in board.nodes.values():
        is_idle = node.is_free() and node.lingering is None
        retiring = node.name in names and (node.retiring or is_idle)
        if node.retiring and not retiring:
            board.look_at(node)
        node.retiring = retiring


def _wishes(board: Board, now_s: float) -> Iterator[m.Wish]:
    nodes = list(board.nodes.values())
    for job in board.jobs.values():
        if job.spec.grow and not job.failed:
            yield _wish(job, nodes, now_s)


def _wish(job: Job, nodes: list[Node], now_s: float) -> m.Wish:
    sent = job.entered if job.total is None else job.total
    known_s = [lease.call_s for lease in job.leases.values() if lease.call_s]
    since_s = min((lease.since_s for lease in job.leases.values()), default=job.opened_s)
    return m.Wish(
        python=job.python,
        func_cpu=job.spec.func_cpu,
        func_ram=job.spec.func_ram,
        calls=max(0, sent - job.done.total),
        max_parallelism=job.spec.max_parallelism,
        slots=job.slots,
        call_s=sum(known_s) / len(known_s) if known_s else 0.0,
        waited_s=max(0.0, now_s - since_s),
        fits=any(node.slots(job) for node in nodes),
    )
