"""The bytes between the agent's loop and its workers: when what is read and written."""

import asyncio
from collections.abc import Callable, Iterable

from burla.nodelet.worker.pipes import READ_BYTES, BadMessageError, Frame, Message

from .output import OUTPUT_PAUSE_S
from .worker_handle import WorkerHandle


class Traffic:
    """Reads and writes all links; a bounded part of each a turn, and never waits."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_message: Callable[[WorkerHandle, Message], None],
        on_output: Callable[[int, int, bytes], None],
        on_closed: Callable[[WorkerHandle], None],
    ) -> None:
        """Tell what arrives.

        Args:
            loop: where all of this happens.
            on_message: may raise BadMessageError; nothing more is read from the link then.
            on_output: is told what was printed before an outcome before the outcome.
            on_closed: the worker's end is closed, or what it says is junk.
        """
        self.buffer = bytearray(READ_BYTES)  # of all parsers: each read is parsed at once
        self._loop = loop
        self._on_message = on_message
        self._on_output = on_output
        self._on_closed = on_closed
        self._is_paused = False
        self._quiet: dict[int, WorkerHandle] = {}  # whose output is not looked at for a moment

    # --- reading ---

    def watch(self, link: WorkerHandle) -> None:
        """Read from a link when something is there."""
        if not self._is_paused:
            if not link.is_closed:
                self._loop.add_reader(link.sock.fileno(), self._on_readable, link)
            self._watch_output(link)
            if link.pipes.holds:
                self._hush(link)

    def forget(self, link: WorkerHandle) -> None:
        """Read and write nothing more."""
        self._unwatch(link)
        self._loop.remove_writer(link.sock.fileno())
        self._quiet.pop(link.number, None)

    def pause(self, links: Iterable[WorkerHandle]) -> None:
        """Read nothing from all `links`, nor from new ones."""
        if not self._is_paused:
            self._is_paused = True
            for link in links:
                self._unwatch(link)

    def resume(self, links: Iterable[WorkerHandle]) -> None:
        """Read again."""
        if self._is_paused:
            self._is_paused = False
            for link in links:
                self.watch(link)

    def drain(self, link: WorkerHandle) -> None:
        """Take all that is in the pipes of a worker that is gone."""
        while self._read(link):
            pass
        self.drain_output(link)
        while link.pipes.release(lambda stream, data: self._on_output(link.number, stream, data)):
            pass

    def drain_output(self, link: WorkerHandle, *, settle: bool = True) -> None:
        """Take the output that is there now; settle: all of it that belongs to an outcome."""

        def take(stream: int, data: bytes) -> None:
            self._on_output(link.number, stream, data)

        for fd in link.pipes.drain(take, settle=settle):
            self._loop.remove_reader(fd)
            link.pipes.forget(fd)
        if link.pipes.holds:
            self._hush(link)

    def _watch_output(self, link: WorkerHandle) -> None:
        if link.number not in self._quiet and not self._is_paused:
            for fd in link.pipes.fds:
                self._loop.add_reader(fd, self._on_output_readable, link)

    def _unwatch(self, link: WorkerHandle) -> None:
        for fd in (link.sock.fileno(), *link.pipes.fds):
            self._loop.remove_reader(fd)

    def _on_readable(self, link: WorkerHandle) -> None:
        if self._read(link) is None:
            link.is_closed = True
            self._loop.remove_reader(link.sock.fileno())
            self._on_closed(link)

    def _read(self, link: WorkerHandle) -> bool | None:
        """Read once; return whether something was there, None if nothing will be any more."""
        try:
            messages = link.parser.read(link.sock)
            if messages is None:
                return None
            if messages:
                self.drain_output(link)
            for message in messages:
                self._on_message(link, message)
        except BlockingIOError:
            return False
        except (OSError, BadMessageError):  # reset by its death; or user code wrote into our socket
            return None
        return True

    def _on_output_readable(self, link: WorkerHandle) -> None:
        self._hush(link)
        self.drain_output(link, settle=False)

    def _hush(self, link: WorkerHandle) -> None:
        """Look at the output of a link again when the pause is over."""
        if not self._quiet:
            self._loop.call_later(OUTPUT_PAUSE_S, self._end_quiet)
        if link.number not in self._quiet:
            self._quiet[link.number] = link
            for fd in link.pipes.fds:
                self._loop.remove_reader(fd)

    def _end_quiet(self) -> None:
        quiet, self._quiet = self._quiet, {}
        for link in quiet.values():
            if self._is_paused:
                continue
            if link.pipes.holds:
                self.drain_output(link, settle=False)

            def take(stream: int, data: bytes, link: WorkerHandle = link) -> None:
                self._on_output(link.number, stream, data)

            if link.pipes.release(take):
                self._hush(link)
            else:
                self._quiet.pop(link.number, None)
                self._watch_output(link)

    # --- writing ---

    def send(self, link: WorkerHandle, buffers: list[Frame]) -> None:
        """Send after what is still unsent."""
        was_empty = not link.unsent
        link.unsent += buffers
        if was_empty and not link.flush():
            self._loop.add_writer(link.sock.fileno(), self._on_writable, link)

    def _on_writable(self, link: WorkerHandle) -> None:
        if link.flush():
            self._loop.remove_writer(link.sock.fileno())
