"""What forks workers dies, in each tier of isolation: it comes again, and jobs end exact."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from clusters import cluster
from marked import marked
from nobody import __file__ as AS_NOBODY
from waiting import wait_until

from burla import remote_parallel_map
from burla.provisioning.install.bootstrap import SCRIPT
from burla.shell import clients
from burla.system.launch import command

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="takes root, for all tiers"),
]
CALLS = 40
# A module that no process of ours has loaded; here Python may lie where only root may enter.
NEW_MODULE = lambda x: __import__("colorsys").__name__  # noqa: E731  # goes by value
SLOW = lambda x: __import__("time").sleep(0.05) or x * x  # noqa: E731  # goes by value
# How a nodelet gets each tier where root is; see support/tiers.py.
BEFORE = {
    "uid": [],
    "namespaces": [sys.executable, AS_NOBODY],
    "landlock": ["setpriv", "--bounding-set=-all", "--inh-caps=-all"],
    "process": [],
}


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that every user can enter."""
    place = Path(tempfile.mkdtemp(prefix="sup", dir="/tmp"))
    place.chmod(0o777)
    yield place
    shutil.rmtree(place)


@contextmanager
def supervised(tier: str, place: Path) -> Iterator[psutil.Process]:
    """Run a cluster of one node that is looked after as `burla up` does without systemd.

    Yields who looks after it.
    """
    with marked(), cluster(place, isolation="best") as made:
        (place / "s").chmod(0o777)
        options = ["--isolation", "process"] if tier == "process" else []
        line = [*BEFORE[tier], *command("burla.nodelet.cli", "--scheduler", made.address)]
        line += ["--cpus", "2", "--name", "n1", "--ready-file", str(place / "n1.ready"), *options]
        (place / "n1.sh").write_text(f"exec {shlex.join(line)}\n")
        try:
            bootstrap("run", place)
            assert f"isolation: {tier}" in (place / "n1.log").read_text()
            yield psutil.Process(int((place / "n1.pid").read_text().split()[0]))
            assert remote_parallel_map(NEW_MODULE, [1]) == ["colorsys"]
        finally:
            bootstrap("stop", place)
            client = clients._clients.pop(made.address, None)
            if client is not None:
                client.close()


def bootstrap(what: str, place: Path) -> None:
    words = ["sh", str(SCRIPT), what, "--program", "n1", "--directory", str(place)]
    subprocess.run([*words, "--service", "process"], check=True, timeout=90)


def nodelet_of(supervisor: psutil.Process) -> psutil.Process:
    """Return the nodelet; root's becomes another user's by exec alone."""
    (found,) = [p for p in supervisor.children() if "burla.nodelet.cli" in " ".join(p.cmdline())]
    return found


def forker(nodelet: psutil.Process) -> psutil.Process:
    """Return what the nodelet has started: the zygote, or the supervisor of sandboxes."""
    (found,) = nodelet.children()
    return found


@pytest.mark.parametrize("tier", BEFORE)
def test_a_node_whose_forking_process_is_killed_is_started_again(
    tier: str, open_place: Path
) -> None:
    """The zygote; with sandboxes, their supervisor."""
    with supervised(tier, open_place) as supervisor:
        nodelet = nodelet_of(supervisor)
        results = remote_parallel_map(SLOW, range(CALLS), generator=True)
        first = next(results)
        forker(nodelet).kill()
        wait_until(lambda: not nodelet.is_running(), "the nodelet ends")
        assert sorted([first, *results]) == [x * x for x in range(CALLS)]
        assert nodelet_of(supervisor).pid != nodelet.pid


@pytest.mark.parametrize("tier", ["uid", "namespaces"])
def test_a_sandbox_whose_init_is_killed_costs_no_job(tier: str, open_place: Path) -> None:
    """The kernel ends all that is in it; its calls are called again."""
    with supervised(tier, open_place) as supervisor:
        results = remote_parallel_map(SLOW, range(CALLS), generator=True)
        first = next(results)
        inits = forker(nodelet_of(supervisor)).children()
        max(inits, key=lambda init: len(init.children(recursive=True))).kill()
        assert sorted([first, *results]) == [x * x for x in range(CALLS)]
