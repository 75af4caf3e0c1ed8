"""Machines, and the two things one does with them: run commands there, and get or give up some.

Pure: what is said here is said to all kinds of machines alike (ssh, gce, ...).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from burla.protocol.printable import printable as printable  # for all kinds of machines

OUTPUT_CHARS_MAX = 64 << 10  # of one command; the end of it is kept

Progress = Callable[[str, str], None]  # is told the name of a machine and the phase that begins
Report = Callable[[str], None]  # is told the phase that begins, of one machine
JoinToken = Callable[[str], bytes | None]  # node name -> a fresh one-time token; None: no keys


class ProvisioningError(RuntimeError):
    """Something that people can fix; the text says what, where, why, and what to do."""


class Unreachable(ProvisioningError):
    """The machine cannot be connected to, or refuses our login."""


class ConnectionLost(ProvisioningError):
    """The connection ended in the middle of a command, which may run on."""


class StepFailed(ProvisioningError):
    """A command ended with another status than 0; the text is the end of what it said."""


class BadConfig(ProvisioningError):
    """A setting says something impossible."""


@dataclass(frozen=True)
class Machine:
    """One machine, as its provider knows it."""

    name: str  # of the node, unique in the cluster
    address: str  # where its provider or ssh finds it
    provider: str  # "gce", "slurm", ...: its name in the settings
    state: str = "ready"  # or "creating", "joining", "failed", "ending", "ended"
    why: str = ""  # of a failure
    says_so: bool = False  # the state is what the machine says; its jobs may say it as well
    expires_s: float | None = None  # epoch time of its end whatever we do; None: never
    grown: bool = False  # made for a job that asked, not by people
    cost_per_h: float = 0.0
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Shape:
    """What a machine that a provider makes is sure to have."""

    cpus: int
    ram: int = 0  # bytes; 0: not known
    gpus: int = 0

    def slots(self, func_cpu: int, func_ram: int | None, func_gpu: int = 0) -> int:
        """Return how many calls it could run at once; `func_ram`: bytes of each, if it says."""
        slots = self.cpus // func_cpu
        if func_gpu:
            slots = min(slots, self.gpus // func_gpu)
        return min(slots, self.ram // func_ram) if self.ram and func_ram else slots


class Finished(NamedTuple):
    """How a command ended, and the end of what it wrote to stdout and stderr."""

    status: int
    output: str


class Transport(Protocol):
    """Runs commands on one machine. Not thread-safe."""

    def run(self, command: str, stdin: bytes = b"", *, timeout_s: float) -> Finished:
        """Run a command of a POSIX shell, with `stdin` as its input.

        Raises:
            ConnectionLost: it may or may not have run, or runs on.
        """

    def close(self) -> None:
        """Close the connection."""


class Provisioner(Protocol):
    """Gets machines and gives them up. Calls block; one `create` at a time, beside the others.

    One that heeds what jobs want of machines says so by two attributes more: see `Heeding`.
    """

    def observe(self) -> list[Machine]:
        """Return all machines of the cluster that exist, in whatever state."""

    def create(self, count: int, *, grown: bool = False) -> list[Machine]:
        """Ask for `count` machines; return those that are made, perhaps fewer.

        Raises:
            ProvisioningError: not one could be made; says why.
        """

    def shape(self) -> Shape:
        """Return what the next machine will have at least.

        Raises:
            ProvisioningError: there is no such kind of machine.
        """

    def price_per_h(self) -> float | None:
        """Return what the next machine costs at most; None: not known."""

    def drain(self, machine: Machine, wait_s: float) -> None:
        """Have a machine take no more work; it says "drained", or ends, when what runs has ended.

        Args:
            machine: of those that exist.
            wait_s: after this what still runs is left.
        """

    def delete(self, machines: Sequence[Machine]) -> None:
        """Give machines up; one that is gone already is no error.

        Raises:
            ProvisioningError: one or more could not be given up; all others were.
        """

    def clean(self) -> None:
        """Remove what there is besides machines, of which none is left.

        Raises:
            ProvisioningError: it cannot be removed.
        """


class Heeding(Provisioner, Protocol):
    """A provisioner that makes machines as jobs want them, where and how they can be had.

    What is wanted comes by the names in `heeds`, each only if it is wanted.
    """

    heeds: frozenset[str]  # of region, disk_gb

    def why_not(self, **wanted: Any) -> str:
        """Return why no machine is ever made so; empty: it can be tried.

        All callers who wait see it: do not repeat what is wanted, which one of them has said.
        """

    def create(self, count: int, *, grown: bool = False, **wanted: Any) -> list[Machine]:
        """As that of `Provisioner`."""


def tail(text: str, lines_max: int = 6) -> str:
    """Return the last lines of what a command said, those that say why it failed."""
    plain = printable(text, lines=True)
    kept = [line.rstrip() for line in plain.splitlines() if line.strip()]
    return "\n".join(kept[-lines_max:])


def named(names: Iterable[str], most: int = 6) -> str:
    """Return names as a list for people, cut off after `most`."""
    all_of_them = list(names)
    text = ", ".join(all_of_them[:most])
    return f"{text} and {len(all_of_them) - most} more" if len(all_of_them) > most else text
