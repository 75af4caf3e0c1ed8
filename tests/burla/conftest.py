"""A cluster of ours in a thread, for tests of the client."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_scheduler import FakeScheduler

from burla.shell import clients


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeScheduler]:
    with FakeScheduler(tmp_path).running() as fake:
        monkeypatch.setenv("BURLA_CLUSTER", fake.address)
        yield fake
        client = clients._clients.pop(fake.address, None)
        if client is not None:
            client.close()
            assert not client._thread.is_alive()
