"""The head of a cluster on a machine with a real systemd: its daemons are units there."""

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from hosts import PYTHONS, Host, Hosts
from users import SCRIPT
from waiting import wait_until
from wanted import wheelhouse

from burla.provisioning.install import bootstrap

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]
SCHEDULER, NODE = "burla-scheduler-default.service", "burla-local-1-default.service"
EXPOSURE_MAX = 50  # of 100, as systemd-analyze counts it: 5.0


PYTHON = "/root/burla/bin/python"


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """A machine on which root has installed burla."""
    wheels = wheelhouse()
    with Hosts() as made:
        host = made.add(systemd=True)
        place = host.root("/root/wheels")
        place.mkdir()
        for path in wheels.paths.values():
            shutil.copy(path, place)
        host.call(f"{PYTHONS} -m venv /root/burla")
        host.call(f"{PYTHON} -m pip install -q --no-index --find-links /root/wheels burla")
        yield host


def burla(host: Host, words: str) -> str:
    """Run a command of burla as root of the machine."""
    return host.call(f"cd /root && {PYTHON} -m burla.cli {words}")


def up(host: Host) -> str:
    """Bring up a cluster of one node; return its address."""
    said: dict[str, Any] = json.loads(
        burla(host, f"up --local --bind tcp://{host.address}:0 --json")
    )
    assert (said["ready"], said["failed"]) == (1, 0), said
    return str(said["scheduler"])


def use(host: Host, address: str, script: str = SCRIPT) -> str:
    """Return what a script prints that uses the cluster."""
    return host.call(f"cd /tmp && BURLA_CLUSTER='{address}' {PYTHON} -c \"{script}\"")


def main_pid(host: Host, unit: str) -> int:
    """Return the process of a unit, as the machine numbers it; 0: none."""
    return int(host.call(f"systemctl show --property MainPID --value {unit}"))


def test_killed_or_after_a_reboot_it_serves_again_without_anybody(host: Host) -> None:
    address = up(host)
    assert use(host, address) == "['local-1', 'local-1']\n"
    for unit in (SCHEDULER, NODE):
        first = main_pid(host, unit)
        host.call(f"kill -9 {first}")
        wait_until(lambda u=unit, f=first: main_pid(host, u) not in (0, f), "it is begun again")  # type: ignore[misc]
        assert use(host, address) == "['local-1', 'local-1']\n"
    host.call(f"systemctl stop {SCHEDULER} {NODE} && systemctl start multi-user.target")
    assert use(host, address) == "['local-1', 'local-1']\n"
    assert json.loads(burla(host, "status --json"))["ready"] == 1
    burla(host, "up")  # changes nothing
    burla(host, "down")
    assert host.call("systemctl list-units --all --plain --no-legend 'burla*'") == ""
    assert host.files("/etc/systemd/system") == []
    assert host.processes() == []
    assert not host.root("/root/.local/state/burla/default").exists()


def test_a_scheduler_that_is_stuck_is_begun_again(host: Host) -> None:
    address = up(host)
    first = main_pid(host, SCHEDULER)
    host.call(f"systemctl show --property WatchdogUSec --value {SCHEDULER} | grep -q '^20s'")
    host.call(f"kill -STOP {first}")
    wait_until(lambda: main_pid(host, SCHEDULER) not in (0, first), "it is begun again", 60)
    assert use(host, address) == "['local-1', 'local-1']\n"
    burla(host, "down")


def test_a_scheduler_that_cannot_start_leaves_no_unit(host: Host) -> None:
    host.call(
        f"cd /root && ! {PYTHON} -m burla.cli up --local --bind tcp://203.0.113.9:7270"
        " 2> said && { grep 'this machine has no such address' said || { cat said >&2; false; }; }"
    )
    assert host.call("systemctl list-units --plain --no-legend 'burla*'") == ""
    burla(host, "down")
    assert host.files("/etc/systemd/system") == []


def test_units_are_exposed_as_little_as_can_be(host: Host) -> None:
    for program in ("node", "scheduler"):
        name = f"burla-{program}-x.service"
        unit = f"sh {bootstrap.SCRIPT} unit --program {program} --cluster x --directory /root/x"
        host.call(f"{unit} > /run/{name}")
        analyze = f"systemd-analyze security --offline=true --threshold={EXPOSURE_MAX}"
        host.call(f"{analyze} --no-pager /run/{name}")
