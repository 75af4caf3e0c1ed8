"""A detached job, as the thread that reads its results holds it: in the place of `Job`.

It reads part by part, one ahead of what is opened; so much is in memory, and no more. What the
calls have printed is written by the same printer.
"""

import os
import sys
import time
from _queue import SimpleQueue
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

from burla.core.effects import Deliver, Fail, Finish, Lacking, Write
from burla.core.progress import Meter
from burla.core.replay import Replay
from burla.errors import JobFailed
from burla.protocol import store_messages as sm
from burla.protocol.messages import Message

from .command_queue import LocalError
from .io_thread import IoThread
from .job import Event
from .printer import Printer

WAIT_S = 10.0  # that the scheduler may wait for news before it answers


class Line(Protocol):
    """A conversation with a scheduler; see `transport.conversation`."""

    def ask(self, question: Message) -> None:
        """Ask something."""

    def wait(
        self, is_answer: Callable[[Message], bool], feature: str, silence_s: float | None
    ) -> tuple[Message, list[bytes]]:
        """Return the answer."""

    def close(self) -> None:
        """Hang up."""


class StoredJob:
    """A job that is read from the store of a scheduler."""

    is_private = False

    def __init__(
        self,
        facts: sm.StoredJob,
        replay: Replay,
        line: Line,
        address: str,
        silence_s: float,
        *,
        shows_output: bool,
    ) -> None:
        """Prepare to read.

        Args:
            facts: of the job.
            replay: makes events of what is read.
            line: to the scheduler; closed with the job.
            address: of the scheduler.
            silence_s: how long that may be silent.
            shows_output: write what the calls have printed.
        """
        self.events: SimpleQueue[Event] = SimpleQueue()
        self.id, self.name, self.address = facts.job, facts.name, address
        self.pid = os.getpid()
        self._replay, self._line, self._silence_s = replay, line, silence_s
        out, err = (sys.stdout, sys.stderr) if shows_output else (None, None)
        self.printer = Printer(out, err, lambda lease, number: None, self._failed, facts.note)
        self.told: Callable[[], None] | None = None
        self.meter = Meter(facts.name, time.monotonic())
        self._at = (0, 0)
        self._ahead: deque[Event] = deque()
        self._shows_output = shows_output

    def open(self, connect: Callable[[], IoThread]) -> None:
        """Ask for the first part."""
        self._ask()

    def wait_event(self, timeout_s: float | None = None) -> Event | None:
        """Return what comes next."""
        while not self._ahead:
            if not self.events.empty():
                return self.events.get()
            self._read()
        return self._ahead.popleft()

    def _ask(self) -> None:
        self._line.ask(sm.ReadStored(self.id, *self._at, WAIT_S))

    def _read(self) -> None:
        asked = self._at

        def is_answer(said: Message) -> bool:
            if not isinstance(said, sm.StoredPart) or said.job != self.id:
                return False
            return (said.segment, said.at) == asked

        answer, payload = self._line.wait(is_answer, sm.STORE, self._silence_s)
        part = cast(sm.StoredPart, answer)
        if part.facts is None:
            text = "the detached job is not there any more: it was deleted, or its time is over"
            self._ahead.append(Fail(self.id, "", text))
            return
        self._at = part.next_segment, part.next_at
        is_over = part.is_all and part.facts.state in sm.ENDED
        if not is_over:
            self._ask()  # it comes while we are busy
        for said in self._replay.take(b"".join(payload)):
            if isinstance(said, Write):
                if self._shows_output:
                    self.printer.put(said)
            else:
                self._ahead.append(said)
        if is_over and not any(isinstance(e, Fail | Finish) for e in self._ahead):
            self._ahead.extend(cast(list[Event], self._replay.end(part.facts)))

    def close(self) -> None:
        """Read no more; the job goes on."""
        if self.pid == os.getpid():
            self.printer.abandon()
            self._line.close()

    def finish(self) -> None:
        """Return when all output is written."""
        self.printer.wait_written(went_well=True)

    # --- what a job that is read has not ---

    def shows(self) -> bool:
        """Nothing is shown but what the calls have printed."""
        return False

    def show(self) -> None:
        """It is shown by its status."""

    def stop(self) -> None:
        """It goes on."""

    def supply(self, lacking: Lacking) -> None:
        """Nothing can be given to it any more."""
        raise JobFailed(lacking.text)

    def flush(self) -> None:
        """Nothing is sent."""

    def end_inputs(self) -> None:
        """All inputs are there."""

    def add_batch(self, *batch: object) -> None:
        """There are none to add."""
        raise AssertionError("a job that is read has its inputs")

    def wait_sent(self) -> None:
        """Nothing is sent."""

    def consumed(self, delivered: Deliver) -> None:
        """It stays in the store."""

    def _failed(self, error: BaseException) -> None:
        self.events.put(LocalError(error))
