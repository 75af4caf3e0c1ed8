"""The autoscaler between a scripted scheduler and machines of a stand-in for Compute Engine."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from autoscaled import BOOT_S, FREE, LONG, Site, make
from fake_gce import fake_gce

from burla.protocol import messages as m
from burla.provisioning.autoscaler import BACKOFF_S
from burla.provisioning.autoscaler_daemon import Stopping, serve
from burla.provisioning.config import parse
from burla.provisioning.core.machines import Machine
from burla.provisioning.core.plan import Limits
from burla.provisioning.gce import provisioner as provisioning
from burla.provisioning.gce.provisioner import Gce
from burla.provisioning.install.pins import Requirements

pytestmark = pytest.mark.usefixtures("loopback_only")


@pytest.fixture(autouse=True)
def pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what nodes install without asking an index."""
    found = Requirements("burla --hash=sha256:0\n")
    monkeypatch.setattr(provisioning, "pinned_for_node", lambda python, index: found)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with fake_gce(tmp_path) as (gce, endpoint):
        yield make(gce, endpoint)


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
    assert sorted(site.told.gone) == sorted(idle)


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
    assert "did not join within 300 s" in site.doing()
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
    site.autoscaler.provisioner._places._until_s.clear()  # type: ignore[attr-defined]  # its clock is the machine's
    assert site.look() == 6
    assert len(site.gce.alive()) == 6


def test_the_limits_hold_and_are_told(tmp_path: Path) -> None:
    with fake_gce(tmp_path) as (gce, endpoint):
        site = make(gce, endpoint, max_cost_per_h=1.3, prices={"n2-standard-8": 0.4})
        site.told.wishes = [LONG]
        assert site.look() == 3
        site.join()
        assert site.doing() == "the cluster is at its limit (grow.max_cost_per_h = 1.3)"
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
        assert site.doing() == ""
        assert site.told.asked[-1].cpus == 0
        assert gce.alive() == []


def test_what_failed_ended_or_is_past_its_time_is_deleted(site: Site) -> None:
    site.told.wishes = [LONG]
    site.look()
    site.told.wishes = []
    failed, ended, expired, *well = site.gce.alive()
    site.join(ended, expired, *well)
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
    for vm in site.gce.vms.values():
        vm.guest["state"] = "joining"  # it says so while its scheduler is silent
    site.look()
    site.clock[0] += 1e6
    site.look()
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


def test_a_machine_whose_node_is_there_has_joined_whatever_it_says(site: Site) -> None:
    site.told.wishes = [LONG]
    site.look()
    site.told.wishes = []
    site.told.idle_s = dict.fromkeys(site.gce.alive(), 0.0)
    site.look()
    site.clock[0] += 1e6
    site.look()
    assert len(site.gce.alive()) == 6


@pytest.mark.parametrize("word", ["drained", "draining", "failed for no reason", "joining"])
def test_a_job_that_speaks_for_its_machine_neither_hides_nor_ends_it(site: Site, word: str) -> None:
    """Any process of a machine may write what the machine says of itself."""
    site.told.wishes = [LONG]
    site.look()
    site.join()
    there = site.gce.alive()
    site.look()
    for name in there:
        site.gce.vms[name].guest["state"] = word
    site.clock[0] += 1e6
    assert site.look() == 0
    site.told.idle_s = {}  # their nodes are away for a moment: they had joined all the same
    assert site.look() == 0
    assert site.gce.alive() == there
    site.told.is_silent = True
    site.look()
    assert site.gce.alive() == there
    site.told.is_silent = False
    site.told.wishes = []
    site.told.idle_s = dict.fromkeys(there, 1e6)
    site.look()
    assert site.gce.alive() == []


def test_what_does_not_say_that_it_has_joined_counts_while_it_runs(site: Site) -> None:
    site.told.wishes = [LONG]
    site.look()
    for name in site.gce.alive():
        site.gce.vms[name].guest["state"] = "drained"  # before it ever was a node
    assert site.look() == 0
    assert len(site.gce.alive()) == 6


def test_of_two_nodes_of_one_name_the_busy_one_counts(site: Site) -> None:
    site.told.wishes = [LONG]
    site.look()
    site.join()
    site.told.wishes = []
    name = site.gce.alive()[0]
    nodes = (site.told._node(name, ()), m.NodeStatus(name, "uid", 8, 1, "3.11", FREE, "", 1e6))
    asked = site.told.ask
    site.autoscaler.ask = lambda said: m.Demand((*asked(said).nodes, *nodes), ())
    site.look()
    assert name in site.gce.alive()


def test_one_that_cannot_be_deleted_does_not_keep_the_others(site: Site) -> None:
    site.told.wishes = [LONG]
    site.look()
    site.join()
    site.told.wishes = []
    site.told.idle_s = dict.fromkeys(site.gce.alive(), 60.0)
    site.gce.faults["delete"] = ["bad"]
    site.look()
    (protected,) = site.gce.alive()
    assert protected in site.told.asked[-1].retire
    asked = len(site.told.asked)
    site.gce.faults["delete"] = ["bad"]
    site.look()  # no job may get it: it is to be deleted
    assert all(protected in said.retire for said in site.told.asked[asked:])
    site.look()
    assert site.gce.alive() == []


def test_a_machine_type_that_does_not_exist_is_told_and_idle_machines_go_all_the_same(
    tmp_path: Path,
) -> None:
    with fake_gce(tmp_path) as (gce, endpoint):
        site = make(gce, endpoint)
        site.told.wishes = [LONG]
        site.look()
        site.join()
        site.told.idle_s = dict.fromkeys(gce.alive(), 60.0)
        gce.machine_types = {"us-central1-b": {"n2-standard-4"}}
        site.autoscaler.provisioner._shape = None  # type: ignore[attr-defined]  # as after a start
        assert site.doing() == "cannot look up the machine type right now"
        assert gce.alive() == []
        gce.machine_types = {"us-central1-b": {"n2-standard-8"}}  # in the second zone only
        assert site.look() == 6


def test_each_that_never_joins_makes_the_next_pause_longer(site: Site) -> None:
    site.told.wishes = [m.Wish("3.11", 1, None, 1, None, 0, 0.0, 0.0, fits=False)]
    pauses = []
    for _ in range(5):
        assert site.look() == 1
        site.look()
        site.clock[0] += BOOT_S
        site.look()
        assert site.gce.alive() == []
        ended_s = site.clock[0]
        while not site.autoscaler.look():
            site.clock[0] += 10.0
        pauses.append(site.clock[0] - ended_s)
    assert pauses == [60.0, 120.0, 240.0, 480.0, 600.0]
    site.look()
    site.look()
    site.join()
    site.look()  # one has joined
    assert site.autoscaler._backoff_s == BACKOFF_S


def test_what_cannot_be_seen_is_not_guessed(site: Site) -> None:
    site.told.wishes = [LONG]
    site.gce.faults["list"] = ["bad"]
    assert site.look() == 0
    assert site.told.asked[-1].doing == "cannot list machines right now"
    assert site.look() == 6


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110  # the machines are in threads
            await asyncio.sleep(0.01)


def test_the_daemon_makes_no_more_than_it_may_and_outlives_what_goes_wrong(site: Site) -> None:
    site.told.wishes = [LONG]
    asked, looks = site.told.ask, []

    def ask(said: m.AskDemand) -> m.Demand:
        looks.append(said)
        if len(looks) % 3 == 0:
            raise ZeroDivisionError
        return asked(said)

    site.autoscaler.ask = ask

    async def watch() -> None:
        serving = asyncio.create_task(serve(site.autoscaler, 0.0))
        await until(lambda: len(site.gce.alive()) == 6)
        seen = len(looks)
        await until(lambda: len(looks) > seen + 20)
        assert len(site.gce.alive()) == 6
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving

    asyncio.run(watch())


def test_told_to_end_it_begins_no_machine_more(tmp_path: Path) -> None:
    with fake_gce(tmp_path) as (gce, endpoint):
        made = 0

        def pause(seconds: float) -> None:
            nonlocal made
            made += 1
            if made > 3:
                raise Stopping("about to end")

        where = {"project": "p", "zones": ["us-central1-a"], "endpoint": endpoint}
        one = Gce(parse({"name": "lab", "gce": where}), "", lambda name: None, pause=pause)
        assert len(one.create(20)) == 3
        assert len(gce.alive()) == 3


def like(region: str = "", disk_gb: int = 0) -> m.Wish:
    """Return the wish of a job that nothing fits, for a machine as it wants it."""
    machines = m.Machines(region, disk_gb)
    return m.Wish("3.11", 1, None, 1, None, 0, 0.0, 0.0, fits=False, machines=machines)


def made(site: Site) -> list[tuple[str, str]]:
    """Return the zone and the disk of each machine."""
    bodies = [vm.body for vm in site.gce.vms.values()]
    disks = [body["disks"][0]["initializeParams"]["diskSizeGb"] for body in bodies]
    zones = [body["zone"].rpartition("/")[2] for body in bodies]
    return sorted(zip(zones, disks, strict=True))


def test_machines_are_made_where_and_as_jobs_want_them(site: Site) -> None:
    site.told.wishes = [like("us-central1-b"), like("us-central1", 50), like(disk_gb=3), like()]
    assert site.look() == 4
    zones = [("us-central1-a", "20"), ("us-central1-a", "20"), ("us-central1-a", "50")]
    assert made(site) == [*zones, ("us-central1-b", "20")]
    assert site.told.asked[-1].heeds == ("disk_gb", "region")
    assert site.look() == 0  # they are on their way
    site.told.wishes = [like("us-central1-b"), like("us-central1-b")]
    assert site.look() == 1  # the others were not made for these
    site.join()
    assert site.look() == 1  # one machine at least for who waits: at the limit


def test_what_cannot_be_had_is_told_and_keeps_nobody_else_from_growing(site: Site) -> None:
    site.told.wishes = [like("europe-west4"), like(disk_gb=2000), like()]
    assert site.look() == 1
    doing = site.told.asked[-1].doing
    assert doing == (
        "machines on their way: 1; a job asks for another region than those of gce.zones:"
        " us-central1-a, us-central1-b, a job asks for bigger disks than of 1000 GB"
        " (gce.disk_gb_max)"
    )


def test_a_place_without_capacity_pauses_those_who_want_it_and_no_others(site: Site) -> None:
    site.gce.faults["insert"] = ["capacity", "capacity"]  # with spot, and without
    site.told.wishes = [like("us-central1-b")]
    site.look()
    assert site.gce.alive() == []
    assert site.doing().startswith("no machine right now where some jobs want them, trying again")
    site.told.wishes.append(like())
    assert site.look() == 1
    site.autoscaler.provisioner._places._until_s.clear()  # type: ignore[attr-defined]  # its clock is the machine's
    site.clock[0] += BACKOFF_S
    assert site.look() == 1
    assert [zone for zone, _ in made(site)] == ["us-central1-a", "us-central1-b"]


class Plain:
    """A provider that takes no wishes."""

    def __init__(self, provisioner: Gce) -> None:
        self._provisioner = provisioner

    def __getattr__(self, name: str) -> Any:
        if name in ("heeds", "why_not"):
            raise AttributeError(name)
        return getattr(self._provisioner, name)

    def create(self, count: int, *, grown: bool = False) -> list[Machine]:
        return self._provisioner.create(count, grown=grown)


def test_a_provider_that_heeds_no_wishes_makes_machines_as_ever(site: Site) -> None:
    site.autoscaler.provisioner = Plain(site.autoscaler.provisioner)  # type: ignore[arg-type]
    site.told.wishes = [like("europe-west4", 2000), like()]
    assert site.look() == 2
    assert site.told.asked[-1].heeds == ()
    assert [disk for _, disk in made(site)] == ["20", "20"]
