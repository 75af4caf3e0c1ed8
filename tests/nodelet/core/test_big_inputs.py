"""Big inputs at a node: asked for in order, run when they are whole, let go when they are done."""

from doubles.node import big_leaf
from opening import JOB, LEASE
from worker_model import SCHEDULER, HandNode

from burla.nodelet.core import effects as e
from burla.nodelet.core.big_inputs import STALLED_S, TRIES_MAX
from burla.nodelet.core.events import Reading
from burla.nodelet.core.nodelet import Nodelet
from burla.protocol import messages as m
from burla.protocol.input_messages import INPUT_WINDOW

MIB = 1 << 20


def node(*sizes: int, small: int = 0, slots: int = 2) -> HandNode:
    """Return a node that was assigned leaves of one input: big ones, and then small ones."""
    one = HandNode()
    one.serve(slots)
    one.load()
    one.said()
    leaves = [m.Leaf(0, at, 1, 0, size) for at, size in enumerate(sizes)]
    leaves += [m.Leaf(0, len(sizes) + at, 1, 1) for at in range(small)]
    span = m.Span(0, 0, len(leaves))
    said = m.Assign(lease=LEASE, left=0, spans=(span,), leaves=tuple(leaves), forget=())
    one.hear(said, [b"leaf"] * small)
    return one


def wanted(leaf: int, have: int, start: int, stop: int) -> m.InputWanted:
    return m.InputWanted(LEASE, JOB, 0, leaf, have, start, stop)


def send(one: HandNode, leaf: int, size: int, start: int, stop: int) -> None:
    """Let pieces of a leaf come."""
    for at in range(start, stop, MIB):
        content = big_leaf(size)[at : min(stop, at + MIB)]
        one.hear(m.InputPiece(LEASE, JOB, leaf, at), [content])


def test_an_input_is_run_when_all_of_it_has_come() -> None:
    one = node(3 * MIB)
    assert one.said() == [wanted(0, 0, 0, 3 * MIB)]
    send(one, 0, 3 * MIB, 0, 2 * MIB)
    assert one.assigned() == []
    send(one, 0, 3 * MIB, 2 * MIB, 3 * MIB)
    assert one.said() == [wanted(0, 3 * MIB, 3 * MIB, 3 * MIB)]
    assert one.assigned() == [(0, 1)]
    (worker,) = one.workers.values()
    one.claim(worker)
    assert one.kept
    one.finish(worker)
    assert one.kept == {}, "it is done here"


def test_what_is_small_does_not_wait_for_what_is_big() -> None:
    one = node(3 * MIB, small=2)
    assert one.assigned() == [(1, 2)]


def test_questions_are_for_so_much_ahead_and_in_order() -> None:
    one = node(2 * MIB, 20 * MIB, 2 * MIB)
    first, second = wanted(0, 0, 0, 2 * MIB), wanted(1, 0, 0, INPUT_WINDOW - 2 * MIB)
    assert one.said() == [first, second]
    send(one, 0, 2 * MIB, 0, 2 * MIB)
    assert one.said() == [wanted(0, 2 * MIB, 2 * MIB, 2 * MIB), wanted(1, 0, 6 * MIB, 8 * MIB)]
    send(one, 1, 20 * MIB, 0, MIB)
    assert one.said() == []
    send(one, 1, 20 * MIB, MIB, 2 * MIB)
    assert one.said() == [wanted(1, 2 * MIB, 8 * MIB, 10 * MIB)]


def test_a_piece_that_does_not_follow_or_was_not_asked_for_changes_nothing() -> None:
    one = node(20 * MIB)
    one.said()
    for start, data in ((MIB, b"x"), (0, b""), (0, bytes(MIB + 1))):
        one.hear(m.InputPiece(LEASE, JOB, 0, start), [data])
    one.hear(m.InputPiece(LEASE, JOB, 7, 0), [b"x"])
    one.hear(m.InputPiece(b"?" * 16, JOB, 0, 0), [b"x"])
    assert (one.said(), one.kept) == ([], {})


def test_what_is_lost_is_asked_for_again_from_where_it_is_missing() -> None:
    one = node(3 * MIB)
    one.said()
    send(one, 0, 3 * MIB, 0, MIB)
    one.hear(m.Welcome(SCHEDULER, "0", "pub"))
    assert one.said() == [wanted(0, MIB, MIB, 3 * MIB)]
    one.pass_time(STALLED_S - 0.5)
    assert one.said() == []
    one.pass_time(2)
    assert one.said() == [wanted(0, MIB, MIB, 3 * MIB)]


def test_what_is_not_here_is_given_back_first_and_asked_for_anew_if_it_comes_again() -> None:
    one = node(3 * MIB, 3 * MIB, small=1, slots=1)
    one.said()
    send(one, 1, 3 * MIB, 0, MIB)
    one.hear(m.Retract(LEASE, 1))
    assert one.said() == [m.Retracted(LEASE, (m.Span(0, 1, 2),)), wanted(1, MIB, MIB, MIB)]
    assert list(one.kept) == []
    one.hear(m.Assign(lease=LEASE, left=0, spans=(m.Span(0, 1, 2),), leaves=(), forget=()))
    assert wanted(1, 0, 0, 3 * MIB) in one.said()


def test_a_worker_that_dies_leaves_the_input_for_the_next_one() -> None:
    one = node(3 * MIB, slots=1)
    send(one, 0, 3 * MIB, 0, 3 * MIB)
    (worker,) = one.workers.values()
    one.claim(worker)
    one.said()
    del one.workers[worker.number]
    one.tell(worker.die(("signal", 9)))
    one.load()
    assert one.assigned() == [(0, 1), (0, 1)]
    assert not [said for said in one.said() if isinstance(said, m.InputWanted)]


def test_nothing_is_left_when_the_lease_ends() -> None:
    one = node(3 * MIB, 3 * MIB)
    send(one, 0, 3 * MIB, 0, 3 * MIB)
    send(one, 1, 3 * MIB, 0, MIB)
    assert len(one.kept) == 2
    one.hear(m.EndLease(LEASE, discard=True))
    assert one.kept == {}


def test_an_input_that_cannot_be_kept_fails_the_job() -> None:
    one = node(3 * MIB)
    send(one, 0, 3 * MIB, 0, MIB)
    one.said()
    (number,) = one.kept
    one.core.blob_failed(number, "no memory", one.clock.now_s)
    one.settle()
    (refused, _) = one.said()
    assert isinstance(refused, m.LeaseRefused)
    assert "an input of 3,145,728 bytes cannot be kept" in refused.why


def test_an_input_that_cannot_be_kept_just_now_is_asked_for_again_in_a_while() -> None:
    one = node(3 * MIB)
    send(one, 0, 3 * MIB, 0, MIB)
    (number,) = one.kept
    one.said()
    one.core.blob_failed(number, "no descriptor", one.clock.now_s, may_pass=True)
    one.settle()
    assert one.said() == []
    one.pass_time(5)
    assert one.said() == [wanted(0, 0, 0, 3 * MIB)]
    send(one, 0, 3 * MIB, MIB, 2 * MIB)  # that was on its way
    send(one, 0, 3 * MIB, 0, 3 * MIB)
    assert one.assigned() == [(0, 1)]


def test_an_input_that_can_never_be_kept_fails_the_job_in_the_end() -> None:
    one = node(3 * MIB)
    refused: list[m.Message] = []
    for _ in range(TRIES_MAX + 1):
        send(one, 0, 3 * MIB, 0, MIB)
        (number,) = one.kept
        one.core.blob_failed(number, "no descriptor", one.clock.now_s, may_pass=True)
        one.pass_time(5)
        refused += [said for said in one.said() if isinstance(said, m.LeaseRefused)]
    assert len(refused) == 1


def test_an_input_that_workers_have_already_is_not_asked_for_again() -> None:
    one = node(3 * MIB)
    send(one, 0, 3 * MIB, 0, 3 * MIB)
    (number,) = one.kept
    one.said()
    one.core.blob_failed(number, "no descriptor", one.clock.now_s, may_pass=True)
    one.settle()
    assert isinstance(one.said()[0], m.LeaseRefused)


def test_an_input_that_is_bigger_than_the_node_is_refused_at_once() -> None:
    one = node(2 << 30)
    (refused,) = one.said()
    assert isinstance(refused, m.LeaseRefused)
    assert "an input of 2,147,483,648 bytes" in refused.why


def test_a_big_leaf_is_alone_in_its_span() -> None:
    one = HandNode()
    one.serve(1)
    one.load()
    (worker,) = one.workers.values()
    leaves = (m.Leaf(0, 0, 4, 1), m.Leaf(0, 4, 4, 0, 2 * MIB), m.Leaf(0, 8, 4, 1))
    one.hear(
        m.Assign(lease=LEASE, left=0, spans=(m.Span(0, 0, 12),), leaves=leaves, forget=()),
        [b"leaf", b"leaf"],
    )
    send(one, 4, 2 * MIB, 0, 2 * MIB)
    while one.claim(worker, 100) is not None:
        one.finish(worker, 1e-5)
    assert one.assigned()
    for lo, hi in one.assigned():
        assert hi <= 4 or lo >= 8 or (lo >= 4 and hi <= 8), "it is together with another"
    files = [order.files for order in one.effects if isinstance(order, e.AssignSpan)]
    assert all(len(each) <= 1 for each in files)


def test_a_node_says_how_far_it_is() -> None:
    one = node(3 * MIB)
    assert isinstance(one.core, Nodelet)
    (lease,) = one.core.snapshot()["leases"].values()  # type: ignore[attr-defined]
    assert lease["big_inputs"] == {"0": {"bytes": 3 * MIB, "here": 0, "asked": 3 * MIB}}


def test_what_is_kept_says_whose_it_is_and_memory_that_waits_goes_when_there_is_little() -> None:
    one = node(2 * MIB)
    send(one, 0, 2 * MIB, 0, 2 * MIB)
    kept = [effect for effect in one.effects if isinstance(effect, e.KeepBlob)]
    assert {(effect.lease, effect.size) for effect in kept} == {(LEASE, 2 * MIB)}
    one.tell(Reading(total=64 << 30, available=32 << 30))
    assert e.DropSpare() not in one.effects
    one.tell(Reading(total=64 << 30, available=1))
    assert e.DropSpare() in one.effects
