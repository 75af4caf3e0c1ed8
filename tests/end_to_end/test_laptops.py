"""The client on what looks like macOS or Windows, with a real cluster over TCP."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import Cluster, cluster
from scripts import environment, write

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("platform", ["darwin", "win32"])]

LIKE = Path(__file__).parent.parent / "support" / "other_platforms.py"

SCRIPT = """
import asyncio, sys
import burla
from burla import remote_parallel_map
from beside import double
from beside.inner import NAME
import numpy as np

assert sys.platform != "linux"
table = np.arange(1 << 18)

def work(x):
    import sys
    print("on", sys.platform)
    print("careful", file=sys.stderr)
    return double(x) + int(table[x]), NAME, open("told/to/all.txt").read()

def fail(x):
    return 1 / x

print(remote_parallel_map(work, [1, 2], files=["told"]))
print(list(remote_parallel_map(double, range(3), generator=True, ordered=True)))
print(len(remote_parallel_map(bytes, [5 << 20])[0]))
print(asyncio.run(burla.amap(double, [4])))
with burla.Executor() as executor:
    print(executor.submit(double, 5).result(), list(executor.map(double, [1])))
with burla.Pool(2) as pool:
    print(pool.map(double, [6]))
print(remote_parallel_map(abs, [-1], env={"LANG": "C"}))
try:
    remote_parallel_map(fail, [0])
except ZeroDivisionError as error:
    print("failed", error.burla_input_index)
"""


@pytest.fixture(scope="module")
def tcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("c"), 2, bind="tcp://127.0.0.1:0") as made:
        yield made


def like(platform: str, *arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run Python there."""
    line = [sys.executable, str(LIKE), platform, *arguments]
    return subprocess.run(
        line, cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False
    )


def test_maps_of_all_kinds(platform: str, tcp: Cluster, tmp_path: Path) -> None:
    (tmp_path / "beside").mkdir()
    write(tmp_path / "beside", __init__="def double(x): return 2 * x\n", inner="NAME = 'inner'\n")
    (tmp_path / "told" / "to").mkdir(parents=True)
    (tmp_path / "told" / "to" / "all.txt").write_text("told")
    write(tmp_path, script=SCRIPT)
    done = like(platform, "script.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(set(done.stderr.splitlines())) == ["careful"]
    assert done.stdout.splitlines() == [
        "on linux",
        "on linux",
        "[(3, 'inner', 'told'), (6, 'inner', 'told')]",
        "[0, 2, 4]",
        str(5 << 20),
        "[8]",
        "10 [2]",
        "[12]",
        "[1]",
        "failed 0",
    ]


def test_commands(platform: str, tcp: Cluster, tmp_path: Path) -> None:
    def burla(*words: str) -> subprocess.CompletedProcess[str]:
        return like(platform, "-m", "burla", *words, cwd=tmp_path)

    done = burla("jobs", "list", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    json.loads(done.stdout)
    there_is_none = burla("status", "--json")
    assert json.loads(there_is_none.stdout)["error"]["remedy"]
    write(tmp_path, script="import numpy\n")
    goes = burla("env", "show", "script.py")
    assert goes.returncode == 0, goes.stderr
    assert "numpy" in goes.stdout
    done = burla("doctor", "--json")
    checks = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"handshake", "nodes", "index", "isolation"} <= {check["name"] for check in checks}
    done = burla("env", "prune")
    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_cluster_it_is_said_what_to_do(platform: str, tmp_path: Path) -> None:
    write(tmp_path, script="import burla\nburla.remote_parallel_map(abs, [1])\n")
    env = environment(True, None) | {"BURLA_CONFIG_DIR": str(tmp_path)}
    line = [sys.executable, str(LIKE), platform, "script.py"]
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert "ClusterError: no cluster is configured" in last
    assert "burla login" in last
    line[-1:] = ["-m", "burla", "doctor", "--json"]
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    (fails,) = (check for check in json.loads(done.stdout) if check["state"] == "fail")
    assert (fails["name"], done.returncode, done.stderr) == ("address", 1, "")
    assert "burla login" in fails["remedy"]
