"""A job that takes over results of earlier runs, and keeps its own: `resume=`.

What is known needs no call: it comes as if a node had said it, and is read from its file when the
caller gets it. What the cluster says is kept as it comes, before it is handed over.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

from msgspec.structs import replace

from burla.arguments import name_of
from burla.core.batches import Window
from burla.core.effects import Deliver, Fail, Part
from burla.core.read_ahead import GROW_AHEAD_S, InOrder, ReadAhead
from burla.errors import InputTooLarge, JobFailed
from burla.protocol.messages import Kind, Run
from burla.protocol.ranges import Range
from burla.shell.caller import Caller, Driven, Raised, Steps, Values
from burla.shell.delivery import InOrder as KeptBack, Opener
from burla.shell.job import Event, Job
from burla.shell.partial import Partial
from burla.shell.progress import line_about
from burla.shell.stored import StoredJob
from burla.shipping.modules import new_sent
from burla.starting import Request, begin, function_of
from burla.values.contents import Contents
from burla.values.kept import kept_frames
from burla.values.payloads import (
    Batch,
    NotLoadableError,
    cut_batches,
    is_lazy,
    load_result,
    load_results,
)
from burla.values.pickling import Sent
from burla.values.tracebacks import Failure, renumbered

from .checkpoints import OFFSET_BITS, Checkpoint, Known
from .kept_contents import content_of_module, parts_of
from .sieve import Numbers, Sieve, checking, sift

EARLY_MAX = 64  # such parts that wait to be handed over
KEPT_BACK_MAX = 100_000  # results that wait for an earlier one
START_S = 0.1  # inputs are looked at for so long before a generator is returned


class KnownPart(Part, frozen=True):
    """Results that were kept by an earlier run; they are at `places`."""

    places: range = range(0)


class ScatteredPart(Part, frozen=True):
    """A run of results whose inputs are no range: `fresh` are their indices, `cut` their places."""

    cut: tuple[Range, ...] = ()


class KnownDelivery(Deliver, frozen=True):
    """Results that need no call."""

    known: tuple[KnownPart, ...] = ()


def start_resumed(request: Request) -> "Resumed":
    """Return a job that calls only what has no result yet; it begins with the first such input."""
    sent = new_sent()
    pieces = function_of(request, sent)
    if is_lazy(request.inputs):  # what makes the inputs may change what the function refers to
        pieces.copy()
    parts = parts_of(request, sent)
    name = request.options.resume
    assert name is not None
    checkpoint = Checkpoint(name, name_of(request.function), parts)
    return Resumed(request, sent, pieces, checkpoint)


class _NoJob:
    """Stands for a job that has not begun."""

    told: Callable[[], None] | None = None

    def stop(self) -> None:
        """There is nothing to stop."""


class Resumed(Driven):
    """A job that is resumed; without inputs to call it never begins."""

    def __init__(self, request: Request, sent: Sent, pieces: Any, checkpoint: Checkpoint) -> None:
        """Begin nothing yet."""
        self.job: Any = _NoJob()
        self._request, self._sent, self._pieces = request, sent, pieces
        self._checkpoint = checkpoint
        self._contents = Contents(sent.by_value, request.shape.unpack, content_of_module)
        self._numbers = Numbers()
        self._opener = ResumedOpener(
            request.inputs, request.options.delivery(), self._numbers, checkpoint
        )
        self._taken = 0

    def collecting(self, inputs: int = 0) -> Steps:
        """Do what `collect` does: see `Driven`."""
        try:
            return (yield from self._collecting())
        finally:
            self._close()

    def streaming(self) -> Steps:
        """Do what `stream` does, likewise."""
        try:
            return (yield from self._streaming())
        finally:
            self._close()

    def _close(self) -> None:
        self._checkpoint.close()
        if why := self._checkpoint.problem:
            self._say(
                f"results are not kept any more under resume={self._checkpoint.name!r}: {why}"
            )

    # --- saying ---

    def _say(self, text: str) -> None:
        with suppress(Exception):
            print(line_about(name_of(self._request.function), text), file=sys.stderr, flush=True)

    def _say_taken(self, total: int) -> None:
        """Say how many results were taken over, or why none."""
        name, changed = self._checkpoint.name, self._checkpoint.changed
        if changed:
            self._say(
                f"resume={name!r} takes over nothing, as the function has changed since it was last"
                f" used: {changed}"
            )
        elif self._checkpoint.has_any() and self._request.spinner:
            self._say(
                f"resume={name!r} takes over {self._taken:,} of {total:,} results, and calls"
                f" {total - self._taken:,}"
            )

    # --- a list ---

    def _collecting(self) -> Steps:
        sifted = self._sift()
        if isinstance(sifted, Sieve):
            return (yield from self._collecting_lazily(sifted))
        known, left = sifted
        self._taken = sum(count for _, count, _ in known)
        total = self._taken + len(left)
        self._say_taken(total)
        if self._taken < total:
            return (yield from self._begin_all(known, left).collecting(total))
        return self._listed(known)

    def _collecting_lazily(self, sieve: Sieve) -> Steps:
        caller, known = None, list[Known]()
        while caller is None and not sieve.is_over:
            caller = self._begin_lazy(sieve)
            known += sieve.take_known()
        if caller is None:
            results = self._listed(known)
        else:
            caller.put_known(known)
            found = yield from caller.collecting()
            if isinstance(found, Raised):
                return found
            results = found
        self._taken = sieve.count - self._numbers.end
        self._say_taken(sieve.count)
        return results

    def _listed(self, known: Sequence[Known]) -> list[Any]:
        """Return results all of which are known."""
        parts = known_parts(known)
        values = [value for part in parts for value in self._opener.values_of(part, "")]
        return list(enumerate(values)) if self._request.options.with_index else values

    def _sift(self) -> "Sieve | tuple[list[Known], Any]":
        inputs = self._request.inputs
        if is_lazy(inputs):
            return Sieve(iter(inputs), self._contents, self._checkpoint, self._numbers)
        return sift(inputs, self._contents, self._checkpoint, self._numbers)

    # --- a generator ---

    def _streaming(self) -> Steps:
        sifted = self._sift()
        if not isinstance(sifted, Sieve):
            known, left = sifted
            self._taken = sum(count for _, count, _ in known)
            self._say_taken(self._taken + len(left))
            if len(left):
                return (yield from self._begin_all(known, left).streaming())
            yield Values((None,))
            yield from self._yield_known(known)
            return []
        return (yield from self._streaming_lazily(sifted))

    def _streaming_lazily(self, sieve: Sieve) -> Steps:
        begun: tuple[None, ...] = (None,)
        until_s = time.monotonic() + START_S
        waiting: list[Known] = []
        while not sieve.is_over:
            caller = self._begin_lazy(sieve)
            waiting += sieve.take_known()
            if caller is not None:
                caller.put_known(waiting)
                caller.begun = begun
                yield from caller.streaming()
                break
            if begun and not sieve.is_over and time.monotonic() < until_s:
                continue
            if begun:
                yield Values(begun)
                begun = ()
            yield from self._yield_known(waiting)
            waiting = []
        self._taken = sieve.count - self._numbers.end
        self._say_taken(sieve.count)
        return []

    def _yield_known(self, known: Sequence[Known]) -> Steps:
        for part in known_parts(known):
            values = self._opener.values_of(part, "")
            indices = range(part.run.lo, part.run.hi)
            has_index = self._request.options.with_index
            yield Values(zip(indices, values, strict=True) if has_index else values)
        return []

    # --- the job ---

    def _ways(self, window: Window) -> dict[str, Any]:
        """Return how inputs are cut into batches."""
        room = window.room if _is_windowed(window) else None
        check = checking(self._request.shape.check, self._numbers)
        return {"check": check, "room": room, "index_of": self._numbers.index_of}

    def _begin_all(self, known: Sequence[Known], left: Any) -> "ResumingCaller":
        """Return the job with inputs that are all there."""
        window = self._window(is_lazy=False)
        caller = self._begin(left, cut_batches(left, self._sent, **self._ways(window)), window)
        caller.put_known(known, is_bounded=False)
        return caller

    def _begin_lazy(self, sieve: Sieve) -> "ResumingCaller | None":
        """Return the job with its first input; None: the next inputs are all known."""
        window = self._window(is_lazy=True)
        batches = SiftedBatches(sieve, self._sent, self._ways(window))
        first = next(batches, None)
        if first is None or not first.count:
            return None
        caller = self._begin(self._request.inputs, chain([first], batches), window)
        caller.more_known = sieve.take_known
        return caller

    def _window(self, *, is_lazy: bool) -> Window:
        options = self._request.options
        in_order = InOrder() if options.generator and options.is_ordered else None
        return Window(ReadAhead() if is_lazy else None, in_order)

    def _begin(self, inputs: Any, batches: Iterator[Batch], window: Window) -> "ResumingCaller":
        is_lazy = _is_windowed(window)
        begun = begin(self._request, self._sent, self._pieces, is_lazy=is_lazy)
        if window.ahead is not None and begun.may_grow:
            window.ahead.ahead_s = GROW_AHEAD_S
        told, self.job = self.job.told, begun.job
        self.job.told = told
        return ResumingCaller(
            *(begun.job, begun.connect, inputs, batches, begun.limits, begun.shared, window),
            *(begun.held, self._request.options.delivery(), self._opener),
        )


def _is_windowed(window: Window) -> bool:
    return window.ahead is not None or window.in_order is not None


class SiftedBatches(Iterator[Batch]):
    """Batches of what a sieve lets through; an empty one when others should have their turn."""

    def __init__(self, sieve: Sieve, sent: Sent, ways: dict[str, Any]) -> None:
        """Cut nothing yet."""
        self._sieve, self._end = sieve, 0
        self._cut: Callable[[int], Iterator[Batch]]
        self._cut = lambda first: cut_batches(sieve, sent, first=first, **ways)
        self._batches = self._cut(0)

    def __next__(self) -> Batch:
        """Return the next one."""
        batch = next(self._batches, None)
        if batch is not None:
            self._end = batch.start + batch.count
            return batch
        if not self._sieve.is_paused:
            raise StopIteration
        self._batches = self._cut(self._end)
        return Batch(self._end, 0, (), 0)


class ResumingCaller(Caller):
    """A job some of whose results are known, and the caller's side of it."""

    def __init__(self, job: Job | StoredJob, *more: Any) -> None:
        """Prepare to run a job: see `Caller`; the last of `more` is what opens outcomes."""
        *usual, opener = more
        super().__init__(job, *usual)
        self._opener: ResumedOpener = opener
        self._kept_back = _KeptBack()
        self.more_known: Callable[[], list[Known]] = list  # returns those met since
        self._back = 0  # results that wait for an earlier one

    def put_known(self, known: Sequence[Known], *, is_bounded: bool = True) -> None:
        """Have known results handed over next.

        `is_bounded`: all inputs before them are handed in, so feeding may wait for those.
        """
        for part in known_parts(known):
            lo = part.run.lo
            self._early.append(KnownDelivery(self.job.id, b"", 0, "", (), 0, 0, known=(part,)))
            self._back += part.run.hi - lo if is_bounded else 0

    def _feed(self, results: list[Any] | None) -> None:
        try:
            super()._feed(None)
        except InputTooLarge as error:
            number = error.burla_input_index
            index = self._opener.numbers.index_of(number)
            text = str(error).replace(f"input {number} ", f"input {index} ", 1)
            raise InputTooLarge(index, text) from error.__cause__
        self.put_known(self.more_known())

    def _may_feed(self) -> bool:
        if self._delivery.in_iterator and len(self._early) > EARLY_MAX:
            return False
        return self._back < KEPT_BACK_MAX and super()._may_feed()

    def _parts_of(self, delivered: Deliver) -> Sequence[Part]:
        if isinstance(delivered, KnownDelivery):
            return delivered.known
        return [one for part in delivered.parts for one in self._opener.take(part)]

    def _handed_over(self, part: Part) -> None:
        if isinstance(part, KnownPart):
            self._back -= part.run.hi - part.run.lo
        else:
            super()._handed_over(part)

    def _store(self, part: Part, node: str, results: list[Any]) -> None:
        if isinstance(part, KnownPart):
            self._back -= part.run.hi - part.run.lo
        values = self._opener.values_of(part, node)
        results += [None] * (part.fresh[-1][1] - len(results))
        at = 0
        for lo, hi in part.fresh:
            results[lo:hi] = values[at : at + hi - lo]
            at += hi - lo
        self._stored.append(part.fresh)
        self._open_part = None

    def _opened(self, part: Part, node: str) -> Iterator[Any]:
        if isinstance(part, KnownPart) and not self._delivery.is_ordered:
            self._back -= part.run.hi - part.run.lo
        return super()._opened(part, node)

    def _raise_if_bad(self, event: Event | None) -> None:
        if isinstance(event, Fail) and event.index is not None:
            event = replace(event, index=self._opener.numbers.index_of(event.index))
        super()._raise_if_bad(event)

    def _partial(self, results: list[Any] | None) -> Partial:
        partial = super()._partial(results)
        self._late.clear()
        self._early.clear()  # what came is kept once
        return partial

    def _end(self) -> None:
        with suppress(Exception):  # what has come since is kept, too
            self._partial(None)
        super()._end()


class _KeptBack(KeptBack):
    """Outcomes that have come, until all before them have been yielded."""

    def put(self, part: Part, node: str) -> None:
        """Take a part; one that is no range in pieces that are."""
        if isinstance(part, ScatteredPart):
            for fresh, cut in zip(part.fresh, part.cut, strict=True):
                piece = ScatteredPart(part.run, (fresh,), part.frames, (cut,))
                super().put(piece, node)
        else:
            super().put(part, node)

    def _cut(self, part: Part, lo: int, hi: int) -> Part:
        if isinstance(part, ScatteredPart | KnownPart):
            return part
        return super()._cut(part, lo, hi)


class ResumedOpener(Opener):
    """Opens outcomes, keeps those of calls, and knows the indices of their inputs among all."""

    def __init__(
        self, inputs: object, delivery: Any, numbers: Numbers, checkpoint: Checkpoint
    ) -> None:
        """Take what is needed for that."""
        super().__init__(inputs, delivery)
        self.numbers, self._checkpoint = numbers, checkpoint
        self._last: tuple[Any, list[Any]] = (None, [])  # what was opened, and what was in it

    def take(self, part: Part) -> list[Part]:
        """Keep what came, and return it with the indices of its inputs among all."""
        run = part.run
        if run.kind in (Kind.RESULTS, Kind.RESULT):
            self._keep(part)
        ranges = [one for lo, hi in part.fresh for one in self.numbers.ranges(lo, hi)]
        for lo, hi in part.fresh:
            self.numbers.finish(lo, hi)
        number, start, stop = ranges[0]
        if run.kind != Kind.RESULTS:
            found = Part(Run(start, stop, run.kind, run.frames), ((start, stop),), part.frames)
            return [found]
        if len(ranges) == 1 and (number, stop - start) == (run.lo, run.hi - run.lo):
            return [Part(Run(start, stop, run.kind, run.frames), ((start, stop),), part.frames)]
        fresh = tuple((start, stop) for _, start, stop in ranges)
        cut = tuple((number, number + stop - start) for number, start, stop in ranges)
        return [ScatteredPart(run, fresh, part.frames, cut)]

    def _keep(self, part: Part) -> None:
        digests = bytearray(16 * (part.run.hi - part.run.lo))
        for lo, hi in part.fresh:
            at = 16 * (lo - part.run.lo)
            digests[at : at + 16 * (hi - lo)] = self.numbers.digests(lo, hi)
        many = part.run.kind == Kind.RESULTS
        frames = kept_frames(part.frames, many=many)
        if frames is not None:
            self._checkpoint.keep(bytes(digests), frames, many=many)

    def values_of(self, part: Part, node: str) -> list[Any]:
        """Return what is new in a part, in order."""
        if isinstance(part, KnownPart):
            return self._load(part.places)
        if not isinstance(part, ScatteredPart):
            return super().values_of(part, node)
        if self._last[0] is not part.frames:
            whole = Part(part.run, ((part.run.lo, part.run.hi),), part.frames)
            self._last = part.frames, super().values_of(whole, node)
        values, first = self._last[1], part.run.lo
        return [value for lo, hi in part.cut for value in values[lo - first : hi - first]]

    def _load(self, places: range) -> list[Any]:
        """Return results that lie in one record."""
        record, at = places.start >> OFFSET_BITS, places.start & (1 << OFFSET_BITS) - 1
        if self._last[0] != record:
            try:
                frames, is_many = self._checkpoint.frames_of(record)
                if not is_many:
                    return [load_result(frames)]
                self._last = record, load_results(frames)
            except (OSError, NotLoadableError) as error:
                name = self._checkpoint.name
                raise JobFailed(
                    f"a result that is kept under resume={name!r} cannot be loaded: {error}."
                    f" `burla resume drop {name}` removes what is kept, and all is called anew"
                ) from error
        return self._last[1][at : at + len(places)]

    def described(self, failure: Failure) -> Failure:
        """Return a failure with the index of its input among all."""
        index = failure.index
        return renumbered(failure, self.numbers.index_of(index)) if index >= 0 else failure


def known_parts(known: Sequence[Known]) -> Iterator[KnownPart]:
    """Yield known results in parts, each of one record."""
    for index, count, place in known:
        run = Run(index, index + count, Kind.RESULTS, 1)
        yield KnownPart(run, ((index, index + count),), (), range(place, place + count))
