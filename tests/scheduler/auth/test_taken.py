"""Which state of the table a running scheduler has taken, as `burla auth` asks."""

import os
from pathlib import Path

import pytest
from keyring import Keyring

from burla.scheduler.auth import taken
from burla.scheduler.auth.authorizer import Authorizer
from burla.scheduler.auth.taken import LINK, InForce, wait_in_force
from burla.scheduler.core.admission import Role

NO_PROCESS = 2**22 + 1  # above pid_max


@pytest.fixture
def ring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path)


def test_it_is_told_when_a_change_was_taken_and_when_nobody_is_there(ring: Keyring) -> None:
    store = ring.key_store
    assert wait_in_force(store) is InForce.NO_SCHEDULER
    authorizer = Authorizer(store)
    assert wait_in_force(store) is InForce.YES
    pair = ring.make(Role.CLIENT)
    ring.revoke(pair)
    assert wait_in_force(store, 0.0) is InForce.NO
    authorizer.refresh()
    assert wait_in_force(store, 0.0) is InForce.YES
    authorizer.close()
    assert wait_in_force(store) is InForce.NO_SCHEDULER
    assert not (store.directory / LINK).is_symlink()


def test_one_that_was_killed_takes_nothing_any_more(ring: Keyring) -> None:
    link = ring.key_store.directory / LINK
    for process in (str(NO_PROCESS), "nonsense", "9" * 30):
        link.unlink(missing_ok=True)
        link.symlink_to(f"{process} 1 2 3 4")
        assert wait_in_force(ring.key_store) is InForce.NO_SCHEDULER


def test_the_next_life_takes_the_place_of_what_was_left(ring: Keyring, tmp_path: Path) -> None:
    (tmp_path / LINK).symlink_to(f"{NO_PROCESS} 1 2 3 4")
    (tmp_path / f"{LINK}.{os.getpid()}").symlink_to("what was left by a kill")
    authorizer = Authorizer(ring.key_store)
    assert wait_in_force(ring.key_store) is InForce.YES
    taken.forget(tmp_path)
    assert sorted(tmp_path.glob(f"{LINK}*")) == []
    authorizer.close()
