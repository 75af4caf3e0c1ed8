"""Finding every process that comes from a test, wherever it went, by a word in its environment."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from clusters import Cluster, cluster
from waiting import LATE_S, wait_gone

from burla.shell import clients

NAME = "BURLA_TEST_MARK"


@dataclass(frozen=True)
class Mark:
    """A word that all processes inherit which are started while it is set."""

    word: str = field(default_factory=lambda: os.urandom(8).hex())

    def processes(self) -> list[psutil.Process]:
        """Return all processes that carry the mark and have not ended."""
        wanted = f"{NAME}={self.word}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError, psutil.NoSuchProcess):
                    if wanted in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(psutil.Process(int(entry.name)))
        return found

    def wait_gone(self, timeout_s: float = LATE_S) -> None:
        """Return when nothing carries the mark any more; fail, and kill the rest, if it stays."""
        try:
            wait_gone(self.processes(), timeout_s)
            assert not (left := self.processes()), f"started while all was to end: {left}"
        finally:
            for process in self.processes():
                with suppress(psutil.NoSuchProcess):
                    process.kill()


@contextmanager
def marked() -> Iterator[Mark]:
    """Mark all processes that are started inside; none of them may be left behind it."""
    before = os.environ.get(NAME)
    mark = Mark()
    os.environ[NAME] = mark.word
    try:
        yield mark
    finally:
        if before is None:
            del os.environ[NAME]
        else:
            os.environ[NAME] = before
        mark.wait_gone()


@contextmanager
def marked_cluster(
    directory: Path, *cpus: int, bind: str = "", options: Sequence[str] = ()
) -> Iterator[tuple[Cluster, Mark]]:
    """Run a cluster as `clusters.cluster` does; nothing that comes from it may be left."""
    with marked() as mark, cluster(directory, *cpus, bind=bind, options=options) as made:
        try:
            yield made, mark
        finally:
            client = clients._clients.pop(made.address, None)
            if client is not None:
                client.close()


@dataclass(frozen=True)
class Caller:
    """A user's script that runs in a process, session and temporary directory of its own."""

    process: subprocess.Popen[str]
    directory: Path  # its working directory
    temporary: Path  # its TMPDIR
    mark: Mark

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait_end(self, timeout_s: float = LATE_S) -> tuple[int, str, str]:
        """Return its exit status, stdout and stderr, once it has ended."""
        out, err = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, out, err

    def left(self) -> list[str]:
        """Return what lies in its TMPDIR."""
        return sorted(str(path) for path in self.temporary.rglob("*"))


@contextmanager
def caller(source: str, directory: Path, *, cluster: str | None = None) -> Iterator[Caller]:
    """Start a script; at the end it and all that it started must be gone.

    Args:
        source: of the script; its working directory is `directory`.
        directory: where it lies.
        cluster: BURLA_CLUSTER; None: it starts a private one.
    """
    script = directory / "script.py"
    script.write_text(source)
    env = {name: value for name, value in os.environ.items() if name != "BURLA_CLUSTER"}
    # short, as an ipc path must be
    with marked() as mark, tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as temporary:
        env |= {"TMPDIR": temporary, NAME: mark.word}
        process = subprocess.Popen(
            [sys.executable, str(script)],
            env=env | ({"BURLA_CLUSTER": cluster} if cluster else {}),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield Caller(process, directory, Path(temporary), mark)
        finally:
            if process.poll() is None:
                process.kill()
            with process:
                process.wait(LATE_S)
            mark.wait_gone()
