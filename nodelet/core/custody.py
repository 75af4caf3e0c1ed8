"""Which inputs of a lease this node has. Pure.

An index that was assigned to this node is open (in the queue, or in a cell of a worker), or its
outcome is kept until it is acknowledged, or it was returned.
"""

from collections.abc import Callable, Iterable, Sequence

from burla.protocol.messages import Assign, Span
from burla.protocol.ranges import Range, Ranges

from .dispatcher import Dispatcher
from .leaf_store import LeafStore
from .work_queue import WorkQueue


class Custody:
    """What is open, where it is, and the leaves that it lies in."""

    def __init__(self, slots: int, new_number: Callable[[], int] | None = None) -> None:
        """Start with nothing; at most `slots` calls run at once.

        `new_number` is for the files of big leaves.
        """
        self.open = Ranges()  # assigned; neither run nor returned
        self.store = LeafStore(new_number)
        self.queue = WorkQueue(self.store)
        self.dispatcher = Dispatcher(slots, self.queue)
        self.done: dict[int, None] = {}  # batches to be forgotten when no worker is in them

    def add_leaves(self, message: Assign, payload: Sequence[bytes]) -> None:
        """Keep the leaves that come with work, and take note of batches that are done.

        Raises:
            ValueError: the message contradicts itself.
        """
        self.store.add(message.leaves, payload)
        self.done.update(dict.fromkeys(message.forget))
        self.dispatcher.left = message.left

    def assign(self, spans: Iterable[Span], held: Ranges) -> None:
        """Take work. What is open already, or `held` as outcomes, changes nothing.

        Raises:
            ValueError: a span contradicts what came before.
        """
        for span in spans:
            self.store.claim(span)
            for lo, hi in self.open.missing(span.lo, span.hi):
                for gap in held.missing(lo, hi):
                    self.open.add(*gap)
                    self.queue.add(*gap)

    def spans_of(self, ranges: Iterable[Range]) -> tuple[Span, ...]:
        """Return ranges, all of them assigned, as spans."""
        return tuple(span for lo, hi in ranges for span in self.store.spans(lo, hi))

    def give_up(self, ranges: Ranges) -> tuple[Span, ...]:
        """Let go of ranges that nobody here has any more, for the scheduler; return their spans."""
        for lo, hi in ranges:
            self.open.remove(lo, hi)
        return self.spans_of(ranges)

    def forget_done(self) -> list[Range]:
        """Drop batches that are done everywhere; what waits of them here was run elsewhere.

        Returns:
            The bounds of all such, also of those that are not dropped yet.
        """
        bounds = [self.store.bounds(batch) for batch in self.done]
        for batch in list(self.done):
            lo, hi = self.store.bounds(batch)
            for part in self.queue.withdraw(lo, hi):
                self.open.remove(*part)
            if not self.dispatcher.is_running(lo, hi):
                self.store.forget(batch)
                del self.done[batch]
        return bounds

    def clear(self) -> None:
        """Have nothing open any more; what workers still run is not wanted."""
        self.open = Ranges()
        self.queue.clear()
        self.store.drop_leaves()

    def check(self, held: Ranges) -> None:
        """Assert that every open index is in one place, and not `held`. Costs O(state)."""
        self.dispatcher.check()
        places = Ranges(self.dispatcher.places())
        assert places == self.open, (places, self.open)
        for lo, hi in self.open:
            assert not held.common(lo, hi), (lo, hi)

    def snapshot(self) -> dict[str, object]:
        """Return where the inputs are, for people."""
        workers = {
            str(worker.number): {
                "cells": {str(cell.number): [cell.lo, cell.stop, cell.hi] for cell in worker.cells},
                "has_run": worker.has_run,
                "is_doomed": worker.is_doomed,
                "heard_s": worker.heard_s,
            }
            for worker in self.dispatcher.workers.values()
        }
        return {
            "open": list(self.open),
            "queue": list(self.queue.ranges),
            "expected": list(self.queue.expected),
            "retries": sorted(self.queue.retries),
            "delayed": dict(self.queue.delayed),
            "slots": self.dispatcher.slots,
            "slots_max": self.dispatcher.slots_max,
            "left": self.dispatcher.left,
            "bytes_of_leaves": self.store.bytes_held(),
            "call_s": self.dispatcher.call_s,
            "workers": workers,
        }
