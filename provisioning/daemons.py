"""Daemons of ours on this machine that outlive the command that starts them.

Each has a file NAME.pid beside its log: its process id and when it began, since ids are used again.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from burla.provisioning.core.machines import StepFailed, tail
from burla.system.launch import command
from burla.system.procfs import process_started

END_S = 12.0  # ours cut themselves off 8 s after SIGTERM; then they are killed
POLL_S = 0.02


@dataclass(frozen=True)
class Daemon:
    """One daemon, running or not."""

    name: str
    directory: Path

    @property
    def log(self) -> Path:
        """Where its stderr goes."""
        return self.directory / f"{self.name}.log"

    @property
    def _file(self) -> Path:
        return self.directory / f"{self.name}.pid"

    def pid(self) -> int | None:
        """Return its process id; None: it does not run."""
        try:
            pid, started = map(int, self._file.read_text().split())
        except (OSError, ValueError):
            return None
        return pid if process_started(pid) == started else None

    def start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start it; return the process, whose stdout is a pipe. To be called if it does not run."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        log = os.open(self.log, flags, 0o600)
        try:
            process = subprocess.Popen(
                command(module, *arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd="/",
                start_new_session=True,  # Ctrl-C here is not for it
            )
        finally:
            os.close(log)
        new = self._file.with_suffix(".new")
        new.write_text(f"{process.pid} {process_started(process.pid) or 0}\n")
        new.replace(self._file)
        return process

    def first_line(self, process: subprocess.Popen[bytes]) -> str:
        """Return the first line that a daemon which was just started writes to stdout.

        Raises:
            StepFailed: it ended before; the text is the end of its log.
        """
        assert process.stdout is not None
        with process.stdout as out:
            line = out.readline().decode().strip()
        if not line:
            process.wait(END_S)
            said = tail(self.log.read_text())
            self.log.unlink()
            self._file.unlink()
            raise StepFailed(f"the {self.name} did not start: {said}")
        process.returncode = 0  # it is left alone: no warning of a child that still runs
        return line

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        pid = self.pid()
        if pid is not None:
            os.kill(pid, number)

    def wait_ended(self, timeout_s: float) -> bool:
        """Return whether it has ended, at the latest after `timeout_s`."""
        return wait_for(lambda: self.pid() is None, timeout_s)

    def stop(self) -> None:
        """End it, and forget that it was there; its log stays."""
        self.signal(signal.SIGTERM)
        if not self.wait_ended(END_S):
            self.signal(signal.SIGKILL)
            self.wait_ended(END_S)
        self._file.unlink(missing_ok=True)


def wait_for(true: Callable[[], bool], timeout_s: float, poll_s: float = POLL_S) -> bool:
    """Return whether `true()`, as soon as it is or after `timeout_s`."""
    until = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() >= until:
            return False
        time.sleep(poll_s)
    return True
