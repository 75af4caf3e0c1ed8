"""The bytes between the agent's loop and its workers: when what is read and written."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from burla.nodelet.core.events import Printed, WorkerEvent
from burla.nodelet.worker.pipes import READ_BYTES, BadMessageError, Frame, Message

from .output import OUTPUT_PAUSE_S
from .worker_handle import WorkerHandle

Tell = Callable[[Sequence[WorkerEvent]], None]


class Traffic:
    """Reads and writes all workers; a bounded part of each a turn, and never waits."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        understand: Callable[[WorkerHandle, list[Message]], list[WorkerEvent]],
        tell: Tell,
        on_closed: Callable[[WorkerHandle, bool], None],
    ) -> None:
        """Tell what arrives.

        Args:
            loop: where all of this happens.
            understand: says what messages mean; if they are junk it closes the worker's handle.
            tell: takes what has happened; what was printed before an outcome comes before it.
            on_closed: the worker's end is closed, or (True) what it says is junk.
        """
        self.buffer = bytearray(READ_BYTES)  # of all parsers: each read is parsed at once
        self._loop = loop
        self._understand = understand
        self._tell = tell
        self._on_closed = on_closed
        self._is_paused = False
        self._quiet: dict[int, WorkerHandle] = {}  # whose output is not looked at for a moment

    # --- reading ---

    def watch(self, handle: WorkerHandle) -> None:
        """Read from a worker when something is there."""
        if not self._is_paused:
            if not handle.is_closed and not handle.is_held:
                self._loop.add_reader(handle.sock.fileno(), self._on_readable, handle)
            self._watch_output(handle)

    def forget(self, handle: WorkerHandle) -> None:
        """Read and write nothing more."""
        self._unwatch(handle)
        self._loop.remove_writer(handle.sock.fileno())
        self._quiet.pop(handle.number, None)

    def pause(self, handles: Iterable[WorkerHandle]) -> None:
        """Read nothing from all `handles`, nor from new ones."""
        if not self._is_paused:
            self._is_paused = True
            for handle in handles:
                self._unwatch(handle)

    def resume(self, handles: Iterable[WorkerHandle]) -> None:
        """Read again."""
        if self._is_paused:
            self._is_paused = False
            for handle in handles:
                self.watch(handle)

    def hold(self, handle: WorkerHandle) -> None:
        """Read no outcomes of one worker."""
        handle.is_held = True
        self._loop.remove_reader(handle.sock.fileno())

    def go_on(self, handle: WorkerHandle) -> None:
        """Read from it again, unless nothing is read at all."""
        handle.is_held = False
        self.watch(handle)

    def drain(self, handle: WorkerHandle) -> list[WorkerEvent]:
        """Take all that is in the pipes of a worker that is gone; return what it tells."""
        events: list[WorkerEvent] = []
        is_more = not handle.is_closed
        while is_more:
            got, is_more = self._read(handle)
            events += got
        while printed := self.drain_output(handle):
            events += printed
        return events

    def drain_output(self, handle: WorkerHandle) -> list[WorkerEvent]:
        """Take the output that is there now; return what was printed."""
        events: list[WorkerEvent] = []
        for stream, data in handle.pipes.drain():
            if data:
                events.append(Printed(handle.number, stream, data))
            else:
                self._loop.remove_reader(handle.pipes.forget(stream))
        return events

    def _watch_output(self, handle: WorkerHandle) -> None:
        if handle.number not in self._quiet and not self._is_paused:
            for fd in handle.pipes.fds:
                self._loop.add_reader(fd, self._on_output_readable, handle)

    def _unwatch(self, handle: WorkerHandle) -> None:
        for fd in (handle.sock.fileno(), *handle.pipes.fds):
            self._loop.remove_reader(fd)

    def _on_readable(self, handle: WorkerHandle) -> None:
        events, _ = self._read(handle)
        if events:
            self._tell(events)
        if handle.is_closed:
            self._loop.remove_reader(handle.sock.fileno())
            self._on_closed(handle, handle.is_junk)

    def _read(self, handle: WorkerHandle) -> tuple[list[WorkerEvent], bool]:
        """Read once; return what has happened, and whether there may be more to read."""
        try:
            messages = handle.parser.read(handle.sock)
        except BlockingIOError:
            return [], False
        except OSError:  # reset by its death
            messages = None
        except BadMessageError:  # user code wrote into our socket
            messages, handle.is_junk = None, True
        if messages is None:
            handle.is_closed = True
            return [], False
        if not messages:
            return [], True
        events = self.drain_output(handle)
        events += self._understand(handle, messages)
        return events, not handle.is_closed

    def _on_output_readable(self, handle: WorkerHandle) -> None:
        self._hush(handle)
        if events := self.drain_output(handle):
            self._tell(events)

    def _hush(self, handle: WorkerHandle) -> None:
        """Look at the output of a worker again when the pause is over."""
        if not self._quiet:
            self._loop.call_later(OUTPUT_PAUSE_S, self._end_quiet)
        if handle.number not in self._quiet:
            self._quiet[handle.number] = handle
            for fd in handle.pipes.fds:
                self._loop.remove_reader(fd)

    def _end_quiet(self) -> None:
        quiet, self._quiet = self._quiet, {}
        for handle in quiet.values():
            self._watch_output(handle)

    # --- writing ---

    def send(self, handle: WorkerHandle, buffers: list[Frame]) -> None:
        """Send after what is still unsent."""
        was_empty = not handle.unsent
        handle.unsent += buffers
        if was_empty and not handle.flush():
            self._loop.add_writer(handle.sock.fileno(), self._on_writable, handle)

    def _on_writable(self, handle: WorkerHandle) -> None:
        if handle.flush():
            self._loop.remove_writer(handle.sock.fileno())
