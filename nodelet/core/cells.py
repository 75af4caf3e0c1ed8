"""What one worker has: the only book of which of its calls are still to come. Pure.

User code shares a worker's descriptors and its slate, so what comes from there is checked here
against what was assigned; who contradicts it is broken, and not believed again.
"""

from collections import deque
from collections.abc import Iterator

from msgspec import Struct, field

from burla.protocol.messages import Kind
from burla.protocol.ranges import Range

from .events import CellReport, Stride

CELLS_MAX = 32  # of a worker, as many as its slate has (worker/slate.py); two are enough mostly


class BrokenWorkerError(Exception):
    """What a worker says contradicts what it was assigned."""


class Cell(Struct):
    """A span that is not over: [lo, hi) are open, of which the worker begins none >= stop.

    What is between `stop` and `hi` was claimed before it could be stolen: the worker's report says
    how far it ran.
    """

    number: int  # in the slate
    lo: int
    hi: int
    stop: int


class Worker(Struct):
    """A worker that has loaded the function."""

    number: int
    heard_s: float  # when it last sent outcomes, or was assigned a span while it had none
    is_copy: bool = False  # forked from a template that had loaded the function
    has_run: bool = False
    is_doomed: bool = False  # it is being killed
    is_broken: bool = False  # and not believed
    cells: deque[Cell] = field(default_factory=deque)  # the first is the one it is in

    def is_busy(self) -> bool:
        """Return whether it has something to run."""
        for cell in self.cells:  # noqa: SIM110 - `any` costs three times as much, on each event
            if cell.lo < cell.hi:
                return True
        return False

    def unstarted(self) -> int:
        """Return how many inputs it has not begun, as far as it has told."""
        unstarted = 0
        for cell in self.cells:
            unstarted += self.rest(cell)
        return unstarted

    def rest(self, cell: Cell) -> int:
        """Return how many inputs of `cell` can be taken; the next one it has surely begun."""
        if cell.lo >= cell.stop:
            return 0
        for first in self.cells:
            if first.lo < first.stop:
                return cell.stop - cell.lo - (cell is first)
        return 0

    def cell(self, number: int) -> Cell | None:
        """Return one of its cells."""
        for cell in self.cells:
            if cell.number == number:
                return cell
        return None

    # --- custody ---

    def open(self, lo: int, hi: int) -> Cell:
        """Give [lo, hi) to it, after what it has; return the cell."""
        number = 0
        while self.cell(number) is not None:
            number += 1
        assert number < CELLS_MAX, self
        cell = Cell(number, lo, hi, hi)
        self.cells.append(cell)
        return cell

    def take(self, report: CellReport) -> Range:
        """Take note of what it says of a cell; return [lo, hi), perhaps empty, that it gives back.

        Raises:
            BrokenWorkerError: that cannot be.
        """
        cell = self.cell(report.cell)
        fits = cell is not None and cell.lo == report.lo <= report.hi <= cell.hi
        has_outcomes = report.hi > report.lo
        if cell is None or not fits or has_outcomes != bool(report.frames):
            raise BrokenWorkerError(f"{report[:5]} of {cell}")
        if report.kind is not Kind.RESULTS and report.hi - report.lo != 1:
            raise BrokenWorkerError(f"{report[:5]} of {cell}")
        if report.is_over and report.stop != report.hi:
            raise BrokenWorkerError(f"the end of {report[:5]} at {report.stop}")
        cell.lo = report.hi
        if has_outcomes:
            self.has_run = True
        if report.is_over:
            self.cells.remove(cell)
            return cell.lo, cell.hi
        if report.stop is not None and cell.lo <= report.stop < cell.hi:
            return self._shorten(cell, report.stop)
        return cell.lo, cell.lo

    def expect(self, report: CellReport) -> None:
        """Look at a fragment of an outcome that is to come.

        Raises:
            BrokenWorkerError: that cannot be.
        """
        cell = self.cell(report.cell)
        if cell is None or cell.lo != report.lo or not report.lo < report.hi <= cell.hi:
            raise BrokenWorkerError(f"a fragment of {report[:5]} of {cell}")

    def take_stolen(self, number: int, lo: int, hi: int) -> Range | None:
        """Take away [lo, hi), as its slate says that it was stolen; return what it lost.

        Raises:
            BrokenWorkerError: that cannot be.
        """
        cell = self.cell(number)
        assert cell is not None, (self, number)
        lo, hi = max(lo, cell.lo), min(hi, cell.hi)
        if lo >= hi:
            return None
        if lo < cell.stop or hi != cell.hi:
            raise BrokenWorkerError(f"the slate says that [{lo}, {hi}) of {cell} were stolen")
        return self._shorten(cell, lo)

    def _shorten(self, cell: Cell, hi: int) -> Range:
        lost = hi, cell.hi
        cell.hi = hi
        cell.stop = min(cell.stop, hi)
        return lost

    def running(self, stride: Stride) -> Range | None:
        """Return the calls of its last stride, once it is dead, of which it told no outcome."""
        cell = self.cell(stride.cell)
        if cell is None:
            return None
        lo, hi = max(stride.lo, cell.lo), min(stride.hi, cell.hi)
        return (lo, hi) if lo < hi else None

    def open_ranges(self) -> Iterator[Range]:
        """Yield what is open of each of its cells."""
        return ((cell.lo, cell.hi) for cell in self.cells if cell.lo < cell.hi)

    def check(self) -> None:
        """Assert that its cells are in order."""
        numbers = [cell.number for cell in self.cells]
        assert len(set(numbers)) == len(numbers) <= CELLS_MAX, self
        for cell in self.cells:
            assert cell.lo <= cell.hi, cell
            assert cell.stop <= cell.hi or cell.lo == cell.hi, cell
