"""`burla up` on machines of a stand-in for Compute Engine that run the real startup script."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from broken import broken_copy
from fake_gce import FakeGce, fake_gce
from hosts import Alone
from marked import marked
from newer import newer
from seen import in_background
from users import User
from waiting import LATE_S, wait_until
from wanted import give_packed_wheel, installers, wheelhouse

from burla.provisioning.install.wheels import WHEEL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
SILENCE_S = 30


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[tuple[FakeGce, str]]:
    """Run in a network that has loopback only: nothing can leave it."""
    wheelhouse()
    with Alone(), fake_gce(tmp_path, spawn=True) as made:
        yield made


def config(
    user: User, endpoint: str, grow: dict[str, object] | None = None, **other: object
) -> Path:
    give_packed_wheel(user.home)
    house = next(path.parent for name, path in wheelhouse().paths.items() if name != WHEEL)
    told = {
        "nodes": 2,
        "project": "p",
        "zones": ["us-central1-a", "us-central1-b"],
        "wheelhouse": str(house),
        "endpoint": endpoint,
        "boot_s": 60.0,
    } | other
    lines = [f'bind = "ipc://{user.home}/s"', "[gce]"]
    lines += [f"{key} = {_toml(value)}" for key, value in told.items()]
    lines += ["[grow]", *(f"{key} = {_toml(value)}" for key, value in (grow or {}).items())]
    file = user.home / "cloud.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


SLOW = """
import os, sys
from pathlib import Path
from burla import remote_parallel_map as m
def f(x):
    import time
    time.sleep(0.1)
    print("ran", x)
    return x
with open("results", "a", buffering=1) as log:
    for x in m(f, range(150), generator=True):
        log.write(f"{x}\\n")
"""


def test_machines_come_one_is_preempted_in_the_middle_and_all_go(
    user: User, cloud: tuple[FakeGce, str], tmp_path: Path
) -> None:
    gce, endpoint = cloud
    file = config(user, endpoint)
    file.write_text(file.read_text().replace(f"ipc://{user.home}/s", "tcp://127.0.0.1:0"))
    with marked():
        said = user.said("up", str(file))
        assert (said["ready"], said["failed"]) == (2, 0), said
        assert sorted(node["name"] for node in said["nodes"]) == gce.alive()
        assert installers(tmp_path / gce.alive()[0] / ".burla/vm") == {"uv"}
        assert any(name in user.use(said["scheduler"]) for name in gce.alive())

        results = user.home / "results"
        user.environment["BURLA_CLUSTER"] = said["scheduler"]
        with in_background(lambda: user.python(SLOW)) as result:
            wait_until(lambda: results.exists() and results.stat().st_size > 20, "calls run")
            gce.preempt(gce.alive()[0])
            ran = list(map(int, re.findall(r"ran (\d+)", result())))
        assert sorted(map(int, results.read_text().split())) == list(range(150))
        assert sorted(ran) == list(range(150))  # each once: the machine had time to drain

        assert user.said("up", str(file))["ready"] == 2  # the lost one is replaced
        assert len(gce.alive()) == 2
        assert user.said("status", "--cluster", "cloud")["ready"] == 2

        drained, removed = gce.alive()
        with in_background(lambda: user.python(SLOW)) as result:
            wait_until(lambda: len(results.read_text().split()) > 170, "calls run again")
            user.said("nodes", "drain", "--cluster", "cloud", drained)
            assert gce.alive() == [removed]
            ran = list(map(int, re.findall(r"ran (\d+)", result())))
        assert sorted(ran) == list(range(150))  # each once
        assert user.said("up", str(file))["ready"] == 2
        user.said("nodes", "remove", "--cluster", "cloud", removed)
        assert removed not in gce.alive()
        assert user.said("up", "--cluster", "cloud")["ready"] == 1  # one less is wanted
        user.said("down", "--cluster", "cloud")
        assert gce.alive() == []


def test_a_newer_burla_replaces_the_machines_in_the_middle_of_a_job(
    user: User, cloud: tuple[FakeGce, str], tmp_path: Path
) -> None:
    gce, endpoint = cloud
    file = config(user, endpoint)
    file.write_text(file.read_text().replace(f"ipc://{user.home}/s", "tcp://127.0.0.1:0"))
    with marked():
        user.environment["BURLA_CLUSTER"] = user.said("up", str(file))["scheduler"]
        before, results = gce.alive(), user.home / "results"
        with in_background(lambda: user.python(SLOW.replace("150", "400"))) as result:
            wait_until(lambda: results.exists() and results.stat().st_size > 20, "calls run")
            user.environment["PYTHONPATH"] = str(newer(tmp_path / "new"))
            said = user.said("up", "--cluster", "cloud")
            del user.environment["PYTHONPATH"]
            assert (said["ready"], said["failed"]) == (2, 0), said
            assert not set(gce.alive()) & set(before)
            labels = {gce.vms[name].body["labels"]["burla-version"][:5] for name in gce.alive()}
            assert labels == {"9-9-0"}
            ran = list(map(int, re.findall(r"ran (\d+)", result())))
        assert sorted(map(int, results.read_text().split())) == list(range(400))
        assert sorted(ran) == list(range(400))  # each once
        roles = [row for row in user.listed("auth", "list") if row["user"] in before]
        assert all(row["revoked"] for row in roles if row["role"] == "node")
        user.burla("down", "--cluster", "cloud")
        assert gce.alive() == []


GROWING = """
import os, time
from burla import remote_parallel_map as m
def f(x):
    time.sleep(1)
    return os.environ["BURLA_NODE"]
print(*sorted(set(m(f, range(48), grow=True))))
"""


def test_a_job_that_may_grow_gets_machines_and_they_go_when_it_is_over(
    user: User, cloud: tuple[FakeGce, str], tmp_path: Path
) -> None:
    """On a copy of ours that finds a wait of seconds long enough for one machine more."""
    gce, endpoint = cloud
    change = ("provisioning/core/plan.py", "LONG_WAIT_S = 60.0", "LONG_WAIT_S = 10.0")
    user.environment["PYTHONPATH"] = str(broken_copy(tmp_path, change))
    grow: dict[str, object] = {"max_nodes": 2, "grown_idle_min": 0.05}
    file = config(user, endpoint, grow, nodes=0, machine_types=["n2-standard-2"])
    file.write_text(file.read_text().replace(f"ipc://{user.home}/s", "tcp://127.0.0.1:0"))
    with marked():
        said = user.said("up", str(file))
        assert (said["ready"], gce.alive()) == (0, [])
        user.environment["BURLA_CLUSTER"] = said["scheduler"]
        with in_background(lambda: user.python(GROWING)) as result:
            wait_until(lambda: len(gce.alive()) == 2, "it has grown", 90.0)
            names = gce.alive()  # one was made at once, the other when it was clear how long
            assert {gce.vms[name].body["labels"]["burla-grown"] for name in names} == {"true"}
            assert result().split() == names
        wait_until(lambda: gce.alive() == [], "they are deleted when they are idle", 60.0)
        assert user.said("status", "--cluster", "cloud")["nodes"] == []
        user.burla("down", "--cluster", "cloud")
    assert len(gce.inserts) == 2


def test_one_that_never_joins_is_told_and_deleted(user: User, cloud: tuple[FakeGce, str]) -> None:
    gce, endpoint = cloud
    gce.faults["insert"] = ["stillborn"]
    with marked():
        said = user.said("up", str(config(user, endpoint, nodes=1, boot_s=2.0)), code=1)
        assert "did not join within 2 s" in said["nodes"][0]["why"]
        assert gce.alive() == []
        user.burla("down", "--cluster", "cloud")


def test_a_machine_that_fails_says_why(user: User, cloud: tuple[FakeGce, str]) -> None:
    gce, endpoint = cloud
    with marked():
        file = config(user, endpoint, nodes=1, wheelhouse="/nowhere")
        said = user.said("up", str(file), code=1)
        assert "No matching distribution" in said["nodes"][0]["why"]
        assert gce.alive() == []
        user.burla("down", "--cluster", "cloud")


def test_a_machine_whose_scheduler_is_gone_powers_itself_off_and_gc_deletes_it(
    user: User, cloud: tuple[FakeGce, str]
) -> None:
    gce, endpoint = cloud
    with marked():
        # It counts from the machine's start: a busy one must be ready by then.
        user.burla("up", str(config(user, endpoint, nodes=1, silence_s=SILENCE_S)))
        (name,) = gce.alive()
        process = gce.vms[name].process
        assert process is not None
        assert process.poll() is None
        for daemon in ("autoscaler", "scheduler"):
            for kind in ("pid", "child"):  # who would start it again, and itself
                file = user.home / f".local/state/burla/cloud/{daemon}.{kind}"
                psutil.Process(int(file.read_text().split()[0])).kill()
        began_s = time.monotonic()
        until_s = SILENCE_S + LATE_S
        wait_until(lambda: process.poll() is not None, "it powers itself off", until_s)
        assert time.monotonic() - began_s > 2.0  # not before it had to
        gce.sweep_powered_off()
        said = user.said("gc", "--cluster", "cloud")
        assert [node["name"] for node in said["nodes"]] == [name]
        assert gce.alive() == []
        user.burla("down", "--cluster", "cloud")


def test_a_quota_is_told_with_its_name_and_what_could_be_had_is_ready(
    user: User, cloud: tuple[FakeGce, str]
) -> None:
    gce, endpoint = cloud
    gce.room, gce.quota = 1, ""
    with marked():
        done = user.burla("up", str(config(user, endpoint)), code=1)
        assert "1 ready, 1 failed" in done.stderr
        assert "the quota SSD is used up, its limit is 1.0" in done.stderr
        user.burla("down", "--cluster", "cloud")
    assert gce.alive() == []
