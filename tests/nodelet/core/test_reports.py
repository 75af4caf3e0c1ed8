"""Big results flow in fragments, against the window, and are kept by the piece."""

from opening import LEASE
from worker_model import HandNode, assign

from burla.nodelet.core import effects as e
from burla.nodelet.core.events import CellReport, Reported
from burla.protocol import messages as m
from burla.protocol.codec import unpack_runs

SIZE = 1 << 20  # of a fragment
WINDOW = 4 * SIZE


def serving(slots: int = 1) -> HandNode:
    """Return a node whose workers run an input each."""
    node = HandNode()
    node.serve(slots, outcome_window=WINDOW, fragments=True)
    node.hear(*assign(*((n, n + 1) for n in range(slots))))
    node.load()
    assert len(node.assigned()) == slots
    for worker in node.workers.values():
        worker.claim(1)
    node.said()
    return node


def flow(node: HandNode, worker: int, number: int, count: int) -> bool:
    """Let a worker write fragment `number` of so many."""
    data = bytes([number]) * SIZE
    return node.flow(node.workers[worker], data, number * SIZE, count * SIZE, 0.1)


def kept(node: HandNode) -> int:
    return node.core.leases[LEASE].report.outcomes.snapshot()["bytes_unacknowledged"]


def test_a_value_goes_on_as_it_comes_and_no_more_of_it_is_kept_than_the_window_has() -> None:
    node = serving()
    count, sent = 20, list[m.Outcomes]()
    for number in range(count):
        if node.paused:
            assert kept(node) == WINDOW
            node.hear(m.AckOutcomes(LEASE, number - 2))
            assert not node.paused
        is_last = flow(node, 1, number, count)
        sent += node.outcomes()
        assert kept(node) <= WINDOW
        assert is_last == (number == count - 1)
    assert [x.seq for x in sent] == list(range(1, count + 1))
    assert [x.fragment for x in sent] == [
        m.Fragment(0, n * SIZE, count * SIZE) for n in range(count)
    ]
    assert [x.done for x in sent] == [()] * (count - 1) + [((0, 1),)]
    whole = b"".join(node.payload[id(x)][0] for x in sent)
    runs = unpack_runs(sent[-1].runs, [whole])
    assert runs == [(m.Run(0, 1, m.Kind.RESULT, 1), [whole])]
    node.core.check()


def test_a_new_scheduler_is_sent_what_is_missing_and_nothing_else() -> None:
    node = serving()
    for number in range(3):
        flow(node, 1, number, 6)
    node.hear(m.AckOutcomes(LEASE, 2))
    node.said()
    node.hear(m.HelloRequired())
    (hello,) = [said for said in node.said() if isinstance(said, m.NodeHello)]
    assert [(span.lo, span.hi) for held in hello.held for span in held.spans] == [(0, 1)]
    node.hear(m.Welcome(b"T" * 16, "0", "pub"))
    assert [(x.seq, x.fragment) for x in node.outcomes()] == [
        (3, m.Fragment(0, 2 * SIZE, 6 * SIZE))
    ]


def test_one_value_of_a_lease_flows_at_a_time() -> None:
    node = serving(2)
    flow(node, 1, 0, 3)
    flow(node, 2, 0, 3)
    assert (node.workers[1].held, node.workers[2].held) == (False, True)
    assert [x.fragment.index for x in node.outcomes() if x.fragment] == [0]
    flow(node, 1, 1, 3)
    node.hear(m.AckOutcomes(LEASE, 2))
    flow(node, 1, 2, 3)
    assert [x.fragment.index for x in node.outcomes() if x.fragment] == [0, 0, 1]
    assert not node.workers[2].held
    node.core.check()


def test_when_its_worker_dies_the_next_value_flows_and_the_input_is_tried_again() -> None:
    node = serving(2)
    flow(node, 1, 0, 3)
    flow(node, 2, 0, 3)
    node.tell(node.workers[1].die(("signal", 9)))
    assert not node.workers[2].held
    assert [x.fragment.index for x in node.outcomes() if x.fragment] == [0, 1]
    assert node.core.leases[LEASE].custody.open.covers(0, 2)
    node.core.check()


def test_a_fragment_of_what_was_not_assigned_ends_its_worker() -> None:
    node = serving()
    part = m.Fragment(7, 0, 3 * SIZE)
    report = CellReport(0, 7, 8, m.Kind.RESULT, 0.0, [bytes(SIZE)], fragment=part)
    node.tell(Reported(1, [report]))
    assert e.Kill(1) in node.effects
    assert node.outcomes() == []
