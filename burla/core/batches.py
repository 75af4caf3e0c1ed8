"""The inputs of one job in the batches that they were handed in, until they have outcomes. Pure.

Two threads count what is open. `Batches` is the truth, in the thread that hears the outcomes;
`Window` is what the calling thread knows of it, who learns by `Deliver` what was freed. Both go by
the sizes that the calling thread gave, so they cannot drift apart.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from msgspec import Struct
from msgspec.structs import replace

from burla.protocol import messages as m
from burla.protocol.arriving import pieces_of
from burla.protocol.input_messages import INPUT_WINDOW
from burla.protocol.ranges import Range, Ranges

from .effects import Content, Deliver, Frames, Part, Slots
from .read_ahead import InOrder, ReadAhead

PRUNE_MIN = 1024  # forgotten batches at the front that are worth moving a list for


class Batch(Struct):
    """Consecutive inputs, kept until all have outcomes, so that they can be sent again."""

    message: m.Inputs
    payload: list[bytes]
    size: int  # bytes of all frames
    left: int  # inputs without outcome
    contents: dict[int, Content] = {}  # of big leaves, which the nodes ask for, by first input

    def leaves(self) -> list[tuple[int, Frames | Content]]:
        """Return how many inputs each leaf has, and its frames, or where they are."""
        rest = iter(self.payload)
        return [
            (leaf.count, self.contents.get(leaf.start) or list(islice(rest, leaf.frames)))
            for leaf in self.message.leaves
        ]

    def whole(self) -> tuple[m.Inputs, list[bytes]]:
        """Return it as it goes to who does not know how to ask."""
        rest, leaves, payload = iter(self.payload), [], list[bytes]()
        for leaf in self.message.leaves:
            content = self.contents.get(leaf.start)
            own = content.frames() if content is not None else list(islice(rest, leaf.frames))
            leaves.append(replace(leaf, frames=len(own), size=0))
            payload += own
        return replace(self.message, leaves=tuple(leaves)), payload


class Batches:
    """All inputs of one job: which are done, and in which batch the others lie."""

    def __init__(self, job: bytes) -> None:
        """Start without inputs."""
        self.done = Ranges()  # indices with outcomes
        self.total: int | None = None  # how many inputs the job has; None: more may come
        self.end = 0  # index of the next input
        self.sends_whole = True  # nobody is there that asks for what is big
        self.is_stored = False  # the scheduler has all of them on its disk
        self._job = job
        self._open: dict[int, Batch] = {}  # those that are not complete, by number
        self._starts: list[int] = []  # of batches from number `_first` on
        self._first = 0

    def add(
        self,
        leaves: Sequence[tuple[int, Frames | Content]],
        size: int,
        coming: int | None = None,
    ) -> Batch:
        """Take the next inputs; return the batch to send.

        Args:
            leaves: how many inputs each has, and its frames, or where they are.
            size: bytes of all frames.
            coming: how many follow; None: that is not known.
        """
        assert self.total is None, self.total
        number, start, at = self._first + len(self._starts), self.end, self.end
        parts, payload = [], list[bytes]()
        contents: dict[int, Content] = {}
        for count, frames in leaves:
            if type(frames) is tuple or isinstance(frames, Sequence):
                parts.append(m.Leaf(number, at, count, len(frames)))
                payload += frames
            else:
                parts.append(m.Leaf(number, at, count, 0, frames.size))
                contents[at] = frames
            at += count
        self.end = at
        if coming == 0:
            self.total = at
        message = m.Inputs(
            job=self._job,
            batch=number,
            start=start,
            leaves=tuple(parts),
            total=self.total,
            coming=min(m.NUMBER_MAX, coming or 0),
        )
        batch = self._open[number] = Batch(message, payload, size, at - start, contents)
        self._starts.append(start)
        return batch

    def skip(self, to: int) -> None:
        """Let the next inputs begin at an index; those before it are done."""
        if to > self.end:
            self.done.add(self.end, to)
            self.end = to

    def get(self, number: int) -> Batch | None:
        """Return a batch, if it is not complete."""
        return self._open.get(number)

    def to_send(self, batch: Batch) -> tuple[m.Inputs, list[bytes]]:
        """Return what is sent of a batch."""
        if batch.contents and self.sends_whole:
            return batch.whole()
        return batch.message, batch.payload

    def pieces(self, wanted: m.InputWanted) -> Iterator[tuple[m.InputPiece, Frames]]:
        """Yield what was asked for of a big leaf, unless that is done."""
        batch = self._open.get(wanted.batch)
        content = None if batch is None else batch.contents.get(wanted.leaf)
        if content is None or wanted.stop - wanted.start > INPUT_WINDOW:
            return
        for start, stop in pieces_of(wanted.start, min(wanted.stop, content.size)):
            said = m.InputPiece(wanted.lease, wanted.job, wanted.leaf, start)
            yield said, content.read(start, stop)

    def open(self) -> Iterable[Batch]:
        """Return the batches that are not complete, in order."""
        return self._open.values()

    def finish(self, lo: int, hi: int) -> tuple[list[Range], int]:
        """Note outcomes of [lo, hi); return what of it is new, and the bytes of complete batches.

        `hi` is at most `end`.
        """
        fresh = self.done.missing(lo, hi)
        freed = 0
        for start, stop in fresh:
            self.done.add(start, stop)
            freed += self._settle(start, stop)
        return fresh, freed

    def drop(self) -> None:
        """Forget all batches: the job is over."""
        self._open.clear()

    def check(self) -> None:
        """Assert what holds between any two calls. Costs O(state): for tests."""
        entered = Ranges()
        for number, batch in self._open.items():
            start, stop = self._bounds(number)
            assert batch.message.start == start
            assert sum(leaf.count for leaf in batch.message.leaves) == stop - start
            done = sum(hi - lo for lo, hi in self.done.common(start, stop))
            assert batch.left == stop - start - done
            assert batch.left > 0
            entered.add(start, stop)
        for lo, hi in self.done.missing(0, self.end):
            assert entered.covers(lo, hi), "an input without outcome is in no batch"

    def _settle(self, lo: int, hi: int) -> int:
        """Count [lo, hi) as done in their batches; return the bytes of those complete now."""
        freed = 0
        number = self._first + bisect_right(self._starts, lo) - 1
        while lo < hi:
            stop = self._bounds(number)[1]
            batch = self._open[number]
            batch.left -= min(hi, stop) - lo
            if not batch.left:
                freed += batch.size
                del self._open[number]
            lo, number = stop, number + 1
        if len(self._starts) >= PRUNE_MIN:
            self._prune()
        return freed

    def _bounds(self, number: int) -> Range:
        at = number - self._first
        stop = self._starts[at + 1] if at + 1 < len(self._starts) else self.end
        return self._starts[at], stop

    def _prune(self) -> None:
        """Forget where complete batches at the front began, once that is worth it."""
        done = next(iter(self._open), self._first + len(self._starts)) - self._first
        if done >= max(PRUNE_MIN, len(self._starts) // 2):
            del self._starts[:done]
            self._first += done


class Window(Struct):
    """How much more the caller may hand in; kept by the calling thread, told by Deliver."""

    ahead: ReadAhead | None = None  # of inputs that are not known beforehand
    in_order: InOrder | None = None  # of results that are yielded in order
    inputs: int = 0  # without outcome
    bytes: int = 0  # of batches without all outcomes

    def add(self, inputs: int, size: int) -> None:
        """Note a batch that was handed in."""
        self.inputs += inputs
        self.bytes += size
        if self.in_order is not None:
            self.in_order.feed(inputs)

    def free(self, delivered: Deliver) -> None:
        """Note outcomes."""
        self.inputs -= delivered.inputs
        self.bytes -= delivered.freed_bytes
        if self.ahead is not None and delivered.call_s:
            self.ahead.call_s = delivered.call_s

    def hand_over(self, part: Part) -> None:
        """Note that what is new in a part was yielded, in order."""
        if self.in_order is not None:
            self.in_order.hand_over(sum(hi - lo for lo, hi in part.fresh))

    def note(self, told: Slots) -> None:
        """Note how many calls may run at once."""
        if self.ahead is not None:
            self.ahead.slots = told.slots
        if self.in_order is not None:
            self.in_order.slots = told.slots

    def knows_slots(self) -> bool:
        """Return whether more is known of the job than that it was begun, or need not be."""
        return self.ahead is None or self.ahead.slots > 0

    def room(self) -> int:
        """Return how many more inputs may be handed in."""
        most = m.JOB_INPUT_COUNT if self.ahead is None else self.ahead.most()
        room = most - self.inputs
        return room if self.in_order is None else min(room, self.in_order.room())

    def has_room(self) -> bool:
        """Return whether one more batch may be handed in; one always may."""
        return self.bytes < m.JOB_INPUT_WINDOW and self.room() > 0
