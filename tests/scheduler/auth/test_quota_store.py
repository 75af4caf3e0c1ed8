"""The file of quotas: merged with what holds for everybody, and followed while it changes."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from waiting import wait_until

from burla.scheduler.auth import quota_store
from burla.scheduler.auth.key_store import KeyStore
from burla.scheduler.auth.quota_store import Limits, QuotaStore, QuotaTable, follow
from burla.scheduler.core import admission
from burla.scheduler.core.admission import Role
from burla.scheduler.core.quotas import Quotas, Tenants
from burla.transport.keys import KeyFileError

KEY = "ab" * 32
BASE = Quotas(10, 100, 1000)


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    made = KeyStore(tmp_path)
    made.make()
    return made


def test_what_is_not_said_of_a_user_is_as_for_everybody_and_else_as_the_command_line_says() -> None:
    table = QuotaTable(everybody=Limits(jobs=5), users={"anna": Limits(inputs=7)})
    tenants = table.tenants(BASE, {KEY: "anna"})
    assert tenants.quotas_of(tenants.of(KEY)) == Quotas(5, 7, 1000)
    assert tenants.quotas_of(tenants.of("unknown")) == Quotas(5, 100, 1000)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "{}x",
        '{"format": 2}',
        '{"users": {"a": {"jobs": 0}}}',
        '{"users": {"a": {"job": 1}}}',
        '{"everybody": {"bytes": "8G"}}',
    ],
)
def test_what_is_no_table_of_quotas_is_refused(keys: KeyStore, text: str) -> None:
    path = keys.directory / quota_store.QUOTAS
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(KeyFileError, match=r"quotas\.json"):
        QuotaStore(keys).read()


def test_a_file_that_others_could_have_written_is_refused(keys: KeyStore) -> None:
    QuotaStore(keys).change(lambda table: table.changed("anna", Limits(jobs=1)))
    (keys.directory / quota_store.QUOTAS).chmod(0o666)
    with pytest.raises(KeyFileError, match="other users can access it"):
        QuotaStore(keys).read()


def test_changes_are_followed_and_what_is_broken_changes_nothing(
    keys: KeyStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(quota_store, "LOOK_S", 0.001)
    seen: list[Tenants] = []

    async def until(count: int) -> None:
        await asyncio.to_thread(wait_until, lambda: len(seen) >= count, "it was seen")
        assert len(seen) == count

    async def conversation() -> None:
        task = asyncio.create_task(follow(keys, BASE, seen.append))
        await until(1)
        assert seen[-1] == Tenants(BASE, {}, {})
        keys.change(lambda table: admission.add(table, KEY, Role.CLIENT, "anna", 1.0))
        await until(2)
        assert seen[-1].of(KEY) == "anna"
        QuotaStore(keys).change(lambda table: table.changed("anna", Limits(jobs=1)))
        await until(3)
        path = keys.directory / quota_store.QUOTAS
        good = path.read_text()
        path.write_text("nonsense")
        said = "the quotas in use stay"
        await asyncio.to_thread(wait_until, lambda: said in caplog.text, "it was complained of")
        path.write_text(good)
        await until(4)
        assert seen[-1].quotas_of("anna").jobs_max == 1
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(conversation())
