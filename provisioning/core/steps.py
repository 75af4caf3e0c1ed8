"""From the facts about a machine to the steps that are missing to make it a node. Pure.

A step is one function of bootstrap.sh with its options. Steps are computed anew from the facts each
time, so a run after a half-failed one does what is missing and no more.
"""

import hashlib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from .facts import Facts
from .machines import ProvisioningError

SPACE_KB = 250 << 10  # the environment takes 110 MB, wheels of all dependencies 35; and growth
PACKAGES_S = 1900.0  # an installation of packages may take half an hour
READY_S_MAX = 60  # a nodelet touches its ready file every few seconds
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")  # safe in file names, units and labels
DIRECTORY = re.compile(r"[A-Za-z0-9._/~+-]+")  # as a unit file takes it without quotes


class CannotBe(ProvisioningError):
    """The machine cannot become a node as it is; the text says what it lacks, and the remedy."""


@dataclass(frozen=True)
class Wanted:
    """What a machine is to become."""

    cluster: str
    name: str  # of the node
    scheduler: str  # address; opaque here
    python: str  # minor, "3.11": functions travel only between equal ones
    version: str  # of burla
    wheel: str  # file name of ours
    wheels: dict[str, str]  # file name -> sha256 of all that is shipped
    is_wheelhouse: bool = False  # all dependencies are among `wheels`: no index is asked
    index: str = ""  # URL; empty: whatever pip on the machine is configured to ask
    requirements: str = ""  # what is installed, by version and hash, for pip; empty: any version
    packages: tuple[str, ...] = ()  # requirements of what all jobs find there
    package_wheels: dict[str, str] = field(default_factory=dict)  # as `wheels`, for these
    directory: str = ""  # absolute; empty: ~/.burla/CLUSTER
    cpus: int | None = None
    ram_gb: float | None = None
    log_level: str = ""  # of the nodelet; empty: its default
    needs_token: bool = False  # the scheduler takes no new node without one
    script: str = ""  # sha256 of bootstrap.sh
    join_s: int = 60  # how long its first Hello may take
    drain_s: int = 600  # how long calls may run on before it is made anew

    def __post_init__(self) -> None:
        """Check what ends up in commands and file names.

        Raises:
            ProvisioningError: one of them must not.
        """
        for what, text in (("cluster", self.cluster), ("name", self.name)):
            if not NAME.fullmatch(text):
                raise ProvisioningError(f"{what}={text!r}: use only letters, digits, '.', '_', '-'")
        if self.directory and not DIRECTORY.fullmatch(self.directory):
            raise ProvisioningError(f"directory={self.directory!r}: use no spaces or quotes")

    def installed(self) -> str:
        """Return the stamp of the installation: another one is made anew."""
        words = (self.python, *sorted(self.wheels.items()), self.is_wheelhouse, self.wheel)
        # The hashes of a version are found out or not; that changes nothing on a machine.
        versions = tuple(line.split(" ")[0] for line in self.requirements.splitlines()[1:])
        return _digest(*words, *([versions] if versions and not self.is_wheelhouse else []))

    def settings(self) -> str:
        """Return the stamp of how the service is set up."""
        words = (self.scheduler, self.name, self.cpus, self.ram_gb, self.needs_token, self.script)
        return _digest(*words, *filter(None, [self.log_level, self._of_packages()]))

    def packages_stamp(self) -> str:
        """Return the stamp of the packages that all jobs find there; empty: there are none."""
        return _digest(self.python, *sorted(self.packages)) if self.packages else ""

    def _of_packages(self) -> tuple[object, ...]:
        """Return what the node is told of packages; nothing, if it is nothing unusual."""
        told = (self.packages_stamp(), self.index, self.is_wheelhouse)
        return told if any(told) else ()

    def options(self, **more: str) -> str:
        """Return the options that bootstrap.sh needs in every step, quoted for a shell."""
        words = {"cluster": self.cluster, "name": self.name, "python": self.python}
        if self.directory:
            words["directory"] = self.directory
        return shlex.join(x for k, v in (words | more).items() for x in (f"--{k}", v))


@dataclass(frozen=True)
class Step:
    """One call of bootstrap.sh."""

    name: str  # the function
    phase: str  # for people, as in "node7: installing"
    arguments: str  # quoted for a shell
    timeout_s: float
    files: tuple[str, ...] = field(default=())  # names of wheels that go to its stdin, as a tar
    takes_token: bool = False  # a fresh join token goes to its stdin
    stdin: bytes = b""  # goes there, if neither does


def steps(facts: Facts, wanted: Wanted) -> list[Step]:
    """Return what is still missing on the machine, in order; empty: it is a node.

    Raises:
        CannotBe: no step could help.
    """
    todo: list[Step] = []
    built = facts.installed == wanted.installed() and facts.version == wanted.version
    is_whole = built and facts.venv == wanted.python
    given = facts.packages == wanted.packages_stamp()
    needed = {**({} if is_whole else wanted.wheels), **({} if given else wanted.package_wheels)}
    if not is_whole:
        _check(facts, wanted)
    missing = tuple(name for name, sha in needed.items() if facts.wheels.get(name) != sha)
    if missing:
        todo.append(_step(wanted, "ship", "shipping", 600, files=missing))
    if is_whole and not given:  # beside what runs, which goes on meanwhile
        todo.append(_packages(wanted))
    ready = len(todo)
    if not is_whole:
        if facts.venv != wanted.python or facts.installed or facts.version:
            todo.append(_step(wanted, "venv", "environment", 120))
        todo.append(_install(wanted))
        if not given:
            todo.append(_packages(wanted))
    if facts.settings != wanted.settings():
        todo.append(_service(wanted))
    if todo and facts.running:  # calls are not cut off by what is done to it
        todo.insert(ready, drain(wanted, wanted.drain_s))
    runs = facts.running == f"{wanted.installed()} {wanted.settings()}"
    if todo or not runs:
        todo.append(_start(wanted))
    if todo or facts.ready_s is None or facts.ready_s > READY_S_MAX:
        more = {"scheduler": wanted.scheduler, "wait": str(wanted.join_s)}
        todo.append(_step(wanted, "hello", "joining", wanted.join_s + 30, more))
    return todo


def probe(wanted: Wanted) -> Step:
    """Return the step that asks for the facts."""
    return _step(wanted, "facts", "probing", 60)


def undo(wanted: Wanted) -> Step:
    """Return the step that leaves the machine as it was."""
    return _step(wanted, "remove", "removing", 90)


def drain(wanted: Wanted, wait_s: float) -> Step:
    """Return the step that lets a node finish what runs, and end."""
    return _step(wanted, "drain", "draining", wait_s + 30, {"wait": str(int(wait_s))})


def _check(facts: Facts, wanted: Wanted) -> None:
    if not facts.python:
        if facts.without_venv:
            raise CannotBe(
                f"{facts.without_venv} cannot make virtual environments: install its venv module"
                f" (on Debian and Ubuntu: apt-get install python{wanted.python}-venv)"
            )
        found = f"found {facts.others}" if facts.others else "found no Python 3 at all"
        other = ", or run burla here with one of those" if facts.others else ""
        raise CannotBe(
            f"no Python {wanted.python} there ({found}): install it (on Debian and Ubuntu: apt-get"
            f" install python{wanted.python}-venv){other}; nodes and callers need equal versions"
        )
    if facts.free_kb < SPACE_KB:
        raise CannotBe(
            f"{facts.free_kb >> 10} MB are free where burla would be installed, but"
            f" {SPACE_KB >> 10} MB are needed: free some, or set ssh.directory to another disk"
        )


def _install(wanted: Wanted) -> Step:
    folder = _wheels_of(wanted)
    more = {"installed": wanted.installed()}
    if wanted.index and not wanted.is_wheelhouse:
        more["index"] = wanted.index
    if wanted.requirements:
        more["requirements"] = "-"
    step = _step(wanted, "install", "installing", 900, more)
    # unquoted, so that the shell there says where its home is
    paths = f" --wheel {folder}/{shlex.quote(wanted.wheel)}"
    paths += f" --wheelhouse {folder}" if wanted.is_wheelhouse else ""
    stdin = wanted.requirements.encode()
    return Step(step.name, step.phase, step.arguments + paths, step.timeout_s, stdin=stdin)


def _wheels_of(wanted: Wanted) -> str:
    """Return the folder with what was shipped; not quoted: the shell there says where it is."""
    return f"{wanted.directory or f'~/.burla/{wanted.cluster}'}/wheels"


def _packages(wanted: Wanted) -> Step:
    """Return the step that installs what the node has for all jobs."""
    more = {"packages": "-", "given": wanted.packages_stamp()}
    return _with_source(_step(wanted, "packages", "packages", PACKAGES_S, more), wanted)


def _with_source(step: Step, wanted: Wanted) -> Step:
    """Return a step that knows where packages come from."""
    words = step.arguments
    if wanted.is_wheelhouse:
        words += f" --wheelhouse {_wheels_of(wanted)}"
    elif wanted.index:
        words += f" --index {shlex.quote(wanted.index)}"
    stdin = "".join(f"{one}\n" for one in wanted.packages) if step.name == "packages" else ""
    return replace(step, arguments=words, stdin=stdin.encode())


def _service(wanted: Wanted) -> Step:
    more = {"scheduler": wanted.scheduler, "settings": wanted.settings()}
    if wanted.cpus is not None:
        more["cpus"] = str(wanted.cpus)
    if wanted.ram_gb is not None:
        more["ram"] = str(wanted.ram_gb)
    if wanted.log_level:
        more["log-level"] = wanted.log_level
    if wanted.needs_token:
        more["join-token-file"] = "-"
    if wanted.packages:
        more["packages"] = "-"
    return _with_source(_step(wanted, "service", "setting up", 60, more), wanted)


def _step(
    wanted: Wanted,
    name: str,
    phase: str,
    timeout_s: float,
    more: Mapping[str, str] = MappingProxyType({}),
    *,
    files: tuple[str, ...] = (),
) -> Step:
    return Step(name, phase, wanted.options(**more), timeout_s, files)


def _start(wanted: Wanted) -> Step:
    if not wanted.needs_token:
        return _step(wanted, "start", "starting", 60)
    options = wanted.options(**{"join-token-file": "-"})
    return Step("start", "starting", options, 60, takes_token=True)


def _digest(*words: object) -> str:
    return hashlib.sha256(repr(words).encode()).hexdigest()[:32]
