"""The bytes between the agent's loop and its workers: when what is read and written."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from burla.nodelet.core.events import Printed, WorkerEvent
from burla.nodelet.worker.pipes import READ_BYTES, BadMessageError, Flag, Frame, Message

from .output import OUTPUT_PAUSE_S
from .worker_handle import WorkerHandle, facts_of

Tell = Callable[[Sequence[WorkerEvent]], None]
Output = list[tuple[int, bytes]]  # streams, and what was written there


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
            got, is_more = self._read(handle, [])
            events += got
        while printed := self._take_output(handle):
            events += self._told(handle, [], printed)
        return events

    def _take_output(self, handle: WorkerHandle) -> Output:
        """Take the output that is there now."""
        printed: Output = []
        for stream, data in handle.pipes.drain():
            if data:
                printed.append((stream, data))
            else:
                self._loop.remove_reader(handle.pipes.forget(stream))
        return printed

    def _told(
        self, handle: WorkerHandle, messages: list[Message], printed: Output
    ) -> list[WorkerEvent]:
        """Return what has happened, each call's output before its outcome.

        What was printed after that is of the next call; where its end is not known all is before.
        """
        if not printed:
            return self._understand(handle, messages)
        events: list[WorkerEvent] = []
        begun, number = 0, handle.number
        for at, message in enumerate(messages):
            if message.flags & Flag.FACTS:
                early, printed = cut(printed, handle.pipes.totals, facts_of(message)[1:])
                of = message.lo, message.hi
                events += [Printed(number, *one, of, is_exact=True) for one in early]
                events += self._understand(handle, messages[begun : at + 1])
                begun = at + 1
        if printed:
            stride = handle.stride()
            events += [Printed(number, *one, (stride.lo, stride.hi)) for one in printed]
        if messages[begun:]:
            events += self._understand(handle, messages[begun:])
        return events

    def _watch_output(self, handle: WorkerHandle) -> None:
        if handle.number not in self._quiet and not self._is_paused:
            for fd in handle.pipes.fds:
                self._loop.add_reader(fd, self._on_output_readable, handle)

    def _unwatch(self, handle: WorkerHandle) -> None:
        for fd in (handle.sock.fileno(), *handle.pipes.fds):
            self._loop.remove_reader(fd)

    def _on_readable(self, handle: WorkerHandle) -> None:
        self._read_on(handle, [])

    def _read_on(self, handle: WorkerHandle, printed: Output) -> None:
        """Read once, and tell what has happened."""
        events, _ = self._read(handle, printed)
        if events:
            self._tell(events)
        if handle.is_closed:
            self._loop.remove_reader(handle.sock.fileno())
            self._on_closed(handle, handle.is_junk)

    def _read(self, handle: WorkerHandle, printed: Output) -> tuple[list[WorkerEvent], bool]:
        """Read once; return what has happened, and whether there may be more to read.

        `printed` was before.
        """
        try:
            messages = handle.parser.read(handle.sock)
        except BlockingIOError:
            return self._told(handle, [], printed), False
        except OSError:  # reset by its death
            messages = None
        except BadMessageError:  # user code wrote into our socket
            messages, handle.is_junk = None, True
        if messages is None:
            handle.is_closed = True
            return self._told(handle, [], printed), False
        if messages:
            printed += self._take_output(handle)
        return self._told(handle, messages, printed), not handle.is_closed

    def _on_output_readable(self, handle: WorkerHandle) -> None:
        self._hush(handle)
        printed = self._take_output(handle)
        if not printed:
            return
        if handle.is_closed or handle.is_held:
            self._tell(self._told(handle, [], printed))
        else:  # outcomes that are there tell whose it is
            self._read_on(handle, printed)

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


def cut(printed: Output, totals: Sequence[int], ends: Sequence[int]) -> tuple[Output, Output]:
    """Return what was written up to a moment, and what came after it.

    Args:
        printed: what was read last.
        totals: bytes that were read of stdout and stderr until then, this included.
        ends: likewise, that were written at that moment; -1: not known, then all is before it.
    """
    begins = list(totals)
    for stream, data in printed:
        begins[stream - 1] -= len(data)
    early: Output = []
    late: Output = []
    for stream, data in printed:
        begin, end = begins[stream - 1], ends[stream - 1]
        begins[stream - 1] += len(data)
        size = len(data) if end < 0 else min(max(0, end - begin), len(data))
        if size:
            early.append((stream, data[:size]))
        if size < len(data):
            late.append((stream, data[size:]))
    return early, late
