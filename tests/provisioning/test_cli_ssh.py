"""`burla up` on SSH hosts, from nothing to a map, and back to nothing."""

import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest
from hosts import NETWORK, Host, Hosts
from labs import at_home, lab
from marked import marked
from users import User
from waiting import wait_until
from wanted import want, wheelhouse

from burla.provisioning.core.machines import StepFailed
from burla.provisioning.members import Installed
from burla.provisioning.ssh.transport import SshSettings, connect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ALL = """
from burla import remote_parallel_map as m
def f(x):
    import os, time
    time.sleep(0.5)
    return os.environ["BURLA_NODE"]
print(*m(f, range(12)))
"""


@pytest.fixture
def hosts(user: User) -> Iterator[Hosts]:
    wheelhouse()
    with Hosts() as made:
        yield made


def test_bare_machines_become_a_cluster_and_are_as_before_when_it_is_down(
    user: User, hosts: Hosts
) -> None:
    two = [hosts.add() for _ in range(2)]
    before = [host.files() for host in two]
    at_home(user, hosts)
    file = lab(user, hosts)
    names = [host.address for host in two]
    with marked() as mark:
        began_s = time.monotonic()
        said = user.said("up", str(file))
        up_s = time.monotonic() - began_s
        assert (said["ready"], said["failed"]) == (2, 0)
        used = user.use(said["scheduler"])
        first_s = time.monotonic() - began_s
        assert any(name in used for name in names)
        print(f"\nup {up_s:.1f} s, first result {first_s:.1f} s")
        for node in said["nodes"]:
            print(node["name"], {phase: round(s, 2) for phase, s in node["phases"].items()})

        again = user.said("up", str(file))
        assert all(list(node["phases"]) == ["probing"] for node in again["nodes"])

        assert user.said("status", "--cluster", "lab")["ready"] == 2
        user.burla("nodes", "drain", names[0], "--cluster", "lab")
        phases = [n["phase"] for n in user.said("status", "--cluster", "lab", code=1)["nodes"]]
        assert phases == ["stopped", "ready"]
        user.burla("nodes", "remove", names[0], "--cluster", "lab")
        assert two[0].files() == before[0]
        user.burla("nodes", "add", f"root@{names[0]}", "--cluster", "lab")
        assert user.said("status", "--cluster", "lab")["ready"] == 2

        assert user.said("down", "--cluster", "lab")["failed"] == 0
        assert mark.processes() == []
    assert [host.processes() for host in two] == [[]] * 2
    assert [host.files() for host in two] == before
    assert [f for f in user.files() if f != "lab.toml" and "burla/" in f] == []


def test_one_that_fails_is_told_and_the_others_are_ready(user: User, hosts: Hosts) -> None:
    good, unknown = hosts.add(), hosts.add(known=False)
    at_home(user, hosts)
    file = lab(user, hosts)
    with marked():
        done = user.burla("up", str(file), code=1)
        assert "1 ready, 1 failed" in done.stderr
        assert f"the key of root@{unknown.address} is not known" in done.stderr
        assert "run the same command again" in done.stderr
        with (user.home / ".ssh/known_hosts").open("a") as known:
            known.write(unknown.known_line())
        assert "2 ready, 0 failed" in user.burla("up", str(file)).stderr
        good.first().suspend()  # it does not answer
        try:
            said = user.burla("status", "--cluster", "lab", code=1).stdout
        finally:
            good.first().resume()
        assert "unknown" in said
        user.burla("down", "--cluster", "lab")


def test_over_tcp_machines_join_by_tokens_and_a_map_runs_over_them(
    user: User, hosts: Hosts
) -> None:
    two = [hosts.add() for _ in range(2)]
    before = [host.files() for host in two]
    at_home(user, hosts)
    file = lab(user, hosts, f"tcp://{NETWORK}.1:0")
    with marked() as mark:
        said = user.said("up", str(file))
        assert (said["ready"], said["failed"]) == (2, 0)
        address = said["scheduler"]
        assert address.startswith(f"burla://{NETWORK}.1:")
        user.environment["BURLA_CLUSTER"] = address
        assert set(user.python(ALL).split()) == {host.address for host in two}
        folder = user.home / ".local/state/burla/lab/keys"
        assert keys(user, folder) == ["admin", "node", "node"]
        assert [host.files().count(".burla/lab/token") for host in two] == [0] * 2

        again = user.said("up", str(file))  # nothing to do, so no token is made
        assert all(list(node["phases"]) == ["probing"] for node in again["nodes"])

        pid = int((folder.parent / "scheduler.pid").read_text().split()[0])
        psutil.Process(pid).kill()  # begun again it has the same keys, and the port of before
        assert user.said("up", str(file))["scheduler"] == address
        assert set(user.python(ALL).split()) == {host.address for host in two}

        two[0].call("kill -TERM $(cut -d' ' -f1 /root/.burla/lab/pid)")
        wait_until(lambda: not two[0].processes(), "no node there")
        assert user.said("up", str(file))["ready"] == 2  # with a new token for the key it has
        assert keys(user, folder) == ["admin", "node", "node"]

        used = user.burla("auth", "token", "--dir", str(folder)).stdout.strip()
        assert "already used" in refused(two[1], address, "ab" * 32)
        joined = refused(two[1], address, used, "timeout -s TERM 10")
        assert "cannot join" not in joined
        assert "already used" in refused(two[1], address, used)

        assert user.said("down", "--cluster", "lab")["failed"] == 0
        assert mark.processes() == []
    assert [host.processes() for host in two] == [[]] * 2
    assert [host.files() for host in two] == before
    left = [".config/burla/user.key", "lab.toml"]
    assert [f for f in user.files() if f == "lab.toml" or "burla/" in f] == left


def test_a_token_that_was_used_is_told(user: User, hosts: Hosts) -> None:
    host, wheels = hosts.add(), wheelhouse()
    at_home(user, hosts)
    settings = SshSettings(hosts.ssh)
    with marked():
        bind = f"tcp://{NETWORK}.1:0"
        address = user.said("up", "--local", "--bind", bind)["scheduler"]
        wanted = want(wheels, address, needs_token=True, join_s=5)
        folder = user.home / ".local/state/burla/default/keys"
        made = user.burla("auth", "token", "--dir", str(folder)).stdout.strip()
        user.burla("auth", "revoke", "join token", "--dir", str(folder))
        node = Installed(
            "n1",
            lambda: connect(settings, f"root@{host.address}"),
            wanted,
            wheels,
            lambda name: made.encode(),
            nullcontext(),
        )
        with pytest.raises(StepFailed, match="joining: ") as caught:
            node.up(lambda phase: None)
        print(caught.value)
        assert "join token" in str(caught.value)
        assert "already used" in str(caught.value)
        node.remove(lambda phase: None)
        user.said("down")


def keys(user: User, folder: Path) -> list[str]:
    """Return the roles of all keys that are valid; join tokens that were used are not."""
    rows = json.loads(user.burla("auth", "list", "--dir", str(folder), "--json").stdout)
    return sorted(row["role"] for row in rows if row["revoked"] is None)


def refused(host: Host, address: str, token: str, before: str = "") -> str:
    """Return what a nodelet says at a machine that is to join by a token and forgets its key."""
    nodelet = "/root/.burla/lab/venv/bin/burla-nodelet --join-token-file - --key-file none"
    options = f"--scheduler '{address}' --name more --isolation process"
    return host.call(f"echo {token} | {before} {nodelet} {options} 2>&1 || :")
