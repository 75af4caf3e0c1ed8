"""A cluster by hand: a scheduler and nodelets as processes of their own, gone afterwards."""

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from burla.scheduler import admission
from burla.scheduler.admission import Role
from burla.scheduler.roster import Roster
from burla.wire.keys import KeyPair, load_or_make_pair

START_S_MAX = 15.0  # until the scheduler says where it listens
END_S_MAX = 12.0  # daemons promise to be gone within 10 s


def end(process: subprocess.Popen[bytes]) -> None:
    """End `process`, and wait until it is gone."""
    process.terminate()
    try:
        process.wait(END_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def address_of(scheduler: subprocess.Popen[bytes]) -> str:
    """Return the address that `scheduler` prints as its first line."""
    assert scheduler.stdout is not None
    if not select.select([scheduler.stdout], [], [], START_S_MAX)[0]:
        raise TimeoutError(f"the scheduler said no address within {START_S_MAX} s")
    address = scheduler.stdout.readline().decode().strip()
    if not address:
        raise RuntimeError(f"the scheduler ended with {scheduler.wait(END_S_MAX)}")
    return address


@contextmanager
def cluster(cpus: int, nodes: int = 1) -> Iterator[str | None]:
    """Run a scheduler and `nodes` nodelets that count as `cpus` each; BURLA_CLUSTER names them.

    With 0 cpus nothing is started.
    """
    if not cpus:
        yield None
        return
    with ExitStack() as ends:
        folder = ends.enter_context(
            tempfile.TemporaryDirectory(dir="/tmp")
        )  # ipc: 107 bytes at most
        yield _started(ends, cpus, nodes, ["--bind", f"ipc://{folder}/scheduler"])


@contextmanager
def keyed_cluster(cpus: int, nodes: int = 1) -> Iterator[str]:
    """Do the same over loopback TCP, with new keys in a BURLA_CONFIG_DIR of its own."""
    with ExitStack() as ends:
        folder = ends.enter_context(tempfile.TemporaryDirectory())
        _set(ends, "BURLA_CONFIG_DIR", folder)
        roster = Roster(Path(folder) / "scheduler")
        roster.make()
        user = load_or_make_pair(f"{folder}/user.key", "a benchmark")
        node = load_or_make_pair(f"{folder}/node.key", "a benchmark")
        for pair, role in ((user, Role.CLIENT), (node, Role.NODE)):
            _add(roster, pair, role)
        yield _started(ends, cpus, nodes, ["--bind", "tcp://127.0.0.1:0"])


def _add(roster: Roster, pair: KeyPair, role: Role) -> None:
    now_s = time.time()
    roster.change(lambda table: admission.add(table, pair.public.hex(), role, "perf", now_s))


def _started(ends: ExitStack, cpus: int, nodes: int, options: list[str]) -> str:
    """Start the processes, ended by `ends`; return the address."""
    python = [sys.executable, "-m"]
    scheduler = subprocess.Popen([*python, "burla.scheduler", *options], stdout=subprocess.PIPE)
    ends.callback(end, scheduler)
    address = address_of(scheduler)
    for _ in range(nodes):
        command = ["burla.nodelet", "--scheduler", address, "--cpus", str(cpus)]
        ends.callback(end, subprocess.Popen([*python, *command]))
    _set(ends, "BURLA_CLUSTER", address)
    return address


def _set(ends: ExitStack, name: str, value: str) -> None:
    """Set a variable of the environment, as it was before in the end."""
    before = os.environ.get(name)
    os.environ[name] = value

    def restore() -> None:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before

    ends.callback(restore)
