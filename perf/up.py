"""Three bare SSH machines become a cluster: from `burla up` to the first result of a map over them.

The machines are network namespaces of this one, each with a real sshd (hosts.py), so they share its
processors. What nodes install is fetched before the clock runs, as for machines without an index.

Then a script with a package of its own (own_package.py) runs there, which needs numpy and pandas
that no index gives the nodes; if this Python has them: `pip install pandas`.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from burla.provisioning.core.machines import ProvisioningError
from burla.provisioning.install.wheels import gather

from . import own_package
from .hosts import NETWORK, Hosts
from .measure import Options, Series
from .peers import BURLA

MACHINES = 3  # fewer on a small scale
WARM_S_MAX = 10.0  # the goal: a second run, on machines that are nodes already
COMMAND_S_MAX = 300.0  # one that takes longer hangs
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
PROGRAMS = ("sshd", "ssh-keygen", "ip", "unshare", "nsenter")
PROGRAM_SERIES = (  # name, which phases, note
    ("first result", own_package.FIRST, "of numpy, pandas and an own package, after `burla up`"),
    ("second job", (own_package.SECOND,), "to its first result; the goal is under 0.5 s"),
    ("after an edit", (own_package.EDIT,), "of the own package: new code; the goal is 0.5 s"),
    ("after an upgrade", (own_package.UPGRADE,), "of one small package; the goal is 3 s"),
)
SCRIPT = """
import sys, time
from burla import remote_parallel_map

def node(x):
    import os, time
    time.sleep(0.2)
    return os.environ["BURLA_NODE"]

nodes = set()
for name in remote_parallel_map(node, range(8 * int(sys.argv[1])), generator=True, spinner=False):
    if not nodes:
        print(time.monotonic(), flush=True)
    nodes.add(name)
assert len(nodes) == int(sys.argv[1]), nodes
"""


@dataclass(frozen=True)
class Round:
    """What one round took, in seconds."""

    first: float  # from the begin of `burla up` to the first result
    up: float
    warm: float
    machine: float  # median over the machines, as are the phases
    phases: dict[str, float]
    program: dict[str, float]  # its phases, and what came after; empty: pandas is not here


def measure(options: Options) -> Iterator[Series]:
    """Yield the way to the first result, `burla up` itself, its phases, and a second run.

    And likewise a script with packages, if there are any to be had.
    """
    _check()
    with tempfile.TemporaryDirectory(prefix="up", dir="/tmp") as folder:
        try:
            house = gather(Path(folder, "wheels"), "auto", MINOR)
        except ProvisioningError as error:
            raise SystemExit(f"perf: up: {error}") from None
        Path(folder, "house").mkdir()
        for path in house.paths.values():
            shutil.copy(path, Path(folder, "house"))
        machines = max(1, round(MACHINES * min(1.0, options.scale)))
        rounds = [_round(Path(folder), number, machines) for number in range(options.rounds)]
    first = Series("up/first result", {BURLA: [each.first for each in rounds]})
    first.notes.append(
        f"from `burla up` on {machines} bare machines to the first of a map's results"
    )
    yield first
    whole = Series("up/burla up", {BURLA: [each.up for each in rounds]})
    yield whole
    phases = Series("up/phases", {BURLA: [each.machine for each in rounds]})
    for phase in rounds[0].phases:
        phases.seconds[phase] = [each.phases.get(phase, 0.0) for each in rounds]
    phases.notes.append(f"medians over {machines} machines at once; the first line is all of it")
    yield phases
    warm = Series("up/second run", {BURLA: [each.warm for each in rounds]})
    warm.notes.append(f"`burla up` again, nothing to do; the goal is under {WARM_S_MAX:g} s")
    yield warm
    yield from _programs([each.program for each in rounds])


def _programs(rounds: list[dict[str, float]]) -> Iterator[Series]:
    """Yield what was measured of the script with packages."""
    if not all(rounds):
        print("perf: up: pandas is not here, so no script needs it", file=sys.stderr)
        return
    for name, what, note in PROGRAM_SERIES:
        series = Series(
            f"up/program/{name}", {BURLA: [sum(one[x] for x in what) for one in rounds]}
        )
        if len(what) > 1:
            series.seconds |= {each: [one[each] for one in rounds] for each in what}
        series.notes.append(note)
        yield series


def _check() -> None:
    """Say what is missing, in words.

    Raises:
        SystemExit: something is.
    """
    if os.geteuid() != 0:
        raise SystemExit("perf: up makes machines of namespaces, which only root may: try sudo")
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if missing:
        raise SystemExit(
            f"perf: up needs {', '.join(missing)}: apt-get install openssh-server iproute2"
        )


def _round(folder: Path, number: int, machines: int) -> Round:
    home = folder / str(number)
    home.mkdir()
    with Hosts() as hosts:
        for _ in range(machines):
            hosts.add()
        shutil.copytree(hosts.ssh, home / ".ssh")
        file = home / "lab.toml"
        targets = [f"root@{host.address}" for host in hosts.hosts]
        file.write_text(
            f'bind = "tcp://{NETWORK}.1:0"\nwheelhouse = "{folder}/house"\n'
            f"[ssh]\nhosts = {targets}\ncpus = 1\n"
        )
        try:
            began_s = time.monotonic()
            said = _burla(home, "up", str(file))
            up_s = time.monotonic() - began_s
            command = [sys.executable, "-c", SCRIPT, str(machines)]
            first_s = float(_run(home, command, said["scheduler"])) - began_s
            program = _program(home, said["scheduler"]) if find_spec("pandas") else {}
            began_s = time.monotonic()
            again = _burla(home, "up", str(file))
            warm_s = time.monotonic() - began_s
            assert all(list(node["phases"]) == ["probing"] for node in again["nodes"]), again
        finally:
            with suppress(SystemExit):  # there is none, or what is wrong has been said
                _burla(home, "down", "--cluster", "lab")
    seconds = [node["seconds"] for node in said["nodes"]]
    machine_s = statistics.median(seconds)
    return Round(first_s, up_s, warm_s, machine_s, _phases(up_s, said["nodes"]), program)


def _program(home: Path, cluster: str) -> dict[str, float]:
    """Return the phases of the script with packages, in seconds, by name."""
    own_package.write(folder := home / "program")
    said = _run(home, [sys.executable, "main.py"], cluster, folder)
    told: dict[str, float] = json.loads(said)
    return told


def _phases(up_s: float, nodes: list[dict[str, Any]]) -> dict[str, float]:
    """Return the median of each phase over the nodes, in order; the first is not a node's."""
    slowest_s = max(node["seconds"] for node in nodes)
    found = {"(command, scheduler, keys)": up_s - slowest_s}
    found["connecting"] = statistics.median(
        node["seconds"] - sum(node["phases"].values()) for node in nodes
    )
    for phase in nodes[0]["phases"]:
        found[phase] = statistics.median(node["phases"].get(phase, 0.0) for node in nodes)
    return found


def _burla(home: Path, *words: str) -> dict[str, Any]:
    line = [sys.executable, "-m", "burla.cli", *words, "--json"]
    said: dict[str, Any] = json.loads(_run(home, line, ""))
    return said


def _run(home: Path, line: list[str], cluster: str, folder: Path | None = None) -> str:
    env = {"HOME": str(home), "PATH": os.environ["PATH"]}
    env |= {"BURLA_CLUSTER": cluster} if cluster else {}
    done = subprocess.run(
        line,
        env=env,
        cwd=folder or home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_S_MAX,
    )
    if done.returncode != 0:
        raise SystemExit(f"perf: up: {' '.join(line[2:4])} failed:\n{done.stderr}")
    return done.stdout
