"""In which order inputs go that no worker has."""

from burla.nodelet.core.leaf_store import LeafStore
from burla.nodelet.core.work_queue import CAREFUL_CHUNK, WorkQueue
from burla.protocol.messages import Leaf, Span


def queue(*batches: tuple[int, int]) -> WorkQueue:
    """Return a queue of all inputs of some batches, whose number is their first index."""
    store = LeafStore()
    one = WorkQueue(store)
    for lo, hi in batches:
        store.add([Leaf(lo, lo, hi - lo, 1)], [b"leaf"])
        store.claim(Span(lo, lo, hi))
        one.add(lo, hi)
    return one


def test_earlier_inputs_go_first_and_a_span_lies_in_one_batch() -> None:
    one = queue((0, 10), (10, 20))
    assert one.take(8) == (Span(0, 0, 8), False)
    assert one.take(8) == (Span(0, 8, 10), False)
    assert one.take(8) == (Span(10, 10, 18), False)
    one.add(3, 4)
    assert one.take(8) == (Span(0, 3, 4), False)
    assert len(one) == 2


def test_what_died_comes_after_others_and_alone() -> None:
    one = queue((0, 4))
    one.take(1)
    one.retry(0, after=2)
    taken = [one.take(1) for _ in range(4)]
    assert taken == [
        (Span(0, 1, 2), False),
        (Span(0, 2, 3), False),
        (Span(0, 0, 1), True),
        (Span(0, 3, 4), False),
    ]
    assert one.take(1) is None


def test_what_died_does_not_wait_when_nothing_else_does() -> None:
    one = queue((0, 1))
    one.take(1)
    one.retry(0, after=99)
    assert one.take(1, retries=False) is None
    assert one.take(1) == (Span(0, 0, 1), True)


def test_what_is_to_be_run_one_by_one_comes_in_spans_of_its_own() -> None:
    one = queue((0, 500))
    one.ranges.remove(100, 200)
    one.add(100, 200, careful=True)
    assert one.take(300) == (Span(0, 0, 100), False)
    assert one.take(300) == (Span(0, 100, 100 + CAREFUL_CHUNK), True)
    assert one.take(300) == (Span(0, 100 + CAREFUL_CHUNK, 200), True)
    assert one.take(300) == (Span(0, 200, 500), False)
    one.check()


def test_what_goes_back_comes_from_the_end_but_not_what_is_run_with_care() -> None:
    one = queue((0, 10))
    one.add(6, 8, careful=True)
    assert one.pop_last(3) == [(8, 10), (5, 6)]
    assert list(one.ranges) == [(0, 5), (6, 8)]
    assert one.pop_last(100) == [(0, 5)]
    assert list(one.ranges) == [(6, 8)]


def test_what_is_withdrawn_is_gone_for_good() -> None:
    one = queue((0, 10))
    one.take(1)
    one.retry(0, after=1)
    assert sorted(one.withdraw(0, 5)) == [(0, 1), (1, 5)]
    assert one.pop_first() == 5
    assert list(one.places()) == [(6, 10)]
