"""The scheduler's settings; made once by cli.py and passed down."""

import math
import os
import shlex
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from msgspec.structs import astuple

from burla.protocol.fields import SHARED_IS, is_shared
from burla.scheduler.auth.key_store import SERVER_KEY
from burla.scheduler.core.client import AWAY_LIMIT_S
from burla.scheduler.core.quotas import Quotas
from burla.scheduler.core.store_limits import Limits
from burla.system.paths import settings_directory
from burla.transport.addresses import bind_address, ipc_path

FOLDER = "scheduler"  # of its keys, inside the user's settings
STATE_FILE = "scheduler-state.json"
JOBS_FILE = "jobs.sqlite3"
NODES_FILE = "nodes"
PORT_MAX = 65535
STORE = "store"  # of detached jobs, in the directory of the keys
AWAY_LIMIT_MIN_S = 1.0  # a client is known to be away after some seconds


class ConfigError(Exception):
    """A setting that this scheduler refuses; says which, why, and what to do."""


@dataclass(frozen=True)
class SchedulerConfig:
    """What a scheduler is told at its start."""

    bind: str  # where it listens; tcp port 0 picks one
    keys: Path | None = None  # directory of its keys; None: only for ipc, which files guard
    quotas: Quotas = field(default_factory=Quotas)  # of each tenant
    is_private: bool = False  # it has one node, of this machine, and one client
    away_limit_s: float = AWAY_LIMIT_S  # the jobs of a client that is away for longer are given up
    shared: str = ""  # where all nodes have one file system; empty: they have none
    metrics: tuple[str, int] | None = None  # host and port where they are served; None: nowhere
    store: Path | None = None  # directory of detached jobs; None: beside the keys or the socket
    stored: Limits = field(default_factory=Limits)  # of detached jobs of each user
    state_file: Path | None = field(init=False, default=None)  # written at SIGUSR2; None: nowhere
    jobs_file: Path | None = field(init=False, default=None)  # what is kept of jobs; None: nowhere
    nodes_file: Path | None = field(init=False, default=None)  # which nodes there are; likewise

    def __post_init__(self) -> None:
        """Bring the address to its normal form.

        Raises:
            AddressError: `bind` is not an address.
            ConfigError: it is a tcp address, and there are no keys; or a limit leaves nothing.
        """
        if math.isnan(self.away_limit_s) or self.away_limit_s < AWAY_LIMIT_MIN_S:
            raise ConfigError(f"--away-limit must be at least {AWAY_LIMIT_MIN_S:g} seconds")
        if self.shared and not is_shared(self.shared):
            raise ConfigError(f"--shared {self.shared}: must be {SHARED_IS}")
        if not self.stored.keep_s > 0 or min(self.stored.bytes_max, self.stored.jobs_max) < 1:
            raise ConfigError("--stored-days and --stored-bytes must be more than 0")
        if min(astuple(self.quotas)) < 1:
            raise ConfigError("each quota must be at least 1")
        object.__setattr__(self, "bind", bind_address(self.bind))
        if (path := ipc_path(self.bind)) is not None:
            object.__setattr__(self, "keys", None)
            object.__setattr__(self, "state_file", Path(path).with_name(STATE_FILE))
            if not self.is_private:
                beside = Path(path).with_name(f"{Path(path).name}.{JOBS_FILE}")
                object.__setattr__(self, "jobs_file", beside)
                nodes = beside.with_name(f"{Path(path).name}.{NODES_FILE}")
                object.__setattr__(self, "nodes_file", nodes)
            store = Path(path).with_name(f"{Path(path).name}.{STORE}")
        elif self.keys is None or not os.path.lexists(self.keys / SERVER_KEY):
            where = "" if self.keys is None else f" --dir {shlex.quote(str(self.keys))}"
            raise ConfigError(
                f"refusing to listen on {self.bind} without keys: run"
                f" `burla-scheduler init{where}` first"
            )
        else:
            object.__setattr__(self, "state_file", self.keys / STATE_FILE)
            object.__setattr__(self, "jobs_file", self.keys / JOBS_FILE)
            object.__setattr__(self, "nodes_file", self.keys / NODES_FILE)
            store = self.keys / STORE
        if self.is_private:
            object.__setattr__(self, "store", None)
        elif self.store is None:
            object.__setattr__(self, "store", store)


def metrics_address(text: str) -> tuple[str, int]:
    """Return the host and the port in an address for metrics.

    Raises:
        ConfigError: it is none.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > PORT_MAX:
        raise ConfigError(f"--metrics {text}: must be HOST:PORT, as 127.0.0.1:9464")
    if find_spec("prometheus_client") is None:
        raise ConfigError("--metrics needs prometheus_client: pip install 'burla[metrics]'")
    return host, int(port)


def keys_directory(named: str | None) -> Path:
    """Return the directory of the scheduler's keys: as named, or the user's.

    Raises:
        ConfigError: none is named, and the user has no directory for settings.
    """
    if named is not None:
        return Path(os.path.abspath(named))
    settings = settings_directory()
    if settings is None:
        raise ConfigError("cannot find your settings directory (no HOME): pass --dir")
    return Path(settings) / FOLDER
