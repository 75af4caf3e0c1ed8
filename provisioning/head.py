"""The head of a cluster: its scheduler and autoscaler on this machine, and who may connect."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from burla.protocol import messages as m
from burla.provisioning.core.machines import BadConfig, Progress, ProvisioningError
from burla.transport import request
from burla.transport.addresses import AddressError, bind_address, full_address, take_apart

from . import state
from .admin import Admin, NoAnswer, NotTaken
from .config import QuotasConfig, log_options
from .daemons import Daemon
from .keys import Keys, NoKeys, server_keys, user_pair
from .state import KEYS, State

SCHEDULER, AUTOSCALER = "scheduler", "autoscaler"


@dataclass(frozen=True)
class Head:
    """What of a cluster is on this machine; the scheduler may run elsewhere."""

    state: State

    @property
    def scheduler(self) -> Daemon:
        """The scheduler's daemon."""
        return Daemon(SCHEDULER, self._directory)

    @property
    def autoscaler(self) -> Daemon:
        """The daemon that makes and deletes machines, if a provider has some."""
        return Daemon(AUTOSCALER, self._directory)

    @property
    def is_away(self) -> bool:
        """Whether the scheduler runs elsewhere, and is not ours to start."""
        return bool(self.state.config.scheduler and not self.state.config.bind)

    def start_scheduler(self, progress: Progress) -> str:
        """Start the scheduler unless it runs, here or elsewhere; return its address.

        Raises:
            ProvisioningError: it does not start.
        """
        if not self.is_away:
            self._start_scheduler(self.bind(), progress)
        self.state.address = self.state.address or reached_at(self.state.config.scheduler, "")
        state.write(self.state)
        if self.has_keys() and not self.is_away:
            self._keys.let_in_user()
        progress(SCHEDULER, "ready")
        return self.state.address

    def bind(self) -> str:
        """Return where our scheduler is to listen.

        Raises:
            BadConfig: there is no such place, or other machines could not reach it.
        """
        return bind_of(self.state.config.bind or self._private_address(), self.state.address)

    def _start_scheduler(self, bind: str, progress: Progress) -> None:
        """Start our scheduler, or another version or settings of it; jobs go on meanwhile."""
        daemon = self.scheduler
        if daemon.pid() is not None and daemon.is_current(*self._scheduler_line(bind)):
            return
        if bind.startswith("tcp:"):
            self._keys.make()
        progress(SCHEDULER, "starting")
        daemon.start(*self._scheduler_line(bind))
        said = daemon.ready.read_text().strip()
        self.state.address = reached_at(self.state.config.scheduler, said)
        if bind != (fixed := bind_of(bind, said)):  # started again, it is to have the same port
            daemon.write(*self._scheduler_line(fixed))

    def _scheduler_line(self, bind: str) -> list[str]:
        config = self.state.config
        line = ["burla.scheduler.cli", "--bind", bind, "--ready-file", str(self.scheduler.ready)]
        line += log_options(config)
        if config.away_limit_s is not None:
            line += ["--away-limit", f"{config.away_limit_s:g}"]
        if shared := config.shared:
            line += ["--shared", shared]
        if config.metrics:
            line += ["--metrics", config.metrics]
        return [*line, "--dir", str(self._directory / KEYS)] if bind.startswith("tcp:") else line

    def start_autoscaler(self, progress: Progress) -> None:
        """Start the autoscaler, which does not run.

        Raises:
            ProvisioningError: it does not start.
        """
        progress(AUTOSCALER, "starting")
        state.write(self.state)  # it reads the cluster from there
        if self.has_keys() and self.is_away:
            self._keys.let_in_user()  # only an administrator may ask what jobs wait for
        options = ["--cluster", self.state.config.name, "--ready-file", str(self.autoscaler.ready)]
        options += log_options(self.state.config)
        self.autoscaler.start("burla.provisioning.autoscaler_daemon", *options)
        progress(AUTOSCALER, "ready")

    def ask(self, question: m.AskDemand) -> m.Demand:
        """Return what the scheduler says of its nodes and of jobs that wait.

        Raises:
            NoAnswer: it does not answer.
            NotTaken: this user is not an administrator there.
        """
        pair = user_pair() if self.has_keys() else None
        direction = m.SchedulerToAutoscaler
        address, known = self.state.address, server_keys()
        return request.ask(address, pair, question, m.Demand, direction, known=known)

    def joined(self) -> set[str] | None:
        """Return the names of nodes that the scheduler knows; None: it does not answer us."""
        try:
            return {node.name for node in self.admin().nodes()}
        except (NoAnswer, NotTaken, ProvisioningError):
            return None

    def admin(self) -> Admin:
        """Return what asks the scheduler, as this user."""
        return Admin(self.state.address, user_pair() if self.has_keys() else None)

    def has_keys(self) -> bool:
        """Return whether the scheduler takes only those who have a key."""
        return self.state.address.startswith("burla:")

    def join_token(self, node: str) -> bytes | None:
        """Return a fresh token by which one node may join; None: this scheduler needs none."""
        return self._keys.token() if self.has_keys() else None

    def set_quotas(self) -> None:
        """Let the scheduler know the quotas that the settings have, unless they have none."""
        quotas = self.state.config.quotas
        if quotas != QuotasConfig():
            self._keys.set_quotas(quotas.everybody, quotas.users)

    def forget_nodes(self, names: Sequence[str]) -> None:
        """Revoke the keys of nodes whose machines are deleted."""
        for name in names if self.has_keys() else ():
            with suppress(NoKeys):  # it never joined
                self._keys.revoke(name)

    @property
    def _directory(self) -> Path:
        return state.directory_of(self.state.config.name)

    @property
    def _keys(self) -> Keys:
        """The keys of our scheduler; of one that runs elsewhere, those of this user."""
        return Keys(None if self.is_away else self._directory / KEYS)

    def _private_address(self) -> str:
        config = self.state.config
        if config.ssh.hosts or config.provided:
            raise BadConfig(
                "other machines must be able to reach the scheduler: set bind to an address of this"
                " machine (e.g. --bind tcp://10.0.0.1:7270), or scheduler to the address of"
                " one that runs elsewhere"
            )
        return f"ipc://{self._directory}/s"


def bind_of(wanted: str, before: str) -> str:
    """Return where to listen so that nodes which are still there find the scheduler again.

    Args:
        wanted: what the user set; a tcp port 0 is any.
        before: the address that was announced; empty: none.

    Raises:
        BadConfig: `wanted` is not an address to listen on.
    """
    try:
        bind = bind_address(wanted)
    except AddressError as error:
        raise BadConfig(f"bind: {error}") from None
    if bind.startswith("tcp:") and bind.endswith(":0") and before.startswith("burla:"):
        return bind.removesuffix("0") + take_apart(before).endpoint.rpartition(":")[2]
    return bind


def reached_at(wanted: str, said: str) -> str:
    """Return the address of a scheduler, as nodes and clients reach it.

    Args:
        wanted: what the user set, a whole address or tcp://HOST:PORT; empty: as it says itself.
        said: by the scheduler that was started; empty: it runs elsewhere.

    Raises:
        BadConfig: `wanted` is not an address.
    """
    try:
        key = take_apart(said).key if said else None
        if wanted.startswith("tcp:") and key is not None:
            return full_address(wanted, key)
        if wanted:
            take_apart(wanted)  # complains
        return wanted or said
    except AddressError as error:
        raise BadConfig(f"scheduler: {error}") from None
