"""Calls that failed and are called again: how often, when, and what is told of it."""

from typing import Any

from opening import LEASE
from worker_model import HandNode, assign, ran

from burla.nodelet.core.events import CellReport, Reported
from burla.protocol import messages as m
from burla.protocol.fields import Try
from burla.protocol.messages import Kind
from burla.protocol.ranges import Ranges


def policy(retries: int = 2, **more: Any) -> m.CallPolicy:
    return m.CallPolicy(goes_on=True, retries=retries, **more)


def fail(node: HandNode, why: str | None = "KeyError") -> int:
    """Let the call that runs next raise; return its index."""
    node.load()
    worker = next(iter(node.workers.values()))
    node.claim(worker)
    assert worker.running is not None
    (lo, hi), cell = worker.running, worker.cells[0]
    worker.running, cell.ran = None, hi
    is_over = cell.is_empty
    if is_over:
        worker.cells.popleft()
    stop = hi if is_over else None
    report = CellReport(cell.number, lo, hi, Kind.ERROR, 0.1, [b"error"], stop, is_over)
    report = report._replace(retry_why=why)
    node.tell(Reported(worker.number, [report]))
    return lo


def tried(said: list[m.Outcomes]) -> list[Try]:
    return [one for each in said for one in each.tried]


def test_a_call_is_called_again_so_often_and_its_last_error_counts() -> None:
    node = HandNode()
    node.serve(slots=1, policy=policy(2))
    node.hear(*assign((0, 1)))
    assert [fail(node) for _ in range(3)] == [0, 0, 0]
    node.pass_time(1)
    said = node.outcomes()
    assert tried(said) == [Try(0, 1, 0.0, b"KeyError"), Try(0, 2, 0.0, b"KeyError")]
    assert [each.done for each in said if each.done] == [((0, 1),)]


def test_other_errors_count_at_once() -> None:
    node = HandNode()
    node.serve(slots=1, policy=policy(2))
    node.hear(*assign((0, 1)))
    fail(node, why=None)
    (said,) = node.outcomes()
    assert said.done == ((0, 1),)
    assert not said.tried


def test_others_run_while_one_waits() -> None:
    node = HandNode()
    node.serve(slots=1, policy=policy(1, backoff_s=60.0))
    node.hear(*assign((0, 3)))
    assert fail(node) == 0
    node.finish_all()
    node.pass_time(59)
    node.finish_all()
    assert Ranges(ran(node.outcomes())) == Ranges([(1, 3)])
    node.pass_time(2)
    node.finish_all()
    node.pass_time(1)
    assert Ranges(ran(node.outcomes())) == Ranges([(0, 1)])


def test_what_was_known_of_an_input_counts_where_it_comes() -> None:
    node = HandNode()
    node.serve(slots=1, policy=policy(2))
    message, payload = assign((0, 1))
    ahead = m.Assign(lease=LEASE, left=0, spans=(), leaves=(), forget=(), tried=(Try(0, 2, 5.0),))
    node.hear(ahead)
    node.hear(message, payload)
    node.load()
    assert not node.assigned()  # it waits for as long as it was told
    node.pass_time(5)
    assert fail(node) == 0
    (said,) = node.outcomes()
    assert said.done == ((0, 1),)  # it has failed twice before


def test_counts_are_told_with_each_hello_until_there_is_an_outcome() -> None:
    node = HandNode()
    node.serve(slots=1, policy=policy(3))
    node.hear(*assign((0, 2)))
    fail(node)
    node.said()
    node.hear(m.HelloRequired())
    (hello,) = [each for each in node.said() if isinstance(each, m.NodeHello)]
    assert hello.held[0].tried == (Try(0, 1),)
    node.hear(m.Welcome(b"S" * 16, "0", "pub"))
    node.finish_all()
    node.pass_time(2)
    node.hear(m.HelloRequired())
    (hello,) = [each for each in node.said() if isinstance(each, m.NodeHello)]
    assert hello.held[0].tried == ()


def test_with_other_node_it_is_given_back_and_may_come_again() -> None:
    node = HandNode()
    node.serve(slots=1, policy=policy(2, other_node=True))
    node.hear(*assign((0, 2)))
    assert fail(node) == 0
    node.core.check()
    assert node.core.leases[LEASE].custody.open == Ranges([(1, 2)])
    node.finish_all()
    node.pass_time(1)
    said = node.outcomes()
    assert tried(said) == [Try(0, 1, 0.0, b"KeyError")]
    again = m.Assign(
        lease=LEASE, left=0, spans=(m.Span(0, 0, 1),), leaves=(), forget=(), tried=(Try(0, 1),)
    )
    node.hear(again)
    node.finish_all()
    node.pass_time(1)
    assert ran(node.outcomes()) == [(0, 1)]


def test_what_waits_is_given_back_when_the_scheduler_wants_all() -> None:
    node = HandNode()
    node.serve(slots=1, policy=policy(2, backoff_s=60.0))
    node.hear(*assign((0, 1)))
    fail(node)
    node.hear(m.Retract(LEASE, 5))
    (given,) = [each for each in node.said() if isinstance(each, m.Retracted)]
    assert given.spans == (m.Span(0, 0, 1),)


def test_a_worker_may_die_as_often_as_calls_may_fail() -> None:
    node = HandNode()
    node.serve(slots=1, policy=policy(4, retries_deaths=True))
    node.hear(*assign((0, 1)))
    for _ in range(5):
        assert not node.outcomes()
        node.load()
        worker = next(iter(node.workers.values()))
        node.claim(worker)
        node.kill(worker.number, ("signal", 11))
    (said,) = node.outcomes()
    assert said.done == ((0, 1),)
