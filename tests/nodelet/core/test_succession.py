"""A lease that follows one of the same session begins where that was; any other finds nothing."""

from typing import Any

from opening import LEASE, start_lease
from worker_model import HandNode, assign, ran

from burla.nodelet.core import effects as e
from burla.protocol import messages as m

NEXT, OTHER = b"N" * 16, b"O" * 16


def lingering(**more: Any) -> HandNode:
    """Return a node whose lease has run a job and lingers."""
    node = HandNode()
    node.serve(**more)
    node.hear(*assign((0, 2)))
    node.finish_all()
    node.hear(m.Linger(LEASE))
    node.said()
    return node


def follow(node: HandNode, lease: bytes = NEXT, **more: Any) -> None:
    node.hear(start_lease(lease=lease, follows=LEASE, **more), [b"function"])


def ends(node: HandNode) -> list[bool]:
    """Return of each order to end workers whether the next lease may have what is left."""
    return [x.is_followed for x in node.effects if isinstance(x, e.EndWorkers)]


def begun(node: HandNode) -> list[bytes]:
    return [x.start.lease for x in node.effects if isinstance(x, e.BeginLease)]


def test_it_begins_when_the_processes_of_the_other_have_ended() -> None:
    node = lingering()
    follow(node)
    assert (ends(node), begun(node)) == ([True], [LEASE])
    node.hear(*assign((0, 2), lease=NEXT))
    node.end()
    assert begun(node) == [LEASE, NEXT]
    assert m.Stopped(LEASE) in node.sent
    node.finish_all()
    assert [pair for one in node.outcomes() for pair in ran([one])] == [(0, 1), (1, 2)]
    node.core.check()


def test_what_was_left_for_one_that_is_gone_ends_before_another_begins() -> None:
    node = lingering()
    follow(node)
    node.hear(m.EndLease(NEXT, True))
    node.hear(start_lease(lease=OTHER), [b"function"])
    node.end()
    assert (ends(node), begun(node)) == ([True, False], [LEASE])
    node.end()
    assert begun(node) == [LEASE, OTHER]
    node.core.check()


def test_what_was_left_for_one_that_is_gone_ends_though_no_other_comes() -> None:
    node = lingering()
    follow(node)
    node.hear(m.EndLease(NEXT, True))
    node.end()
    assert ends(node) == [True, False]
    node.end()
    node.hear(start_lease(lease=OTHER), [b"function"])
    assert begun(node) == [LEASE, OTHER]


def test_one_that_waits_for_what_it_needs_keeps_the_place_meanwhile() -> None:
    node = lingering()
    blob = m.Blob(b"d" * 32, 10, m.BlobKind.PART)
    follow(node, blobs=(blob,), owner=b"o" * 16)
    node.end()
    node.hear(start_lease(lease=OTHER), [b"function"])
    assert (ends(node), begun(node)) == ([True], [LEASE])
    node.hear(m.EndLease(NEXT, True))
    assert (ends(node), begun(node)) == ([True, False], [LEASE])
    node.end()
    assert begun(node) == [LEASE, OTHER]


def test_nothing_is_left_by_a_lease_that_was_ended_before() -> None:
    node = lingering()
    node.hear(m.EndLease(LEASE, True))
    follow(node)
    node.end()
    assert (ends(node), begun(node)) == ([False], [LEASE, NEXT])


def test_nothing_is_left_for_a_lease_that_follows_one_that_nobody_knows() -> None:
    node = lingering()
    node.hear(start_lease(lease=NEXT, follows=OTHER), [b"function"])
    node.hear(m.EndLease(LEASE, True))
    node.end()
    assert (ends(node), begun(node)) == ([False], [LEASE, NEXT])


def test_one_that_is_to_be_forgotten_as_well_is_followed_all_the_same() -> None:
    node = lingering()
    follow(node, over=(LEASE,))
    node.end()
    assert (ends(node), begun(node)) == ([True], [LEASE, NEXT])
    assert list(node.core.leases) == [NEXT]


def test_in_an_image_nothing_is_left() -> None:
    node = lingering()
    follow(node, image="python:3.11")
    assert ends(node) == [False]


def test_a_second_word_about_the_same_lease_changes_nothing() -> None:
    node = lingering()
    follow(node)
    node.end()
    follow(node)
    assert (ends(node), begun(node)) == ([True], [LEASE, NEXT])
    node.hear(m.EndLease(NEXT, True))
    assert ends(node) == [True, False]
