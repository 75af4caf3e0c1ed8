"""Whose big value is read, of all workers of a lease: one after the other. Pure.

A value that flows is passed on as it comes, so nobody but the two ends has it whole. Were those of
several workers read at once, their caller would have to have room for all of them.
"""

from collections import deque

from .events import CellReport


class Turns:
    """Who flows, and who waits, in order of arrival, with what was read of it."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self.flowing: int | None = None  # the worker whose turn it is
        self._waiting: dict[int, deque[CellReport]] = {}

    def admit(self, worker: int, report: CellReport) -> bool:
        """Return whether a fragment may be passed on now; else it is kept until it may."""
        if worker != self.flowing and (self.flowing is not None or worker in self._waiting):
            self._waiting.setdefault(worker, deque()).append(report)
            return False
        self.flowing = None if report.is_whole() else worker
        return True

    def next(self) -> tuple[int, list[CellReport]] | None:
        """Return whose turn it is now, and what it has said; None: nobody waits, or one flows."""
        if self.flowing is not None or not self._waiting:
            return None
        worker = next(iter(self._waiting))
        return worker, list(self._waiting.pop(worker))

    def forget(self, worker: int) -> None:
        """Drop what is here of a worker that is gone."""
        if self.flowing == worker:
            self.flowing = None
        self._waiting.pop(worker, None)

    def is_in(self, worker: int) -> bool:
        """Return whether a worker writes a value, or waits to."""
        return worker == self.flowing or worker in self._waiting
