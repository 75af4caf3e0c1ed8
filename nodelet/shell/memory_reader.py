"""Takes readings of memory, the node's and the workers', as rarely as their cost demands.

Linux only. Elsewhere there are no readings, and nothing is limited.
"""

import time
from collections.abc import Iterable, Mapping

from burla.nodelet.core.events import Reading
from burla.nodelet.core.memory_policy import low

from .node_memory import WATCHED_SHARE, NodeMemory, margin
from .worker_memory import NO_LIMIT, WorkerMemory, resident_of

LOOK_S = 0.1  # between two readings; 1 GB is written in about half a second
LOOK_NEAR_S = 0.02  # when memory is nearly short
LOOK_MAX_S = 2.0  # however much a reading costs
COST_SHARE = 0.005  # of a core, for reading; what follows from it costs as much at most
COST_SHARE_NEAR = 0.01  # when memory is nearly short
NEAR = 0.5  # of `func_ram`: from here on it is looked at closely


class MemoryReader:
    """Takes readings, and says when the next one is due."""

    def __init__(self, node: NodeMemory | None = None) -> None:
        """Read nothing yet."""
        self.due_s = 0.0  # when to read next
        self._func_ram = 0
        self._budget = 0
        self._node = NodeMemory() if node is None else node
        self._workers = WorkerMemory()

    def limit(self, func_ram: int, budget: int) -> None:
        """Read at once, and from now on with these limits.

        Args:
            func_ram: bytes that one call may use; 0: no limit.
            budget: bytes for all workers together; 0: what there is.
        """
        self._func_ram, self._budget = func_ram, budget
        self._workers.limit = func_ram or NO_LIMIT
        self._workers.is_summed = budget > 0
        self.due_s = 0.0

    def read(
        self, workers: Mapping[int, int], templates: Iterable[int], now_s: float
    ) -> Reading | None:
        """Return a reading; None: this system tells nothing.

        Args:
            workers: number -> pid, of those that have the function.
            templates: pids of processes that only fork.
            now_s: on the caller's clock.
        """
        begun_s, exact_s = time.thread_time(), self._workers.exact_s
        reading = self._node.read()
        near = False
        if reading is not None:
            watched = reading.available < WATCHED_SHARE * reading.total
            if watched or self._func_ram or self._budget:
                reading = self._with_workers(reading, workers, templates, now_s)
            near = self._is_near(reading)
        exact_s = self._workers.exact_s - exact_s  # exact figures have shares of their own
        cost_s = time.thread_time() - begun_s - exact_s
        look_s, share = (LOOK_NEAR_S, COST_SHARE_NEAR) if near else (LOOK_S, COST_SHARE)
        self.due_s = now_s + min(LOOK_MAX_S, max(look_s, cost_s / share))
        return reading

    def _is_near(self, reading: Reading) -> bool:
        if self._func_ram and any(u > NEAR * self._func_ram for u in reading.used.values()):
            return True
        return reading.available < 2 * low(reading.total)

    def _with_workers(
        self, reading: Reading, workers: Mapping[int, int], templates: Iterable[int], now_s: float
    ) -> Reading:
        """Return a reading with what workers use, and of their budget if that is tighter."""
        used = self._workers.used(workers, now_s)
        total, available, swap = reading.total, reading.available, reading.swap
        if 0 < self._budget < total:
            left = self._budget - sum(used.values()) - sum(resident_of(p)[0] for p in templates)
            within = Reading(self._budget, max(0, left))
            if margin(within) < margin(reading):
                total, available, swap = within.total, within.available, 0
        return Reading(total, available, swap, reading.oom_kills, used)
