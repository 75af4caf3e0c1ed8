"""Detaches a job that runs: hands all that there is of it to the scheduler, or leaves it as it was.

The stored job that it becomes is given its inputs as any detached one. Outcomes go along: those
that were opened are pickled again, others go as they came. Last the attached job is held: from
then on outcomes stay with their nodes, so that what goes along is all that this process ever had.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from burla.core.batches import Window
from burla.core.commands import AddBefore, HandInputs, Hold, Release
from burla.core.effects import Deliver, DetachWanted, Held, Part, Slots
from burla.errors import BurlaError, JobFailed
from burla.protocol import messages as m
from burla.protocol.codec import pack_big, pack_runs
from burla.protocol.detach_messages import GivenBefore, OutcomesBefore
from burla.protocol.mac import seal
from burla.protocol.ranges import Range, Ranges
from burla.values.frames import LaidOut
from burla.values.held_parts import HeldFunction
from burla.values.payloads import (
    Batch,
    ResultNotPicklableError,
    TooLargeError,
    dump_results_if_atoms,
    take_apart_result,
)
from burla.values.sharing import SharedInputs

from .attached import Attached, say_refused
from .caller import Caller
from .job import Job

FRAGMENT_BYTES = 1 << 20  # of a big outcome in a message; small ones are gathered up to it
ATOMS = 1024  # results in one pickle


class _OverError(Exception):
    """The attached job has ended meanwhile."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The stored job that an attached one becomes."""

    job: Job
    secret: bytes  # seals its outcomes
    error: Callable[[], BurlaError]  # what is raised in the place of results


def hand_over(attached: Attached, make: Callable[[], Stored]) -> BurlaError | None:
    """Return what is to be raised once the scheduler has all; None: the job goes on here.

    Raises:
        BaseException: Ctrl-C, or what the caller's inputs have raised.
    """
    job, steps = attached.job, None
    try:
        stored = make()
        steps = HandingOver(attached, stored)
        steps.hand_over()
    except _OverError:
        return None
    except BurlaError as error:
        if error is attached.inputs.error:
            raise
        say_refused(job, str(error))
    else:
        return stored.error()
    if steps is not None and steps.is_holding:
        job.do(Release(job.id))
    return None


class HandingOver(Caller):
    """The stored job, on its way to the disk of the scheduler."""

    def __init__(self, attached: Attached, stored: Stored) -> None:
        """Prepare; `hand_over` does it."""
        nothing = SharedInputs(None), Window(), HeldFunction([])
        super().__init__(
            *(stored.job, attached.connect, (), self._read_on(), attached.limits), *nothing
        )
        self._attached = attached
        self._before = Before(stored.job, stored.secret)
        self.is_holding = False  # the attached job takes no outcomes

    def _open(self) -> None:
        super()._open()
        attached, before = self._attached, self._before
        self.job.do(HandInputs(self.job.id, attached.job.id))  # type: ignore[union-attr]
        for part, node in attached.parts:
            before.add_part(part, node)
        if attached.results is not None:
            for lo, hi in attached.stored:
                for start, stop in before.told.missing(lo, hi):
                    before.add_results(start, attached.results[start:stop])

    def _read_on(self) -> Iterator[Batch]:
        while (batch := self._attached.inputs.read()) is not None:
            yield batch
        self._hold()

    def _hold(self) -> None:
        """Have no further outcomes come, and hand over those that came meanwhile."""
        job, early, before = self._attached.job, self._attached.early, self._before
        job.do(Hold(job.id))
        self.is_holding = True
        held: Held | None = None
        while held is None:
            event = job.wait_event()
            if isinstance(event, Held):
                held = event
            elif event is not None and not isinstance(event, DetachWanted):
                early.append(event)
                if not isinstance(event, Deliver | Slots):
                    raise _OverError
        for event in early:
            if isinstance(event, Deliver):
                for part in event.parts:
                    if part.run.kind in (m.Kind.ERROR, m.Kind.DEATH) and not self._goes_on():
                        raise _OverError
                    before.add_part(part, event.node)
        given = [new for lo, hi in held.done for new in before.told.missing(lo, hi)]
        if given and self._attached.results is not None:
            raise JobFailed("some of its results are not here any more")
        before.give(given)
        before.flush()

    def _goes_on(self) -> bool:
        return self._attached.goes_on


class Before:
    """Says what outcomes there are."""

    def __init__(self, job: Job, secret: bytes) -> None:
        """Begin; `job` is the stored one."""
        self.told = Ranges()
        self._job, self._secret = job, secret
        self._lease, self._seq = os.urandom(16), 0
        self._runs: list[tuple[m.Run, Sequence[bytes]]] = []
        self._size, self._node = 0, ""

    def add_part(self, part: Part, node: str) -> None:
        """Add what has come, as it came."""
        run, frames = part.run, part.frames
        if not self.told.missing(run.lo, run.hi):
            return
        if len(frames) == 1 and run.hi == run.lo + 1 and len(frames[0]) > FRAGMENT_BYTES:
            view = memoryview(frames[0])
            self._add_big(run, len(view), lambda start, stop: [bytes(view[start:stop])], node)
        else:
            self._add(run, [bytes(frame) for frame in frames], node)

    def add_results(self, lo: int, results: list[Any]) -> None:
        """Add results from index `lo` on, which were opened.

        Raises:
            JobFailed: one cannot be pickled.
        """
        for at in range(0, len(results), ATOMS):
            some = results[at : at + ATOMS]
            if (frames := dump_results_if_atoms(some)) is not None:
                start = lo + at
                run = m.Run(start, start + len(some), m.Kind.RESULTS, len(frames))
                self._add(run, frames, "")
                continue
            for index, result in enumerate(some, lo + at):
                self._add_result(index, result)

    def _add_result(self, index: int, result: object) -> None:
        try:
            pieces = take_apart_result(result)
            if pieces.size > FRAGMENT_BYTES:
                laid = LaidOut(pieces)
                run = m.Run(index, index + 1, m.Kind.RESULT, 1)
                self._add_big(run, laid.size, laid.read, "")
            else:
                frames = pieces.cut()
                self._add(m.Run(index, index + 1, m.Kind.RESULT, len(frames)), frames, "")
        except (ResultNotPicklableError, TooLargeError) as error:
            raise JobFailed(f"result {index} cannot be pickled here: {error}") from error

    def _add(self, run: m.Run, frames: Sequence[bytes], node: str) -> None:
        is_full = len(self._runs) == m.RUNS_MAX or self._size >= FRAGMENT_BYTES
        if self._runs and (is_full or node != self._node):
            self.flush()
        self._runs.append((run, frames))
        self._node = node
        self._size += sum(map(len, frames))
        self.told.add(run.lo, run.hi)

    def _add_big(
        self, run: m.Run, size: int, read: Callable[[int, int], Sequence[bytes]], node: str
    ) -> None:
        self.flush()
        for at in range(0, size, FRAGMENT_BYTES):
            stop = min(size, at + FRAGMENT_BYTES)
            table = pack_big(run, size) if stop == size else b""
            self._say(table, read(at, stop), node, m.Fragment(run.lo, at, size))
        self.told.add(run.lo, run.hi)

    def flush(self) -> None:
        """Say what was gathered."""
        if self._runs:
            table, payload = pack_runs(self._runs)
            self._say(table, payload, self._node)
            self._runs, self._size = [], 0

    def give(self, ranges: Sequence[Range]) -> None:
        """Say which results nobody has any more."""
        for at in range(0, len(ranges), m.RANGES_MAX):
            self._seq += 1
            said = GivenBefore(self._job.id, self._seq, tuple(ranges[at : at + m.RANGES_MAX]))
            self._job.do(AddBefore(self._job.id, said))

    def _say(
        self, table: bytes, payload: Sequence[bytes], node: str, fragment: m.Fragment | None = None
    ) -> None:
        self._seq += 1
        said = m.JobOutcomes(
            job=self._job.id,
            lease=self._lease,
            seq=self._seq,
            node=node,
            runs=table,
            output=0,
            fragment=fragment,
        )
        before = OutcomesBefore(
            job=said.job,
            lease=said.lease,
            seq=said.seq,
            node=node,
            runs=table,
            seal=seal(self._secret, said, payload),
            fragment=fragment,
        )
        self._job.do(AddBefore(self._job.id, before, payload))
