import pytest

from burla.scheduler.core import warm_leases


@pytest.fixture(autouse=True)
def workers_wait_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worlds are watched until no worker is left; a minute more of each would have to be played."""
    monkeypatch.setattr(warm_leases, "WARM_S_MAX", warm_leases.WARM_S)
