"""Looks at busy workers, on a timer: at their slates, and at memory. Decides nothing."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence

from burla.nodelet.core.events import Looked, Reading, WorkerEvent, WorkerState

from .memory_reader import MemoryReader
from .worker_handle import WorkerHandle

LOOK_S = 0.01  # between two looks


class Observer:
    """A timer that runs only while some worker has something to do."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handles: Mapping[int, WorkerHandle],
        busy: Callable[[], Collection[int]],
        tell: Callable[[Sequence[WorkerEvent]], None],
        seen_from_here: Callable[[int], int],
    ) -> None:
        """Look at no worker yet.

        Args:
            loop: where all of this happens.
            handles: of all workers, by number.
            busy: says who has something to run.
            tell: takes what was seen.
            seen_from_here: a pid of the workers' namespace -> ours.
        """
        self._loop = loop
        self._handles = handles
        self._busy = busy
        self._tell = tell
        self._seen_from_here = seen_from_here
        self._memory = MemoryReader()
        self._pids: dict[int, int] = {}  # worker -> pid, as we see it
        self._timer: asyncio.TimerHandle | None = None

    def begin_lease(self, func_ram: int, budget: int) -> None:
        """Look at memory with these limits: see MemoryReader."""
        self._memory.limit(func_ram, budget)

    def wake(self) -> None:
        """Look from now on; a worker was given something."""
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_S, self._look)

    def end(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        handles = self._handles
        strides = {n: handles[n].stride() for n in self._busy() if n in handles}
        if not strides:
            return
        self.wake()
        events: list[WorkerEvent] = [Looked(strides)]
        if self._loop.time() >= self._memory.due_s:
            events += self.read_memory()
        self._tell(events)

    def read_memory(self) -> list[Reading]:
        """Return the memory of the node and of its workers; nothing: it cannot be known."""
        pids = {n: self._pids.get(n) or self._seen_from_here(x.pid) for n, x in self._with_memory()}
        self._pids = {number: pid for number, pid in pids.items() if pid}
        ready, templates = {}, []
        for number, pid in self._pids.items():
            if self._handles[number].state is WorkerState.TEMPLATE:
                templates.append(pid)
            else:
                ready[number] = pid
        reading = self._memory.read(ready, templates, self._loop.time())
        return [reading] if reading is not None else []

    def _with_memory(self) -> list[tuple[int, WorkerHandle]]:
        """Return the workers that have the function, those that only fork included."""
        with_function = (WorkerState.READY, WorkerState.TEMPLATE)
        handles = self._handles.items()
        return [
            (n, handle) for n, handle in handles if handle.pid and handle.state in with_function
        ]
