"""Machines of Compute Engine against a stand-in: refusals, faults, and never an orphan."""

import lzma
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from threading import current_thread
from typing import Any

import pytest
from autoscaled import LONG, make
from fake_gce import FakeGce, fake_gce

from burla.provisioning.config import parse
from burla.provisioning.core.machines import Machine, ProvisioningError
from burla.provisioning.core.plan import orphans
from burla.provisioning.fleet import Fleet
from burla.provisioning.gce import provisioner as provisioning
from burla.provisioning.gce.provisioner import POLL_S, Gce, OutOfPlaces, label
from burla.provisioning.install import wheels
from burla.provisioning.install.pins import Requirements

pytestmark = pytest.mark.usefixtures("loopback_only")
ZONES = ["us-central1-a", "us-central1-b", "us-central1-c"]


@pytest.fixture(autouse=True)
def pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what nodes install without asking an index."""
    found = Requirements("burla --hash=sha256:0\n")
    monkeypatch.setattr(provisioning, "pinned_for_node", lambda python, index: found)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[tuple[FakeGce, str]]:
    with fake_gce(tmp_path) as made:
        yield made


def provisioner(endpoint: str, said: list[str] | None = None, **gce: Any) -> Gce:
    told = {"nodes": 1, "project": "p", "zones": ZONES, "endpoint": endpoint} | gce
    config = parse({"name": "lab", "gce": told})
    say = (lambda text: None) if said is None else said.append
    return Gce(config, "tcp://10.0.0.1:7270", lambda name: None, say, lambda seconds: None)


# --- where a machine is found ---


def test_for_many_machines_an_index_is_asked_once(
    cloud: tuple[FakeGce, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is found is kept, and no thread of many looks for it at the same time."""
    began = []

    @cache
    def pinned(python: str, index: str) -> Requirements:
        began.append(current_thread())
        return Requirements("burla --hash=sha256:0\n")

    monkeypatch.setattr(provisioning, "pinned_for_node", pinned)
    gce, endpoint = cloud
    provisioner(endpoint).create(3)
    assert began == [current_thread()]
    assert len(gce.alive()) == 3


def test_a_machine_is_made_with_all_that_ends_it(cloud: tuple[FakeGce, str]) -> None:
    gce, endpoint = cloud
    (machine,) = provisioner(endpoint, owner="Ann B.").create(1)
    body = gce.vms[machine.name].body
    assert body["scheduling"]["maxRunDuration"] == {"seconds": "86400"}
    assert body["scheduling"]["instanceTerminationAction"] == "DELETE"
    assert body["scheduling"]["provisioningModel"] == "SPOT"
    assert not body.get("serviceAccounts")
    labels = body["labels"]
    assert labels["burla-cluster"] == "lab"
    assert labels["burla-managed"] == "true"
    assert labels["burla-owner"] == "ann-b-"
    assert labels["burla-expires"].isdigit()
    values = [item["value"] for item in body["metadata"]["items"]]
    assert all(len(value) <= 256 << 10 for value in values)
    assert {"key": "burla-requirements", "value": "burla --hash=sha256:0\n"} in body["metadata"][
        "items"
    ]


def test_what_all_machines_are_told_is_packed_once(
    cloud: tuple[FakeGce, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[int] = []

    def compress(data: bytes, **how: Any) -> bytes:
        packed.append(len(data))
        time.sleep(0.1)  # the other machines need it meanwhile
        return b"packed"

    monkeypatch.setattr(lzma, "compress", compress)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # no earlier run has packed it
    for kept in (wheels.packed_wheel, wheels.xz_for_node):
        kept.cache_clear()
    try:
        assert len(provisioner(cloud[1]).create(3)) == 3
    finally:
        for kept in (wheels.packed_wheel, wheels.xz_for_node):
            kept.cache_clear()
    assert len(packed) == 1


def test_a_wheelhouse_on_the_image_is_believed(cloud: tuple[FakeGce, str]) -> None:
    gce, endpoint = cloud
    (machine,) = provisioner(endpoint, wheelhouse="/opt/wheels").create(1)
    items = {
        item["key"]: item.get("value") for item in gce.vms[machine.name].body["metadata"]["items"]
    }
    assert not items["burla-requirements"]


def test_two_zones_without_capacity_lead_to_the_third_within_three_calls(
    cloud: tuple[FakeGce, str],
) -> None:
    gce, endpoint = cloud
    gce.exhausted = set(ZONES[:2])
    said: list[str] = []
    (machine,) = provisioner(endpoint, said).create(1)
    assert machine.address == ZONES[2]
    assert [zone for zone, _, _ in gce.inserts] == ZONES
    assert len(said) == 2


@pytest.mark.parametrize("fault", ["capacity", "capacity-details", "capacity-http"])
def test_no_capacity_is_understood_in_every_form(cloud: tuple[FakeGce, str], fault: str) -> None:
    gce, endpoint = cloud
    gce.faults["insert"] = [fault]
    (machine,) = provisioner(endpoint).create(1)
    assert machine.address == ZONES[1]


def test_without_spot_it_is_standard_if_it_may_be(cloud: tuple[FakeGce, str]) -> None:
    gce, endpoint = cloud
    gce.no_spot = True
    types = ["n2-standard-8", "n2d-standard-8"]
    (machine,) = provisioner(endpoint, machine_types=types).create(1)
    assert gce.vms[machine.name].body["scheduling"]["provisioningModel"] == "STANDARD"
    assert len(gce.inserts) == 7  # 3 zones, 2 types with spot; then the first one without
    with pytest.raises(OutOfPlaces):
        provisioner(endpoint, spot="only").create(1)


def test_a_place_that_had_nothing_is_not_asked_by_the_next_machine(
    cloud: tuple[FakeGce, str],
) -> None:
    gce, endpoint = cloud
    gce.exhausted = {ZONES[0]}
    one = provisioner(endpoint)
    one.create(1)
    one.create(1)
    assert [zone for zone, _, _ in gce.inserts] == [ZONES[0], ZONES[1], ZONES[1]]


@pytest.mark.parametrize("fault", ["quota", "quota-http"])
def test_a_quota_is_no_lack_of_capacity(cloud: tuple[FakeGce, str], fault: str) -> None:
    gce, endpoint = cloud
    gce.faults["insert"] = [fault] * 10
    with pytest.raises(OutOfPlaces, match=r"the quota (CPUS|SSD) is used up, its limit is [18]\.0"):
        provisioner(endpoint, spot="never").create(1)
    assert len(gce.inserts) <= 1  # other zones of the region have the same quota
    assert gce.alive() == []


def test_a_mistake_of_ours_is_told_at_once(cloud: tuple[FakeGce, str]) -> None:
    gce, endpoint = cloud
    gce.faults["insert"] = ["bad"]
    with pytest.raises(ProvisioningError, match="Invalid value for field"):
        provisioner(endpoint).create(1)
    assert len(gce.requests) == 1


# --- faults ---


@pytest.mark.parametrize("faults", [["429"], ["500", "503"], ["reset"], ["429", "reset", "500"]])
def test_a_busy_service_is_asked_again_and_makes_one_machine(
    cloud: tuple[FakeGce, str], faults: list[str]
) -> None:
    gce, endpoint = cloud
    gce.faults["insert"] = list(faults)
    (machine,) = provisioner(endpoint).create(1)
    assert gce.alive() == [machine.name]
    assert len(gce.inserts) == 1  # the same request id: the same machine


def test_an_operation_that_never_ends_leaves_no_machine_behind(cloud: tuple[FakeGce, str]) -> None:
    gce, endpoint = cloud
    gce.faults["insert"] = ["never", "never-none"]
    (machine,) = provisioner(endpoint).create(1)
    assert gce.alive() == [machine.name]
    assert machine.address == ZONES[2]


def test_of_many_machines_those_that_can_be_had_are_made(cloud: tuple[FakeGce, str]) -> None:
    gce, endpoint = cloud
    gce.room = 3
    made = provisioner(endpoint).create(5)
    assert len(made) == 3
    assert gce.alive() == sorted(machine.name for machine in made)


# --- what is ours ---


def stranger(gce: FakeGce, name: str, **labels: str) -> None:
    body = {"name": name, "labels": labels, "machineType": "x", "scheduling": {}}
    gce._boot(ZONES[0], body, stillborn=True)


def test_all_pages_are_read_and_only_ours_are_seen(cloud: tuple[FakeGce, str]) -> None:
    gce, endpoint = cloud
    one = provisioner(endpoint)
    made = one.create(5)
    stranger(gce, "web")
    stranger(gce, "other", **{"burla-cluster": "prod", "burla-managed": "true"})
    stranger(gce, "half", **{"burla-cluster": "lab"})
    for ignores in (False, True):
        gce.ignores_filters = ignores
        assert sorted(m.name for m in one.observe()) == sorted(m.name for m in made)
    one.delete(one.observe())
    assert gce.alive() == ["half", "other", "web"]


def test_deleting_what_is_gone_is_no_error(cloud: tuple[FakeGce, str]) -> None:
    _, endpoint = cloud
    one = provisioner(endpoint)
    (machine,) = one.create(1)
    one.delete([machine])
    one.delete([machine, Machine("never-was", ZONES[0], "gce")])


def test_the_phase_of_a_machine_is_what_it_says(cloud: tuple[FakeGce, str]) -> None:
    gce, endpoint = cloud
    one = provisioner(endpoint)
    (made,) = one.create(1)
    vm = gce.vms[made.name]
    seen = []
    for said in ("", "installing", "ready", "failed no Python", "drained"):
        vm.guest = {"state": said} if said else {}
        (machine,) = one.observe()
        seen.append((machine.state, machine.why))
    vm.body["status"] = "TERMINATED"
    seen.append((one.observe()[0].state, ""))
    assert seen == [
        ("joining", ""),
        ("joining", "installing"),
        ("ready", ""),
        ("failed", "no Python"),
        ("ending", "drained"),
        ("ended", ""),
    ]


def test_a_label_is_what_the_service_takes() -> None:
    assert label("Ann.B@Example") == "ann-b-example"
    assert len(label("x" * 100)) == 63


# --- never an orphan ---

FAULTS = {
    "insert": [
        *("429", "500", "503", "reset", "quota", "quota-http", "capacity", "capacity-details"),
        *("capacity-http", "never", "never-none", "stillborn", "", "", ""),
    ],
    "delete": ["429", "500", "reset", "", ""],
    "list": ["429", "500", "reset", "", ""],
    "get": ["429", "500", "reset", ""],
}


def random_faults(gce: FakeGce, random: Random) -> None:
    for what, faults in FAULTS.items():
        gce.faults[what] = [random.choice(faults) for _ in range(random.randrange(12))]
    gce.exhausted = {zone for zone in ZONES if random.random() < 0.3}
    gce.no_spot = random.random() < 0.3


@pytest.mark.parametrize("seed", range(int(os.environ.get("BURLA_SEEDS", "40"))))
def test_after_any_faults_nothing_is_alive_when_it_is_down_or_when_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    # No machine starts here: what it would install need not fill each answer. Nor does time pass.
    monkeypatch.setattr("burla.provisioning.gce.provisioner.packed_wheel", lambda part_max: ["w"])
    monkeypatch.setattr("burla.provisioning.gce.provisioner.OPERATION_S", 5 * POLL_S)
    random = Random(seed)
    with fake_gce(tmp_path) as (gce, endpoint):
        stranger(gce, "web")
        for killed in (False, True):  # all of ours; or it ends in good order
            random_faults(gce, random)
            one = provisioner(endpoint)
            with suppress(ProvisioningError):
                one.create(random.randrange(1, 6))
            grown = make(gce, endpoint)
            grown.told.wishes = [LONG]
            for _ in range(2):
                grown.look()
            if killed:
                gce.pass_time(24 * 3600 + 60)
            else:
                Fleet(one, 0, 1.0, pause=lambda seconds: None).down(lambda name, phase: None)
            assert gce.alive() == ["web"]


def test_what_ended_or_is_late_is_an_orphan(cloud: tuple[FakeGce, str]) -> None:
    gce, endpoint = cloud
    one = provisioner(endpoint)
    made = one.create(3)
    gce.vms[made[0].name].body["status"] = "TERMINATED"
    gce.vms[made[1].name].body["labels"]["burla-expires"] = "1000"
    found = {machine.name for machine in orphans(one.observe(), 2000.0)}
    assert found == {made[0].name, made[1].name}


def test_the_watch_over_loopback_sees_what_would_leave(loopback_watch: list[str]) -> None:
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("compute.invalid", 443)
    assert loopback_watch == ["compute.invalid"]
    loopback_watch.clear()
