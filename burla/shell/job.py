"""One map call, as its calling thread holds it: what it says to the client's thread, and hears.

The calling thread never touches the session: it posts what is to happen to it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

from burla.core.connection import Broken, Rejected
from burla.core.effects import Deliver, Effect, Fail, Finish, Frames
from burla.core.session import Session

from .printer import Printer

SENT_S = 0.1  # the most that a caller waits for its inputs to be sent; there is no harm in late


@dataclass(frozen=True, slots=True)
class LocalError:
    """Something in this process ended the job: writing its output, or our own thread."""

    error: BaseException


Change = Callable[[Session, float], list[Effect]]  # what is to happen to a session, and when


class Thread(Protocol):
    """The thread that owns the sessions, as a job sees it: `io_thread.Client` is one."""

    address: str

    def open(self, job: Job, session: Session) -> bool:
        """Begin a job; return False if this thread takes no more."""
        ...

    def post(self, job: Job, event: Change, *, ring: bool = True) -> None:
        """Let something happen to the session of a job."""
        ...

    def ring(self) -> None:
        """Have the thread look at what was posted."""
        ...


Event = Deliver | Finish | Fail | Broken | Rejected | LocalError


class Job:
    """One map call, as its calling thread holds it."""

    def __init__(self, session: Session, name: str, spinner: bool) -> None:
        """Prepare a job whose output goes to what `sys.stdout` and `sys.stderr` are now."""
        self.events: SimpleQueue[Event] = SimpleQueue()
        self.id = session.id
        self.name = name
        self.spinner = spinner
        self.address = ""
        self.pid = os.getpid()  # a child that is forked from it must keep away
        self.printer = Printer(
            sys.stdout,
            sys.stderr,
            lambda lease, number: self._post(lambda s, now_s: s.shown(lease, number, now_s)),
            lambda error: self.events.put(LocalError(error)),
        )
        self._session = session
        self._client: Thread | None = None
        self._over = False
        self._is_unsaid = False  # inputs were added of which the other thread has not heard

    def open(self, connect: Callable[[], Thread]) -> None:
        """Begin, over a client that takes jobs; the first inputs are to follow at once."""
        while True:
            self._client = connect()
            self.address = self._client.address
            if self._client.open(self, self._session):
                return

    def add_batch(self, leaves: Sequence[tuple[int, Frames]]) -> None:
        """Send the next inputs after `flush`: per leaf, how many they are and their frames."""
        if self._client is not None:
            self._client.post(self, lambda s, now_s: s.add_batch(leaves, now_s), ring=False)
            self._is_unsaid = True

    def flush(self) -> None:
        """Let what was added be sent soon."""
        if self._is_unsaid and self._client is not None:
            self._is_unsaid = False
            self._client.ring()

    def add_last_batch(self, leaves: Sequence[tuple[int, Frames]]) -> None:
        """Send the next inputs and say that no more come, which wakes the other thread once."""
        self._post(lambda s, now_s: s.add_batch(leaves, now_s, last=True))

    def wait_sent(self) -> None:
        """Return when all inputs that were added are with libzmq, or soon if they cannot be.

        A thread that computes keeps the interpreter's lock from the thread that sends for 5 ms
        each time that one gives it up, which is with every frame.
        """
        sent = threading.Lock()
        sent.acquire()

        def say(session: Session, now_s: float) -> list[Effect]:
            sent.release()
            return []

        self._post(say)
        sent.acquire(timeout=SENT_S)

    def end_inputs(self) -> None:
        """Say that no more inputs come."""
        self._post(lambda s, now_s: s.end_inputs(now_s))

    def consumed(self, delivered: Deliver) -> None:
        """Say that the user has these outcomes."""
        lease, seq = delivered.lease, delivered.seq
        self._post(lambda s, now_s: s.consumed(lease, seq, now_s))

    def wait_event(self) -> Event:
        """Return what happens next; Ctrl-C interrupts it."""
        event = self.events.get()
        self._over = not isinstance(event, Deliver | LocalError)
        return event

    def close(self) -> None:
        """Stop the job unless it is over, and its output. May be called in any thread."""
        if self.pid != os.getpid():
            return  # this is a forked child
        if not self._over:
            self._over = True
            self._post(lambda s, now_s: s.close(now_s))
        self.printer.abandon()

    def _post(self, event: Change) -> None:
        if self._client is not None:
            self._client.post(self, event)
