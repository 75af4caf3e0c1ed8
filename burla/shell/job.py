"""One map call, as its calling thread holds it: what it asks of the I/O thread, and hears.

The calling thread never touches the session: it posts commands, and waits for events.
"""

import os
import sys
import threading
import time
from _queue import Empty, SimpleQueue
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, assert_never

from burla.core.commands import (
    AddBatch,
    AskStatus,
    Close,
    Command,
    Consumed,
    EndInputs,
    Reopen,
    Written,
)
from burla.core.effects import (
    Broken,
    Content,
    Deliver,
    DetachWanted,
    End,
    Fail,
    Finish,
    ForCaller,
    Frames,
    Held,
    Lacking,
    Rejected,
    ReportHanging,
    ReportRetried,
    ReportWaiting,
    Slots,
    Status,
    Warn,
    Write,
)
from burla.core.progress import Meter, Progress
from burla.core.session import Session
from burla.errors import BurlaError, JobFailed

from .command_queue import LocalError, Reached
from .io_thread import IoThread
from .printer import Printer
from .progress import JobProgress, line_about, place_for, waiting_line

SENT_S = 0.1  # the most that a caller waits for its inputs to be sent; there is no harm in late

Event = Deliver | Slots | Lacking | DetachWanted | Held | End | LocalError

LACKING_REMEDY = (
    "This machine has no such files to send along. Ask for a version that the nodes' index has as a"
    " wheel, install it here if it can be had here, or say by packages= which the calls do need"
)
GOES_ON = Deliver | Slots | Lacking | DetachWanted | Held | LocalError  # it is not over by that


class Job:
    """One map call, as its calling thread holds it."""

    def __init__(
        self,
        session: Session,
        thread: IoThread,
        name: str,
        spinner: bool,
        token: bytes = b"",
        callback: Callable[[Progress], object] | None = None,
    ) -> None:
        """Prepare a job whose output goes to what `sys.stdout` and `sys.stderr` are now.

        Args:
            session: of the job; `open` leaves it to the I/O thread.
            thread: which that is, unless it takes no jobs any more by then.
            name: of the function, for people.
            spinner: show how far the job is, say why it waits, if it does, and which calls hang.
            token: what log records in its output begin with.
            callback: is told how far the job is.
        """
        self.events: SimpleQueue[Event | None] = SimpleQueue()  # None: `wake`
        self.told: Callable[[], None] | None = None  # called by the other thread after an event
        self.id = session.id
        self.name = name
        self.spinner = spinner
        self.detacher: Callable[[Any], BurlaError | None] | None = None  # takes `Attached`
        self.remedy: Callable[[Lacking], Reopen | None] | None = None  # packs such files
        self.pid = os.getpid()  # a child that is forked from it must keep away
        self.printer = Printer(sys.stdout, sys.stderr, self._written, self._failed, token)
        self._session = session
        self._thread = thread
        self.is_refused = False  # it could not be detached, which may be asked for once more
        self._over = False
        self._is_unsaid = False  # inputs were added of which the other thread has not heard
        self.meter = Meter(name, time.monotonic())
        self._callback = callback
        self._progress: JobProgress | None = None  # once it is shown

    # --- in the calling thread ---

    def open(self, connect: Callable[[], IoThread]) -> None:
        """Begin; the first inputs are to follow at once.

        Args:
            connect: returns another thread, if ours takes no jobs any more.
        """
        while not self._thread.open(self._session, self._tell):
            self._thread = connect()

    def add_batch(
        self,
        leaves: Sequence[tuple[int, Frames | Content]],
        size: int,
        coming: int | None = None,
    ) -> None:
        """Send the next inputs, of `size` bytes, after `flush`: per leaf a count and frames.

        `coming`: how many follow, if that is known; the last ones are sent at once.
        """
        is_last = coming == 0  # which wakes the other thread once
        self._thread.post(AddBatch(self.id, leaves, size, coming), ring=is_last)
        self._is_unsaid = not is_last

    @property
    def address(self) -> str:
        """Return where the cluster is."""
        return self._thread.address

    @property
    def is_private(self) -> bool:
        """Return whether the cluster is the private one of this process."""
        return self._thread.is_private

    def flush(self) -> None:
        """Let what was added be sent soon."""
        if self._is_unsaid:
            self._is_unsaid = False
            self._thread.ring()

    def end_inputs(self) -> None:
        """Say that no more inputs come."""
        self._thread.post(EndInputs(self.id))

    def consumed(self, delivered: Deliver) -> None:
        """Say that the user has these outcomes."""
        self._thread.post(Consumed(self.id, delivered.lease, delivered.seq))

    def supply(self, lacking: Lacking) -> None:
        """Open the job anew, of which nothing runs, with files of what a node lacks.

        Raises:
            JobFailed: there are none.
        """
        command = None if self.remedy is None else self.remedy(lacking)
        if command is None:
            raise JobFailed(f"{lacking.text}\n{LACKING_REMEDY}")
        self._thread.post(command)

    def wait_sent(self) -> None:
        """Return when all inputs that were added are with libzmq, or soon if they cannot be.

        A thread that computes keeps the interpreter's lock from the thread that sends for 5 ms
        each time that one gives it up, which is with every frame.
        """
        sent = threading.Lock()
        sent.acquire()
        self._thread.post(Reached(sent))
        sent.acquire(timeout=SENT_S)

    def wait_event(self, timeout_s: float | None = None) -> Event | None:
        """Return what happens next, or None after `timeout_s`, or `wake`; Ctrl-C interrupts it."""
        try:
            event = self.events.get(timeout=timeout_s)
        except Empty:
            return None
        if event is None:
            return None
        self._over = not isinstance(event, GOES_ON)
        return event

    def ask_to_detach(self) -> None:
        """Have who waits for an event detach the job. May be called in a handler of a signal."""
        self.is_refused = False
        self._put(DetachWanted(self.id))

    def do(self, command: Command) -> None:
        """Have the other thread do something for the job, or for the one it becomes."""
        self._thread.post(command)

    def wake(self) -> None:
        """Let who waits for an event look around. May be called in any thread."""
        self.events.put(None)

    # --- how far it is ---

    def shows(self) -> bool:
        """Return whether anybody wants to know how far it is."""
        return self.spinner or self._callback is not None

    def show(self) -> None:
        """Show how far it is from now on; it takes long enough for that."""
        stderr = self.printer.stderr
        place = place_for(stderr, os.environ) if self.spinner else None
        if place is None and self._callback is None:
            return
        ask = partial(self._thread.post, AskStatus(self.id))  # not of ours: that would be a ring
        self._progress = JobProgress(self.meter, ask, place, self._callback)
        self.printer.show(self._progress)

    def finish(self) -> None:
        """Return when all output of a job that is complete is written, and say how it went."""
        self.printer.wait_written(went_well=True)
        if self._callback is not None and self._progress is None:
            self._callback(self.meter.look(time.monotonic(), is_over=True))

    def stop(self) -> None:
        """Stop its calls; `close` is to follow. Waits for nothing. May be called in any thread."""
        if self.pid == os.getpid() and not self._over:
            self._thread.post(Close(self.id))

    def close(self) -> None:
        """Stop the job unless it is over, and its output. May be called in any thread."""
        if self.pid != os.getpid():
            return  # this is a forked child
        self.remedy = self.detacher = None  # they have the inputs, and this is part of a ring
        if not self._over:
            self._over = True
            self._thread.post(Close(self.id))
        self.printer.abandon()

    # --- in other threads ---

    def _tell(self, what: ForCaller | LocalError) -> None:
        """Take what the I/O thread has for the caller."""
        match what:
            case Deliver():
                self.meter.done += what.inputs
                self._put(what)
            case Slots() | Lacking() | DetachWanted() | Held() | LocalError():
                self._put(what)
            case Finish() | Fail() | Broken() | Rejected():
                self._put(what)
            case Status():
                self.meter.record, self.meter.waiting = what.record, ""
            case Write():
                self.printer.put(what)
            case Warn():
                self.printer.put(line_about(self.name, what.text))
            case ReportWaiting():
                self.meter.record, self.meter.waiting = None, what.text
                says_why = self._progress is not None and self._progress.says_why
                if self.spinner and not says_why:  # else it stands in the line
                    self.printer.put(waiting_line(self.name, what.text))
            case ReportHanging() | ReportRetried():
                if self.spinner:
                    self.printer.put(line_about(self.name, what.text))
            case _:
                assert_never(what)

    def _written(self, lease: bytes, number: int) -> None:
        """Take note of output that the printer has written."""
        self._thread.post(Written(self.id, lease, number))

    def _failed(self, error: BaseException) -> None:
        """Take what the printer failed with."""
        self._put(LocalError(error))

    def _put(self, event: Event) -> None:
        self.events.put(event)
        if self.told is not None:
            self.told()
