"""A cluster of real processes on this machine, for tests that go from end to end."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from keyring import Keyring, settings
from waiting import wait_gone, wait_until


@dataclass
class Cluster:
    """A scheduler and its nodelets; `address` goes into BURLA_CLUSTER."""

    address: str
    scheduler: subprocess.Popen[str]
    directory: Path
    keyring: Keyring | None = None  # over tcp
    nodelets: list[subprocess.Popen[str]] = field(default_factory=list)
    seen: list[psutil.Process] = field(default_factory=list)  # all that must be gone at the end
    isolation: str = "process"  # of nodes: functions of tests share files with the test

    def add_node(
        self,
        cpus: int,
        *options: str,
        prefix: Sequence[str] = (),
        program: Sequence[str] = ("-m", "burla.nodelet"),
    ) -> subprocess.Popen[str]:
        """Start a nodelet; `prefix`: a command that becomes it, `program`: what Python runs."""
        name = f"node{len(self.nodelets)}"
        line = [*prefix, sys.executable, *program, "--scheduler", self.address]
        line += ["--cpus", str(cpus), "--name", name, "--isolation", self.isolation, *options]
        with (self.directory / f"{name}.log").open("w") as log:
            nodelet = subprocess.Popen(line, stdin=subprocess.DEVNULL, stderr=log, text=True)
        self.nodelets.append(nodelet)
        return nodelet

    def processes(self) -> list[psutil.Process]:
        """Return every process of the cluster that lives now, and remember it."""
        for daemon in (self.scheduler, *self.nodelets):
            if daemon.poll() is None:
                process = psutil.Process(daemon.pid)
                self.seen += [process, *process.children(recursive=True)]
        return self.seen

    def workers(self, nodelet: subprocess.Popen[str]) -> list[psutil.Process]:
        """Return the forked processes of a nodelet: its zygote first, then what that forked."""
        return psutil.Process(nodelet.pid).children(recursive=True)

    def stop(self) -> None:
        """End all of it, and fail if something is left, or did not end by itself."""
        left = self.processes()
        told = [one for one in (*self.nodelets, self.scheduler) if one.poll() is None]
        for daemon in told:
            daemon.terminate()
        codes = [daemon.wait(20) for daemon in told]
        wait_gone(left)
        assert {*codes} <= {0, -signal.SIGTERM}, codes  # the second: it was still loading


@contextmanager
def cluster(
    directory: Path,
    *cpus: int,
    bind: str = "",
    isolation: str = "process",
    options: Sequence[str] = (),
) -> Iterator[Cluster]:
    """Run a cluster with one node per number in `cpus`; BURLA_CLUSTER names it meanwhile.

    Over tcp it has keys, which BURLA_CONFIG_DIR has, too. `options` are more of the scheduler's.
    """
    with settings(directory / "settings") if bind.startswith("tcp") else nullcontext() as ring:
        yield from _cluster(directory, cpus, bind, isolation, ring, options)


def _cluster(
    directory: Path,
    cpus: tuple[int, ...],
    bind: str,
    isolation: str,
    ring: Keyring | None,
    options: Sequence[str],
) -> Iterator[Cluster]:
    line = [sys.executable, "-m", "burla.scheduler", "--bind", bind or f"ipc://{directory}/s"]
    line += options
    with (directory / "scheduler.log").open("w") as log:
        scheduler = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert scheduler.stdout is not None
    with scheduler.stdout as out:
        address = out.readline().strip()
    assert address, (directory / "scheduler.log").read_text()
    made = Cluster(address, scheduler, directory, ring, isolation=isolation)
    before = os.environ.get("BURLA_CLUSTER")
    os.environ["BURLA_CLUSTER"] = address
    try:
        for count in cpus:
            made.add_node(count)
        yield made
    finally:
        if before is None:
            del os.environ["BURLA_CLUSTER"]
        else:
            os.environ["BURLA_CLUSTER"] = before
        made.stop()


def run_script(
    source: str, directory: Path, *, env: dict[str, str] | None = None, timeout_s: float = 50.0
) -> subprocess.CompletedProcess[str]:
    """Run `source` as a script of its own, as a user would; its output is captured."""
    script = directory / "script.py"
    script.write_text(source)
    return subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def wait_for_zygote(made: Cluster, nodelet: subprocess.Popen[str]) -> None:
    """Return when the nodelet has forked its blanks."""
    wait_until(lambda: len(made.workers(nodelet)) > 1, "the nodelet has workers")
