"""`burla up` on nodes of a real Slurm, and a walltime that ends in the middle of a map."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Alone, run
from marked import marked
from newer import newer
from seen import in_background
from slurm_site import slurm_site
from users import User
from waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LONG = """
from burla import remote_parallel_map as m
def f(x):
    import os, time
    time.sleep(0.5)
    print("ran", x, os.environ["BURLA_NODE"])
    return x
def inputs():
    import os, time
    n = 0
    while not os.path.exists("stop"):
        yield n
        n += 1
        time.sleep(0.25)
print(sorted(m(f, inputs(), generator=True)))
"""


@pytest.fixture
def site() -> Iterator[Path]:
    with Alone(), slurm_site(3) as made:
        yield made


def config(user: User, **slurm: object) -> Path:
    file = user.home / "hpc.toml"
    lines = [f'bind = "ipc://{user.home}/s"', "[local]", "nodes = 0", "[slurm]", "nodes = 2"]
    file.write_text("\n".join([*lines, *(f"{k} = {v}" for k, v in slurm.items())]) + "\n")
    return file


def test_nodes_of_slurm_come_are_used_and_go(user: User, site: Path) -> None:
    with marked():
        user.environment["SLURM_CONF"] = str(site / "slurm.conf")
        bind = f"ipc://{user.home}/s"
        said = user.said("up", "--cluster", "hpc", "--slurm", "--nodes", "2", "--bind", bind)
        assert (said["ready"], said["failed"]) == (2, 0), said
        assert "slurm-" in user.use(said["scheduler"])
        assert user.said("up", "--cluster", "hpc")["nodes"] == said["nodes"]
        assert user.said("status", "--cluster", "hpc")["ready"] == 2
        first = said["nodes"][0]["name"]
        user.said("nodes", "drain", "--cluster", "hpc", first)
        assert len(run("squeue", "--noheader").splitlines()) == 1
        assert user.said("up", "--cluster", "hpc")["ready"] == 2
        user.said("down", "--cluster", "hpc")
    assert [f for f in user.files() if "burla/" in f] == []


def test_each_node_of_slurm_joins_by_a_token_of_its_own(user: User, site: Path) -> None:
    with marked():
        user.environment["SLURM_CONF"] = str(site / "slurm.conf")
        file = config(user)
        file.write_text(file.read_text().replace(f"ipc://{user.home}/s", "tcp://127.0.0.1:0"))
        said = user.said("up", str(file))
        assert (said["ready"], said["failed"]) == (2, 0), said
        assert said["scheduler"].startswith("burla://127.0.0.1:")
        assert "slurm-" in user.use(said["scheduler"])
        folder = user.home / ".local/state/burla/hpc/keys"
        rows = json.loads(user.burla("auth", "list", "--dir", str(folder), "--json").stdout)
        nodes = {row["user"] for row in rows if row["role"] == "node"}
        assert nodes == {node["name"] for node in said["nodes"]}
        assert all(row["revoked"] for row in rows if row["role"] == "join")
        user.said("down", "--cluster", "hpc")
    assert [f for f in user.files() if "burla/" in f] == [".config/burla/user.key"]


def test_a_newer_burla_replaces_the_nodes_in_the_middle_of_a_job(
    user: User, site: Path, tmp_path: Path
) -> None:
    with marked():
        user.environment["SLURM_CONF"] = str(site / "slurm.conf")
        made = user.said("up", str(config(user)))
        before = {node["name"] for node in made["nodes"]}
        user.environment["BURLA_CLUSTER"] = made["scheduler"]
        with in_background(lambda: user.python(LONG)) as result:
            user.environment["PYTHONPATH"] = str(newer(tmp_path / "new"))
            said = user.said("up", "--cluster", "hpc")
            del user.environment["PYTHONPATH"]
            assert (said["ready"], said["failed"]) == (2, 0), said
            assert not before & {node["name"] for node in said["nodes"]}
            (user.home / "stop").touch()
            out = result()
        numbers = json.loads(out.splitlines()[-1])
        calls = re.findall(r"ran (\d+) (\S+)", out)
        assert numbers == list(range(len(numbers)))
        assert sorted(int(x) for x, _ in calls) == numbers  # each once
        user.said("down", "--cluster", "hpc")


def test_a_token_that_would_expire_in_the_queue_is_said_before(user: User, site: Path) -> None:
    with marked():
        user.environment["SLURM_CONF"] = str(site / "slurm.conf")
        file = config(user, wait_s=3600)
        file.write_text(file.read_text().replace(f"ipc://{user.home}/s", "tcp://127.0.0.1:0"))
        done = user.burla("up", str(file), code=1)
        assert "slurm.wait_s is 3600: it must be at most 600" in done.stderr
        user.said("down", "--cluster", "hpc")


def test_a_walltime_that_ends_in_the_middle_loses_no_call(user: User, site: Path) -> None:
    """One node is Slurm's, of a minute; the other one stays."""
    with marked():
        user.environment["SLURM_CONF"] = str(site / "slurm.conf")
        file = config(user, walltime_min=2, drain_s=20)  # Slurm warns up to a minute early
        file.write_text(file.read_text().replace("nodes = 0", "nodes = 1\ncpus = 1"))
        made = user.said("up", str(file))
        assert made["ready"] == 3
        user.environment["BURLA_CLUSTER"] = made["scheduler"]
        with in_background(lambda: user.python(LONG)) as result:
            # Slurm looks at walltimes twice a minute.
            wait_until(lambda: run("squeue", "--noheader") == "", "both jobs have ended", 160.0)
            (user.home / "stop").touch()
            said = result()
        numbers = json.loads(said.splitlines()[-1])
        calls = re.findall(r"ran (\d+) (\S+)", said)
        assert numbers == list(range(len(numbers)))
        assert sorted(int(x) for x, _ in calls) == numbers  # each once: the nodes drained
        nodes = [node for _, node in calls]
        assert sum(node.startswith("slurm-") for node in nodes) > 20
        assert nodes[-1] == "local-1"  # the others were gone by then
        user.said("down", "--cluster", "hpc")


def test_a_job_that_may_grow_gets_nodes_of_slurm_and_they_go(user: User, site: Path) -> None:
    with marked():
        user.environment["SLURM_CONF"] = str(site / "slurm.conf")
        file = config(user)
        grow = '[grow]\nprovider = "slurm"\nmax_nodes = 1\ngrown_idle_min = 0.05\n'
        file.write_text(file.read_text().replace("nodes = 2", "cpus = 2") + grow)
        made = user.said("up", str(file))
        assert made["nodes"] == []
        user.environment["BURLA_GROW"] = "1"
        assert "slurm-" in user.use(made["scheduler"])
        assert run("squeue", "--noheader", "--format", "%j").strip() == "burla-hpc+grown"
        wait_until(lambda: run("squeue", "--noheader") == "", "it goes when it is idle", 60.0)
        user.said("down", "--cluster", "hpc")


def test_without_slurm_it_says_so(user: User) -> None:
    user.environment["PATH"] = "/usr/local/bin"
    with marked():
        done = user.burla("up", str(config(user)), code=78)
        assert "squeue is not installed here" in done.stderr
        user.environment["PATH"] = "/usr/bin:/bin"
