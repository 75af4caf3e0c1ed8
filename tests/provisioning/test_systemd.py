"""Nodes on machines with a real systemd: a unit is made, started, kept alive and taken away."""

import json
from collections.abc import Iterator
from contextlib import closing

import pytest
from hosts import NETWORK, Host, Hosts
from labs import at_home, lab
from marked import marked
from users import User
from waiting import wait_until
from wanted import want, wheelhouse

from burla.provisioning.core.machines import StepFailed
from burla.provisioning.install import bootstrap
from burla.provisioning.ssh.transport import SshSettings, connect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
UNIT = "burla-node-lab.service"
WITH_ADA = """\
cp /etc/passwd /run/passwd
echo 'ada:x:4321:4321::/home/ada:/bin/sh' >> /run/passwd
mount --bind /run/passwd /etc/passwd
mount -t tmpfs -o mode=755 none /home
mkdir -p /home/ada/.ssh
cp /root/.ssh/authorized_keys /home/ada/.ssh/
chown -R 4321:4321 /home/ada
"""


@pytest.fixture
def hosts(user: User) -> Iterator[Hosts]:
    wheelhouse()
    with Hosts() as made:
        yield made


def main_pid(host: Host) -> int:
    """Return the process of the unit, as the machine numbers it; 0: none."""
    return int(host.call(f"systemctl show --property MainPID --value {UNIT}"))


def of_systemd(host: Host) -> tuple[list[str], str, str]:
    """Return what systemd knows besides what every such machine has."""
    loaded = host.call("systemctl list-units --all --plain --no-legend 'burla*'")
    failed = host.call("systemctl list-units --failed --plain --no-legend")
    return host.files("/etc/systemd/system"), loaded, failed


def nodes(user: User) -> list[dict[str, object]]:
    """Return what the scheduler says of its nodes."""
    said: list[dict[str, object]] = json.loads(user.burla("nodes", "list", "--json").stdout)
    return said


def test_a_unit_is_started_kept_alive_and_taken_away(user: User, hosts: Hosts) -> None:
    host = hosts.add(systemd=True)
    files, units = host.files(), of_systemd(host)
    assert units == ([], "", "")
    at_home(user, hosts)
    file = lab(user, hosts, f"tcp://{NETWORK}.1:0")
    with marked() as mark:
        said = user.said("up", str(file))
        assert (said["ready"], said["failed"]) == (1, 0), said
        assert host.call(f"systemctl is-active {UNIT}; systemctl is-enabled {UNIT}").split() == [
            "active",
            "enabled",
        ]
        assert host.call(f"cat /proc/{main_pid(host)}/cgroup").endswith(f"/system.slice/{UNIT}\n")
        assert host.address in user.use(said["scheduler"])
        assert [node["isolation"] for node in nodes(user)] == ["uid"]

        first = main_pid(host)
        (again,) = user.said("up", str(file))["nodes"]
        assert list(again["phases"]) == ["probing"]
        assert main_pid(host) == first

        host.call(f"kill -9 {first}")
        wait_until(lambda: main_pid(host) not in (0, first), "systemd starts it again")
        assert host.address in user.use(said["scheduler"])

        host.call(f"systemctl stop {UNIT} && systemctl start multi-user.target")  # a reboot
        wait_until(lambda: main_pid(host) != 0, "it starts with the machine")
        assert host.address in user.use(said["scheduler"])

        user.burla("nodes", "drain", host.address, "--cluster", "lab")
        assert main_pid(host) == 0
        assert "stopped" in user.burla("status", "--cluster", "lab", code=1).stdout
        assert user.said("up", str(file))["ready"] == 1
        assert host.address in user.use(said["scheduler"])

        assert user.said("down", "--cluster", "lab")["failed"] == 0
        assert mark.processes() == []
    assert host.processes() == []
    assert host.files() == files
    assert of_systemd(host) == units


def test_a_nodelet_that_can_not_join_is_told_from_the_journal_and_leaves_no_unit(
    hosts: Hosts,
) -> None:
    host, wheels = hosts.add(systemd=True), wheelhouse()
    wanted = want(wheels, "ipc:///tmp/nobody-listens-here", cluster="lab", join_s=15)
    with closing(connect(SshSettings(hosts.ssh), f"root@{host.address}")) as transport:
        with pytest.raises(
            StepFailed, match=r"joining: (?s:.*)INFO isolation: uid\n(?s:.*)within 15 s"
        ):
            bootstrap.bring_up(transport, wanted, wheels.paths, lambda name: None, print)
        assert main_pid(host) != 0
        # An administrator wants to be rid of it; what runs may write there meanwhile.
        host.call("rm -r /root/.burla || rm -r /root/.burla")
        bootstrap.take_down(transport, wanted, print)
    assert of_systemd(host) == ([], "", "")
    assert host.processes() == []
    assert not [path for path in host.files() if ".burla" in path]


def test_somebody_who_is_not_root_gets_a_process_and_no_unit(user: User, hosts: Hosts) -> None:
    host = hosts.add(systemd=True, more=WITH_ADA)
    before = host.files("/home/ada")
    at_home(user, hosts)
    file = lab(user, hosts, f"tcp://{NETWORK}.1:0", f"ada@{host.address}")
    with marked():
        said = user.said("up", str(file))
        assert (said["ready"], said["failed"]) == (1, 0), said
        assert {process.username() for process in host.processes()} == {"4321"}
        assert host.address in user.use(said["scheduler"])
        assert of_systemd(host) == ([], "", "")
        (again,) = user.said("up", str(file))["nodes"]
        assert list(again["phases"]) == ["probing"]
        assert user.said("down", "--cluster", "lab")["failed"] == 0
    assert host.processes() == []
    assert host.files("/home/ada") == before
