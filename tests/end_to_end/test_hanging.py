"""Calls that hang, and functions that load for ever, are mentioned while they do."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import Cluster, cluster
from scripts import started

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

NODE = """
from burla.nodelet.core import long_calls
long_calls.LONG_S = long_calls.TELL_S = 0.2
long_calls.LOOK_S = 0.05
from burla.nodelet.cli import main
main()
"""
SCRIPT = """
import os, time
from burla import remote_parallel_map
from burla.core import hanging

hanging.FIRST_S = 1.0

def wait_for_go():
    while not os.path.exists("go"):
        time.sleep(0.01)

class Slow:
    def __reduce__(self):
        return load, ()

def load():
    wait_for_go()
    return 1
"""
HANGS = (
    "def f(x):\n    if x == 3:\n        wait_for_go()\n    return x\n",
    r"burla: f: input 3 has run for \d+ s on node0; \d of 6 inputs are done\n",
)
LOADS = (
    "slow = Slow()\n\ndef f(x):\n    return x * (slow or 1)\n",
    r"burla: f: the function has been loading for \d+ s on node0\n",
)


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Run a cluster whose node tells sooner of calls that last."""
    with cluster(tmp_path_factory.mktemp("c")) as made:
        made.add_node(2, program=("-c", NODE))
        yield made


@pytest.mark.parametrize(("function", "line"), [HANGS, LOADS], ids=["hangs", "loads"])
def test_what_lasts_is_mentioned_on_stderr(
    impatient: Cluster, tmp_path: Path, function: str, line: str
) -> None:
    source = f"{SCRIPT}\n{function}\nprint(remote_parallel_map(f, range(6)))"
    with started(source, tmp_path, cwd=tmp_path) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        assert re.fullmatch(line, said), said
        (tmp_path / "go").touch()
        out, _ = process.communicate(timeout=50)
    assert out == "[0, 1, 2, 3, 4, 5]\n"
