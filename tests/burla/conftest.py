"""What tests of the client have: a cluster of ours in a thread, and room for files."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_scheduler import FakeScheduler

from burla.shell import clients
from burla.values import held_parts, sharing


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeScheduler]:
    with FakeScheduler(tmp_path).running() as fake:
        monkeypatch.setenv("BURLA_CLUSTER", fake.address)
        yield fake
        client = clients._clients.pop(fake.address, None)
        if client is not None:
            client.close()
            assert not client._thread.is_alive()


@pytest.fixture(autouse=True)
def _room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files that are else in memory lie in `tmp_path`, however full its disk is."""
    for module in (held_parts, sharing):
        monkeypatch.setattr(module, "FREE_SHARE", 1 << 20)
