"""`burla up` on pods of a stand-in for Kubernetes, which are real nodelets without any rights."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_kube import FakeKube, fake_kube
from hosts import Alone
from marked import marked
from seen import in_background
from users import User
from waiting import wait_until
from wanted import give_packed_wheel, installers, wheelhouse

from burla.provisioning.install.wheels import WHEEL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[FakeKube, Path]]:
    """Run in a network that has loopback only: nothing can leave it."""
    wheelhouse()
    with Alone(), fake_kube(tmp_path, spawn=True) as made:
        yield made


def config(user: User, kubeconfig: Path, more: str = "", **other: object) -> Path:
    give_packed_wheel(user.home)
    house = next(path.parent for name, path in wheelhouse().paths.items() if name != WHEEL)
    told: dict[str, object] = {"nodes": 2, "kubeconfig": str(kubeconfig), "cpus": 1, "ram_gb": 0.5}
    told |= {"wheelhouse": "/mnt/wheels", "boot_s": 60.0} | other
    lines = ['bind = "tcp://127.0.0.1:0"', "[kubernetes]"]
    lines += [f'{k} = "{v}"' if isinstance(v, str) else f"{k} = {v}" for k, v in told.items()]
    lines += [
        "[kubernetes.pod]",  # what this provider has no setting for
        "hostNetwork = true",  # as pods of the stand-in have it
        f'volumes = [{{ name = "wheels", hostPath = {{ path = "{house}" }} }}]',
        "[[kubernetes.pod.containers]]",
        'name = "node"',
        'volumeMounts = [{ name = "wheels", mountPath = "/mnt/wheels" }]',
    ]
    file = user.home / "pods.toml"
    file.write_text("\n".join([*lines, more]) + "\n")
    return file


SLOW = """
import os, sys
from burla import remote_parallel_map as m
def f(x):
    import time
    time.sleep(0.1)
    print("ran", x)
    return x
with open("results", "a", buffering=1) as log:
    for x in m(f, range(100), generator=True):
        log.write(f"{x}\\n")
"""
GROWING = """
import os
from burla import remote_parallel_map as m
print(*set(m(lambda x: os.environ["BURLA_NODE"], [1], grow=True)))
"""


def test_pods_come_are_used_drained_grown_evicted_and_nothing_is_left(
    user: User, site: tuple[FakeKube, Path]
) -> None:
    kube, kubeconfig = site
    file = config(user, kubeconfig, "[grow]\nmax_nodes = 3\ngrown_idle_min = 5\n")
    results = user.home / "results"
    with marked():
        said = user.said("up", str(file))
        assert (said["ready"], said["failed"]) == (2, 0), said
        assert sorted(node["name"] for node in said["nodes"]) == kube.alive()
        user.environment["BURLA_CLUSTER"] = said["scheduler"]
        node = next(iter(kube.running.values())).home / "tmp/burla/node"
        assert installers(node) == {"uv"}
        log = node / "node.log"
        # Without any rights of root; which of the two is a matter of this kernel.
        assert re.search("isolation: (namespaces|landlock)", log.read_text())

        with in_background(lambda: user.python(SLOW)) as result:
            wait_until(lambda: results.exists() and results.stat().st_size > 20, "calls run")
            drained = kube.alive()[0]
            kube.drain_machine(drained)  # it has its grace period to finish its calls
            ran = list(map(int, re.findall(r"ran (\d+)", result())))
        assert sorted(map(int, results.read_text().split())) == list(range(100))
        assert sorted(ran) == list(range(100))  # each once
        wait_until(lambda: drained not in kube.alive("pods"), "its pod has ended")

        (other,) = set(kube.alive()) - {drained}
        user.said("nodes", "drain", "--cluster", "pods", other)
        assert not {drained, other} & {*kube.alive(), *kube.alive("secrets")}
        (grown,) = set(user.python(GROWING).split())
        made = {job["metadata"]["name"]: job["metadata"]["labels"] for job in kube.all_of("jobs")}
        assert made[grown]["burla-grown"] == "true"
        kube.evict(grown)  # no grace at all
        wait_until(lambda: kube.alive() == [], "what has ended is deleted", 60.0)
        user.said("down", "--cluster", "pods")
        assert kube.left() == []
    assert [f for f in user.files() if "burla/" in f] == [".config/burla/user.key"]
