"""The scheduler's next key: made, told, taken."""

import asyncio
import time
from pathlib import Path

import pytest

from burla.protocol.admin_messages import KeyOperation, ManageKeys
from burla.protocol.key_messages import ServerKey
from burla.scheduler.auth import server_key
from burla.scheduler.auth.key_store import KNOWN_KEYS, KeyStore
from burla.scheduler.auth.management import manage
from burla.scheduler.auth.server_key import LEAD_S, NEXT, follow, known_keys, prepare, take
from burla.transport.server_keys import ServerKeys


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    made = KeyStore(tmp_path)
    made.make()
    return made


def test_the_next_key_counts_when_it_is_time_and_the_one_before_leads_to_it(
    keys: KeyStore,
) -> None:
    old = keys.server_pair().public
    coming = prepare(keys, 3600.0)
    assert coming.from_s > time.time() + 3000.0
    assert not take(keys)
    assert keys.server_pair().public == old
    again = prepare(keys, 0.0)  # sooner: of a key that some know already
    assert again.key == coming.key
    assert again.from_s <= time.time() + LEAD_S
    assert take(keys, lambda: again.from_s)
    assert keys.server_pair().public == coming.key
    later = ServerKeys(str(keys.directory / KNOWN_KEYS), lambda: again.from_s)
    assert later.candidates(old) == [coming.key, old]
    assert known_keys(keys).first(coming.key) == old
    assert not (keys.directory / NEXT).exists()
    assert not take(keys)


def test_one_that_was_killed_in_the_middle_goes_on(keys: KeyStore) -> None:
    coming = prepare(keys, 0.0)
    left = (keys.directory / NEXT).read_text()
    assert take(keys, lambda: coming.from_s)
    (keys.directory / NEXT).write_text(left)  # all was done but for this
    (keys.directory / NEXT).chmod(0o600)
    assert take(keys, lambda: coming.from_s)
    assert keys.server_pair().public == coming.key
    assert known_keys(keys).candidates(coming.key) == [coming.key]


def test_no_secret_is_told(keys: KeyStore) -> None:
    answer = manage(keys, ManageKeys(KeyOperation.ROTATE_SERVER, overlap_s=10.0))
    assert answer.why == ""
    secret = (keys.directory / NEXT).read_text()
    assert answer.server_key.hex() not in secret
    assert ((keys.directory / NEXT).stat().st_mode & 0o777) == 0o600
    assert "a node makes its key itself" in manage(keys, ManageKeys(KeyOperation.ROTATE_NODE)).why
    assert (
        "is not there"
        in manage(KeyStore(keys.directory / "no"), ManageKeys(KeyOperation.ROTATE_SERVER)).why
    )


def test_a_running_scheduler_tells_it_and_ends_its_life_in_time(
    keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_key, "LOOK_S", 0.01)
    monkeypatch.setattr(server_key, "LEAD_S", 0.0)
    said: list[ServerKey] = []
    first = asyncio.Event()

    def tell(word: ServerKey) -> None:
        said.append(word)
        first.set()

    async def scenario() -> None:
        following = asyncio.create_task(follow(keys, tell))
        await asyncio.sleep(0.05)
        assert not said
        prepare(keys, 3600.0)
        await asyncio.wait_for(first.wait(), 20.0)
        (keys.directory / NEXT).write_text("nonsense")  # is complained of
        await asyncio.sleep(0.05)
        assert not following.done()
        (keys.directory / NEXT).unlink()
        prepare(keys, 0.0)
        await asyncio.wait_for(following, 20.0)

    asyncio.run(scenario())
    assert len({word.key for word in said}) == 2
    assert take(keys)
