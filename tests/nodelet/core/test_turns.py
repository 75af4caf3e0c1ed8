"""Big values of several workers flow one after the other."""

from burla.nodelet.core.events import CellReport
from burla.nodelet.core.turns import Turns
from burla.protocol.messages import Fragment, Kind


def part(at: int, index: int = 0) -> CellReport:
    """Return a byte of a value of three."""
    fragment = Fragment(index, at, 3)
    return CellReport(0, index, index + 1, Kind.RESULT, 0.0, [b"x"], fragment=fragment)


def test_who_comes_second_waits_until_the_first_is_through() -> None:
    turns = Turns()
    assert turns.admit(1, part(0))
    assert not turns.admit(2, part(0, 5))
    assert not turns.admit(3, part(0, 7))
    assert turns.next() is None
    assert [turns.is_in(worker) for worker in (1, 2, 4)] == [True, True, False]
    assert turns.admit(1, part(1))
    assert turns.admit(1, part(2))
    assert turns.next() == (2, [part(0, 5)])
    assert turns.admit(2, part(0, 5))
    assert turns.next() is None
    assert not turns.admit(1, part(0, 8))  # behind the third


def test_who_dies_gives_its_turn_up_or_its_place() -> None:
    turns = Turns()
    assert turns.admit(1, part(0))
    assert not turns.admit(2, part(0))
    assert not turns.admit(3, part(0))
    turns.forget(2)
    turns.forget(1)
    assert turns.next() == (3, [part(0)])
    assert turns.next() is None
