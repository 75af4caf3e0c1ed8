"""Where a lease begins that follows another of its session."""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from clusters import Cluster
from tiers import nodes_of

from burla import remote_parallel_map

pytestmark = pytest.mark.slow


@pytest.fixture
def sandboxed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Run a node with sandboxes, where a module is installed that takes long to import."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="b") as directory:
        Path(directory).chmod(0o755)  # jobs are other users
        installed = Path(directory, "site-packages")
        installed.mkdir()
        (installed / "imported_slowly.py").write_text("import time\ntime.sleep(0.11)\n")
        monkeypatch.setenv("PYTHONPATH", str(installed), prepend=os.pathsep)
        monkeypatch.syspath_prepend(installed)
        with nodes_of(Path(directory), "uid", 2) as made:
            yield made


def place(function: Callable[[], object]) -> str:
    """Return in which sandbox a function of its own is called, which imports what is slow."""

    def call(_: None) -> str:
        import imported_slowly  # type: ignore[import-not-found]  # it is made above

        assert imported_slowly
        function()
        return os.readlink("/proc/self/ns/pid")

    (answer,) = remote_parallel_map(call, [None], unpack=False, spinner=False)
    return answer


def test_a_sandbox_whose_lease_does_not_end_is_given_up(sandboxed: Cluster) -> None:
    before = place(lambda: 1)
    below = psutil.Process(sandboxed.nodelets[0].pid).children(recursive=True)
    inside = [process for process in below if sandbox_of(process) == before]
    (init,) = [process for process in inside if process.ppid() not in {p.pid for p in inside}]
    init.send_signal(signal.SIGSTOP)
    assert place(lambda: 2) != before


def sandbox_of(process: psutil.Process) -> str:
    """Return where a process is; empty: it is gone."""
    with suppress(OSError):
        return os.readlink(f"/proc/{process.pid}/ns/pid")
    return ""
