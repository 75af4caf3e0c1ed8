"""A control group with a limit on memory, for a nodelet that shall run out of it."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from waiting import LATE_S

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Group:
    """One group; what its `prefix` starts runs in it."""

    directory: Path

    def prefix(self) -> list[str]:
        """Return a command that joins the group and becomes the command that follows it."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.directory / "cgroup.procs")]

    def oom_kills(self) -> int:
        """Return how many processes the kernel has killed in it."""
        for name in ("memory.events", "memory.oom_control"):
            with suppress(OSError):
                words = (self.directory / name).read_text().split()
                return int(words[words.index("oom_kill") + 1])
        return 0


@contextmanager
def memory_group(limit: int) -> Iterator[Group | None]:
    """Make a group below our own, with `limit` bytes; None if this system does not let us."""
    made = _make(limit)
    if made is None:
        yield None
        return
    try:
        yield Group(made)
    finally:
        _remove(made)


def _make(limit: int) -> Path | None:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            top, name = ROOT / "memory", "memory.limit_in_bytes"
        elif number == "0" and (ROOT / "cgroup.controllers").exists():
            top, name = ROOT, "memory.max"
        else:
            continue
        own = top / path.lstrip("/")
        directory = (own if own.is_dir() else top) / f"burla-test-{os.urandom(4).hex()}"
        try:
            directory.mkdir()
        except OSError:
            continue
        try:
            (directory / name).write_text(str(limit))
        except OSError:
            directory.rmdir()
            continue
        return directory
    return None


def _remove(directory: Path) -> None:
    """Remove a group; whatever still runs in it is killed."""
    until = time.monotonic() + LATE_S
    while True:
        try:
            directory.rmdir()
            return
        except OSError:
            assert time.monotonic() < until, f"{directory} cannot be removed"
        for pid in (directory / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.01)
