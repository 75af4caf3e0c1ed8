"""What the calling thread does: advances the inputs, unpickles outcomes, and waits in one place.

The inputs are advanced here also for a generator, never in a thread of ours: they are the caller's
code (a database cursor belongs to its thread), and a thread that blocks in them could not be ended.
So they are fed ahead: for a moment at the call, and at least one batch between two deliveries.
"""

import os
import time
from _queue import Empty
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, final

from burla.core.batches import Window
from burla.core.effects import Deliver, DetachWanted, Finish, Lacking, Part, Slots
from burla.protocol.messages import Kind
from burla.protocol.ranges import Range, Ranges
from burla.values.payloads import Batch, HeldFunction
from burla.values.shared_memory import size_of
from burla.values.sharing import SharedInputs

from .attached import NOT_THIS, Attached, ReadOn, say_refused
from .delivery import Delivery, InOrder, Opener, with_indices
from .io_thread import IoThread
from .job import Event, Job
from .partial import Partial, attach
from .progress import SHOW_S
from .putting import Aliased, put_down_together
from .quitting import Quitting
from .raising import raise_if_bad
from .stored import StoredJob

FEED_AT_CALL_S = 0.1  # a generator's inputs are fed ahead for so long before the call returns

# Pickling for longer than this holds up the thread that sends. Letting it have its turn costs about
# 1 ms; so not often, once the workers have something for a while.
BUSY_FIRST_S, BUSY_S = 0.001, 0.005
FIRST_S = 0.01


@final
class Values:
    """Results to hand over, before the next step."""

    __slots__ = ("values",)

    def __init__(self, values: Iterable[Any]) -> None:
        """Take them, in order."""
        self.values = values


class Raised:
    """Stands for an error that no generator can raise."""

    def __init__(self, error: BaseException) -> None:
        """Take it."""
        self.error = error


# What is done for a job, in steps: between two of them its driver hands values over, or waits for
# the next event for so many seconds (None: however long), and sends it; None if there was none.
# So one thread can drive many jobs.
Step = float | None | Values
Steps = Generator[Step, Event | None, list[Any] | Raised]


class Driven(ABC):
    """What goes in steps: `collecting` a list, or `streaming`."""

    job: Job | StoredJob
    aliased: Aliased | None = None  # big inputs, while only we wait here
    is_here = False  # it is waited for here, and by nobody who drives others, too

    @abstractmethod
    def collecting(self, inputs: int = 0) -> Steps:
        """Do what `collect` does, and leave the waiting to who drives it: see `Steps`."""

    @abstractmethod
    def streaming(self) -> Steps:
        """Do what `stream` does, likewise."""

    def collect(self, inputs: int = 0) -> list[Any]:
        """Return all results in the order of the inputs; so many were handed in before."""
        self._wait_here()
        with Quitting(self):
            return self._drive(self.collecting(inputs))

    def _wait_here(self) -> None:
        """Note that no code of the caller goes on, but where it is yielded to."""
        self.is_here = True
        if self.aliased is not None:
            self.aliased.is_allowed = True

    def _drive(self, steps: Steps) -> list[Any]:
        """Return what `steps` return; wait here for what they wait for."""
        try:
            step = next(steps)
            while True:
                step = _go_on(self.job, steps, step)
        except StopIteration as end:
            found: list[Any] | Raised = end.value
        if isinstance(found, Raised):
            raise found.error
        return found

    def stream(self) -> Iterator[Any]:
        """Yield one None when the inputs are fed ahead, then the results as they come.

        Its maker starts it, so that closing it always ends the job.
        """
        self._wait_here()
        steps = self.streaming()
        try:
            step = next(steps)
            while True:
                if type(step) is not Values:
                    with Quitting(self):
                        step = _go_on(self.job, steps, step)
                    continue
                if self.aliased is not None:
                    self.aliased.settle()
                try:
                    yield from step.values
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(None)
        except StopIteration:
            return


class Caller(Driven):
    """One job and the caller's side of it."""

    begun: tuple[None, ...] = (None,)  # what is yielded once the inputs are fed ahead

    def __init__(
        self,
        job: Job | StoredJob,
        connect: Callable[[], IoThread],
        inputs: object,
        batches: Iterator[Batch],
        limits: Mapping[str, object],
        shared: SharedInputs,
        window: Window,
        function: HeldFunction,
        delivery: Delivery | None = None,
    ) -> None:
        """Prepare to run a job; nothing starts before `collect` or `stream`.

        Args:
            job: not open yet.
            connect: returns another I/O thread, if that of the job takes no jobs any more.
            inputs: what the caller passed; only looked at for errors.
            batches: the same, in batches.
            limits: arguments of the call by name, for errors.
            shared: where big inputs and results are put down, if anywhere.
            window: how many inputs may be handed in; bounds `batches`, too.
            function: as it was sent; released at the end.
            delivery: what the caller wants of outcomes, if not the usual.
        """
        self.job, self._connect = job, connect
        self._batches, self._limits = batches, limits
        self._delivery = Delivery() if delivery is None else delivery
        self._opener = Opener(inputs, self._delivery)
        known = type(inputs) in (list, tuple, range)
        self._total = len(inputs) if known else None  # type: ignore[arg-type]  # they have lengths
        self._window = window
        self._early: deque[Event] = deque()  # what has happened and is not dealt with
        self._shared, self._function = shared, function
        self.aliased: Aliased = Aliased()
        self._stored: list[tuple[Range, ...]] = []  # what is among the results of a list
        self._failures: list[tuple[Part, str]] = []  # likewise, and those of them that are errors
        self._open_part: tuple[Part, str] | None = None  # what is being put there
        self._kept_back = InOrder()  # what waits for earlier outcomes
        self._late: list[Event] = []  # what came while the end of the output was waited for
        self._feeding = True
        self._begun_s = 0.0
        self._rested_s = 0.0  # when this thread last let the one that sends have its turn
        self._unshown_s = SHOW_S if job.shows() else None  # so long until it is shown; None: it is

    def hand_over(self) -> None:
        """Return when the scheduler has all of a detached job on its disk."""
        self._drive(self._handing_over())

    def _handing_over(self) -> Steps:
        self._unshown_s = None  # it is about its calls how far it is
        try:
            self._open()
            while (yield from self._wait_delivery(None)) is not None:
                pass  # so much more of it is stored
        finally:
            self._end()
        return []

    def collecting(self, inputs: int = 0) -> Steps:
        """Do what `collect` does, and leave the waiting to who drives it: see `Steps`."""
        results: list[Any] = [None] * inputs
        try:
            self._open()
            while (delivered := (yield from self._wait_delivery(results))) is not None:
                for part in self._parts_of(delivered):
                    self._open_part = part, delivered.node
                    if self._opener.is_error(part):
                        yield from self._finish_output()
                    self._store(part, delivered.node, results)
            self.job.finish()
            self._raise_local_error()
        except BaseException as error:
            attach(error, self._partial(results))
            if isinstance(error, StopIteration):  # a generator cannot raise it
                return Raised(error)
            raise
        finally:
            self._end()
        return list(enumerate(results)) if self._delivery.with_index else results

    def streaming(self) -> Steps:
        """Do what `stream` does, likewise."""
        try:
            self._open()
            yield from self._feed_ahead()
            yield Values(self.begun)
            yield from self._as_they_went() if self._delivery.is_ordered else self._as_they_come()
            self.job.finish()
            self._raise_local_error()
        except GeneratorExit:
            raise
        except BaseException as error:
            attach(error, self._partial(None))
            raise
        finally:
            self._end()
        return []

    def _end(self) -> None:
        self.job.close()
        self._shared.clear()
        self._function.release()

    # --- feeding and waiting ---

    def _open(self) -> None:
        self.job.open(self._connect)
        self._begun_s = time.monotonic()
        self._shared.open()

    def _feed_ahead(self) -> Steps:
        until_s = time.monotonic() + FEED_AT_CALL_S
        while self._feeding and (left_s := until_s - time.monotonic()) > 0:
            if self._may_feed():
                self._feed(None)
                continue
            self.job.flush()
            if self._early or self._window.knows_slots():
                return []
            event = yield left_s
            if isinstance(event, Slots):
                self._window.note(event)
            elif event is not None:
                self._early.append(event)
        self.job.flush()
        return []

    def _may_feed(self) -> bool:
        return self._feeding and self._window.has_room() and self._shared.has_room()

    def _feed(self, results: list[Any] | None) -> None:
        """Hand in one batch, or say that there is none."""
        printer, meter = self.job.printer, self.job.meter
        # what makes the inputs is the caller's code, and may print
        is_paused = self._total is None and printer.pause()
        if self._total is None:
            self.aliased.settle()
        batch = next(self._batches, None)
        if is_paused:
            printer.resume()
        if batch is not None and not batch.count:
            return  # what came needs no call
        if batch is None:
            self._feeding, meter.has_all = False, True
            self.job.end_inputs()
            return
        # what an iterator gives is the caller's code to make
        at_hand = self._batches if self._total is not None else iter(())
        put = put_down_together(batch, at_hand, self._may_feed, self._shared, self.aliased.add)
        leaves, size, count = put.leaves, put.size, put.end - batch.start
        if put.has_written:
            self._rested_s = time.monotonic()  # that leaves the interpreter to the others
        self._window.add(count, size)
        meter.sent += count
        if results is not None:
            results += [None] * count  # before an outcome can come
        coming = None if self._total is None else self._total - put.end
        self.job.add_batch(leaves, size, coming)
        if coming == 0:
            self._feeding, meter.has_all = False, True
            return
        if put.has_written:
            self.job.flush()  # it takes longer to write the next one than to send this
        now_s = time.monotonic()
        self._show_if_late(now_s)
        busy_s = BUSY_FIRST_S if now_s < self._begun_s + FIRST_S else BUSY_S
        if now_s > self._rested_s + busy_s:
            self.job.wait_sent()
            self._rested_s = time.monotonic()

    def _wait_delivery(
        self, results: list[Any] | None
    ) -> Generator[Step, Event | None, Deliver | None]:
        """Return the next outcomes, feeding meanwhile; None when all have been returned."""
        events = self.job.events
        while True:
            if self._may_feed():
                self._feed(results)
            while not self._early and events.empty() and self._may_feed():
                self._feed(results)
            self.job.flush()
            event = yield from self._next_event()
            if isinstance(event, Deliver | Finish):
                break
            if isinstance(event, Slots):
                self._window.note(event)
            elif isinstance(event, Lacking):
                self.job.supply(event)
            elif isinstance(event, DetachWanted):
                self._detach(results)
            else:
                break
        if isinstance(event, Deliver):
            self._window.free(event)
            for part in event.parts:
                for lo, hi in part.fresh:
                    self._shared.release(lo, hi)
            if self._window.in_order is not None:
                size = sum(size_of(part.frames) for part in event.parts)
                self._window.in_order.take(event.inputs, size)
            return event
        if not isinstance(event, Finish):
            self._raise_if_bad(event)
        return None

    def _next_event(self) -> Generator[Step, Event | None, Event]:
        if self.job.pid != os.getpid():
            raise RuntimeError(
                f"this job belongs to process {self.job.pid}, from which process {os.getpid()}"
                " was forked; call remote_parallel_map here"
            )
        event = self._early.popleft() if self._early else (yield self._unshown_s)
        if event is None:
            self._show_if_late(time.monotonic())
            event = yield None
            assert event is not None
        self._rested_s = time.monotonic()
        self._show_if_late(self._rested_s)
        return event

    def _show_if_late(self, now_s: float) -> None:
        """Let the user see how far the job is, if it has taken so long."""
        if self._unshown_s is not None and now_s >= self._begun_s + self._unshown_s:
            self._unshown_s = None
            self.job.show()

    def _detach(self, results: list[Any] | None) -> None:
        """Let the scheduler have the job, and raise that; or say why that cannot be.

        Raises:
            JobDetached: it has it.
        """
        if not isinstance(self.job, Job):
            return  # it is detached
        if not self.is_here or self.job.detacher is None:
            say_refused(self.job, NOT_THIS)
            return
        self.aliased.settle()
        is_lazy = self._total is None
        inputs = ReadOn(self._batches, self._window, self.job.printer, is_lazy=is_lazy)
        stored = Ranges(part for parts in self._stored for part in parts)
        parts = [*self._kept_back.rest(), *self._failures]
        try:
            error = self.job.detacher(
                Attached(
                    *(self.job, self._connect, self._limits, inputs, self._early),
                    *(results, stored, self._delivery.goes_on, parts),
                )
            )
        finally:
            self._batches = inputs.close()
        if error is not None:
            raise error

    # --- outcomes ---

    def _parts_of(self, delivered: Deliver) -> Sequence[Part]:
        """Return what came, once."""
        return delivered.parts

    def _handed_over(self, part: Part) -> None:
        """Take note that a part was yielded in its turn."""
        self._window.hand_over(part)

    def _store(self, part: Part, node: str, results: list[Any]) -> None:
        """Put what came into `results`, or raise it. No generator: those cannot raise all."""
        run = part.run
        values = self._opener.values_of(part, node)
        if run.kind == Kind.RESULTS:
            at = 0
            for lo, hi in part.fresh:
                results[lo:hi] = values[at : at + hi - lo]
                at += hi - lo
        else:
            results[run.lo] = values[0]
            if run.kind in (Kind.ERROR, Kind.DEATH):
                self._failures.append((part, node))
        self._stored.append(part.fresh)
        self._open_part = None

    def _wait_between(self) -> Generator[Step, Event | None, Deliver | None]:
        """Return what `_wait_delivery` does, between two yields: then the caller may print."""
        self.job.printer.resume()
        try:
            return (yield from self._wait_delivery(None))
        finally:
            self.job.printer.pause()

    def _as_they_come(self) -> Steps:
        while (delivered := (yield from self._wait_between())) is not None:
            for part in self._parts_of(delivered):
                if self._opener.is_error(part):
                    yield from self._finish_output()
                yield Values(self._opened(part, delivered.node))
            self.job.consumed(delivered)
        return []

    def _as_they_went(self) -> Steps:
        """Yield in the order of the inputs; an error is raised as soon as it comes."""
        while (delivered := (yield from self._wait_between())) is not None:
            failed = None
            for part in self._parts_of(delivered):
                if self._opener.is_error(part):
                    failed = part
                else:
                    self._kept_back.put(part, delivered.node)
            while (next_ := self._kept_back.take()) is not None:
                part, _ = next_
                yield Values(self._opened(*next_))
                self._handed_over(part)
            if failed is not None:
                yield from self._finish_output()
                self._opener.values_of(failed, delivered.node)
        return []

    def _opened(self, part: Part, node: str) -> Iterator[Any]:
        values = self._opener.values_of(part, node)
        return with_indices(part, values) if self._delivery.with_index else iter(values)

    def _finish_output(self) -> Steps:
        """Return when what was printed before an error is shown."""
        while isinstance(event := (yield from self._next_event()), Deliver | Slots | DetachWanted):
            self._late.append(event)
        if isinstance(event, Finish):
            self.job.printer.wait_written()
        return []

    def _partial(self, results: list[Any] | None) -> Partial:
        """Return what there is, also what has come and was not looked at."""
        waiting = list(self._kept_back.rest())
        if self._open_part is not None:
            waiting.append(self._open_part)
        events: list[Event | None] = [*self._late, *self._early]
        with suppress(Empty):
            while True:
                events.append(self.job.events.get_nowait())
        for event in events:
            if isinstance(event, Deliver):
                waiting += [(part, event.node) for part in self._parts_of(event)]
        waiting = [(part, node) for part, node in waiting if not self._opener.is_error(part)]
        return Partial(self._opener.keep(waiting), waiting, results, self._stored)

    # --- ends ---

    def _raise_local_error(self) -> None:
        """Raise what writing the last output raised."""
        while not self.job.events.empty():
            self._raise_if_bad(self.job.events.get())

    def _raise_if_bad(self, event: Event | None) -> None:
        if event is not None:
            raise_if_bad(event, self.job, self._limits, self._opener)


def _go_on(job: Job | StoredJob, steps: Steps, step: Step) -> Step:
    """Wait for what `steps` waits for, and return what comes next."""
    assert type(step) is not Values
    try:
        event = job.wait_event(step)
    except BaseException as error:  # Ctrl-C
        return steps.throw(error)
    return steps.send(event)
