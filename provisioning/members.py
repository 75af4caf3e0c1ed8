"""The nodes of a cluster, whatever they run on: brought up, looked at, drained, removed.

A member knows how one node is made; which members there are and what is done with all of them at
once is in cluster.py.
"""

import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from burla.provisioning.core.machines import (
    JoinToken,
    Machine,
    Provisioner,
    Report,
    StepFailed,
    Transport,
    tail,
)
from burla.provisioning.core.plan import DRAINING
from burla.provisioning.core.steps import PACKAGES_S, READY_S_MAX, Wanted
from burla.provisioning.install import bootstrap
from burla.provisioning.install.wheels import Wheels
from burla.system.launch import command

from .daemons import Daemon, wait_for

Connect = Callable[[], Transport]
OTHER_PACKAGES = "it has not the packages that it is to have: run `burla up` again"
CONNECTING = "connecting"  # the phase before anything is done there
POLL_S = 1.0  # between two looks at a machine of a provider
END_S = 180.0  # until such a machine is gone


class Member(Protocol):
    """One node, there or not."""

    @property
    def name(self) -> str:
        """What it is called in the cluster."""

    def up(self, report: Report) -> dict[str, float]:
        """Make it a node that the scheduler knows; return the phases and their seconds.

        Raises:
            ProvisioningError: it could not be made one; says why.
        """

    def look(self) -> tuple[str, str]:
        """Return its phase in a word: "ready", "silent", "stopped" or "absent"; and what is amiss.

        Raises:
            ProvisioningError: it cannot be reached.
        """

    def drain(self, report: Report, wait_s: float) -> None:
        """Let it finish what runs, and end; it can be brought up again.

        Raises:
            ProvisioningError: it cannot be reached, or calls run on.
        """

    def remove(self, report: Report) -> None:
        """Leave the machine as it was.

        Raises:
            ProvisioningError: it cannot be reached.
        """


@dataclass(frozen=True)
class Installed:
    """A node on a machine that a Transport leads to."""

    name: str
    connect: Connect
    wanted: Wanted
    wheels: Wheels
    join_token: JoinToken
    turn: AbstractContextManager[object]  # nodes that serve are made anew one after the other

    def up(self, report: Report) -> dict[str, float]:
        """See `Member`."""
        with self._connected(report) as transport:
            timing = bootstrap.bring_up(
                transport, self.wanted, self.wheels.paths, self.join_token, report, self.turn
            )
        return timing.phases

    def look(self) -> tuple[str, str]:
        """See `Member`."""
        with self._connected(lambda phase: None) as transport:
            facts = bootstrap.look(transport, self.wanted)
        if not facts.there:
            return "absent", ""
        if not facts.running:
            return "stopped", ""
        heard = facts.ready_s is not None and facts.ready_s <= READY_S_MAX
        is_given = facts.packages == self.wanted.packages_stamp()
        return "ready" if heard else "silent", "" if is_given else OTHER_PACKAGES

    def drain(self, report: Report, wait_s: float) -> None:
        """See `Member`."""
        with self._connected(report) as transport:
            bootstrap.drain(transport, self.wanted, report, wait_s)

    def remove(self, report: Report) -> None:
        """See `Member`."""
        with self._connected(report) as transport:
            bootstrap.take_down(transport, self.wanted, report)

    @contextmanager
    def _connected(self, report: Report) -> Iterator[Transport]:
        report(CONNECTING)
        transport = self.connect()
        try:
            yield transport
        finally:
            transport.close()


@dataclass(frozen=True)
class Rented:
    """A node on a machine of a provider. It is not brought up by itself, but with its fleet."""

    machine: Machine
    provisioner: Provisioner

    @property
    def name(self) -> str:
        """See `Member`."""
        return self.machine.name

    def up(self, report: Report) -> dict[str, float]:
        """See `Member`."""
        return {}

    def look(self) -> tuple[str, str]:
        """See `Member`."""
        found = self._find()
        return ("absent", "") if found is None else (found.state, found.why)

    def drain(self, report: Report, wait_s: float) -> None:
        """See `Member`. Its machine is given up then: it would cost money for nothing."""
        report("draining")
        self.provisioner.drain(self.machine, wait_s)
        self._wait(_is_drained, wait_s + END_S, f"calls still run after {wait_s:.0f} s")
        self.remove(report)

    def remove(self, report: Report) -> None:
        """See `Member`."""
        report("removing")
        self.provisioner.delete([self.machine])
        self._wait(lambda found: found is None, END_S, f"it still exists after {END_S:.0f} s")

    def _find(self) -> Machine | None:
        there = self.provisioner.observe()
        return next((machine for machine in there if machine.name == self.name), None)

    def _wait(self, true: Callable[[Machine | None], bool], timeout_s: float, why: str) -> None:
        if not wait_for(lambda: true(self._find()), timeout_s, POLL_S):
            raise StepFailed(why)


def _is_drained(found: Machine | None) -> bool:
    """Return whether a machine that was told to drain has done so."""
    if found is None or found.state == "ended":
        return True
    return found.state == "ending" and found.why != DRAINING


@dataclass(frozen=True)
class Local:
    """A nodelet on this machine, run by the burla that is installed here."""

    name: str
    directory: Path
    scheduler: str
    cpus: int | None
    join_token: JoinToken
    join_s: int
    drain_s: int
    turn: AbstractContextManager[object]  # see `Installed`
    options: tuple[str, ...] = ()  # more of the nodelet
    packages: tuple[str, ...] = ()  # likewise: of what all jobs find there

    def up(self, report: Report) -> dict[str, float]:
        """See `Member`."""
        line = self._line()
        is_current = self._daemon.is_current(*line)
        if is_current and self._daemon.is_ready():
            return {}
        if self.packages:  # while what runs goes on
            report("packages")
            install_packages(self.packages)
        if is_current or self._daemon.pid() is None:
            self._start(line, report)
        else:
            report("waiting for its turn")
            with self.turn:
                self.drain(report, self.drain_s)
                self._start(line, report)
        return {}

    def _start(self, line: Sequence[str], report: Report) -> None:
        report("starting")
        token = self.join_token(self.name)
        if token is not None:
            self._token.touch(mode=0o600)
            self._token.write_bytes(token)
        once = {"--join-token-file": self._token}
        self._daemon.start(*line, once=once, wait_s=self.join_s)
        self._token.unlink(missing_ok=True)

    def _line(self) -> list[str]:
        line = ["burla.nodelet.cli", "--scheduler", self.scheduler, "--name", self.name]
        line += ["--ready-file", str(self._daemon.ready)]
        line += ["--cpus", str(self.cpus)] if self.cpus is not None else []
        line += [*self.options, *self.packages]
        if self.scheduler.startswith("burla:"):
            line += ["--key-file", str(self.directory / f"{self.name}.key")]
        return line

    def look(self) -> tuple[str, str]:
        """See `Member`."""
        if self._daemon.pid() is None:
            return "stopped" if self._daemon.was_started() else "absent", ""
        is_given = self._daemon.is_current(*self._line())
        why = "" if is_given or not self.packages else OTHER_PACKAGES
        return "ready" if self._daemon.is_ready() else "silent", why

    def drain(self, report: Report, wait_s: float) -> None:
        """See `Member`."""
        report("draining")
        self._daemon.signal(signal.SIGUSR1)
        if not self._daemon.wait_ended(wait_s):
            raise StepFailed(f"draining: calls still run after {wait_s:.0f} s")

    def remove(self, report: Report) -> None:
        """See `Member`."""
        report("removing")
        self._daemon.remove()

    @property
    def _daemon(self) -> Daemon:
        return Daemon(self.name, self.directory)

    @property
    def _token(self) -> Path:
        return self.directory / f"{self.name}.token"


def install_packages(options: Sequence[str]) -> None:
    """Install, on this machine, what nodelets with these options have for all jobs.

    Raises:
        StepFailed: it cannot be had; says which, and why.
    """
    line = [*command("burla.nodelet.cli", "install"), *options]
    done = subprocess.run(
        line,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=PACKAGES_S,
    )
    if done.returncode != 0:
        raise StepFailed(tail(done.stderr) or f"it ended with exit code {done.returncode}")
