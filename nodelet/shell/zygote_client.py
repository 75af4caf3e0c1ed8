"""The agent's end of a zygote or supervisor: waiting for it, ordering, and noticing its end."""

import asyncio
import os
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from burla.nodelet.worker import control as c
from burla.nodelet.worker.processes import kill_tree, number_outside

from .forking import Forked
from .launching import Launched

START_S = 30.0  # a machine under heavy load still imports Python within this
END_S = 10.0  # for the zygote to kill what is left at the end; then we do it ourselves
POLL_S = 0.002  # between two looks whether it has ended
ORDERS_PER_TURN = 64  # messages taken from it before others have their turn

Take = Callable[
    [Any], None
]  # words of c.FromZygote or c.FromSupervisor: who is asked says no other


class UnusableImageError(RuntimeError):
    """No worker can run in an image; the text says why, and what would help."""


class ZygoteClient:
    """The zygote as the agent sees it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_word: Take,
        on_end: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._on_word = on_word
        self._on_end = on_end
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._is_open = False

    async def start(self, launched: Launched) -> None:
        """Take charge of what was started, and wait until it serves.

        Raises:
            RuntimeError: it does not.
        """
        self._process, self._control = launched.process, launched.control
        ours = self._control
        said = b""
        try:
            async with asyncio.timeout(START_S):
                said = await self._loop.sock_recv(ours, c.BYTES_MAX)
        except (TimeoutError, OSError):
            pass  # told below
        finally:
            if not said:  # or cancelled
                ours.close()
                await self._wait_gone()
        if not said:
            raise RuntimeError(f"the zygote did not start (exit status {self._process.returncode})")
        if isinstance(word := c.decode(said), c.Unusable):
            ours.close()
            await self._wait_gone()
            raise UnusableImageError(word.why)
        self._is_open = True
        self._loop.add_reader(ours.fileno(), self._on_readable)

    def send(self, word: c.ToZygote | c.ToSupervisor, fds: tuple[int, ...] = ()) -> None:
        """Order something; descriptors may be closed afterwards."""
        if self._is_open:
            data = c.encode(word)
            if self._unsent or not self._send(data, list(fds)):
                self._unsent.append((data, [os.dup(fd) for fd in fds]))
                self._loop.add_writer(self._control.fileno(), self._on_writable)

    def kill_left(self, pids: Iterable[int]) -> None:
        """Kill what it has forked, now that it is gone itself."""
        if isinstance(self._process, subprocess.Popen | Forked):
            for pid in pids:
                kill_tree(pid)
        # else they had numbers of a namespace, with which the kernel has killed them

    def seen_from_here(self, pid: int) -> int:
        """Return the number that a process below it has for us; 0: it cannot be found."""
        if isinstance(self._process, subprocess.Popen | Forked):
            return pid
        return number_outside(self._process.pid, pid)

    def kill(self) -> None:
        """End it at once, and with it all that is below it if it is the init of a sandbox."""
        if self._process.pid:
            kill_tree(self._process.pid)

    async def close(self) -> None:
        """Let it kill all that is below it, and wait until it is gone."""
        if self._is_open:
            self._forget()
        await self._wait_gone()

    async def _wait_gone(self) -> None:
        deadline_s = self._loop.time() + END_S
        while self._process.poll() is None:
            if self._loop.time() > deadline_s and self._process.pid:
                kill_tree(self._process.pid)
            await asyncio.sleep(POLL_S)

    def _forget(self) -> None:
        self._is_open = False
        self._loop.remove_reader(self._control.fileno())
        self._loop.remove_writer(self._control.fileno())
        self._control.close()
        for _, fds in self._unsent:
            for fd in fds:
                os.close(fd)
        self._unsent.clear()

    def _send(self, data: bytes, fds: list[int]) -> bool:
        try:
            socket.send_fds(self._control, [data], fds)
        except BlockingIOError:
            return False
        except OSError:  # it is gone: the reader will see it
            return True
        return True

    def _on_writable(self) -> None:
        while self._unsent:
            data, fds = self._unsent[0]
            if not self._send(data, fds):
                return
            self._unsent.popleft()
            for fd in fds:
                os.close(fd)
        self._loop.remove_writer(self._control.fileno())

    def _on_readable(self) -> None:
        for _ in range(ORDERS_PER_TURN):
            try:
                data = self._control.recv(c.BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._forget()
                with suppress(OSError):
                    self._process.poll()
                self._on_end()
                return
            self._on_word(c.decode(data))
            if not self._is_open:
                return
