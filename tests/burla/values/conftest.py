"""What all tests of values have."""

import pytest

from burla.values import held_parts, sharing


@pytest.fixture(autouse=True)
def _room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files that are else in memory lie in `tmp_path`, however full its disk is."""
    for module in (held_parts, sharing):
        monkeypatch.setattr(module, "FREE_SHARE", 1 << 20)
