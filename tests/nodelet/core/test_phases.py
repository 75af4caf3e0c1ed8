"""Which phase of a lease may follow which."""

import pytest

from burla.nodelet.core.phases import TRANSITIONS_KEPT, Life, Phase, TransitionError

ID = b"L" * 16


def test_a_lease_lives_from_queued_to_stopped() -> None:
    life = Life(ID, 1.0)
    assert (life.takes_work, life.serves, life.has_workers) == (True, False, False)
    for at_s, phase in enumerate((Phase.SERVING, Phase.LINGERING), 2):
        life.enter(phase, at_s)
        assert (life.takes_work, life.serves, life.has_workers) == (True, True, True)
    life.enter(Phase.STOPPING, 4.0)
    assert (life.takes_work, life.serves, life.has_workers) == (False, False, True)
    life.enter(Phase.STOPPED, 5.0)
    assert (life.takes_work, life.serves, life.has_workers) == (False, False, False)
    names = ("QUEUED", "SERVING", "LINGERING", "STOPPING", "STOPPED")
    assert life.snapshot() == {
        "lease": ID.hex(),
        "phase": "STOPPED",
        "past": [{"at_s": at_s, "what": name} for at_s, name in enumerate(names, 1)],
    }


def test_a_wrong_transition_raises_by_name() -> None:
    life = Life(ID, 0.0)
    life.enter(Phase.STOPPED, 1.0)
    with pytest.raises(TransitionError, match=f"lease {ID.hex()}: STOPPED -> SERVING"):
        life.enter(Phase.SERVING, 2.0)
    assert life.phase is Phase.STOPPED


def test_of_the_past_the_last_is_kept() -> None:
    life = Life(ID, 0.0)
    for number in range(2 * TRANSITIONS_KEPT):
        life.note(str(number), 0.0)
    assert len(life.past) == TRANSITIONS_KEPT
    assert life.past[-1] == (0.0, str(2 * TRANSITIONS_KEPT - 1))
