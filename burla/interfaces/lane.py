"""One job that stays open for calls that come one by one, and the thread that tends it.

Whoever submits leaves calls in a queue and wakes the thread; what has come meanwhile goes in one
batch, so nothing waits for others, and a thousand calls cost little more than one. The thread sends
as far ahead as keeps the slots busy: what is not sent can be cancelled. It opens outcomes and hands
them over, and ends the job when there was nothing to do for a while, so that the next one finds
this process as it is then. While it rests the cluster gives its nodes to whoever wants them.
"""

import logging
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from typing import Any, Protocol

from burla.core.batches import Window
from burla.core.effects import Deliver, Finish, Lacking, Part, Slots
from burla.core.read_ahead import GROW_AHEAD_S, ReadAhead
from burla.errors import InputTooLarge, ResultNotSendable
from burla.own_frames import hide_own_frames
from burla.protocol.messages import Kind
from burla.shell.cells import context_of_cell
from burla.shell.delivery import Delivery, Opener
from burla.shell.job import Event
from burla.shell.progress import SHOW_S
from burla.shell.putting import put_down
from burla.shell.raising import raise_if_bad
from burla.starting import Begun
from burla.transport.threads import leave_signals
from burla.values.frames import LaidOut
from burla.values.leaves import Batch, Leaf, Packer
from burla.values.many import InitializerFailed
from burla.values.tracebacks import Failure, in_other_words

from .codes import Call
from .parts import SharedParts

IDLE_S = 0.005  # after so long without a call the job ends; the next one finds its workers warm
FINISH_S = 10.0  # then the rest of its output is awaited for so long
BATCH_MAX = 4096  # calls
NAMES_MAX = 64  # calls that are looked at for a name of all

log = logging.getLogger(__name__)


class Stopped(Exception):
    """The calls of a pool were stopped."""


class Sink(Protocol):
    """Where the outcomes of calls go; `token` is what was handed in with a call."""

    def begin(self, token: Any) -> bool:
        """Take note that a call is about to be sent; return False if it is not wanted any more."""

    def succeed(self, token: Any, value: Any) -> None:
        """Take a result."""

    def fail(self, token: Any, error: BaseException) -> None:
        """Take an error."""

    def cancel(self, token: Any) -> None:
        """Take note that a call will not be sent."""


Entry = tuple[Sink, Any, Call]


class Lane:
    """One such job, from the first call to the last."""

    def __init__(
        self, begin: Callable[["Lane"], Begun], left: Callable[["Lane", bool], bool]
    ) -> None:
        """Start nothing yet.

        Args:
            begin: makes the job; called in the thread.
            left: told when there is nothing to do, and whether it must end; returns whether it does
                end: then it gets no more calls.
        """
        self.queue: deque[Entry] = deque()  # calls that wait to be sent
        self.broken: BaseException | None = None  # why it takes no more
        self.is_started = False
        self.has_sent = False  # anything
        self.shared: list[memoryview] = []  # buffers that go with the job
        self.closing = False  # it ends as soon as it has nothing to do
        self.thread = threading.Thread(target=self._run, name="burla-lane")
        self._begin_job, self._left = begin, left
        self._context = context_of_cell()  # of the first call: what all print appears there
        self._show_at_s: float | None = None  # None: it is shown, or nobody wants that
        self._stopping = False
        self._awake = True  # it will look into the queue without being told
        self._begun: Begun | None = None
        self._window = Window(ReadAhead())
        self._packer = Packer(None)
        self._opener = _CallOpener(self._shown)
        self._parts: SharedParts | None = None
        self._end = 0  # index of the next call
        self._starts: list[int] = []  # of what was sent and has not all its outcomes
        self._sent: list[list[Entry | None]] = []  # what that is, by index from there on
        self._open: list[int] = []  # how many have no outcome

    def start(self) -> None:
        """Let the thread begin: there are calls."""
        self.thread.start()
        self.is_started = True

    def stop(self) -> None:
        """Let all calls fail that have no outcome. May be called in any thread."""
        self._stopping = True
        self.wake()

    def is_busy(self) -> bool:
        """Return whether a call waits or runs."""
        return bool(self.queue or self._starts)

    def wake(self) -> None:
        """Let the thread look into the queue, or at `closing`. May be called in any thread."""
        if not self._awake:
            self._awake = True
            begun = self._begun
            if begun is not None:
                begun.job.wake()

    # --- in the thread ---

    def _run(self) -> None:
        leave_signals()
        try:
            self._begun = begun = self._context.run(self._begin_job, self)
            if begun.job.shows():
                self._show_at_s = time.monotonic() + SHOW_S
                begun.job.meter.has_all = True  # of what was submitted
                begun.job.meter.function = _name_of(self.queue)
            self._parts = SharedParts(begun.parts, self.shared)
            if begun.may_grow and self._window.ahead is not None:
                self._window.ahead.ahead_s = GROW_AHEAD_S
            begun.job.open(begun.connect)
            begun.shared.open()
            while self._take_turn(begun):
                pass
            self._finish(begun)
        except BaseException as error:
            hide_own_frames(error)
            self._break(error)
        finally:
            self._close()

    def _take_turn(self, begun: Begun) -> bool:
        """Send what may be sent, then take one event; return False if it is time to end."""
        self._awake = False  # who comes from here on wakes us
        if self._stopping:
            raise Stopped("the calls were stopped before they had a result")
        self._send(begun)
        timeout_s = None
        if not self._starts and not self.queue:
            timeout_s = 0.0 if self.closing else IDLE_S
        event = self._wait_event(begun, timeout_s)
        if event is not None:
            self._handle(begun, event)
        elif timeout_s is not None and not self.queue and (self.closing or not self._awake):
            return not self._left(self, False)
        return True

    def _wait_event(self, begun: Begun, timeout_s: float | None) -> Event | None:
        """Wait as the job does; let the user see how far the calls are, if they take long."""
        job = begun.job
        if job.meter.has_all:
            job.meter.sent = self._end + len(self.queue)
        if self._show_at_s is not None:
            left_s = self._show_at_s - time.monotonic()
            if left_s > 0:
                return job.wait_event(left_s if timeout_s is None else min(left_s, timeout_s))
            self._show_at_s = None
            job.show()
        return job.wait_event(timeout_s)

    def _send(self, begun: Begun) -> None:
        while self.queue and self._window.has_room() and begun.shared.has_room():
            self._send_batch(begun, min(self._window.room(), BATCH_MAX))
        begun.job.flush()

    def _send_batch(self, begun: Begun, count_max: int) -> None:
        """Send the next calls of one kind: plain ones share a leaf."""
        entries: list[Entry | None] = []
        inputs: list[Any] = []
        kind: type | None = None
        self.has_sent = True
        while self.queue and len(entries) < count_max:
            try:
                sink, token, call = self.queue.popleft()
            except IndexError:  # cancelled by another thread meanwhile
                break
            if kind is not None and type(call.input) is not kind:
                self.queue.appendleft((sink, token, call))
                break
            if not sink.begin(token):
                continue
            kind = type(call.input)
            entries.append((sink, token, call))
            inputs.append(call.input)
            if kind is not tuple:  # big: by itself
                break
        if not entries:
            return
        assert self._parts is not None
        try:
            batch = self._batch_of([self._parts.refer(one) for one in inputs])
            leaves, size, _ = put_down(batch, begun.shared, LaidOut.settle)
        except Exception as error:
            self._fail_unsent(entries, error)
            return
        self._window.add(batch.count, size)
        self._starts.append(self._end)
        self._sent.append(entries)
        self._open.append(len(entries))
        self._end += len(entries)
        begun.job.add_batch(leaves, size)

    def _batch_of(self, inputs: list[Any]) -> Batch:
        leaves: list[Leaf] = []
        at = 0
        while at < len(inputs):
            leaves += self._packer.pack(inputs[at : at + self._packer.run], self._end + at)
            at = sum(leaf.count for leaf in leaves)
        return Batch(self._end, len(inputs), tuple(leaves), sum(leaf.bytes for leaf in leaves))

    def _fail_unsent(self, entries: list[Entry | None], error: Exception) -> None:
        """Let calls fail that cannot be sent."""
        for entry in filter(None, entries):
            text = f"{entry[2].shown()} cannot be sent: {error}"
            problem: Exception = TypeError(text)
            if isinstance(error, InputTooLarge):
                problem = InputTooLarge(error.burla_input_index, text)
            problem.__cause__ = error.__cause__
            _hand_over(entry[0].fail, entry[1], problem)

    # --- outcomes ---

    def _handle(self, begun: Begun, event: Event) -> None:
        if isinstance(event, Slots):
            self._window.note(event)
        elif isinstance(event, Lacking):
            begun.job.supply(event)
        elif isinstance(event, Deliver):
            self._window.free(event)
            for part in event.parts:
                for lo, hi in part.fresh:
                    begun.shared.release(lo, hi)
                self._deliver(part, event.node)
        else:
            raise_if_bad(event, begun.job, begun.limits, self._opener)

    def _deliver(self, part: Part, node: str) -> None:
        values = self._opener.values_of(part, node)
        is_error = part.run.kind in (Kind.ERROR, Kind.DEATH)
        at = 0
        for lo, hi in part.fresh:
            while lo < hi:
                where = bisect_right(self._starts, lo) - 1
                start, entries = self._starts[where], self._sent[where]
                stop = min(hi, start + len(entries))
                for index in range(lo, stop):
                    entry, entries[index - start] = entries[index - start], None
                    assert entry is not None
                    value = values[at]
                    values[at] = None  # whoever gets it may want its memory back
                    at += 1
                    self._hand_over(entry, value, is_error)
                    del entry, value
                self._settle(where, stop - lo)
                lo = stop

    def _hand_over(self, entry: Entry, value: Any, is_error: bool) -> None:
        if not is_error and type(value) is not ResultNotSendable:
            _hand_over(entry[0].succeed, entry[1], value)
            return
        hide_own_frames(value)
        if type(value) is InitializerFailed:
            broken = BrokenExecutor(f"the initializer failed in a worker: {value}")
            broken.__cause__ = value.__cause__
            _hand_over(entry[0].fail, entry[1], broken)
            raise broken
        _hand_over(entry[0].fail, entry[1], value)

    def _settle(self, where: int, count: int) -> None:
        """Count outcomes; forget what has all of them."""
        self._open[where] -= count
        if not self._open[where]:
            del self._starts[where], self._sent[where], self._open[where]

    def _shown(self, index: int) -> str | None:
        where = bisect_right(self._starts, index) - 1
        if where < 0 or index - self._starts[where] >= len(self._sent[where]):
            return None
        entry = self._sent[where][index - self._starts[where]]
        return None if entry is None else entry[2].shown()

    # --- ends ---

    def _finish(self, begun: Begun) -> None:
        begun.job.end_inputs()
        while (event := begun.job.wait_event(FINISH_S)) is not None:
            if isinstance(event, Finish):
                begun.job.finish()
                return
            if not isinstance(event, Slots):
                return  # all outcomes are here: what fails now is nobody's

    def _break(self, error: BaseException) -> None:
        """Let all calls fail that have no outcome."""
        self.broken = error
        self._left(self, True)
        for entries in self._sent:
            for entry in filter(None, entries):
                _hand_over(entry[0].fail, entry[1], error)
        self._sent.clear()
        while self.queue:
            sink, token, _ = self.queue.popleft()
            if sink.begin(token):
                _hand_over(sink.fail, token, error)

    def _close(self) -> None:
        if (begun := self._begun) is not None:
            begun.job.close()
            begun.shared.clear()
            begun.held.release()
        if self._parts is not None:
            self._parts.release()
        # This is part of a ring, and the collector cannot clear views of memory in rings.
        self._packer, self._parts, self.shared = Packer(None), None, []


def _name_of(queue: deque[Entry]) -> str:
    """Return what to call the calls that wait."""
    names = {call.code.name for _, _, call in list(queue)[:NAMES_MAX]}
    return names.pop() if len(names) == 1 else "calls"


def _hand_over(to: Callable[[Any, Any], None], token: Any, value: Any) -> None:
    """Hand an outcome over, whatever the user's own callbacks raise."""
    try:
        to(token, value)
    except BaseException:
        log.exception("what was called with an outcome raised")


class _CallOpener(Opener):
    """Opens outcomes; errors say which call it was, not the index of an input."""

    def __init__(self, shown: Callable[[int], str | None]) -> None:
        super().__init__((), Delivery(goes_on=True))
        self._call_shown = shown

    def shown(self, index: int) -> str | None:
        return self._call_shown(index)

    def note(self, index: int, node: str) -> str:
        return f"{self.shown(index) or 'a call'} · node {node}"

    def described(self, failure: Failure) -> Failure:
        if failure.index < 0:
            return failure
        return in_other_words(failure, self.note(failure.index, failure.node))
