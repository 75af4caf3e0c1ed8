"""A worker that runs nothing: it keeps the rules of the slate, and does what it is told to."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from burla.nodelet.core.effects import AssignSpan
from burla.nodelet.core.events import NO_STRIDE, CellReport, Died, Ending, Stride, WorkerState
from burla.protocol.messages import Kind


@dataclass
class ModelCell:
    """A place in the slate, with the span that is in it."""

    number: int
    pos: int  # end of what is claimed
    hi: int  # lowered by steals, never below `pos`
    ran: int  # end of what was run and told
    careful: bool

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to claim."""
        return self.pos >= self.hi


@dataclass
class ModelWorker:
    """One worker; `running` is the stride that it is in, or died in."""

    number: int
    state: WorkerState
    job: bytes = b""
    cells: deque[ModelCell] = field(default_factory=deque)
    running: tuple[int, int] | None = None
    interrupted: bool = False
    held: bool = False  # nothing is read of it: its big result waits for its turn

    @property
    def ready(self) -> bool:
        return self.state is WorkerState.READY

    @property
    def alive(self) -> bool:
        return self.state is not WorkerState.GONE

    def assign(self, order: AssignSpan) -> None:
        """Open a cell."""
        assert all(cell.number != order.cell for cell in self.cells), "used too early"
        lo, hi = order.span.lo, order.span.hi
        self.cells.append(ModelCell(order.cell, lo, hi, lo, order.careful))

    def steal(self, number: int, middle: int) -> tuple[int, int]:
        """Give up what is not claimed from `middle` on; empty if that is nothing."""
        cell = next(cell for cell in self.cells if cell.number == number)
        lo, hi = max(middle, cell.pos), cell.hi
        cell.hi = min(lo, hi)
        return lo, hi

    def claim(self, calls: int) -> tuple[int, int]:
        """Begin a stride in the first cell, which is not empty; return it."""
        cell = self.cells[0]
        assert self.running is None
        assert not cell.is_empty
        end = min(cell.pos + (1 if cell.careful else calls), cell.hi)
        self.running, cell.pos = (cell.pos, end), end
        return self.running

    def finish(
        self, seconds: float, frames: Sequence[bytes], kind: Kind, *, is_over: bool
    ) -> CellReport:
        """End the stride, and its span with it if `is_over`; return what is said of that."""
        assert self.running is not None
        (lo, hi), self.running = self.running, None
        cell = self.cells[0]
        cell.ran = hi
        if is_over:
            assert cell.is_empty
            self.cells.popleft()
        stop = hi if is_over else None
        return CellReport(cell.number, lo, hi, kind, seconds, frames, stop, is_over)

    def leave_empty(self) -> CellReport | None:
        """Leave the first cell if nothing is left in it; return what is said of that."""
        if self.running or not self.cells or not self.cells[0].is_empty:
            return None
        cell = self.cells.popleft()
        return CellReport(cell.number, cell.ran, cell.ran, stop=cell.ran, is_over=True)

    def stride(self) -> Stride:
        """Return what its slate says that it runs."""
        if self.running is None:
            return NO_STRIDE
        return Stride(self.cells[0].number, *self.running, claimed=self.cells[0].pos)

    def die(self, how: Ending) -> Died:
        """End; return what is told of that."""
        state, self.state = self.state, WorkerState.GONE
        return Died(self.number, how, state, self.stride())
