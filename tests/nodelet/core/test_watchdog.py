"""Which strides are cut."""

from burla.nodelet.core.cells import Worker
from burla.nodelet.core.events import CellReport, Stride
from burla.nodelet.core.watchdog import CUTS_MAX, SLOW_STRIDE_S, Watchdog
from burla.protocol.messages import LongCall

MANY = Stride(0, 0, 10, claimed=10)


def busy() -> dict[int, Worker]:
    worker = Worker(1, 0.0)
    worker.open(0, 10)
    return {1: worker}


def test_a_stride_of_several_that_lasts_is_cut_again_after_twice_the_time() -> None:
    watchdog, workers = Watchdog(), busy()
    cuts = [
        step for step in range(200) if list(watchdog.look(workers, {1: MANY}, step * SLOW_STRIDE_S))
    ]
    assert cuts == [1, 2, 4, 8, 16]
    assert len(cuts) == CUTS_MAX


def test_a_single_call_holds_up_nothing_but_itself() -> None:
    watchdog, workers = Watchdog(), busy()
    one = Stride(0, 0, 1, claimed=1)
    assert not any(list(watchdog.look(workers, {1: one}, at_s)) for at_s in range(5))


def test_a_stride_that_has_told_all_its_outcomes_is_over() -> None:
    watchdog, workers = Watchdog(), busy()
    workers[1].take(CellReport(0, 0, 10, frames=[b"r"]))
    assert not any(list(watchdog.look(workers, {1: MANY}, at_s)) for at_s in range(5))


def test_each_stride_has_its_own_time() -> None:
    watchdog, workers = Watchdog(), busy()
    for lo in range(0, 8, 2):
        stride = Stride(0, lo, lo + 2, claimed=lo + 2)
        assert not list(watchdog.look(workers, {1: stride}, lo * SLOW_STRIDE_S))
        workers[1].take(CellReport(0, lo, lo + 2, frames=[b"r"]))


def test_it_knows_which_call_a_worker_is_in_and_since_when() -> None:
    watchdog, workers = Watchdog(), busy()
    worker = workers[1]
    assert watchdog.running(worker, 0.0) is None
    list(watchdog.look(workers, {1: MANY}, 1.0))
    assert watchdog.running(worker, 4.0) == LongCall(0, 10, 3.0)
    worker.take(CellReport(0, 0, 3, frames=[b"r"], stop=4))  # it was cut
    assert watchdog.running(worker, 5.0) == LongCall(3, 4, 4.0)
    worker.take(CellReport(0, 3, 4, frames=[b"r"], stop=4, is_over=True))
    assert watchdog.running(worker, 6.0) is None


def test_a_worker_that_has_begun_nothing_of_its_span_is_in_no_call() -> None:
    watchdog, workers = Watchdog(), busy()
    worker = workers[1]
    list(watchdog.look(workers, {1: Stride(0, 5, 6, claimed=6)}, 1.0))
    list(watchdog.look(workers, {1: Stride(0, 0, 0)}, 2.0))  # between two spans; this one is new
    assert watchdog.running(worker, 3.0) is None


def test_what_a_slate_says_of_no_cell_is_nothing() -> None:
    watchdog, workers = Watchdog(), busy()
    junk = Stride(-5, 3, 1 << 60, claimed=-1)
    assert not any(list(watchdog.look(workers, {1: junk, 2: junk}, at_s)) for at_s in range(5))
