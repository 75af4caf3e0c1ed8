"""How outcomes are handed to the caller of a job: opened, as errors or values, in which order."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import Any, assert_never

from msgspec import Struct

from burla.core.effects import Part
from burla.errors import CallFailed, CallTimeout, NodeLost, OutOfMemory
from burla.protocol.deaths import TIMEOUT, decode_death
from burla.protocol.messages import Kind
from burla.values.payloads import (
    NotLoadableError,
    load_error,
    load_result,
    load_results,
    short_repr,
)
from burla.values.shared_memory import is_reference
from burla.values.tracebacks import Failure, note_of

from .outcomes import exception_of, result_not_loadable, worker_died
from .partial import Load


class Delivery(Struct, frozen=True):
    """What the caller wants of outcomes."""

    in_iterator: bool = False  # else in a list
    goes_on: bool = False  # errors of calls are values; else they are raised
    is_ordered: bool = False  # an iterator yields in the order of the inputs
    with_index: bool = False  # each with the index of its input
    timeout_s: float = 0.0  # that a call may take; 0: as long as it wants


class Opener:
    """Opens outcomes."""

    def __init__(self, inputs: object, delivery: Delivery) -> None:
        """Open outcomes of these inputs, which errors show."""
        self._inputs, self._goes_on = inputs, delivery.goes_on
        self._timeout_s = delivery.timeout_s
        self._in_iterator = delivery.in_iterator and not delivery.goes_on

    def values_of(self, part: Part, node: str) -> list[Any]:
        """Return what is new in a part, in order.

        Raises:
            BaseException: the error that it holds, unless it is a value.
        """
        run = part.run
        if run.kind == Kind.RESULTS:
            try:
                values = load_results(part.frames)
            except NotLoadableError as problem:
                lost = result_not_loadable(run.lo, node, problem)
                if not self._goes_on:
                    raise lost from problem.__cause__
                return [lost] * sum(hi - lo for lo, hi in part.fresh)
            assert len(values) == run.hi - run.lo, (run, len(values))
            if part.fresh == ((run.lo, run.hi),):
                return values
            cuts = [values[lo - run.lo : hi - run.lo] for lo, hi in part.fresh]
            return [value for cut in cuts for value in cut]
        if run.kind == Kind.RESULT:
            try:
                return [load_result(part.frames)]
            except NotLoadableError as problem:
                lost = result_not_loadable(run.lo, node, problem)
            if not self._goes_on:
                raise lost
            return [lost]
        error, is_of_all = self._error_of(part, node)
        if is_of_all or not self._goes_on:
            raise error
        return [error]

    def keep(self, parts: list[tuple[Part, str]]) -> Load:
        """Return what opens these parts also when the job is gone.

        What lies in memory that the job shares is opened now: it goes with the job.
        """
        opened: dict[int, list[Any]] = {}
        for part, node in parts:
            if part.frames and is_reference(part.frames[0]):
                with suppress(Exception):
                    opened[id(part.frames)] = self.values_of(part, node)

        def load(part: Part, node: str) -> list[Any]:
            known = opened.get(id(part.frames))
            return self.values_of(part, node) if known is None else known

        return load

    def is_error(self, part: Part) -> bool:
        """Return whether a part is why the job ends."""
        return not self._goes_on and part.run.kind in (Kind.ERROR, Kind.DEATH)

    def _error_of(self, part: Part, node: str) -> tuple[BaseException, bool]:
        """Return the error in a part, and whether it belongs to no single call."""
        match part.run.kind:
            case Kind.ERROR:
                failure = self.described(load_error(part.frames))
                error = exception_of(failure, in_iterator=self._in_iterator)
                return error, failure.index < 0
            case Kind.DEATH:
                return self._death(part.run.lo, node, part.frames[0])
            case Kind.RESULTS | Kind.RESULT:
                raise AssertionError(part)
            case _:
                assert_never(part.run.kind)

    def _death(self, index: int, node: str, frame: bytes) -> tuple[CallFailed, bool]:
        death = decode_death(frame)
        call = self.note(index, death.nodes[-1] if death.nodes else node)
        if death.nodes:
            return NodeLost(index, death.nodes, call=call), False
        if death.killed_for == TIMEOUT:
            return CallTimeout(index, self._timeout_s, call=call, killed=True), False
        if (memory := death.memory) is not None:
            lost: CallFailed = OutOfMemory(
                index,
                used=memory.used,
                limit=memory.limit,
                total=memory.total,
                available=memory.available,
                call=call,
            )
        else:
            lost = worker_died(index, death, call)
        return lost, death.was_loading

    def note(self, index: int, node: str) -> str:
        """Return which call it is, in words, for errors."""
        return note_of(index, self.shown(index), node)

    def described(self, failure: Failure) -> Failure:
        """Return a failure with the words for the call that this side has; it is the worker's."""
        return failure

    def shown(self, index: int) -> str | None:
        """Return an input as errors show it; None: it is not here any more."""
        if isinstance(self._inputs, list | tuple | range) and index < len(self._inputs):
            return short_repr(self._inputs[index])
        return None


class InOrder:
    """Outcomes that have come, until all before them have been yielded."""

    def __init__(self) -> None:
        """Wait for index 0."""
        self._at = 0
        self._waiting: dict[int, tuple[int, Part, str]] = {}  # lo -> hi; what holds [lo, hi)

    def put(self, part: Part, node: str) -> None:
        """Take what is new in a part."""
        for lo, hi in part.fresh:
            self._waiting[lo] = hi, part, node

    def take(self) -> tuple[Part, str] | None:
        """Return the next part, of which exactly `fresh` is to be yielded; None: it is not here."""
        found = self._waiting.pop(self._at, None)
        if found is None:
            return None
        hi, part, node = found
        lo, self._at = self._at, hi
        return self._cut(part, lo, hi), node

    def rest(self) -> Iterator[tuple[Part, str]]:
        """Yield what was not taken."""
        for lo, (hi, part, node) in self._waiting.items():
            yield self._cut(part, lo, hi), node

    def _cut(self, part: Part, lo: int, hi: int) -> Part:
        return Part(part.run, ((lo, hi),), part.frames)


def with_indices(part: Part, values: list[Any]) -> Iterator[tuple[int, Any]]:
    """Yield the values of a part, each with its index."""
    indices = chain.from_iterable(range(lo, hi) for lo, hi in part.fresh)
    return zip(indices, values, strict=True)
