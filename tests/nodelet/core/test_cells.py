"""What a worker may say of its spans, and what it may not."""

import pytest

from burla.nodelet.core.cells import CELLS_MAX, BrokenWorkerError, Cell, Worker
from burla.nodelet.core.events import CellReport, Stride
from burla.nodelet.worker import slate
from burla.protocol.messages import Kind


def worker(*spans: tuple[int, int]) -> Worker:
    one = Worker(1, 0.0)
    for lo, hi in spans:
        one.open(lo, hi)
    return one


def test_there_are_as_many_cells_as_a_slate_has() -> None:
    assert CELLS_MAX == slate.CELLS
    full = worker(*[(at, at + 1) for at in range(CELLS_MAX)])
    assert [cell.number for cell in full.cells] == list(range(CELLS_MAX))
    with pytest.raises(AssertionError):
        full.open(100, 101)


def test_a_cell_is_used_again_only_after_the_worker_said_that_it_is_through() -> None:
    one = worker((0, 4), (4, 8))
    one.take(CellReport(0, 0, 4, frames=[b"r"]))
    assert one.open(8, 9).number == 2
    assert one.take(CellReport(0, 4, 4, stop=4, is_over=True)) == (4, 4)
    assert one.open(9, 10).number == 0
    assert list(one.open_ranges()) == [(4, 8), (8, 9), (9, 10)]


def test_outcomes_and_the_end_of_a_span_may_come_together() -> None:
    one = worker((0, 10))
    assert one.take(CellReport(0, 0, 4, frames=[b"r"], stop=4, is_over=True)) == (4, 10)
    assert not one.cells
    assert one.has_run


def test_what_is_given_back_leaves_the_cell() -> None:
    one = worker((0, 10))
    assert one.take(CellReport(0, 0, 2, frames=[b"r"], stop=3)) == (3, 10)
    assert one.cells[0] == Cell(0, 2, 3, 3)
    assert one.take(CellReport(0, 2, 2, stop=7)) == (2, 2)  # it was given back before


def test_what_was_claimed_stays_undecided_until_the_worker_says_how_far_it_ran() -> None:
    one = worker((0, 10))
    one.cells[0].stop = 4  # a steal from 4 on was asked for
    assert one.take_stolen(0, 6, 10) == (6, 10)  # [4, 6) was claimed
    assert one.cells[0] == Cell(0, 0, 6, 4)
    assert one.take(CellReport(0, 0, 5, frames=[b"r"], stop=5, is_over=True)) == (5, 6)


def test_a_steal_of_what_is_claimed_takes_nothing() -> None:
    one = worker((0, 10))
    one.cells[0].stop = 4
    assert one.take_stolen(0, 10, 10) is None
    assert one.cells[0] == Cell(0, 0, 10, 4)


@pytest.mark.parametrize(
    "report",
    [
        CellReport(1, 0, 1, frames=[b"r"]),  # it has no such cell
        CellReport(0, 1, 2, frames=[b"r"]),  # the one before is missing
        CellReport(0, 0, 11, frames=[b"r"]),  # beyond its end
        CellReport(0, 0, -1),
        CellReport(0, 0, 2),  # no outcome
        CellReport(0, 0, 0, frames=[b"r"]),  # of nothing
        CellReport(0, 0, 2, Kind.ERROR, 0.0, [b"e"]),  # an error is of one
        CellReport(0, 0, 2, Kind.RESULT, 0.0, [b"e"]),
        CellReport(0, 0, 1, frames=[b"r"], stop=2, is_over=True),  # over elsewhere
        CellReport(0, 0, 0, is_over=True),
    ],
)
def test_who_contradicts_what_it_was_assigned_is_broken(report: CellReport) -> None:
    one = worker((0, 10))
    with pytest.raises(BrokenWorkerError):
        one.take(report)
    assert list(one.open_ranges()) == [(0, 10)]


@pytest.mark.parametrize(("lo", "hi"), [(2, 10), (5, 9), (-4, 10)])
def test_whose_slate_contradicts_what_it_was_assigned_is_broken(lo: int, hi: int) -> None:
    one = worker((0, 10))
    one.cells[0].stop = 4
    with pytest.raises(BrokenWorkerError):
        one.take_stolen(0, lo, hi)


def test_a_death_is_blamed_on_what_had_no_outcome_of_its_stride() -> None:
    one = worker((0, 10), (10, 20))
    one.take(CellReport(0, 0, 4, frames=[b"r"]))
    assert one.running(Stride(0, 2, 6)) == (4, 6)
    assert one.running(Stride(0, 0, 4)) is None
    assert one.running(Stride(0, 8, 99)) == (8, 10)
    assert one.running(Stride(5, 0, 9)) is None
