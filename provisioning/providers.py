"""Those who make machines for a cluster: ours, and others' that are installed beside burla.

Somebody else's provider is an entry point of the group `burla.providers`: a function that takes a
`Site` and returns a `Provisioner`. Its table in the cluster's file is [providers.NAME], in which
`nodes`, `boot_s` and `spare` are read here; all else is the provider's to check. What such a
package needs is named here; docs/providers.md describes it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from burla.provisioning.core.machines import (
    BadConfig,
    JoinToken,
    Machine as Machine,
    Provisioner as Provisioner,
    ProvisioningError,
    Shape as Shape,
)
from burla.provisioning.core.plan import CLUSTER, MADE_BY, MANAGED
from burla.provisioning.slurm.provisioner import Slurm
from burla.system.launch import command

from .config import BOOT_S, ClusterConfig, log_options, package_options

GROUP = "burla.providers"
OWN = ("nodes", "boot_s", "spare")  # of [providers.NAME]: what burla itself reads

Say = Callable[[str], None]
Pause = Callable[[float], None]


@dataclass(frozen=True)
class Site:
    """What a provider of somebody else is told of the cluster whose machines it makes."""

    cluster: str  # its name
    settings: Mapping[str, Any]  # of [providers.NAME], without what burla reads; yours to check
    scheduler: str  # its address, as machines reach it
    python: str  # minor version that nodes run: callers and nodes need equal ones
    directory: Path  # on this machine, of this provider alone; goes when the cluster is down
    labels: Mapping[str, str]  # for each machine: by these they are found again, and told apart
    say: Say = lambda text: None  # is told each refusal, in words
    pause: Pause = lambda seconds: None  # waits; a daemon that is to end raises from it
    _join_token: JoinToken = lambda name: None
    _options: Sequence[str] = field(default=())

    def join_token(self, name: str) -> bytes | None:
        """Return a fresh token by which one machine may become a node, once, within ten minutes.

        None: this scheduler needs none.
        """
        return self._join_token(name)

    def nodelet(self, name: str, *options: str) -> list[str]:
        """Return the command that makes a machine a node, by the burla that is installed here.

        Args:
            name: of the machine, as `Machine.name` has it.
            options: more of `burla-nodelet`, as "--cpus", "8".
        """
        line = ["--scheduler", self.scheduler, "--name", name, *self._options, *options]
        return command("burla.nodelet.cli", *line)


@dataclass(frozen=True)
class Rental:
    """Who makes machines of one kind, and how many stand."""

    provisioner: Provisioner
    nodes: int
    boot_s: float  # from a machine's creation to its first Hello
    spare: bool = True  # what replaces a machine comes before that goes


@dataclass(frozen=True)
class Head:
    """What providers need to know of the cluster's head."""

    scheduler: str  # address
    join_token: JoinToken
    directory: Path  # of the cluster
    say: Say
    pause: Pause


def rentals(config: ClusterConfig, head: Head) -> dict[str, Rental]:
    """Return who makes machines for a cluster, by name.

    Raises:
        ProvisioningError: one of them is not installed, or cannot work so.
    """
    return {name: rental(name, config, head) for name in config.provided}


def settled(config: ClusterConfig) -> ClusterConfig:
    """Return settings that mean the same wherever, and whenever, a command reads them.

    Raises:
        ProvisioningError: it cannot be told which Kubernetes is meant.
    """
    if "kubernetes" not in config.provided:
        return config
    try:
        from burla.provisioning.kubernetes.api import settled as place_of
    except ImportError as error:
        raise _lacks("Kubernetes", "kubernetes", error) from None
    return replace(config, kubernetes=place_of(config.kubernetes))


def rental(name: str, config: ClusterConfig, head: Head) -> Rental:
    """Return who makes machines of one kind for a cluster.

    Raises:
        ProvisioningError: it is not installed, or cannot work so.
    """
    match name:
        case "gce":
            return _gce(config, head)
        case "kubernetes":
            return _kubernetes(config, head)
        case "slurm":
            folder = head.directory / "slurm"
            jobs = Slurm(config, folder, head.scheduler, head.join_token)
            # it may have room for no more
            return Rental(jobs, config.slurm.nodes, config.slurm.wait_s, spare=False)
        case _:
            return _of_others(name, config, head)


def _gce(config: ClusterConfig, head: Head) -> Rental:
    try:
        from burla.provisioning.gce.provisioner import Gce  # google-cloud-compute is slow to import
    except ImportError as error:
        raise _lacks("Compute Engine", "gce", error) from None
    cloud = Gce(config, head.scheduler, head.join_token, head.say, head.pause)
    return Rental(cloud, config.gce.nodes, config.gce.boot_s)


def _kubernetes(config: ClusterConfig, head: Head) -> Rental:
    try:
        from burla.provisioning.kubernetes.provisioner import Kubernetes  # likewise: lightkube
    except ImportError as error:
        raise _lacks("Kubernetes", "kubernetes", error) from None
    pods = Kubernetes(config, head.scheduler, head.join_token, head.say, head.pause)
    return Rental(pods, config.kubernetes.nodes, config.kubernetes.boot_s)


def _lacks(what: str, extra: str, error: ImportError) -> ProvisioningError:
    text = f"{what} needs more packages: pip install 'burla[{extra}]' ({error})"
    return ProvisioningError(text)


def _of_others(name: str, config: ClusterConfig, head: Head) -> Rental:
    table = config.providers.get(name, {})
    site = Site(
        cluster=config.name,
        settings={key: value for key, value in table.items() if key not in OWN},
        scheduler=head.scheduler,
        python=config.python,
        directory=head.directory / name,
        labels={MANAGED: "true", CLUSTER: config.name, MADE_BY: config.stamp},
        say=head.say,
        pause=head.pause,
        _join_token=head.join_token,
        _options=[*log_options(config), *package_options(config, head.directory)],
    )
    provisioner = _found(name)(site)
    return Rental(
        provisioner, table.get("nodes", 0), table.get("boot_s", BOOT_S), table.get("spare", True)
    )


def _found(name: str) -> Callable[[Site], Provisioner]:
    """Return the provider that is installed under a name: one of PBS is part of burla."""
    if name == "pbs":
        from burla.provisioning.pbs.provisioner import Pbs  # few clusters have it

        return Pbs
    points = entry_points(group=GROUP)
    found = {point.name: point for point in points}.get(name)
    if found is None:
        there = ", ".join(sorted({point.name for point in points})) or "none"
        raise BadConfig(
            f"providers.{name}: no provider of this name is installed (installed: {there});"
            f" install the package that has it: an entry point of the group {GROUP!r}"
        )
    try:
        made: Callable[[Site], Provisioner] = found.load()
    except Exception as error:  # whatever it is, it is theirs: all else goes on
        raise ProvisioningError(
            f"the provider {name!r} ({found.value}) cannot be loaded: {error!r}"
        ) from error
    return made
