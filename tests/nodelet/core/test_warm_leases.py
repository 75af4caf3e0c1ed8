"""A lease whose job is over lingers: its workers go on with another, or end."""

import gc
import weakref

from opening import LEASE, start_lease
from outcomes import runs_of
from worker_model import SCHEDULER, HandNode, assign, ran

from burla.nodelet.core import effects as e
from burla.nodelet.core.events import WorkerState
from burla.nodelet.core.nodelet import SILENCE_S
from burla.protocol import messages as m
from burla.protocol.messages import Kind

OTHER = b"O" * 16


def lingering(slots: int = 2) -> HandNode:
    """Return a node whose lease has run a job of two inputs and lingers."""
    node = HandNode()
    node.serve(slots)
    node.hear(*assign((0, 2)))
    node.finish_all()
    node.hear(m.Linger(LEASE))
    node.said()
    return node


def start_again(node: HandNode, slots: int = 2) -> None:
    node.hear(start_lease(slots, lease=OTHER, keep=LEASE), [b"function"])


def test_the_workers_go_on_and_are_dealt_work_at_once() -> None:
    node = lingering()
    workers = list(node.workers)
    start_again(node)
    (begun,) = (x for x in node.effects if isinstance(x, e.BeginLease) and x.keep)
    assert begun.start.lease == OTHER
    node.hear(*assign((0, 2), lease=OTHER))
    assert node.assigned()[-2:] == [(0, 1), (1, 2)]
    assert list(node.workers) == workers  # none was added, none was ended
    node.finish_all()
    assert [said.lease for said in node.outcomes()] == [OTHER, OTHER]
    assert list(node.core.leases) == [OTHER]
    node.core.check()


def test_a_lease_that_is_forgotten_is_freed_at_once() -> None:
    """A loop of maps would else leave one ring after the other to the garbage collector."""
    node = lingering()
    lease = weakref.ref(node.core.leases[LEASE])
    gc.disable()
    try:
        start_again(node)
        assert list(node.core.leases) == [OTHER]
        assert lease() is None
    finally:
        gc.enable()


def test_what_a_job_had_as_inputs_goes_with_it_and_does_not_linger() -> None:
    node = lingering()
    assert node.core.leases[LEASE].custody.store.bytes_held() == 0
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 2)))
    node.finish_all()
    held = node.core.leases[LEASE].custody.store
    assert held.bytes_held() == len(b"leaf")
    start_again(node)  # what is unacknowledged of the first outlives it, its inputs do not
    assert held.bytes_held() == 0
    node.core.check()
    node.said()
    node.clock.now_s += 5
    node.hear(m.HelloRequired())
    (hello,) = (said for said in node.said() if isinstance(said, m.NodeHello))
    assert [span for one in hello.held for span in one.spans] == [m.Span(0, 0, 2)]


def test_outcomes_that_are_not_acknowledged_outlive_the_change() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 2)))
    node.finish_all()
    start_again(node)  # the client has not closed the first job yet
    node.clock.now_s += 5
    node.hear(m.HelloRequired())
    node.said()
    node.hear(m.Welcome(SCHEDULER, "0", "pub"))
    assert ran(node.outcomes()) == [(0, 1), (1, 2)]
    node.hear(m.AckOutcomes(LEASE, 2))
    assert list(node.core.leases) == [OTHER]


def test_a_lease_that_is_over_is_forgotten_when_another_begins() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 2)))
    node.finish_all()
    start_again(node)
    assert list(node.core.leases) == [LEASE, OTHER]
    third = start_lease(lease=b"3" * 16, keep=OTHER, over=(LEASE, b"?" * 16))
    node.hear(third, [b"function"])
    assert list(node.core.leases) == [b"3" * 16]  # of the second nothing is left either
    node.core.check()


def test_a_lease_that_waits_for_an_acknowledgement_alone_goes_with_it_or_with_its_scheduler() -> (
    None
):
    for is_silent in (False, True):
        node = HandNode()
        node.serve()
        node.hear(*assign((0, 2)))
        node.finish_all()
        start_again(node)
        node.core.check()
        if is_silent:
            node.pass_time(SILENCE_S + 3)
            node.end()
            assert node.core.leases == {}
        else:
            node.hear(m.AckOutcomes(LEASE, node.outcomes()[-1].seq))
            assert list(node.core.leases) == [OTHER]
        node.core.check()


def test_workers_that_still_run_something_are_not_taken_over() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 2)))
    node.load()
    for worker in node.workers.values():
        node.claim(worker)
    start_again(node)
    assert not any(isinstance(x, e.BeginLease) and x.keep for x in node.effects)
    node.pass_time(1.5)
    assert node.ending
    node.end()
    node.hear(*assign((0, 1), lease=OTHER))
    node.finish_all()
    assert (OTHER, [(0, 1)]) in [(said.lease, ran([said])) for said in node.outcomes()]


def test_more_workers_are_added_when_there_is_more_to_do() -> None:
    node = HandNode(cpus=4)
    node.serve(4)
    node.hear(*assign((0, 1)))
    node.finish_all()
    node.hear(m.Linger(LEASE))
    start_again(node, slots=4)
    node.hear(*assign((0, 4), lease=OTHER))
    node.load()
    assert len(node.workers) == 4


def test_an_end_ends_them() -> None:
    node = lingering()
    node.hear(m.EndLease(LEASE, True))
    assert node.ending
    node.end()
    assert node.said() == [m.Stopped(LEASE)]
    assert node.core.leases == {}


def test_a_new_hello_ends_them_for_whoever_hears_it_may_not_know_of_them() -> None:
    node = lingering()
    node.clock.now_s += 5
    node.hear(m.HelloRequired())
    (said,) = node.said()
    assert isinstance(said, m.NodeHello)
    assert said.held == ()
    assert node.ending


def test_a_worker_that_dies_while_it_waits_is_replaced_when_it_is_needed() -> None:
    node = lingering()
    node.kill(next(iter(node.workers)))
    start_again(node)
    node.hear(*assign((0, 2), lease=OTHER))
    node.finish_all()
    assert sorted(ran(node.outcomes())) == [(0, 1), (1, 2)]


def test_what_a_worker_was_dealt_that_cannot_load_the_function_again_is_run_by_others() -> None:
    node = lingering()
    start_again(node)
    node.hear(*assign((0, 2), lease=OTHER))
    first, second = node.workers
    node.fail_to_load(first, [b"e"])
    node.claim(node.workers[second])
    node.finish(node.workers[second])
    node.finish_all()
    got = [(said.lease, run.lo, run.kind) for said in node.outcomes() for run in runs_of(said.runs)]
    assert sorted(got) == [(OTHER, 0, Kind.RESULTS), (OTHER, 1, Kind.RESULTS)]


def test_workers_that_are_there_go_on_while_others_still_grow() -> None:
    node = HandNode(cpus=4)
    node.serve(4)
    node.hear(*assign((0, 4)))
    (first,) = node.workers.values()
    node.ready(first, 0.5, may_fork=False)  # slow, and no template: the others load, too
    while node.run():
        pass
    node.hear(m.Linger(LEASE))
    growing = [w for w in node.workers.values() if w.state is WorkerState.LOADING]
    assert len(growing) == 3
    start_again(node, slots=4)
    node.hear(*assign((0, 4), lease=OTHER))
    assert not any(isinstance(x, e.Kill | e.EndWorkers) for x in node.effects)
    for worker in growing:
        node.ready(worker, 0.5, may_fork=False)
    assert node.assigned()[-4:] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert len(node.workers) == 4  # none was made anew
    node.finish_all()
    node.core.check()


def test_a_template_goes_on_forking_for_the_next_lease() -> None:
    node = HandNode(cpus=4)
    node.serve(4)
    node.hear(*assign((0, 4)))
    (template,) = node.workers.values()
    node.ready(template, 0.5, may_fork=True)
    copies = [w for w in node.workers.values() if w.state is WorkerState.COPYING]
    assert template.state is WorkerState.TEMPLATE
    assert len(copies) == 4
    node.ready(copies[0], 0.0, may_fork=True)
    while node.run():
        pass
    node.hear(m.Linger(LEASE))
    start_again(node, slots=4)
    node.hear(*assign((0, 4), lease=OTHER))
    node.load()
    assert {w.state for w in copies} == {WorkerState.READY}
    node.kill(copies[0].number)
    node.load()
    assert list(node.workers)[-1] not in [w.number for w in copies]
    assert [x.template for x in node.effects if isinstance(x, e.ForkWorker)] == [
        template.number
    ] * 5
    assert not any(isinstance(x, e.Kill) for x in node.effects)
    node.finish_all()
    node.core.check()


def test_a_lease_whose_first_worker_still_loads_is_taken_over_too() -> None:
    node = HandNode()
    node.serve()
    node.hear(m.Linger(LEASE))  # all was done elsewhere
    start_again(node)
    node.hear(*assign((0, 2), lease=OTHER))
    node.finish_all()
    assert sorted(ran(node.outcomes())) == [(0, 1), (1, 2)]
    assert not any(isinstance(x, e.EndWorkers) for x in node.effects)


def test_workers_beyond_the_slots_of_the_next_lease_are_ended() -> None:
    node = lingering()
    first, second = node.workers
    start_again(node, slots=1)
    assert list(node.workers) == [first]
    assert [x.worker for x in node.effects if isinstance(x, e.Kill)] == [second]
    node.hear(*assign((0, 2), lease=OTHER))
    node.finish_all()
    assert ran(node.outcomes()) == [(0, 1), (1, 2)]
    node.core.check()


def test_a_worker_that_was_robbed_of_all_it_had_goes_on_when_it_has_said_so() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 40)))
    node.load()
    one, other = node.workers.values()
    node.run()  # calls of a millisecond: there are several in a chunk, and one chunk waits
    while node.core.leases[LEASE].custody.open.total:
        if other.running or node.claim(other):
            node.finish(other)
        elif one.running or (one.cells and node.claim(one)):
            node.finish(one)
    node.hear(m.Linger(LEASE))
    start_again(node)
    node.hear(*assign((0, 2), lease=OTHER))
    node.leave_empty(one)
    node.leave_empty(other)
    node.finish_all()
    assert {said.lease for said in node.outcomes()} == {LEASE, OTHER}
    assert not any(isinstance(x, e.Kill | e.EndWorkers) for x in node.effects)
    node.core.check()


def test_a_lease_that_waits_for_its_reader_is_taken_over_and_read_again() -> None:
    node = HandNode()
    node.serve(outcome_window=1)
    node.hear(*assign((0, 1)))
    node.finish_all()
    assert node.paused
    start_again(node)
    assert not node.paused
    assert list(node.core.leases) == [LEASE, OTHER]  # until it is acknowledged
    node.core.check()


def test_a_function_that_could_not_be_loaded_by_more_is_tried_anew_for_the_next_job() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 2)))
    first = next(iter(node.workers.values()))
    node.ready(first, 0.001, may_fork=True)
    node.fail_to_load(list(node.workers)[-1], [b"e"])
    node.finish_all()
    node.hear(m.Linger(LEASE))
    start_again(node)
    node.hear(*assign((0, 2), lease=OTHER))
    assert len(node.workers) == 2
    node.finish_all()
    node.core.check()
