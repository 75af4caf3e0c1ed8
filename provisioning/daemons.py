"""Daemons of ours on this machine that outlive the command that starts them.

Somebody starts each again when it fails: systemd, where that runs and we are root (then it is there
after a reboot, too), else a process of its own. Both are in install/bootstrap.sh. A daemon called
NAME has in the folder of its cluster: NAME.sh, which runs it; NAME.ready, while it serves; without
systemd NAME.pid (of its supervisor: process id and start, since ids are used again) and NAME.log.
"""

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from burla.protocol import VERSION
from burla.provisioning.core.machines import StepFailed, tail
from burla.provisioning.core.steps import DIRECTORY, READY_S_MAX
from burla.provisioning.install.bootstrap import SCRIPT
from burla.system.launch import command
from burla.system.procfs import process_started

START_S = 60  # for a daemon to serve, on a machine that is busy
END_S = 60.0  # ours cut themselves off 8 s after SIGTERM; then they are killed
POLL_S = 0.02
SYSTEMD = Path("/run/systemd/system")  # is there where systemd runs; sd_booted(3)
UNITS = Path("/etc/systemd/system")
# What a daemon needs of the environment of the command that starts it; a unit has nothing of it.
NEEDED = re.compile(
    r"HOME|PATH|LANG|TZ|KUBECONFIG|BURLA_\w+_DIR|\w+_proxy"
    r"|(LC|XDG|GOOGLE|CLOUDSDK|SLURM|PBS|KUBERNETES|AWS|AZURE)_\w+"
)


@dataclass(frozen=True)
class Daemon:
    """One daemon, running or not."""

    name: str
    directory: Path  # of its cluster, and called like that

    @property
    def ready(self) -> Path:
        """The file that it is to write when it serves."""
        return self._file("ready")

    def pid(self) -> int | None:
        """Return the process id of its supervisor, or of the daemon in a unit; None: no such."""
        try:
            pid, started = map(int, self._file("pid").read_text().split())
            if process_started(pid) == started:
                return pid
        except (OSError, ValueError):
            pass
        if not self._is_unit() or not (UNITS / self._unit).exists():
            return None
        show = ["systemctl", "show", "--property", "MainPID", "--value", self._unit]
        said = subprocess.run(show, capture_output=True, text=True, check=False).stdout
        return int(said or 0) or None

    def was_started(self) -> bool:
        """Return whether a command has started it, and none has removed it."""
        return self._file("sh").exists()

    def heard_s(self) -> float | None:
        """Return how many seconds ago it last said that it serves; None: never."""
        try:
            return time.time() - self.ready.stat().st_mtime
        except OSError:
            return None

    def is_ready(self) -> bool:
        """Return whether it runs and has said lately that its scheduler answers."""
        heard_s = self.heard_s()
        return self.pid() is not None and heard_s is not None and heard_s <= READY_S_MAX

    def is_current(self, module: str, *arguments: str) -> bool:
        """Return whether what was started last is this, by this version of burla."""
        try:
            lines = self._file("sh").read_text().splitlines()
        except OSError:
            return False
        return lines[:1] + lines[-1:] == _lines(command(module, *arguments))

    def start(
        self,
        module: str,
        *arguments: str,
        once: Mapping[str, Path] | None = None,
        wait_s: int = START_S,
    ) -> None:
        """Start it, again if it runs; return when it serves.

        Args:
            module: whose `main` it is.
            arguments: of the daemon.
            once: options, with files that they name, which hold only while the files exist.
            wait_s: for it to serve.

        Raises:
            StepFailed: it does not serve, and nothing of it is left; the text is the end of its
                log.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.write(module, *arguments, once=once)
        done = self._call("run", "--wait", str(wait_s), timeout_s=wait_s + END_S)
        if done.returncode != 0:
            self.remove()
            said = tail(done.stderr) or "its log is empty"
            raise StepFailed(f"{self.name} does not serve after {wait_s} s at most: {said}")

    def write(self, module: str, *arguments: str, once: Mapping[str, Path] | None = None) -> None:
        """Write how it is started the next time; see `start`."""
        first, last = _lines(command(module, *arguments))
        lines = [first]
        if self._is_unit():
            here = {name: text for name, text in os.environ.items() if NEEDED.fullmatch(name)}
            lines += [f"export {name}={shlex.quote(text)}" for name, text in here.items()]
        for option, file in (once or {}).items():
            path = shlex.quote(str(file))
            lines.append(f'[ ! -f {path} ] || set -- "$@" {option} {path}')
        new = self._file("new")
        new.touch(mode=0o700)
        new.write_text("\n".join([*lines, last]) + "\n")
        new.replace(self._file("sh"))

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        pid = self.pid()
        if pid is not None:
            os.kill(pid, number)

    def wait_ended(self, timeout_s: float) -> bool:
        """Return whether it has ended, at the latest after `timeout_s`."""
        return wait_for(lambda: self.pid() is None, timeout_s)

    def stop(self) -> None:
        """End it; its log stays."""
        if self.directory.exists():
            self._call("stop")

    def remove(self) -> None:
        """End it, and leave nothing of it: no file, no unit."""
        if self.directory.exists():
            self._call("forget")

    def _call(
        self, what: str, *options: str, timeout_s: float = END_S
    ) -> subprocess.CompletedProcess[str]:
        """Call one function of bootstrap.sh for it."""
        line = ["sh", str(SCRIPT), what, "--program", self.name, "--cluster", self.directory.name]
        line += ["--directory", str(self.directory), "--service", self._service()]
        return subprocess.run(
            [*line, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            check=False,
            timeout=timeout_s,
        )

    def _service(self) -> str:
        return "systemd" if self._is_unit() else "process"

    def _is_unit(self) -> bool:
        is_plain = DIRECTORY.fullmatch(str(self.directory)) is not None
        return is_plain and os.geteuid() == 0 and SYSTEMD.is_dir()

    @property
    def _unit(self) -> str:
        return f"burla-{self.name}-{self.directory.name}.service"

    def _file(self, kind: str) -> Path:
        return self.directory / f"{self.name}.{kind}"


def _lines(words: list[str]) -> list[str]:
    """Return the first and the last line of the script that runs a command."""
    return [f"# burla {VERSION}", f'exec {shlex.join(words)} "$@"']


def wait_for(true: Callable[[], bool], timeout_s: float, poll_s: float = POLL_S) -> bool:
    """Return whether `true()`, as soon as it is or after `timeout_s`."""
    until = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() >= until:
            return False
        time.sleep(poll_s)
    return True
