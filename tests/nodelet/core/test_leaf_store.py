"""Which leaves are here, and which batch an index belongs to."""

import pytest

from burla.nodelet.core.effects import StoredLeaf
from burla.nodelet.core.leaf_store import LeafStore
from burla.protocol.messages import Leaf, Span


def store(*leaves: Leaf) -> LeafStore:
    one = LeafStore()
    one.add(leaves, [b"%d" % leaf.start for leaf in leaves for _ in range(leaf.frames)])
    return one


def test_a_span_is_found_with_all_the_leaves_that_it_lies_in() -> None:
    one = store(Leaf(0, 0, 4, 1), Leaf(0, 4, 4, 2), Leaf(0, 8, 4, 1), Leaf(1, 12, 4, 1))
    second = StoredLeaf(0, 4, 8, (b"4", b"4"))
    assert one.find(Span(0, 5, 6)) == [second]
    assert one.find(Span(0, 5, 9)) == [second, StoredLeaf(0, 8, 12, (b"8",))]
    with pytest.raises(ValueError, match="missing"):
        one.find(Span(2, 16, 17))


def test_a_leaf_that_is_here_already_changes_nothing_and_may_come_late() -> None:
    one = store(Leaf(0, 8, 4, 1))
    one.add([Leaf(0, 4, 4, 1), Leaf(0, 8, 4, 1)], [b"late", b"again"])
    assert [leaf.frames for leaf in one.find(Span(0, 4, 12))] == [(b"late",), (b"8",)]


def test_frames_must_be_those_of_the_leaves() -> None:
    with pytest.raises(ValueError, match="2 frames for 1 leaves"):
        LeafStore().add([Leaf(0, 0, 4, 1)], [b"a", b"b"])


def test_an_index_belongs_to_the_batch_that_was_claimed_for_it() -> None:
    one = store(Leaf(3, 0, 10, 1), Leaf(5, 10, 10, 1))
    one.claim(Span(5, 12, 20))
    one.claim(Span(3, 0, 10))
    one.claim(Span(5, 10, 12))
    assert list(one.spans(8, 13)) == [Span(3, 8, 10), Span(5, 10, 13)]
    assert one.first_span(8, 13) == Span(3, 8, 10)
    assert one.bounds(3) == (0, 10)
    assert one.bounds(4) == (0, 0)


@pytest.mark.parametrize("span", [Span(0, 4, 4), Span(0, 2, 9), Span(7, 0, 1)])
def test_a_span_that_contradicts_what_is_here_is_refused(span: Span) -> None:
    one = store(Leaf(0, 0, 4, 1), Leaf(0, 6, 4, 1))
    one.claim(Span(0, 6, 10))
    with pytest.raises(ValueError, match=r"missing|empty"):
        one.claim(span)


def test_a_batch_that_is_forgotten_is_gone() -> None:
    one = store(Leaf(0, 0, 4, 1))
    one.forget(0)
    with pytest.raises(ValueError, match="missing"):
        one.find(Span(0, 0, 4))
