"""Looks at the slates of busy workers for strides that last too long, and has them cut."""

import asyncio
import signal
from collections.abc import Callable, Mapping

from .link import Link

LOOK_S = 0.01  # between two looks


class Lookout:
    """A timer that runs only while some worker has something to do."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        links: Mapping[int, Link],
        send_signal: Callable[[int, int], None],
    ) -> None:
        self._loop = loop
        self._links = links
        self._send_signal = send_signal  # to a worker
        self._timer: asyncio.TimerHandle | None = None

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
