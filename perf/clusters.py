"""A cluster by hand: a scheduler and nodelets as processes of their own, gone afterwards."""

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from burla.scheduler.auth.key_store import KeyStore
from burla.scheduler.core import admission
from burla.scheduler.core.admission import Role
from burla.system.owner import Owner
from burla.system.procfs import process_started
from burla.transport.keys import KeyPair, load_or_make_pair

START_S_MAX = 15.0  # until the scheduler says where it listens
END_S_MAX = 12.0  # daemons promise to be gone within 10 s
PYTHON = (sys.executable, "-m")
LOG_CHARACTERS = 1000  # of each daemon's log are told when a case fails


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """End `processes`, all at once, and wait until they are gone."""
    for process in processes:
        process.terminate()
    until_s = time.monotonic() + END_S_MAX
    for process in processes:
        try:
            process.wait(max(0.0, until_s - time.monotonic()))
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


def _owner() -> str:
    """Return what lets a daemon end with this process, however that ends."""
    return str(Owner(os.getpid(), process_started(os.getpid())))


@dataclass
class Cluster:
    """What runs; `nodelets` may be killed and added to, their end is seen to."""

    address: str
    scheduler: subprocess.Popen[bytes]
    folder: Path  # logs, and the socket
    nodelets: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def add_node(self, cpus: int) -> subprocess.Popen[bytes]:
        """Start a nodelet that counts as `cpus`."""
        name = f"node{len(self.nodelets)}"
        line = [*PYTHON, "burla.nodelet", "--scheduler", self.address]
        line += ["--cpus", str(cpus), "--name", name, "--owner", _owner()]
        with (self.folder / f"{name}.log").open("w") as log:
            nodelet = subprocess.Popen(line, stderr=log)
        self.nodelets.append(nodelet)
        return nodelet

    def tell_logs(self) -> None:
        """Write the ends of all logs to stderr."""
        for path in sorted(self.folder.glob("*.log")):
            print(f"--- {path.name}", path.read_text()[-LOG_CHARACTERS:], file=sys.stderr, sep="\n")


@contextmanager
def cluster(cpus: int, nodes: int = 1) -> Iterator[Cluster | None]:
    """Run `nodes` nodelets of `cpus` as `running` does, or nothing with 0 cpus."""
    if not cpus:
        yield None
        return
    with running(cpus, nodes) as made:
        yield made


@contextmanager
def running(cpus: int, nodes: int, *options: str) -> Iterator[Cluster]:
    """Run a scheduler and `nodes` nodelets that count as `cpus` each; BURLA_CLUSTER names them.

    They meet at a socket file, unless `options` of the scheduler say where.
    """
    with ExitStack() as ends:
        temporary = tempfile.TemporaryDirectory(dir="/tmp")  # ipc: 107 bytes at most
        folder = Path(ends.enter_context(temporary))
        line = [*PYTHON, "burla.scheduler", "--owner", _owner()]
        line += options or ("--bind", f"ipc://{folder}/scheduler")
        with (folder / "scheduler.log").open("w") as log:
            scheduler = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log)
        ends.callback(end, [scheduler])
        made = Cluster(address_of(scheduler), scheduler, folder)
        ends.callback(end, made.nodelets)
        for _ in range(nodes):
            made.add_node(cpus)
        _set(ends, "BURLA_CLUSTER", made.address)
        try:
            yield made
        except BaseException:
            made.tell_logs()
            raise


@contextmanager
def keyed_cluster(cpus: int, nodes: int = 1) -> Iterator[Cluster]:
    """Do the same over loopback TCP, with new keys in a BURLA_CONFIG_DIR of its own."""
    with ExitStack() as ends:
        folder = ends.enter_context(tempfile.TemporaryDirectory())
        _set(ends, "BURLA_CONFIG_DIR", folder)
        key_store = KeyStore(Path(folder) / "scheduler")
        key_store.make()
        user = load_or_make_pair(f"{folder}/user.key", "a benchmark")
        node = load_or_make_pair(f"{folder}/node.key", "a benchmark")
        for pair, role in ((user, Role.CLIENT), (node, Role.NODE)):
            _add(key_store, pair, role)
        yield ends.enter_context(
            running(cpus, nodes, "--bind", "tcp://127.0.0.1:0", "--dir", f"{folder}/scheduler")
        )


def _add(key_store: KeyStore, pair: KeyPair, role: Role) -> None:
    now_s = time.time()
    key_store.change(lambda table: admission.add(table, pair.public.hex(), role, "perf", now_s))


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
