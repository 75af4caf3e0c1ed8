"""The settings of a cluster, from a TOML file or options; checked here, once.

name = "lab"                        # of the cluster
bind = "tcp://10.0.0.1:7270"        # where its scheduler listens on this machine
scheduler = "tcp://head:7270"       # where nodes reach it, if that is a different address; without
                                    # `bind`: burla://... or ipc://... of one that runs already
wheelhouse = "auto"                 # for nodes that cannot reach a package index: wheels are
                                    # downloaded here and shipped
log_level = "debug"                 # of all daemons: debug, info (the default), warning or error
away_limit_s = 3600                 # the jobs of a caller that is away for longer are given up
                                    # (default: 600; inf: never)

[node]
packages = ["numpy", "pandas>=2"]   # that all nodes have, for all jobs; or a requirements file,
                                    # pyproject.toml or uv.lock

[ssh]
hosts = ["root@node1", "node2"]     # as for ssh; ~/.ssh/config applies

[local]
nodes = 1

[quotas.everybody]                  # what each user may have at once; see `burla auth quota`
jobs = 100
[quotas.users.anna]
bytes = 34359738368

[grow]                              # machines for jobs with grow=True; [gce], [slurm], [kubernetes]
max_nodes = 8                       # or [providers.NAME] says which

[providers.NAME]                    # machines of a provider that is installed beside burla
nodes = 4
"""

import hashlib
import math
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
from msgspec.structs import replace

from burla.protocol import VERSION
from burla.protocol.fields import SHARED_IS, is_shared
from burla.protocol.package_messages import checked, split_hashes
from burla.provisioning.core.machines import BadConfig
from burla.provisioning.core.plan import stamp
from burla.provisioning.core.steps import DIRECTORY, NAME
from burla.scheduler.auth.quota_store import Limits
from burla.scheduler.config import AWAY_LIMIT_MIN_S, ConfigError, metrics_address
from burla.scheduler.core.admission import is_name
from burla.shipping.requirement_files import read_file
from burla.system.logs import LEVELS

from .provider_settings import (
    NODES_MAX,
    GceConfig,
    KubernetesConfig,
    SlurmConfig,
    must as _must,
)

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
DRAIN_S_MAX = 7 * 86400
BUILT_IN = ("gce", "slurm", "kubernetes")  # those who make machines that are part of burla
BOOT_S = 300.0  # of machines of others: from their creation to their first Hello
OPTIONS = {  # of the command line -> the table in which a setting is called so
    **dict.fromkeys(("bind", "scheduler", "python", "wheelhouse", "index", "log_level"), ""),
    **dict.fromkeys(("project", "zones", "machine_types"), "gce"),
    "partition": "slurm",
    **dict.fromkeys(("image", "namespace", "context"), "kubernetes"),
    "packages": "node",
    "max_nodes": "grow",
}

FAULT = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<where>.*)`)?", re.DOTALL)  # as msgspec says it
UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`")
WANTED = re.compile(r"Expected `(?P<kind>\w+)[^`]*`(?: (?P<bound>[<>]=.*)|, got .*)?")
# of a path, as in .ssh.hosts[0] or .grow.prices[...]
STEP = re.compile(r"\.(?P<key>\w+)|\[(?P<index>\d+)\]|\[\.\.\.\]")
KINDS = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list of texts",
    "object": "a table",
}


class SshConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hosts that are reached by SSH."""

    hosts: tuple[str, ...] = ()  # [USER@]HOST[:PORT]
    directory: str = ""  # of the installation on them; empty: ~/.burla/CLUSTER
    cpus: int | None = None  # of each, if not what it has
    ram_gb: float | None = None


class NodeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all nodes have, whatever they run on."""

    packages: tuple[str, ...] = ()  # requirements; a file may name one that lists them
    # exact versions of these and of all that they require, as `burla up` has found them at first
    pins: tuple[str, ...] = ()

    def given(self) -> tuple[str, ...]:
        """Return what they install."""
        return self.pins or self.packages


class LocalConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nodelets on this machine."""

    nodes: int = 0
    cpus: int | None = None


class GrowConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far machines of a provider are made for jobs that ask, and when idle ones go."""

    provider: str = ""  # "gce", "slurm", ...; empty: the first that the cluster has machines of
    # with so many machines of this provider, standing ones included, no more are made for jobs
    max_nodes: int = 0
    max_cost_per_h: float | None = None  # of all of them, in the currency of `prices`; None: any
    # machine type, with the usual disk -> per hour; "TYPE spot" for a spot machine, which else is
    # taken to cost as much
    prices: dict[str, float] = {}
    keep: int = 0  # of each provider, that stay however idle they are; lost ones are not replaced
    idle_min: float = 10.0  # one that is idle for this long is deleted
    grown_idle_min: float = 1.0  # one that was made for a job is deleted after this


class QuotasConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What users may have at once."""

    everybody: Limits = Limits()
    users: dict[str, Limits] = {}


class ClusterConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One cluster."""

    name: str = "default"
    bind: str = ""
    scheduler: str = ""
    python: str = MINOR
    index: str = ""  # URL that nodes install from; empty: what pip on them is configured to ask
    wheelhouse: str = ""  # "auto", or a folder of wheels that is shipped
    shared: str = ""  # where all nodes have one file system: burla.shared in functions
    metrics: str = ""  # where the scheduler serves metrics, HOST:PORT; empty: nowhere
    join_s: int = 60
    drain_s: int = 600  # how long `nodes drain` waits for calls that run
    log_level: str = ""  # of all daemons; empty: "info"
    away_limit_s: float | None = None  # as `burla-scheduler --away-limit`; None: its default
    node: NodeConfig = NodeConfig()
    ssh: SshConfig = SshConfig()
    local: LocalConfig = LocalConfig()
    gce: GceConfig = GceConfig()
    slurm: SlurmConfig = SlurmConfig()
    kubernetes: KubernetesConfig = KubernetesConfig()
    providers: dict[str, dict[str, Any]] = {}  # of others; see providers.py
    grow: GrowConfig = GrowConfig()
    quotas: QuotasConfig = QuotasConfig()

    def __post_init__(self) -> None:
        """Check what can be checked without asking anybody.

        Raises:
            BadConfig: a setting is impossible; says which and what it may be.
        """
        _must(
            NAME.fullmatch(self.name), "name", self.name, "1 to 63 letters, digits, '.', '_', '-'"
        )
        _must(not self.shared or is_shared(self.shared), "shared", self.shared, SHARED_IS)
        _check_metrics(self.metrics)
        minor = self.python.split(".")
        _must(
            len(minor) == 2 and all(map(str.isdigit, minor)),
            "python",
            self.python,
            "a minor version, e.g. 3.11",
        )
        _must(0 < self.join_s <= 3600, "join_s", self.join_s, "1 to 3600 seconds")
        _must(0 < self.drain_s <= DRAIN_S_MAX, "drain_s", self.drain_s, f"1 to {DRAIN_S_MAX} s")
        _must(self.log_level in ("", *LEVELS), "log_level", self.log_level, ", ".join(LEVELS))
        away_s = self.away_limit_s
        _must(
            away_s is None or away_s >= AWAY_LIMIT_MIN_S,  # also false for nan
            "away_limit_s",
            away_s,
            f"{AWAY_LIMIT_MIN_S:g} seconds or more; inf: no limit",
        )
        for where in ("local", *BUILT_IN):
            nodes = getattr(self, where).nodes
            _must(0 <= nodes <= NODES_MAX, f"{where}.nodes", nodes, f"0 to {NODES_MAX}")
        folder = self.ssh.directory
        _must(
            not folder or DIRECTORY.fullmatch(folder),
            "ssh.directory",
            folder,
            "a path without spaces or quotes",
        )
        self._check_node()
        self._check_providers()
        self._check_grow()
        self._check_quotas()

    def _check_node(self) -> None:
        for one in (*self.node.packages, *self.node.pins):
            try:
                checked(one)
            except ValueError as error:
                raise BadConfig(f"node.packages: {error}") from None
            bare, hashes = split_hashes(one)
            if hashes:
                raise BadConfig(
                    f"node.packages: {bare!r} has --hash, which is not followed for packages of all"
                    " jobs: take hashes out; what versions nodes get is found out once"
                )

    def _check_providers(self) -> None:
        self.gce.check(is_used=bool(self.gce.nodes) or self.grows_by == "gce")
        self.slurm.check()
        self.kubernetes.check()
        for name, table in self.providers.items():
            where = f"providers.{name}"
            _must(name not in BUILT_IN, where, table, f"[{name}]: that one is part of burla")
            _must(NAME.fullmatch(name), "providers", name, "the name of an installed provider")
            nodes, boot_s = table.get("nodes", 0), table.get("boot_s", BOOT_S)
            true = type(nodes) is int and 0 <= nodes <= NODES_MAX
            _must(true, f"{where}.nodes", nodes, f"0 to {NODES_MAX}")
            true = type(boot_s) in (int, float) and 0 < boot_s < math.inf
            _must(true, f"{where}.boot_s", boot_s, "more than 0 seconds")
            spare = table.get("spare", True)
            _must(type(spare) is bool, f"{where}.spare", spare, "true or false")

    def _check_quotas(self) -> None:
        if self.quotas == QuotasConfig():
            return
        reached = self.bind or self.scheduler
        expected = "tcp://...: quotas are of users, who are told apart by their keys"
        _must(reached.startswith(("tcp:", "burla:")), "bind", self.bind, expected)
        for user in self.quotas.users:
            _must(is_name(user), "quotas.users", user, "the name of a user")

    def _check_grow(self) -> None:
        grow = self.grow
        for name, count in (("max_nodes", grow.max_nodes), ("keep", grow.keep)):
            _must(0 <= count <= NODES_MAX, f"grow.{name}", count, f"0 to {NODES_MAX}")
        for name, value in (
            ("max_cost_per_h", grow.max_cost_per_h or 0.0),
            ("idle_min", grow.idle_min),
            ("grown_idle_min", grow.grown_idle_min),
            *((f"prices.{kind}", price) for kind, price in grow.prices.items()),
        ):
            _must(0 <= value < math.inf, f"grow.{name}", value, "0 or more")
        known = (*BUILT_IN, *self.providers)
        _must(
            grow.provider in known or (not grow.provider and (self.grows_by or not grow.max_nodes)),
            "grow.provider",
            grow.provider,
            f"one of {', '.join(known)}, whichever has a table here",
        )

    @property
    def stamp(self) -> str:
        """Return what tells machines of this burla and Python from others; see `plan.stale`."""
        return stamp(VERSION, self.python, self.node.packages)

    @property
    def grows_by(self) -> str:
        """Return the provider of the machines that are made for jobs; empty: none is."""
        if not self.grow.max_nodes:
            return ""
        if self.grow.provider:
            return self.grow.provider
        return next(iter(self._provided()), "")

    @property
    def provided(self) -> tuple[str, ...]:
        """The names of those who make machines for this cluster, or may."""
        found = dict.fromkeys([*self._provided(), *filter(None, [self.grows_by])])
        return tuple(found)

    def _provided(self) -> list[str]:
        found = ["gce"] if self.gce.project else []
        found += ["slurm"] if self.slurm.nodes else []
        found += ["kubernetes"] if self.kubernetes != KubernetesConfig() else []
        return [*found, *self.providers]

    def with_options(self, said: Mapping[str, Any]) -> "ClusterConfig":
        """Return this with what options of the command line say, by their names.

        Raises:
            BadConfig: one needs a provider that is not named, or is impossible.
        """
        other = said.get("provider", "")
        providers = [name for name in BUILT_IN if said.get(name)]
        if "nodes" in said and not (providers or other):
            flags = ", ".join(f"--{name}" for name in BUILT_IN)
            raise BadConfig(
                f"--nodes needs {flags}, --provider or --local: say which kind of node to make"
            )
        tables: dict[str, dict[str, Any]] = {name: {} for name in (*providers, "")}
        for name in providers:
            tables[name]["nodes"] = said.get("nodes", getattr(self, name).nodes or 1)
        for option, value in said.items():
            if option in OPTIONS:
                tables.setdefault(OPTIONS[option], {})[option] = value
        if "grow" in tables and (providers or other):
            tables["grow"]["provider"] = providers[0] if providers else other
        plain = tables.pop("")
        if other:
            table = self.providers.get(other, {})
            table = table | {"nodes": said.get("nodes", table.get("nodes") or 1)}
            plain["providers"] = self.providers | {other: table}
        nested = {name: replace(getattr(self, name), **table) for name, table in tables.items()}
        return replace(self, **plain, **nested)

    def with_fewer(self, kind: str) -> "ClusterConfig":
        """Return this with one node less of a kind: "local", "gce", ..."""
        if kind in self.providers:
            fewer = {"nodes": max(0, self.providers[kind].get("nodes", 0) - 1)}
            others = self.providers | {kind: self.providers[kind] | fewer}
            return replace(self, providers=others)
        table = getattr(self, kind)
        return replace(self, **{kind: replace(table, nodes=max(0, table.nodes - 1))})

    def with_hosts(self, hosts: tuple[str, ...]) -> "ClusterConfig":
        """Return this with more SSH hosts."""
        return replace(self, ssh=replace(self.ssh, hosts=tuple(dict.fromkeys(hosts))))


def log_options(config: ClusterConfig) -> list[str]:
    """Return the options by which each daemon of a cluster logs as its settings say."""
    return ["--log-level", config.log_level] if config.log_level else []


def package_options(config: ClusterConfig, directory: Path) -> list[str]:
    """Return the options by which nodelets on this file system have packages as settings say."""
    line = ["--packages", str(_package_file(config, directory))] if config.node.given() else []
    if config.wheelhouse and config.wheelhouse != "auto":
        return [*line, "--wheelhouse", str(Path(config.wheelhouse).absolute())]
    return [*line, *(["--index", config.index] if config.index else [])]


def write_packages(config: ClusterConfig, directory: Path) -> None:
    """Write the file that `package_options` names, and remove those of other packages."""
    file = _package_file(config, directory)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for old in directory.glob("packages-*.txt"):
        old.unlink() if old != file else None
    file.write_text("".join(f"{one}\n" for one in config.node.given()))


def _package_file(config: ClusterConfig, directory: Path) -> Path:
    name = hashlib.sha256(repr(sorted(config.node.given())).encode()).hexdigest()[:12]
    return directory / f"packages-{name}.txt"


def _check_metrics(address: str) -> None:
    if address:
        try:
            metrics_address(address)
        except ConfigError as error:
            raise BadConfig(f"metrics is {address!r}: {error}") from None


def load(path: Path) -> ClusterConfig:
    """Return the cluster that a file describes, by default named after the file.

    Raises:
        BadConfig: it cannot be read, or says something impossible or unknown.
    """
    try:
        said = tomllib.loads(path.read_text())
    except OSError as error:
        raise BadConfig(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise BadConfig(f"{path} cannot be read as TOML: {error}") from None
    try:
        return parse({"name": path.stem} | _with_packages(said, path.parent))
    except BadConfig as error:
        raise BadConfig(f"{path}: {error}") from None


def _with_packages(said: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Return settings with the packages that a file of theirs lists, if they name one."""
    node = said.get("node")
    if not isinstance(node, dict) or not isinstance(node.get("packages"), str):
        return said
    try:
        listed, _ = read_file(str(directory / node["packages"]))
    except (OSError, ValueError) as error:
        raise BadConfig(f"node.packages: {error}") from None
    return said | {"node": node | {"packages": listed}}


def parse(said: Mapping[str, Any]) -> ClusterConfig:
    """Return the cluster that nested settings describe.

    Raises:
        BadConfig: one of them is unknown or impossible.
    """
    try:
        return msgspec.convert(said, ClusterConfig)
    except msgspec.ValidationError as error:
        raise BadConfig(_in_words(str(error), said)) from None


def _in_words(error: str, said: Mapping[str, Any]) -> str:
    """Return what msgspec says is wrong with `said`, by the names that its author used."""
    fault = FAULT.fullmatch(error)
    assert fault is not None, error
    steps = _steps(fault["where"] or "", error, said)
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)[1:]
    if unknown := UNKNOWN.fullmatch(fault["what"]):  # a misspelt one must not mean its default
        names = ", ".join(_kind_at(steps).__struct_fields__)
        return f"{where and f'{where}.'}{unknown['name']} is not a setting; known: {names}"
    wanted = WANTED.fullmatch(fault["what"])
    expected = KINDS.get(wanted["kind"], wanted["kind"]) if wanted else fault["what"]
    if wanted and wanted["bound"]:
        expected += f" {wanted['bound']}"
    if expected == "a table":
        expected = f"a table, [{where}]"
    return f"{where} is {_at(steps, said)!r}: it must be {expected}"


def _steps(path: str, error: str, said: Mapping[str, Any]) -> list[str | int]:
    """Return a path of msgspec as keys and indices; it does not say which key of a mapping."""
    steps: list[str | int] = []
    for step in STEP.finditer(path):
        if step["key"]:
            steps.append(step["key"])
        elif step["index"]:
            steps.append(int(step["index"]))
        else:
            steps.append(next(key for key in _at(steps, said) if _fails(steps, key, error, said)))
    return steps


def _fails(steps: list[str | int], key: str, error: str, said: Mapping[str, Any]) -> bool:
    """Return whether it is this key of a mapping that makes this error."""
    trial: Any = {key: _at([*steps, key], said)}
    for step in reversed(steps):
        trial = {step: trial}
    try:
        msgspec.convert(trial, ClusterConfig)
    except (msgspec.ValidationError, BadConfig) as found:
        return str(found) == error
    return False


def _at(steps: list[str | int], found: Any) -> Any:
    """Return what lies at a path."""
    for step in steps:
        found = found[step]
    return found


def _kind_at(steps: list[str | int]) -> Any:
    """Return the struct that is to lie at a path."""
    kind: Any = ClusterConfig
    for step in steps:
        if isinstance(step, str) and hasattr(kind, "__struct_fields__"):
            kind = get_type_hints(kind)[step]
        else:
            kind = get_args(kind)[-1]  # of a mapping
    return kind
