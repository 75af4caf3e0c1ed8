"""Providers of somebody else: found by their entry point, and as good as ours."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import cluster
from waiting import wait_until

from burla import remote_parallel_map
from burla.provisioning.config import ClusterConfig, parse
from burla.provisioning.core.machines import BadConfig, ProvisioningError
from burla.provisioning.fleet import Fleet
from burla.provisioning.providers import Head, Rental, rentals

PAGE = Path(__file__).parents[2] / "docs/providers.md"


def installed(folder: Path, name: str, value: str, source: str) -> None:
    """Install a package with an entry point into a folder."""
    (folder / f"{value.split(':')[0]}.py").write_text(source)
    info = folder / "theirs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[burla.providers]\n{name} = {value}\n")


def of(config: ClusterConfig, folder: Path, address: str = "ipc:///tmp/s") -> dict[str, Rental]:
    head = Head(address, lambda name: None, folder, print, lambda seconds: None)
    return rentals(config, head)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.slow
def test_the_provider_of_the_page_makes_nodes_drains_and_gives_them_up(path: Path) -> None:
    (source,) = [part.split("```")[0] for part in PAGE.read_text().split("```python\n")[1:]]
    installed(path, "processes", "burla_processes:Processes", source)
    config = parse({"name": "lab", "providers": {"processes": {"nodes": 2, "cpus": 1}}})
    with cluster(path) as made:
        rental = of(config, path, made.address)["processes"]
        assert (rental.nodes, rental.boot_s, rental.spare) == (2, 300.0, True)
        fleet = Fleet(rental.provisioner, rental.nodes, 60.0)
        try:
            there = fleet.up(lambda name, phase: None)
            assert [machine.state for machine in there] == ["ready", "ready"]
            assert all(machine.labels["burla-cluster"] == "lab" for machine in there)
            assert remote_parallel_map(abs, [-1, -2, -3]) == [1, 2, 3]
            rental.provisioner.drain(there[0], 60.0)

            def states() -> list[str]:
                return [machine.state for machine in rental.provisioner.observe()]

            wait_until(lambda: "ended" in states(), "one has drained")
        finally:
            fleet.down(lambda name, phase: None)
        assert not (path / "processes").exists()


def test_a_setting_that_a_provider_refuses_is_told_in_its_words(path: Path) -> None:
    (source,) = [part.split("```")[0] for part in PAGE.read_text().split("```python\n")[1:]]
    installed(path, "processes", "burla_processes2:Processes", source)
    config = parse({"providers": {"processes": {"cpus": 0}}})
    with pytest.raises(BadConfig, match=r"providers\.processes\.cpus is 0"):
        of(config, path)


def test_a_provider_that_is_not_installed_is_named(path: Path) -> None:
    config = parse({"providers": {"mycloud": {"nodes": 1}}})
    with pytest.raises(BadConfig, match=r"no provider of this name is installed"):
        of(config, path)


def test_one_that_cannot_be_loaded_says_why(path: Path) -> None:
    installed(path, "mycloud", "broken_cloud:Cloud", "import nothing_such\n")
    config = parse({"providers": {"mycloud": {"nodes": 1}}})
    with pytest.raises(ProvisioningError, match=r"broken_cloud:Cloud.*nothing_such"):
        of(config, path)


def test_what_a_provider_is_told(path: Path) -> None:
    installed(
        path, "mycloud", "telling_cloud:make", "seen = []\ndef make(site): seen.append(site)\n"
    )
    said: dict[str, Any] = {"nodes": 1, "boot_s": 5, "spare": False, "region": "north"}
    config = parse({"name": "lab", "log_level": "debug", "providers": {"mycloud": said}})
    rental = of(config, path)["mycloud"]
    assert (rental.nodes, rental.boot_s, rental.spare) == (1, 5, False)
    (site,) = sys.modules["telling_cloud"].seen
    assert site.settings == {"region": "north"}
    assert site.labels["burla-managed"] == "true"
    assert site.join_token("x") is None
    line = " ".join(site.nodelet("m1", "--cpus", "2"))
    assert "--name m1 --log-level debug --cpus 2" in line
