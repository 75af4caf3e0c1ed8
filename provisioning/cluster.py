"""A whole cluster: its scheduler on this machine and its members, brought up or down at once."""

import getpass
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import ModuleType

from msgspec.structs import replace

from burla.protocol import VERSION, admin_messages as am
from burla.provisioning.core.addresses import HERE, host_names, is_loopback, split_target
from burla.provisioning.core.machines import (
    BadConfig,
    Machine,
    Progress,
    ProvisioningError,
    Transport,
    named,
)
from burla.provisioning.core.steps import Wanted
from burla.provisioning.install import bootstrap, pins, wheels
from burla.provisioning.install.node_packages import NodePackages, find as find_packages
from burla.provisioning.ssh.connections import Connections

from . import providers, sight, state
from .admin import NoAnswer, NotTaken
from .config import BUILT_IN, ClusterConfig, log_options, package_options, write_packages
from .fleet import Fleet
from .head import AUTOSCALER, SCHEDULER, Head
from .members import Installed, Local, Member, Rented, install_packages
from .result import Result
from .state import State

PARALLEL_MAX = 32  # machines at once; each is a thread here and a connection
WHEELS, PACKAGES = "wheels", "packages"
NOTHING = wheels.Wheels({}, {}, is_wheelhouse=False)  # to ship: only `up` does

SETTLED_S = 15.0  # nodes of a scheduler that has begun anew are back within these

NO_JOBS = am.Jobs((), 0)

AskPassphrase = Callable[[str], str | None]


class Cluster:
    """One cluster. Its methods do what is missing, and tell `progress` what they do."""

    def __init__(
        self,
        known: State,
        ask: AskPassphrase = lambda path: None,
        pause: Callable[[float], None] = time.sleep,
        say: Callable[[str], None] | None = None,
        connect_s: float | None = None,
        before: ClusterConfig | None = None,
    ) -> None:
        """Take charge of what is known of a cluster.

        Args:
            known: from the file, or new.
            ask: for the passphrase of an SSH key.
            pause: waits between tries at a provider.
            say: is told each refusal of a provider; None: they are kept for the sum of `up`.
            connect_s: how long to wait for each step of a connection; None: as long as it may take.
            before: what `config` was; None: as it is.
        """
        self.state = known
        self.config, self.known = known.config, before or known.config
        self.directory = state.directory_of(known.config.name)
        self.head = Head(known)
        self._ask, self._pause, self._connect_s = ask, pause, connect_s
        self._connections = Connections()
        self._turn = threading.Lock()
        self.refusals: list[str] = []  # of providers, in words
        self._say = self.refusals.append if say is None else say
        self.ended = NO_JOBS  # by `down`
        self.warnings: list[str] = []  # of `up`, in words

    # --- members ---

    def _gather(self, progress: Progress) -> wheels.Wheels:
        """Return what is shipped to hosts, which may have to be fetched first.

        Raises:
            ProvisioningError: it cannot be made, or the hosts could not be nodes anyway.
        """
        config = self.config
        if not host_names(config.ssh.hosts):
            return NOTHING
        _import_ssh()
        away = [host for host in config.ssh.hosts if split_target(host)[1] not in HERE]
        if away and not config.scheduler and is_loopback(config.bind):
            raise BadConfig(
                f"bind is {config.bind!r}, which only this machine can reach, not {away[0]}: set it"
                " to an address that this machine has in the hosts' network"
            )
        progress(WHEELS, "gathering")
        found = wheels.gather(wheels.cache(), config.wheelhouse, config.python, config.index)
        progress(WHEELS, "ready")
        return found

    def members(self, shipped: wheels.Wheels = NOTHING) -> list[Member]:
        """Return all members that the cluster is to have, or has; `up` says what is shipped."""
        return [*self._local(), *self._hosts(shipped)]

    def _local(self) -> Iterable[Member]:
        local = self.config.local
        for number in range(1, local.nodes + 1):
            yield Local(
                f"local-{number}",
                self.directory,
                self.state.address,
                local.cpus,
                self.head.join_token,
                self.config.join_s,
                self.config.drain_s,
                self._turn,
                tuple(log_options(self.config)),
                tuple(package_options(self.config, self.directory)),
            )

    def _hosts(self, shipped: wheels.Wheels) -> Iterable[Member]:
        if not self.config.ssh.hosts:
            return
        ssh = _import_ssh()
        settings = ssh.SshSettings(ask=self._ask, connect_s=self._connect_s)

        def connection(target: str) -> Callable[[], Transport]:
            return lambda: self._connections.opened(ssh.connect(settings, target))

        names = host_names(self.config.ssh.hosts)
        self.state.names = names
        for name, target in names.items():
            wanted = self._wanted(name, shipped)
            token = self.head.join_token
            yield Installed(name, connection(target), wanted, shipped, token, self._turn)

    def fleets(self) -> dict[str, Fleet]:
        """Return what the cluster has at providers of machines, by provider.

        Raises:
            ProvisioningError: one of them is not installed, or cannot work so.
        """
        rentals = providers.rentals(self.config, self._site())
        return {name: self._fleet(rental) for name, rental in rentals.items()}

    def _site(self) -> providers.Head:
        return providers.Head(
            self.state.address, self.head.join_token, self.directory, self._say, self._pause
        )

    def _fleet(self, rental: providers.Rental) -> Fleet:
        head = self.head
        return Fleet(
            rental.provisioner,
            rental.nodes,
            rental.boot_s,
            spare=rental.spare,
            joined=head.joined,
            settle_s=0.0
            if head.is_away
            else max(0.0, SETTLED_S - (head.scheduler.heard_s() or 0.0)),
            drain_s=self.config.drain_s,
            gone=head.forget_nodes,
        )

    def _wanted(self, name: str, shipped: wheels.Wheels) -> Wanted:
        config = self.config
        return Wanted(
            cluster=config.name,
            name=name,
            scheduler=self.state.address,
            python=config.python,
            version=VERSION,
            wheel=wheels.WHEEL,
            wheels=shipped.digests,
            is_wheelhouse=shipped.is_wheelhouse,
            index=config.index,
            requirements=shipped.requirements,
            packages=config.node.given(),
            package_wheels=shipped.of_packages,
            directory=config.ssh.directory,
            cpus=config.ssh.cpus,
            ram_gb=config.ssh.ram_gb,
            log_level=config.log_level,
            needs_token=self.head.has_keys(),
            script=bootstrap.script_digest(),
            join_s=config.join_s,
            drain_s=config.drain_s,
        )

    def up(self, progress: Progress) -> list[Result]:
        """Start what does not run and mend what is broken; return how it went with each."""
        refuse_out_of_reach(self.config)
        self.config = self.state.config = providers.settled(self.config)
        self._refuse_to_abandon()
        if not self.head.is_away:
            self.head.bind()  # refused before anything is fetched
        for provider, fleet in self.fleets().items():
            if provider != "gce":  # nothing is started where there is none
                fleet.provisioner.observe()
        given = self._find_packages(progress)
        shipped = self._gather(progress).with_packages(given.paths, given.digests)
        self._warn(shipped, given.warning)
        self.head.start_scheduler(progress)
        members = self.members(shipped)
        results = self._each(members, progress, "ready", lambda member, say: member.up(say))
        fleets = self.fleets()
        self.head.autoscaler.stop()  # it must not delete what is made here, and learns what is new
        try:
            for provider, fleet in fleets.items():
                results += self._fleet_up(provider, fleet, progress)
        finally:
            if fleets:
                self.head.start_autoscaler(progress)
        return results

    def _refuse_to_abandon(self) -> None:
        """Refuse settings by which machines that are there would not be found again.

        Raises:
            BadConfig: there are some.
        """
        before, now = self.known, self.config
        for name in filter(BUILT_IN.__contains__, before.provided):
            if name in now.provided and getattr(before, name).place == getattr(now, name).place:
                continue
            try:
                provisioner = providers.rental(name, before, self._site()).provisioner
            except BadConfig:
                continue  # of a cluster that was restored elsewhere: nobody here can look there
            if left := provisioner.observe():
                raise BadConfig(
                    f"with these settings of [{name}] nobody would find {len(left)} machines of"
                    f" {now.name!r} again ({named(m.name for m in left)}). Leave them as they were,"
                    f" or run `burla down --cluster {now.name}` first"
                )
            provisioner.clean()

    def _find_packages(self, progress: Progress) -> NodePackages:
        """Find out what nodes are given for all jobs, and keep it.

        Raises:
            ProvisioningError: it cannot be had.
        """
        config, known = self.config, self.known
        asked = config.node.packages
        if not asked:
            return NodePackages()
        progress(PACKAGES, "looking for versions")
        is_same = known is not None and known.node.packages == asked
        is_same = is_same and known is not None and known.python == config.python
        pins = known.node.pins if is_same and known is not None else ()
        where = (config.python, config.index, config.wheelhouse, wheels.cache())
        given = find_packages(asked, pins, *where)
        found = () if given.warning else given.pins
        self.config = replace(config, node=replace(config.node, pins=found))
        self.state.config = self.config
        see_all = [name for name in config.provided if name not in ("gce", "kubernetes")]
        if config.local.nodes or see_all:
            write_packages(self.config, self.directory)
        if {"slurm", "pbs"}.intersection(see_all):  # their nodes see what is here
            install_packages(package_options(self.config, self.directory))
        progress(PACKAGES, "ready")
        return given

    def _warn(self, shipped: wheels.Wheels, *more: str) -> None:
        """Note in words how what nodes install could be something else than what it should be."""
        config = self.config
        of_clouds = bool(config.gce.project) and not config.gce.wheelhouse
        of_clouds |= "kubernetes" in config.provided and not config.kubernetes.wheelhouse
        found = [shipped.warning, *more]
        if of_clouds or (config.ssh.hosts and not config.wheelhouse):
            found.append(pins.why_open(config.index))
        if of_clouds:
            found.append(wheels.pinned_for_node(config.python, config.index).warning)
        self.warnings = [text for text in dict.fromkeys(found) if text]

    def _fleet_up(self, provider: str, fleet: Fleet, progress: Progress) -> list[Result]:
        began_s = time.monotonic()
        try:
            machines = fleet.up(progress)
        except ProvisioningError as error:
            return [Result(provider, "asking", str(error), time.monotonic() - began_s)]
        short = fleet.standing - sum(not m.grown for m in machines)
        try:
            kept = fleet.renew(self.config.stamp, progress)
            there = [m for m in fleet.wait_ready(progress) if m.state == "ready"]
        except ProvisioningError as error:
            return [Result(provider, "upgrading", str(error), time.monotonic() - began_s)]
        bad = {m.name: m for m in (*machines, *kept) if m.state == "failed"}
        machines = [*bad.values(), *(m for m in there if m.name not in bad)]
        results = [Result(m.name, m.state, m.why or failed(m)) for m in machines]
        if short > 0:
            why = named(self.refusals, 3) or "there was no capacity for the others"
            missing = f"{short} of {fleet.standing} machines are missing: {why}"
            results.append(Result(provider, "asking", missing))
        return results

    def look(self) -> tuple[Result, list[Result]]:
        """Return how the scheduler is, and the phase of each member and machine.

        Nothing is called ready of which the scheduler does not say so.
        """

        def one(member: Member) -> Result:
            try:
                return Result(member.name, *member.look())
            except ProvisioningError as error:
                return Result(member.name, "unknown", str(error))

        members = self.members()
        with ThreadPoolExecutor(1) as pool:  # meanwhile
            asked = pool.submit(sight.ask, self.head)
            looked = self._parallel(one, members)
            scheduler, told = asked.result()
        results = [sight.compare(result, scheduler, told) for result in looked]
        fleets = self.fleets()
        if fleets and self.head.autoscaler.pid() is None:
            results.append(Result(AUTOSCALER, "stopped", "not running: `burla up` starts it"))
        for fleet in fleets.values():
            for machine in fleet.provisioner.observe():
                found = Result(machine.name, machine.state, machine.why)
                results.append(sight.compare(found, scheduler, told))
        return scheduler, results

    def drain(self, names: Sequence[str], progress: Progress) -> list[Result]:
        """Let some members finish what runs, and end."""
        wait_s = self.config.drain_s
        return self._each(
            self.named(names), progress, "drained", lambda member, say: member.drain(say, wait_s)
        )

    def remove(self, members: Sequence[Member], progress: Progress) -> list[Result]:
        """Leave the machines of some members as they were."""
        untouched = [member for member in members if member.name in self.state.untouched]
        there = [member for member in members if member not in untouched]
        results = [Result(member.name, "removed") for member in untouched]
        return results + self._each(
            there, progress, "removed", lambda member, say: member.remove(say)
        )

    def named(self, names: Sequence[str]) -> list[Member]:
        """Return members by name, or by how the user calls their host.

        Raises:
            ProvisioningError: one of them is not a node.
        """
        members: dict[str, Member] = {member.name: member for member in self.members()}
        by_target = {target: name for name, target in self.state.names.items()}
        found = [by_target.get(name, name) for name in names]
        for fleet in self.fleets().values() if set(found) - set(members) else ():
            for machine in fleet.provisioner.observe():
                members[machine.name] = Rented(machine, fleet.provisioner)
        for name in found:
            if name not in members:
                known = ", ".join(members) or "none"
                raise ProvisioningError(f"{name!r} is not a node of this cluster; it has: {known}")
        return [members[name] for name in found]

    def leave_out(self, gone: Sequence[Member]) -> None:
        """Take members that were removed out of the settings."""
        config = self.config
        for member in gone:
            match member:
                case Installed():
                    target = self.state.names.pop(member.name)
                    rest = (name for name in self.state.untouched if name != member.name)
                    self.state.untouched = tuple(rest)
                    config = config.with_hosts(tuple(h for h in config.ssh.hosts if h != target))
                case Local():
                    config = config.with_fewer("local")
                case Rented() if not member.machine.grown:
                    config = config.with_fewer(member.machine.provider)
        self.config = self.state.config = config

    def down(self, progress: Progress, *, forget: bool = False) -> list[Result]:
        """End all of it; a member that cannot be reached is reported, and stays known.

        Args:
            progress: is told what is done.
            forget: give up on members that cannot be reached; never on a provider's machines,
                but for pods: without their scheduler they end by themselves.
        """
        self.head.autoscaler.remove()
        if not self.head.is_away:
            self.ended = self._end_jobs()
        results = self.remove(self.members(), progress)
        hindered = not forget and any(result.why for result in results)
        for provider, fleet in self.fleets().items():
            try:
                fleet.down(progress)
            except ProvisioningError as error:
                results.append(Result(provider, "removing", str(error)))
                hindered = hindered or not (forget and provider == "kubernetes")
        if not hindered:
            progress(SCHEDULER, "removing")
            self.head.scheduler.remove()
            state.forget(self.config.name)
            progress(SCHEDULER, "removed")
        return results

    def _end_jobs(self) -> am.Jobs:
        """End the jobs that are open, so that their callers hear of it at once."""
        if self.head.scheduler.pid() is not None:
            with suppress(NoAnswer, NotTaken, ProvisioningError):
                by = f"{getpass.getuser()}@{socket.gethostname()} ran `burla down`"
                return self.head.admin().end_jobs(by)
        return NO_JOBS

    def forget_lost(self, names: list[str]) -> None:
        """Have the scheduler list nodes no longer that were removed on purpose."""
        if self.head.is_away or self.head.scheduler.pid() is not None:
            with suppress(NoAnswer, NotTaken, ProvisioningError):
                self.head.admin().forget_nodes(names)

    def _each(
        self,
        members: Sequence[Member],
        progress: Progress,
        done: str,
        act: Callable[[Member, Callable[[str], None]], dict[str, float] | None],
    ) -> list[Result]:
        def one(member: Member) -> Result:
            phase, began_s = "waiting", time.monotonic()

            def say(now: str) -> None:
                nonlocal phase
                phase = now
                progress(member.name, now)

            try:
                phases = act(member, say)
            except ProvisioningError as error:
                progress(member.name, "failed")
                return Result(member.name, phase, str(error), time.monotonic() - began_s)
            progress(member.name, done)
            return Result(member.name, done, "", time.monotonic() - began_s, phases or {})

        return self._parallel(one, members)

    def _parallel(self, act: Callable[[Member], Result], members: Sequence[Member]) -> list[Result]:
        if not members:
            return []
        with ThreadPoolExecutor(min(PARALLEL_MAX, len(members))) as pool:
            try:
                return list(pool.map(act, members))
            except BaseException:  # Ctrl-C: do not wait for what is under way
                pool.shutdown(wait=False, cancel_futures=True)
                self._connections.end()
                raise


def refuse_out_of_reach(config: ClusterConfig) -> None:
    """Refuse an address of the scheduler that pods cannot reach.

    Raises:
        BadConfig: it is of this machine alone.
    """
    bind = config.bind
    is_private = bind.startswith("ipc:") or is_loopback(bind)
    of_pods = "kubernetes" in config.provided and not config.kubernetes.pod.get("hostNetwork")
    if of_pods and is_private and not config.scheduler:
        raise BadConfig(
            f"bind is {bind!r}, which only this machine can reach, and no pod: set it to an address"
            " that this machine has in the pods' network, or scheduler to that by which pods"
            " reach it"
        )


def refuse_unknown(hosts: Sequence[str]) -> None:
    """Refuse SSH hosts whose name means nothing: most are mistyped.

    Raises:
        BadConfig: there is one; or it is no host at all.
    """
    if not host_names(hosts):
        return
    ssh = _import_ssh()
    settings = ssh.SshSettings()
    for target in hosts:
        if why := settings.why_unknown(target):
            raise BadConfig(
                f"{target}: there is no host of this name ({why}): check the spelling,"
                " ~/.ssh/config and /etc/hosts. Nothing was changed"
            )


def _import_ssh() -> ModuleType:
    try:
        from burla.provisioning.ssh import (
            transport as ssh,  # paramiko: an extra, and slow to import
        )
    except ImportError as error:
        text = f"SSH hosts need more packages: pip install 'burla[ssh]' ({error})"
        raise ProvisioningError(text) from None
    return ssh


def failed(machine: Machine) -> str:
    """Return why a machine failed, if it did."""
    return "failed without saying why" if machine.state == "failed" else ""
