"""Faults without end, on real clusters: what callers see of them, in a table, by hand.

    PYTHONPATH=.:tests/support python -m chaos [FAULT ...] [--seeds N] [--first N]

Each run is a cluster of its own over TCP with keys, every party behind a line that can be
disturbed, and programs of two users on it; a seed says what they do, and when which fault happens
to whom. Then chaos_record.py judges what was recorded. A run that fails is told with its seed.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil
from chaos_record import Record, Verdict, judge
from clusters import Cluster, cluster
from keyring import Keyring
from links import DOWN, UP, Link
from marked import Mark, marked
from waiting import wait_until

from burla.scheduler.core.admission import Role
from burla.transport.addresses import take_apart
from burla.transport.keys import load_or_make_pair

USERS = ("anna", "bert")
NODES = 3
SLOTS = 2
END_S = 100.0  # a run takes some seconds, and what the faults add
SCHEDULER_BYTES_MAX = 256 << 20
SELDOM_S = (2.0, 5.0)  # for what others need seconds to come back from


@dataclass
class Site:
    """A cluster, its lines and its users' programs."""

    made: Cluster
    mark: Mark
    chance: random.Random
    port: int
    links: dict[str, Link] = field(default_factory=dict)  # by the party behind it
    callers: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    stopped: list[int] = field(default_factory=list)  # pids
    scheduler_logs: int = 0

    def close_links(self) -> None:
        """End all lines."""
        for link in self.links.values():
            link.close()

    def through(self, name: str) -> str:
        """Return the address of the scheduler over a line of its own."""
        link = self.links[name] = Link(self.port)
        return self.made.address.replace(f":{self.port}", f":{link.port}")

    def add_node(self) -> None:
        """Start a nodelet behind a line."""
        made, direct = self.made, self.made.address
        made.address = self.through(f"node{len(made.nodelets)}")
        try:
            made.add_node(SLOTS)
        finally:
            made.address = direct

    def node(self) -> subprocess.Popen[str]:
        """Return one that lives, by chance."""
        return self.chance.choice([one for one in self.made.nodelets if one.poll() is None])

    def link(self) -> Link:
        """Return a line, by chance."""
        return self.chance.choice(list(self.links.values()))

    def stand_still(self, process: subprocess.Popen[str], seconds: float) -> None:
        """Stop a process for a while."""
        process.send_signal(signal.SIGSTOP)
        self.stopped.append(process.pid)
        time.sleep(seconds)
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)

    def restart_scheduler(self) -> None:
        """Kill the scheduler, and start it again."""
        made = self.made
        made.scheduler.kill()
        made.scheduler.wait()
        self.scheduler_logs += 1
        line = [sys.executable, "-m", "burla.scheduler", "--bind", f"tcp://127.0.0.1:{self.port}"]
        with (made.directory / f"scheduler{self.scheduler_logs}.log").open("w") as log:
            made.scheduler = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert made.scheduler.stdout is not None
        with made.scheduler.stdout as out:
            assert out.readline().strip() == made.address


def kill_worker(site: Site) -> None:
    """`kill -9` of a process below a nodelet, never of what forks them."""
    with suppress(psutil.NoSuchProcess, IndexError):
        zygote = psutil.Process(site.node().pid).children()[0]
        site.chance.choice(zygote.children()).kill()


def kill_node(site: Site) -> None:
    """`kill -9` of a nodelet; another one comes."""
    site.node().kill()
    time.sleep(site.chance.uniform(0, 0.5))
    site.add_node()


def hold_line(site: Site, *directions: str) -> None:
    """Let nothing pass on a line for a while; nobody is told."""
    link = site.link()
    link.hold(*directions)
    time.sleep(site.chance.uniform(0.5, 5))
    link.heal()


def slow_line(site: Site) -> None:
    """A line as to a far country, for a while."""
    link = site.link()
    link.slow(200_000, 0.05)
    time.sleep(site.chance.uniform(0.5, 3))
    link.heal()


def stop_caller(site: Site) -> None:
    """SIGSTOP of a caller's program, for a while."""
    alive = [one for one in site.callers.values() if one.poll() is None]
    if alive:
        site.stand_still(site.chance.choice(alive), site.chance.uniform(0.5, 4))


@dataclass(frozen=True)
class Fault:
    """Something that happens to a cluster, again and again."""

    happen: Callable[[Site], None]
    seen: str  # of it by callers
    repeats: bool = False  # calls that ran when it happened are run again
    every_s: tuple[float, float] = (0.3, 1.2)  # between two of them


FAULTS = {
    "none": Fault(lambda site: None, "nothing"),
    "worker killed": Fault(kill_worker, "nothing; its call is run again", repeats=True),
    # a call whose nodes die again and again is told as their killer: not so often by chance
    "node killed": Fault(
        kill_node, "nothing; its calls are run again", repeats=True, every_s=(1.0, 3.0)
    ),
    "node stands still": Fault(
        lambda site: site.stand_still(site.node(), site.chance.uniform(0.5, 5)), "nothing"
    ),
    "scheduler killed": Fault(lambda site: site.restart_scheduler(), "nothing", every_s=SELDOM_S),
    "scheduler stands still": Fault(
        lambda site: site.stand_still(site.made.scheduler, site.chance.uniform(0.5, 4)), "nothing"
    ),
    "caller stands still": Fault(stop_caller, "nothing"),
    "line cut": Fault(lambda site: site.link().cut(), "nothing"),
    "line dead, both ways": Fault(lambda site: hold_line(site, UP, DOWN), "nothing"),
    "line dead, one way": Fault(
        lambda site: hold_line(site, site.chance.choice((UP, DOWN))), "nothing"
    ),
    "line slow": Fault(slow_line, "nothing"),
}
MIXED = [name for name, fault in FAULTS.items() if name != "none"]


def everything(site: Site) -> None:
    """Any of all faults."""
    FAULTS[site.chance.choice(MIXED)].happen(site)


FAULTS["all of these, mixed"] = Fault(
    everything, "nothing; as above", repeats=True, every_s=(1.0, 3.0)
)


@contextmanager
def open_site(seed: int, directory: Path) -> Iterator[Site]:
    """Run a cluster whose parties are behind lines."""
    with (
        ExitStack() as stack,
        marked() as mark,
        cluster(directory, bind="tcp://127.0.0.1:0") as made,
    ):
        port = int(take_apart(made.address).endpoint.rpartition(":")[2])
        site = Site(made, mark, random.Random(seed), port)
        stack.callback(site.close_links)
        try:
            for _ in range(NODES):
                site.add_node()
            yield site
        finally:
            for process in (*site.callers.values(), *made.nodelets, made.scheduler):
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
            for caller in site.callers.values():
                if caller.poll() is None:
                    caller.kill()
                caller.wait()


def start_caller(site: Site, user: str, seed: int) -> list[int]:
    """Start a user's program; return how many inputs each of its jobs has."""
    home = site.made.directory / user
    effects = site.made.directory / "effects"
    home.mkdir()
    effects.mkdir(exist_ok=True)
    ring = site.made.keyring
    assert isinstance(ring, Keyring)
    ring.add(load_or_make_pair(str(home / "user.key"), "a test"), Role.CLIENT, user)
    chance = site.chance
    jobs = [
        (chance.randint(150, 500), chance.choice((1, 20, 50)), size, chance.random() < 0.5)
        for size in (0, chance.choice((0, 100_000)))
    ]
    spec = {"seed": seed, "user": user, "effects": str(effects), "jobs": jobs}
    (home / "spec.json").write_text(json.dumps(spec))
    program = Path(__file__).with_name("chaos_caller.py")
    env = os.environ | {"BURLA_CONFIG_DIR": str(home), "BURLA_CLUSTER": site.through(user)}
    with (home / "out").open("w") as out, (home / "err").open("w") as err:
        site.callers[user] = subprocess.Popen(
            [sys.executable, "-u", str(program), str(home / "spec.json")],
            env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, text=True, cwd=home,
        )  # fmt: skip
    return [inputs for inputs, *_ in jobs]


@dataclass(frozen=True)
class Run:
    """What became of one run."""

    verdict: Verdict
    seconds: float


def play(name: str, seed: int, directory: Path) -> Run:
    """Run two users' programs while a fault happens again and again.

    Raises:
        AssertionError: what was promised did not hold.
    """
    fault = FAULTS[name]
    with open_site(seed, directory) as site:
        begun_s = time.monotonic()
        record = Record({user: start_caller(site, user, seed) for user in USERS})
        while any(caller.poll() is None for caller in site.callers.values()):
            assert time.monotonic() < begun_s + END_S, f"not over after {END_S} s"
            until_s = time.monotonic() + site.chance.uniform(*fault.every_s)
            while time.monotonic() < until_s:
                if all(caller.poll() is not None for caller in site.callers.values()):
                    break
                time.sleep(0.02)
            else:
                fault.happen(site)
        seconds = time.monotonic() - begun_s
        for user, caller in site.callers.items():
            said = (directory / user / "err").read_text()
            assert caller.returncode == 0, f"{user}: {said}"
            record.printed += (directory / user / "out").read_text().splitlines()
        for path in (directory / "effects").iterdir():
            record.effects += path.read_text().splitlines()
        verdict = judge(record)
        assert (verdict.lost, verdict.doubled, verdict.shared) == (0, 0, 0), verdict
        assert fault.repeats or not verdict.repeated, verdict
        wait_until(lambda: _is_quiet(site), "nothing of the jobs is left")
        used = psutil.Process(site.made.scheduler.pid).memory_info().rss
        assert used < SCHEDULER_BYTES_MAX, f"the scheduler uses {used >> 20} MiB"
    return Run(verdict, seconds)


def _is_quiet(site: Site) -> bool:
    """Return whether no process that a job has used is left, but what waits for the next one."""
    alive = [one for one in site.made.nodelets if one.poll() is None]
    return all(len(site.made.workers(one)) <= 1 + 2 * SLOTS for one in alive)


HEAD = ("fault, again and again", "the caller sees", "runs", "lost", "doubled", "run again", "time")


def row(words: Sequence[object]) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(map(str, words))} |"


def play_all(name: str, seeds: range) -> list[Run]:
    """Return the runs that went well; tell of the others."""
    runs = []
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as directory:
            try:
                runs.append(play(name, seed, Path(directory)))
            except AssertionError as error:
                print(f"FAILED {name!r}, seed {seed}: {error}", file=sys.stderr, flush=True)
    return runs


def main(words: Sequence[str]) -> int:
    """Run what was asked for; print a table."""
    parser = argparse.ArgumentParser(prog="python -m chaos")
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"of {', '.join(FAULTS)}")
    parser.add_argument("--seeds", type=int, default=10, help="runs of each (10)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    given = parser.parse_args(words)
    names = given.faults or list(FAULTS)
    print(row(HEAD), row(["---"] * len(HEAD)), sep="\n")
    went_well = 0
    for name in names:
        runs = play_all(name, range(given.first, given.first + given.seeds))
        went_well += len(runs)
        if runs:
            verdicts = [run.verdict for run in runs]
            counts = [sum(v.lost for v in verdicts), sum(v.doubled for v in verdicts)]
            again = sum(v.repeated for v in verdicts)
            time_s = f"{median(run.seconds for run in runs):.1f} s"
            print(row([name, FAULTS[name].seen, len(runs), *counts, again, time_s]), flush=True)
    return 0 if went_well == len(names) * given.seeds else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
