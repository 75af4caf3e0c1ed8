"""The autoscaler between a scripted scheduler and machines of a stand-in for Compute Engine."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fake_gce import FakeGce, fake_gce

from burla.provisioning.autoscaler import BACKOFF_S, Autoscaler
from burla.provisioning.config import parse
from burla.provisioning.gce import Gce
from burla.provisioning.plan import Limits
from burla.provisioning.providers import Providers
from burla.wire import messages as m
from burla.wire.asking import NoAnswer

LONG = m.Wish("3.11", 1, None, 10_000, None, 8, 60.0, 60.0, fits=True)
BOOT_S = 300.0


@dataclass
class Told:
    """What the scheduler would say, and what it was told."""

    wishes: list[m.Wish] = field(default_factory=list)
    idle_s: dict[str, float] = field(default_factory=dict)  # name of a node -> its idle time
    leased_meanwhile: set[str] = field(default_factory=set)  # between the two questions of a look
    asked: list[m.AskDemand] = field(default_factory=list)
    is_silent: bool = False

    def ask(self, said: m.AskDemand) -> m.Demand:
        if self.is_silent:
            raise NoAnswer("no answer within 5 s")
        self.asked.append(said)
        return m.Demand(
            tuple(self._node(name, said.retire) for name in self.idle_s), tuple(self.wishes)
        )

    def _node(self, name: str, retire: tuple[str, ...]) -> m.NodeStatus:
        state, idle_s = m.NodeState.FREE, self.idle_s[name]
        if name in retire:
            taken = name in self.leased_meanwhile
            state, idle_s = (m.NodeState.LEASED, 0.0) if taken else (m.NodeState.LEAVING, idle_s)
        return m.NodeStatus(name, "uid", 8, 32 << 30, "3.11", state, "", idle_s)


@dataclass
class Site:
    """All of it, with a clock."""

    gce: FakeGce
    told: Told
    autoscaler: Autoscaler
    clock: list[float]

    def look(self) -> int:
        count = self.autoscaler.look()
        if count:
            self.autoscaler.make(count)
        return count

    def join(self, *names: str) -> None:
        """Let machines say that they are ready, and the scheduler know their nodes."""
        for name in names or self.gce.alive():
            self.gce.vms[name].guest["state"] = "ready"
            self.told.idle_s.setdefault(name, 0.0)

    def doing(self) -> str:
        """Return what callers are told after a look."""
        self.look()
        return self.told.asked[-1].doing


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with fake_gce(tmp_path) as (gce, endpoint):
        yield make(gce, endpoint)


def make(gce: FakeGce, endpoint: str, limits: Limits | None = None, **grow: Any) -> Site:
    where = {"project": "p", "zones": ["us-central1-a", "us-central1-b"], "endpoint": endpoint}
    config = parse({"name": "lab", "gce": where, "grow": {"max_nodes": 6} | grow})
    provisioner = Gce(config, "tcp://10.0.0.1:7270", lambda name: None, pause=lambda s: None)
    told, clock = Told(), [0.0]
    limits = Limits(config.grow.max_nodes, config.grow.max_cost_per_h) if limits is None else limits
    one = Providers({"gce": provisioner}, config.grows_by)
    autoscaler = Autoscaler(one, told.ask, limits, "3.11", BOOT_S, clock_s=lambda: clock[0])
    return Site(gce, told, autoscaler, clock)


def test_machines_are_made_for_a_job_that_waits_long_and_go_when_nobody_uses_them(
    site: Site,
) -> None:
    site.told.wishes = [LONG]
    assert site.look() == 6
    assert len(site.gce.alive()) == 6
    assert all(vm.body["labels"]["burla-grown"] == "true" for vm in site.gce.vms.values())
    assert site.look() == 0  # they are on their way
    assert site.told.asked[-1].doing == "machines on their way: 6"
    assert (site.told.asked[-1].cpus, site.told.asked[-1].ram) == (8, 32 << 30)
    site.told.wishes = []
    site.join()
    busy, *idle = site.gce.alive()
    site.told.idle_s |= dict.fromkeys(idle, 59.0)
    site.look()
    assert len(site.gce.alive()) == 6
    site.told.idle_s |= dict.fromkeys(idle, 60.0)
    site.look()
    assert site.gce.alive() == [busy]


def test_a_machine_that_a_job_gets_at_the_last_moment_stays(site: Site) -> None:
    site.told.wishes = [LONG]
    site.look()
    site.join()
    site.told.wishes = []
    site.told.idle_s = dict.fromkeys(site.gce.alive(), 60.0)
    taken = site.gce.alive()[0]
    site.told.leased_meanwhile = {taken}
    site.look()
    assert site.gce.alive() == [taken]


def test_what_stands_goes_after_ten_minutes_but_for_what_is_kept(tmp_path: Path) -> None:
    with fake_gce(tmp_path) as (gce, endpoint):
        site = make(gce, endpoint, Limits(6, None, keep=1))
        site.autoscaler.provisioner.create(1, grown=True)
        provisioner = site.autoscaler.provisioner
        (standing,) = [x.name for x in provisioner.observe()]
        gce.vms[standing].body["labels"]["burla-grown"] = "false"
        provisioner.create(2, grown=True)
        site.join()
        site.told.idle_s = dict.fromkeys(gce.alive(), 599.0)
        site.look()
        assert gce.alive() == [standing]
        site.told.idle_s = {standing: 1e6}
        site.look()
        assert gce.alive() == [standing]


def test_a_machine_that_the_scheduler_does_not_know_is_idle(site: Site) -> None:
    site.told.wishes = [LONG]
    site.look()
    site.join()
    site.told.wishes = []
    lost = site.gce.alive()[0]
    del site.told.idle_s[lost]
    site.look()
    assert lost in site.gce.alive()
    site.clock[0] += 60.0
    site.look()
    assert lost not in site.gce.alive()
    assert len(site.gce.alive()) == 5


def test_one_that_never_joins_is_deleted_and_the_next_ones_wait_a_moment(site: Site) -> None:
    site.told.wishes = [LONG]
    site.look()
    others = site.gce.alive()[1:]
    site.join(*others)
    site.look()
    site.clock[0] += BOOT_S
    site.look()
    assert site.gce.alive() == others
    assert "has not joined within 300 s" in site.doing()
    assert site.gce.alive() == others
    site.clock[0] += BACKOFF_S
    assert site.look() == 1


def test_what_cannot_be_had_is_told_and_asked_for_again_later(site: Site) -> None:
    site.gce.quota = "Quota 'CPUS' exceeded.  Limit: 8.0 in region us-central1."
    site.told.wishes = [LONG]
    site.look()
    assert "the quota CPUS is used up, its limit is 8.0" in site.doing()
    asked = len(site.gce.inserts)
    site.look()
    assert len(site.gce.inserts) == asked
    site.gce.quota = ""
    site.clock[0] += 3600.0
    site.autoscaler.provisioner.by_name["gce"]._places._until_s.clear()  # type: ignore[attr-defined]  # its clock is the machine's
    assert site.look() == 6
    assert len(site.gce.alive()) == 6


def test_the_limits_hold_and_are_told(tmp_path: Path) -> None:
    with fake_gce(tmp_path) as (gce, endpoint):
        site = make(gce, endpoint, max_cost_per_h=1.3, prices={"n2-standard-8": 0.4})
        site.told.wishes = [LONG]
        assert site.look() == 3
        site.join()
        assert site.doing() == "grow.max_cost_per_h is 1.3"
        assert len(gce.alive()) == 3
        gce.end(gce.alive()[0])
        assert site.look() == 1


def test_what_machines_cost_is_known_and_the_next_one_is_taken_to_be_a_dear_one(
    tmp_path: Path,
) -> None:
    with fake_gce(tmp_path) as (gce, endpoint):
        prices = {"n2-standard-8": 0.4, "n2-standard-8 spot": 0.1}
        one = make(gce, endpoint, prices=prices).autoscaler.provisioner
        one.create(2)
        gce.vms[gce.alive()[0]].body["scheduling"]["provisioningModel"] = "STANDARD"
        assert [machine.cost_per_h for machine in one.observe()] == [0.4, 0.1]
        assert one.price_per_h() == 0.4
        assert make(gce, endpoint, prices={}).autoscaler.provisioner.price_per_h() is None


def test_without_max_nodes_nothing_is_made_and_callers_are_told(tmp_path: Path) -> None:
    with fake_gce(tmp_path) as (gce, endpoint):
        site = make(gce, endpoint, max_nodes=0)
        site.told.wishes = [LONG]
        assert site.doing() == "no machines are made for jobs here: grow.max_nodes is 0"
        assert site.told.asked[-1].cpus == 0
        assert gce.alive() == []


def test_what_failed_ended_or_is_past_its_time_is_deleted(site: Site) -> None:
    site.told.wishes = [LONG]
    site.look()
    site.join()
    site.told.wishes = []
    failed, ended, expired, *well = site.gce.alive()
    site.gce.vms[failed].guest["state"] = "failed no Python"
    site.gce.vms[ended].body["status"] = "TERMINATED"
    site.gce.vms[expired].body["labels"]["burla-expires"] = "1000"
    site.look()
    assert site.gce.alive() == well


def test_a_scheduler_that_is_silent_is_no_reason_to_delete(site: Site) -> None:
    site.told.wishes = [LONG]
    site.look()
    site.join()
    site.told.is_silent = True
    site.clock[0] += 1e6
    assert site.look() == 0
    assert len(site.gce.alive()) == 6


def test_nothing_without_our_labels_is_touched(site: Site) -> None:
    site.gce._boot("us-central1-a", {"name": "web", "labels": {"app": "web"}}, stillborn=True)
    site.gce.ignores_filters = True
    site.told.wishes = [LONG]
    site.look()
    site.join()
    site.told.wishes = []
    site.told.idle_s = dict.fromkeys(site.gce.alive(), 1e6)
    site.look()
    assert site.gce.alive() == ["web"]
