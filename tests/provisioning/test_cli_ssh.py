"""`burla up` on three SSH hosts, from nothing to a map, and back to nothing."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Hosts
from marked import marked
from users import User
from wanted import wheelhouse

from burla.provisioning.wheels import WHEEL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
WARM_S = 10.0  # a second run on three finished machines: promised


@pytest.fixture
def hosts(user: User) -> Iterator[Hosts]:
    wheelhouse()
    with Hosts() as made:
        yield made


def at_home(user: User, hosts: Hosts) -> None:
    """Give the user the keys and known hosts."""
    shutil.rmtree(user.home / ".ssh", ignore_errors=True)
    shutil.copytree(hosts.ssh, user.home / ".ssh")


def config(user: User, hosts: Hosts) -> Path:
    targets = [f"root@{host.address}" for host in hosts.hosts]
    file = user.home / "lab.toml"
    house = next(path.parent for name, path in wheelhouse().paths.items() if name != WHEEL)
    file.write_text(
        f'bind = "ipc://{user.home}/s"\nwheelhouse = "{house}"\n'
        f"[ssh]\nhosts = {targets}\ncpus = 1\n"
    )
    return file


def test_three_bare_machines_become_a_cluster_and_are_as_before_when_it_is_down(
    user: User, hosts: Hosts
) -> None:
    three = [hosts.add() for _ in range(3)]
    before = [host.files() for host in three]
    at_home(user, hosts)
    file = config(user, hosts)
    names = [host.address for host in three]
    with marked() as mark:
        began_s = time.monotonic()
        said = user.said("up", str(file))
        up_s = time.monotonic() - began_s
        assert (said["ready"], said["failed"]) == (3, 0)
        used = user.use(said["scheduler"])
        first_s = time.monotonic() - began_s
        assert any(name in used for name in names)
        print(f"\nup {up_s:.1f} s, first result {first_s:.1f} s")
        for node in said["nodes"]:
            print(node["name"], {phase: round(s, 2) for phase, s in node["phases"].items()})

        began_s = time.monotonic()
        again = user.said("up", str(file))
        warm_s = time.monotonic() - began_s
        print(f"warm {warm_s:.1f} s")
        assert all(list(node["phases"]) == ["probing"] for node in again["nodes"])
        assert warm_s < WARM_S

        assert user.said("status", "--cluster", "lab")["ready"] == 3
        user.burla("nodes", "drain", names[0], "--cluster", "lab")
        phases = [n["phase"] for n in user.said("status", "--cluster", "lab", code=1)["nodes"]]
        assert phases == ["stopped", "ready", "ready"]
        user.burla("nodes", "remove", names[0], "--cluster", "lab")
        assert three[0].files() == before[0]
        user.burla("nodes", "add", f"root@{names[0]}", "--cluster", "lab")
        assert user.said("status", "--cluster", "lab")["ready"] == 3

        assert user.said("down", "--cluster", "lab")["failed"] == 0
        assert mark.processes() == []
    assert [host.processes() for host in three] == [[]] * 3
    assert [host.files() for host in three] == before
    assert [f for f in user.files() if f != "lab.toml" and "burla/" in f] == []


def test_one_that_fails_is_told_and_the_others_are_ready(user: User, hosts: Hosts) -> None:
    good, unknown = hosts.add(), hosts.add(known=False)
    at_home(user, hosts)
    file = config(user, hosts)
    with marked():
        done = user.burla("up", str(file), code=1)
        assert "1 ready, 1 failed" in done.stderr
        assert f"the key of root@{unknown.address} is not known" in done.stderr
        assert "run the same again" in done.stderr
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
