"""A burst at once, then so much a second; whoever comes too late is told no."""

from burla.scheduler.core import pacing
from burla.scheduler.core.pacing import Pacer


def test_after_a_burst_each_waits_for_its_turn() -> None:
    pacer = Pacer(burst=3, per_s=10.0, wait_max_s=0.25)
    waits = [pacer.wait_s(b"anna", 5.0) for _ in range(6)]
    assert [wait if wait is None else round(wait, 6) for wait in waits] == [0, 0, 0, 0.1, 0.2, None]
    assert pacer.wait_s(b"bert", 5.0) == 0.0
    assert pacer.wait_s(b"anna", 6.0) == 0.0


def test_names_are_bounded_and_those_at_rest_make_room() -> None:
    pacer = Pacer(burst=1, per_s=1.0)
    for number in range(pacing.NAMES_MAX):
        assert pacer.wait_s(number.to_bytes(4, "big"), 0.0) == 0.0
    assert pacer.wait_s(b"one more", 0.5) is None
    assert pacer.wait_s(b"one more", 2.0) == 0.0
