"""Nodes as jobs of a stand-in for PBS, which runs them as processes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import cluster
from fake_pbs import FULL, fake_pbs, jobs
from waiting import wait_until

from burla import remote_parallel_map
from burla.provisioning.config import parse
from burla.provisioning.core.machines import BadConfig, Machine, ProvisioningError, Shape
from burla.provisioning.core.plan import is_ours
from burla.provisioning.fleet import Fleet
from burla.provisioning.pbs.provisioner import Pbs
from burla.provisioning.providers import Head, Rental, rental

NODELET = 'trap "exit 0" USR1; touch "$4"; while :; do sleep 0.1; done'


class Site:
    """A cluster whose nodelets are of shell."""

    def __init__(self, directory: Path, cluster: str = "lab", **settings: Any) -> None:
        self.cluster, self.settings, self.directory = cluster, settings, directory
        self.labels = {"burla-managed": "true", "burla-cluster": cluster, "burla-version": "0-py3"}
        self.tokens: list[str] = []

    def join_token(self, name: str) -> bytes | None:
        self.tokens.append(name)
        return b"secret"

    def nodelet(self, name: str, *options: str) -> list[str]:
        return ["/bin/sh", "-c", NODELET, name, *options]  # $4: the value of --ready-file


@pytest.fixture
def pbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with fake_pbs(tmp_path / "pbs", monkeypatch) as folder:
        yield folder


def states(one: Pbs) -> list[str]:
    return [machine.state for machine in one.observe()]


def test_jobs_are_submitted_found_again_and_deleted(pbs: Path, tmp_path: Path) -> None:
    (pbs / FULL).touch()
    settings: dict[str, Any] = {
        "cpus": 4,
        "gpus": 1,
        "walltime_min": 90,
        "queue": "fast",
        "options": ["-A", "me"],
    }
    one = Pbs(Site(tmp_path / "s", **settings))
    assert one.observe() == []
    first, second = one.create(2, grown=True)
    asked = " ".join(jobs(pbs)[0]["asked"])
    assert "-l select=1:ncpus=4:ngpus=1 -l walltime=01:30:00 -q fast" in asked
    assert asked.endswith("-A me")
    why = "PBS says: Not Running: Insufficient amount of resource: ncpus"
    labels = one._site.labels
    wanted = [(first.name, "1.fake"), (second.name, "2.fake")]
    assert one.observe() == [
        Machine(name, job, "pbs", "creating", why, grown=True, labels=dict(labels))
        for name, job in wanted
    ]
    assert all(is_ours(machine) for machine in one.observe())
    assert (one.shape(), one.price_per_h()) == (Shape(4, gpus=1), 0.0)
    one.delete([first])
    assert [machine.name for machine in one.observe()] == [second.name]
    one.delete([first, second])  # one is gone already
    assert one.observe() == []
    one.delete([])


def test_those_of_a_cluster_of_a_similar_name_are_left_alone(pbs: Path, tmp_path: Path) -> None:
    (pbs / FULL).touch()
    one = Pbs(Site(tmp_path / "1", "laboratory-one"))
    other = Pbs(Site(tmp_path / "2", "laboratory-two"))
    one.create(1)
    other.create(1)
    assert jobs(pbs)[0]["name"] == jobs(pbs)[1]["name"] == "burla-laborator"
    assert len(one.observe()) == len(other.observe()) == 1
    assert one.observe() != other.observe()


def test_a_node_is_ready_when_it_says_so_and_drains_by_a_file(pbs: Path, tmp_path: Path) -> None:
    site = Site(tmp_path / "s")
    one = Pbs(site)
    (made,) = one.create(1)
    assert site.tokens == [made.name]
    token = site.directory / f"{made.name}.token"
    assert (token.read_bytes(), token.stat().st_mode & 0o777) == (b"secret", 0o600)
    wait_until(lambda: states(one) == ["ready"], "it says so")
    one.drain(made, 60.0)
    wait_until(lambda: states(one) == [], "it has ended")
    left = [path.suffix for path in site.directory.iterdir()]
    assert sorted(left) == [".log", ".token"]


def test_a_node_drains_before_its_walltime_ends(pbs: Path, tmp_path: Path) -> None:
    one = Pbs(Site(tmp_path / "s", walltime_min=1, drain_s=59))
    one.create(1)
    wait_until(lambda: len(jobs(pbs)) == 1 and states(one) == [], "it has ended")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cpus": 0}, "walltime_min and cpus must be 1 or more"),
        ({"drain_s": 3600}, "drain_s must be more than 0, and less than walltime_min"),
        ({"queues": "fast"}, "unknown field `queues`"),
        ({"cpus": "4"}, "Expected `int`, got `str`"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadConfig, match=f"providers.pbs: .*{words}"):
        Pbs(Site(tmp_path, **settings))


def test_where_there_is_no_pbs_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadConfig, match=r"qselect is not installed here: .* a machine with PBS"):
        Pbs(Site(tmp_path)).observe()


def test_what_qsub_refuses_is_told_in_its_words(pbs: Path, tmp_path: Path) -> None:
    (pbs / "bin/qsub").write_text("#!/bin/sh\necho qsub: Unknown queue >&2\nexit 170\n")
    with pytest.raises(ProvisioningError, match="qsub: qsub: Unknown queue"):
        Pbs(Site(tmp_path / "s", queue="none")).create(2)


@pytest.mark.slow
def test_nodes_of_pbs_come_are_used_and_go(pbs: Path, tmp_path: Path) -> None:
    config = parse({"name": "lab", "providers": {"pbs": {"nodes": 1}}})
    with cluster(tmp_path) as made:
        head = Head(made.address, lambda name: None, tmp_path, print, lambda seconds: None)
        rented: Rental = rental("pbs", config, head)
        fleet = Fleet(rented.provisioner, rented.nodes, 60.0)
        try:
            (there,) = fleet.up(lambda name, phase: None)
            assert there.state == "ready"
            assert remote_parallel_map(abs, [-1, -2, -3]) == [1, 2, 3]
        finally:
            fleet.down(lambda name, phase: None)
    assert jobs(pbs)[0]["deleted"]
