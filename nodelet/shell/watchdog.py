"""Looks after busy workers: for strides that last too long, which are cut, and at memory."""

import asyncio
import signal
from collections.abc import Callable, Mapping

from burla.nodelet.core.memory_policy import KILLED, Reading

from .memory_reader import MemoryReader
from .worker_events import LoadSettings
from .worker_handle import State, WorkerHandle

LOOK_S = 0.01  # between two looks


class Watchdog:
    """A timer that runs only while some worker has something to do."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        links: Mapping[int, WorkerHandle],
        send_signal: Callable[[int, int], None],
        tell: Callable[[Reading], None],
        seen_from_here: Callable[[int], int],
    ) -> None:
        self._loop = loop
        self._links = links
        self._send_signal = send_signal  # to a worker
        self._meter = MemoryReader()
        self._tell = tell
        self._seen_from_here = seen_from_here  # a pid of the workers' namespace -> ours
        self._pids: dict[int, int] = {}  # worker -> pid, as we see it
        self._timer: asyncio.TimerHandle | None = None

    def begin_lease(self, settings: LoadSettings) -> None:
        """Look at memory with these limits."""
        self._meter.func_ram, self._meter.budget = settings.func_ram, settings.ram
        self._meter.due_s = 0.0

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
        now_s = self._loop.time()
        busy = [link for link in self._links.values() if link.dealt]
        for link in busy:
            if link.must_be_cut(now_s):
                self._send_signal(link.number, signal.SIGURG)  # strides.CUT_SIGNAL
        if busy:
            self.wake()
            if now_s >= self._meter.due_s:
                self._measure()

    def see_death(self, how: tuple[str, int]) -> None:
        """Look at memory before a death is told; the kernel may have killed for it."""
        if how == KILLED:
            self._measure()

    def _measure(self) -> None:
        pids = {n: self._pids.get(n) or self._seen_from_here(x.pid) for n, x in self._busy_links()}
        self._pids = {number: pid for number, pid in pids.items() if pid}
        ready, templates = {}, []
        for number, pid in self._pids.items():
            if self._links[number].state == State.TEMPLATE:
                templates.append(pid)
            else:
                ready[number] = pid
        reading = self._meter.read(ready, templates, self._loop.time())
        if reading is not None:
            self._tell(reading)

    def _busy_links(self) -> list[tuple[int, WorkerHandle]]:
        """Return the workers that have the function, those that only fork included."""
        with_function = (State.READY, State.TEMPLATE)
        links = self._links.items()
        return [(n, link) for n, link in links if link.pid and link.state in with_function]
