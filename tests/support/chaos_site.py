"""A cluster for chaos: real daemons with keys, lines that can be disturbed, users' programs."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from chaos_net import HUB, Net
from clusters import Cluster, cluster
from hosts import run
from keyring import Keyring
from links import Link
from marked import Mark, marked

from burla.scheduler.core.admission import Role
from burla.transport.addresses import take_apart
from burla.transport.keys import load_or_make_pair

USERS = ("anna", "bert")
NODES = 3
BIG_BYTES = 60_000_000  # of all inputs of a job whose inputs are big
SLOTS = 2
DISK_BYTES = (
    420 << 20
)  # of a scheduler that may run out of it: more than it leaves free, and its jobs
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
LOOPBACK = "127.0.0.1"
Calls = tuple[int, int, int, str, int]  # a job, as chaos_caller.py is told of it


@dataclass(frozen=True)
class Needs:
    """What a site must have for a fault.

    Attributes:
        net: nodes are machines of a network of their own, whose lines the kernel disturbs.
        disk: the scheduler's directory is a small file system of its own.
        clock: the clock on the wall of all daemons is what `Site.jump` says.
    """

    net: bool = False
    disk: bool = False
    clock: bool = False


@dataclass
class Site:
    """A cluster, its lines and its users' programs."""

    made: Cluster
    mark: Mark
    chance: random.Random
    host: str  # of the scheduler
    port: int
    net: Net | None = None
    clock: Path | None = None  # says how far the daemons' clock is off
    links: dict[str, Link] = field(default_factory=dict)  # by the party behind it
    callers: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    scheduler_logs: int = 0

    def close_links(self) -> None:
        """End all lines."""
        for link in self.links.values():
            link.close()

    def through(self, name: str) -> str:
        """Return the address of the scheduler over a line of its own."""
        link = self.links[name] = Link(self.port, self.host)
        return self.made.address.replace(f"{self.host}:{self.port}", f"{LOOPBACK}:{link.port}")

    def add_node(self) -> None:
        """Start a nodelet behind a line."""
        made, direct = self.made, self.made.address
        if self.net is not None:
            self.net.connect(made.add_node(SLOTS, prefix=self.net.prefix()))
            return
        made.address = self.through(f"node{len(made.nodelets)}")
        try:
            made.add_node(SLOTS)
        finally:
            made.address = direct

    def nodes(self) -> list[int]:
        """Return the numbers of those that live."""
        return [n for n, one in enumerate(self.made.nodelets) if one.poll() is None]

    def node(self) -> subprocess.Popen[str]:
        """Return one that lives, by chance."""
        return self.made.nodelets[self.chance.choice(self.nodes())]

    def link(self) -> Link:
        """Return a line, by chance."""
        return self.chance.choice(list(self.links.values()))

    def caller(self) -> subprocess.Popen[str] | None:
        """Return a user's program that runs, by chance."""
        alive = [one for one in self.callers.values() if one.poll() is None]
        return self.chance.choice(alive) if alive else None

    def stand_still(self, process: subprocess.Popen[str], seconds: float) -> None:
        """Stop a process for a while."""
        process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)

    def restart_scheduler(self) -> None:
        """Kill the scheduler, and start it again."""
        made = self.made
        made.scheduler.kill()
        made.scheduler.wait()
        self.scheduler_logs += 1
        line = [sys.executable, "-m", "burla.scheduler", "--bind", f"tcp://{self.host}:{self.port}"]
        with (made.directory / f"scheduler{self.scheduler_logs}.log").open("w") as log:
            made.scheduler = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert made.scheduler.stdout is not None
        with made.scheduler.stdout as out:
            assert out.readline().strip() == made.address

    def start_caller(self, user: str, seed: int, *jobs: Calls) -> list[int]:
        """Start a user's program; return how many inputs each of its jobs has.

        Without `jobs` chance says what they are.
        """
        home = self.made.directory / user
        effects = self.made.directory / "effects"
        home.mkdir()
        effects.mkdir(exist_ok=True)
        ring = self.made.keyring
        assert isinstance(ring, Keyring)
        ring.add(load_or_make_pair(str(home / "user.key"), "a test"), Role.CLIENT, user)
        hows = self.chance.sample(("list", "generator", "detached"), 2)
        jobs = jobs or tuple(map(self._job, hows))
        spec = {"seed": seed, "user": user, "effects": str(effects), "jobs": jobs}
        (home / "spec.json").write_text(json.dumps(spec))
        program = Path(__file__).with_name("chaos_caller.py")
        env = os.environ | {"BURLA_CONFIG_DIR": str(home), "BURLA_CLUSTER": self.through(user)}
        env.pop("LD_PRELOAD", None)  # the daemons' clock only
        with (home / "out").open("w") as out, (home / "err").open("w") as err:
            self.callers[user] = subprocess.Popen(
                [sys.executable, "-u", str(program), str(home / "spec.json")],
                env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, text=True, cwd=home,
            )  # fmt: skip
        return [inputs for inputs, *_ in jobs]

    def _job(self, how: str) -> Calls:
        """Return its inputs, mean milliseconds of a call, bytes of a result, how it is called.

        And bytes of an input, besides its number: big ones are pulled by the nodes piece by piece.
        """
        chance = self.chance
        size = chance.choice((0, 0, 100_000))
        many = chance.randint(150, 500 if not size else 250)
        mean_ms, big = chance.choice((1, 20, 50)), chance.choice((0, 0, 1_200_000, 5_000_000))
        return min(many, BIG_BYTES // big) if big else many, mean_ms, size, how, big

    # --- what the machine lacks for a while ---

    def fill_disk(self, seconds: float) -> None:
        """Leave nothing free where the scheduler writes."""
        path = Path(os.environ["BURLA_CONFIG_DIR"]) / "scheduler" / "filler"
        with suppress(OSError), path.open("wb", 0) as filler:
            while True:
                filler.write(bytes(1 << 18))
        time.sleep(seconds)
        path.unlink()

    def take_descriptors(self, process: subprocess.Popen[str], seconds: float) -> None:
        """Let a daemon open hardly more files than it has open, for a while."""
        daemon = psutil.Process(process.pid)
        with suppress(psutil.NoSuchProcess):
            before = daemon.rlimit(resource.RLIMIT_NOFILE)
            highest = max(map(int, os.listdir(f"/proc/{process.pid}/fd")))
            daemon.rlimit(resource.RLIMIT_NOFILE, (highest + 2, before[1]))
            time.sleep(seconds)
            daemon.rlimit(resource.RLIMIT_NOFILE, before)

    def jump(self, seconds: int) -> None:
        """Set the daemons' clock on the wall."""
        assert self.clock is not None
        new = self.clock.with_suffix(".new")
        new.write_text(f"{seconds:+d}")
        new.rename(self.clock)


@contextmanager
def open_site(seed: int, directory: Path, needs: Needs) -> Iterator[Site]:
    """Run a cluster whose parties are behind lines."""
    with ExitStack() as stack:
        clock = stack.enter_context(_clock(directory)) if needs.clock else None
        mark = stack.enter_context(marked())
        net = stack.enter_context(Net()) if needs.net else None
        if needs.disk:
            stack.enter_context(_small_disk(directory / "settings" / "scheduler"))
        host = HUB if needs.net else LOOPBACK
        made = stack.enter_context(cluster(directory, bind=f"tcp://{host}:0"))
        port = int(take_apart(made.address).endpoint.rpartition(":")[2])
        site = Site(made, mark, random.Random(seed), host, port, net, clock)
        stack.callback(site.close_links)
        try:
            for _ in range(NODES):
                site.add_node()
            yield site
        finally:
            _end_programs(site)


def _end_programs(site: Site) -> None:
    for process in (*site.callers.values(), *site.made.nodelets, site.made.scheduler):
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
    for caller in site.callers.values():
        if caller.poll() is None:
            caller.kill()
        caller.wait()


@contextmanager
def _small_disk(directory: Path) -> Iterator[None]:
    """Put a small file system where the scheduler has its directory."""
    directory.mkdir(parents=True)
    run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "chaos", directory)
    try:
        yield
    finally:
        run("umount", directory)


@contextmanager
def _clock(directory: Path) -> Iterator[Path]:
    """Let all daemons that are started meanwhile have a clock that can be set."""
    clock = directory / "clock"
    clock.write_text("+0")
    said = {
        "LD_PRELOAD": FAKETIME,
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    before = {name: os.environ.get(name) for name in said}
    os.environ.update(said)
    try:
        yield clock
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def lacks(needs: Needs) -> str:
    """Return what this machine lacks for a fault; empty: nothing."""
    if (needs.net or needs.disk) and os.geteuid() != 0:
        return "root"
    if needs.net and (shutil.which("nft") is None or shutil.which("ip") is None):
        return "apt-get install nftables iproute2"
    if needs.clock and not os.path.exists(FAKETIME):
        return "apt-get install libfaketime"
    return ""


def daemons(site: Site) -> Sequence[subprocess.Popen[str]]:
    """Return all daemons that live."""
    return [one for one in (site.made.scheduler, *site.made.nodelets) if one.poll() is None]
