"""What an attached job is to who detaches it: what it has of outcomes, and its further inputs."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from msgspec import Struct

from burla.core.batches import Window
from burla.core.effects import Part
from burla.errors import JobFailed
from burla.protocol.ranges import Ranges
from burla.values.payloads import Batch

from .io_thread import IoThread
from .job import Event, Job
from .printer import Printer
from .progress import line_about

READ_ON_S = 10.0  # that inputs whose number is not known are read on
ENDLESS = f"its inputs have not come to their end in {READ_ON_S:.0f} s, and a detached job has all"
NOT_THIS = (
    "only a call of remote_parallel_map can be, without resume=, and none of executors, pools and"
    " amap"
)


class ReadOn:
    """Reads the inputs to their end, and keeps them: the job may go on as it was."""

    def __init__(
        self, batches: Iterator[Batch], window: Window, printer: Printer, *, is_lazy: bool
    ) -> None:
        """Begin where the job is; its window counts no more until `close`.

        `is_lazy`: nobody knows how many there are.
        """
        self._batches, self._window, self._printer = batches, window, printer
        self._was = window.ahead, window.in_order, window.inputs
        window.ahead, window.in_order, window.inputs = None, None, 0
        self._kept: list[Batch] = []
        self._until_s = time.monotonic() + READ_ON_S if is_lazy else None
        self.error: BaseException | None = None  # that reading them has raised

    def read(self) -> Batch | None:
        """Return the next inputs; None: there are no more.

        Raises:
            JobFailed: there may be no end of them.
            BaseException: what the caller's code raises.
        """
        if self._until_s is not None and time.monotonic() > self._until_s:
            raise JobFailed(ENDLESS)
        is_paused = self._until_s is not None and self._printer.pause()  # that code may print
        try:
            batch = next(self._batches, None)
        except BaseException as error:
            self.error = error
            raise
        finally:
            if is_paused:
                self._printer.resume()
        if batch is not None:
            self._kept.append(batch)
        return batch

    def close(self) -> Iterator[Batch]:
        """Return all inputs that the job itself has not been given."""
        self._window.ahead, self._window.in_order, self._window.inputs = self._was
        return chain(self._kept, self._batches)


class Attached(Struct, frozen=True):
    """A job that is being detached."""

    job: Job
    connect: Callable[[], IoThread]
    limits: Mapping[str, object]  # arguments of the call by name, for errors
    inputs: ReadOn
    early: deque[Event]  # what has happened and was not dealt with
    results: list[Any] | None  # by index; None: they were yielded
    stored: Ranges  # which of them there are, also errors
    goes_on: bool  # errors are outcomes
    parts: list[tuple[Part, str]]  # that were not opened, and errors; each with its node


def say_refused(job: Job, why: str) -> None:
    """Say in a line that a job is not detached, and why."""
    job.is_refused = True
    job.printer.put(line_about(job.name, f"it is not detached, and goes on here: {why}"))
