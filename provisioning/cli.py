"""What `burla up`, `down`, `status` and `nodes ...` do; whose options are in burla/commands.

Data goes to stdout, progress to stderr. Each returns the exit code.
"""

import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace as changed

from burla.provisioning.core.machines import BadConfig
from burla.system.exit_codes import EXIT_FAILED, EXIT_OK

from . import clusters, config as c, state as st
from .cluster import Cluster, refuse_unknown
from .clusters import DEFAULT, NoCluster, state_of
from .config import ClusterConfig
from .members import CONNECTING, Rented
from .result import Result
from .sight import READY
from .state import State
from .view import View, as_json

if TYPE_CHECKING:
    from .backup import Manifest

# Makes a cluster the one in use, if none is: address, the one that it had before -> what was done.
Adopt = Callable[[str, str], str]
FORGET = (
    "Fix what is said above and run the same command again; with --forget it gives up on machines"
    " that cannot be reached, and leaves them as they are."
)
LOOK_CONNECT_S = 4.0  # a look is for people who wait: a machine that is well answers in less
FORGOTTEN = "These machines are forgotten; what burla installed on them is still there."


def up(
    file: Path | None,
    name: str | None,
    hosts: Sequence[str],
    local: int,
    settings: dict[str, Any],
    json: bool,
    adopt: Adopt,
    in_use: Callable[[], str | None],
) -> int:
    """Make a cluster, or repair one: start what does not run, do what is not done yet.

    Args:
        file: TOML.
        name: of the cluster; None: as the file says, or "default".
        hosts: SSH hosts besides those of the file.
        local: nodes on this machine besides those of the file.
        settings: what other options say, by their names; go before the file's.
        json: print the result on stdout as JSON.
        adopt: see `Adopt`.
        in_use: returns the address of the cluster in use: without any word that one is repaired.
    """
    if file is None and name is None and not (hosts or local or settings):
        with suppress(NoCluster):
            name = state_of(None, in_use()).config.name
    config = c.load(file) if file is not None else ClusterConfig()
    config = changed(config, name=name or config.name)
    known = st.read(config.name)
    if file is None and known is not None:  # the same again, and perhaps more
        config = known.config
    config = config.with_options(settings)
    if known is not None and "kubernetes" in config.provided:
        there = config.kubernetes.placed_as(known.config.kubernetes)
        config = changed(config, kubernetes=there)
    if known is not None and config.bind != known.config.bind:
        _refuse_to_move(known, config.bind)
    refuse_unknown(hosts)
    config = config.with_hosts((*config.ssh.hosts, *hosts))
    nodes = max(config.local.nodes, local)
    if nodes and (file is not None or "python" in settings):
        _check_python(config.python, file)
    config = changed(config, local=changed(config.local, nodes=nodes))
    if not (config.ssh.hosts or nodes or config.provided):
        raise BadConfig(
            "a cluster needs nodes: pass --local, --ssh HOST, --gce, --kubernetes, --slurm,"
            " --provider NAME or a TOML file"
        )
    before = None if known is None else known.config
    state = State(config) if known is None else changed(known, config=config)
    return _up(state, json, adopt, by_file=file is not None, before=before)


def _check_python(python: str, file: Path | None) -> None:
    """Refuse a Python of nodes on this machine that is not the one that they would run.

    Raises:
        BadConfig: the file, or an option, names another one.
    """
    if python == c.MINOR:
        return
    where, again = ("", "up") if file is None else (f" in {file}", f"up {file}")
    raise BadConfig(
        f"python is {python!r}{where}: nodes on this machine run the Python that runs"
        f" `burla up`, which is {c.MINOR}. Install burla for Python {python} and run"
        f" `python{python} -m burla {again}`, or leave python out"
    )


def _up(
    state: State,
    json: bool,
    adopt: Adopt,
    *,
    by_file: bool = False,
    before: ClusterConfig | None = None,
) -> int:
    view, address_before = View(), state.address
    with st.alone(state.config.name):
        touched = _touched(st.read(state.config.name))
        cluster = Cluster(state, view.ask_passphrase, before=before)
        with view.shown():
            results = cluster.up(view.show)
            if by_file:  # else they stay as `burla auth quota` has made them
                cluster.head.set_quotas()
        state.untouched = tuple(r.name for r in results if _is_untouched(r, state, touched))
        st.write(cluster.state)
    if json:
        print(as_json(state.config.name, cluster.state.address, results, warnings=cluster.warnings))
    address = cluster.state.address
    view.warn(cluster.warnings)
    advice = _advice(address, address_before, adopt)
    usable = not results or any(not result.why for result in results)
    view.summarize(results, "ready", advice if usable else "")
    return _code(results)


def _advice(address: str, before: str, adopt: Adopt) -> str:
    """Make the cluster the one in use, if it has come so far as to have an address; say so."""
    if not address:
        return ""
    return f"{adopt(address, before)}.\nElsewhere: export BURLA_CLUSTER={shlex.quote(address)}"


def _touched(known: State | None) -> set[str]:
    """Return the SSH targets on which something may have been done."""
    if known is None:
        return set()
    return set(known.config.ssh.hosts) - {known.names.get(name) for name in known.untouched}


def _is_untouched(result: Result, state: State, touched: set[str]) -> bool:
    """Return whether a host could never be connected to, so that nothing has to be undone."""
    never = bool(result.why) and result.phase in ("waiting", CONNECTING)
    target = state.names.get(result.name)
    return never and target is not None and target not in touched


def _refuse_to_move(known: State, bind: str) -> None:
    """Refuse if the scheduler listens elsewhere already: nodes and users have its address.

    Raises:
        BadConfig: it does.
    """
    if Cluster(known).head.scheduler.pid() is not None:
        raise BadConfig(
            f"bind is {bind!r}, but the scheduler of {known.config.name!r} already runs at"
            f" {known.address}: to move it, run `burla down --cluster {known.config.name}` first"
        )


def down(
    named: str | None,
    known: Callable[[], State],
    json: bool,
    forget: bool,
    drop: Callable[[str], None],
) -> int:
    """End a cluster, and leave every machine as it was.

    Args:
        named: what the user calls the cluster; None: nothing.
        known: returns what is known of it, or raises NoCluster.
        json: print the result on stdout as JSON.
        forget: give up on hosts that cannot be reached, and leave them as they are.
        drop: is told the address of a cluster that is no more: it is used no longer.
    """
    try:
        state = known()
    except NoCluster as error:
        if named is None and any(clusters.known()):
            raise  # it is not told which is meant
        if json:
            print(as_json(named or DEFAULT, "", []))
        print(f"nothing to do: {error}", file=sys.stderr)
        return EXIT_OK
    view, name = View(), state.config.name
    with st.alone(name):
        cluster = Cluster(state, view.ask_passphrase)
        with view.shown():
            results = cluster.down(view.show, forget=forget)
    is_gone = st.read(name) is None
    if is_gone:
        drop(state.address)
    if json:
        print(as_json(name, state.address, results, ended=cluster.ended))
    view.tell_ended(cluster.ended)
    view.summarize(results, "removed", remedy=FORGOTTEN if forget else FORGET)
    return EXIT_OK if is_gone else _code(results)


def status(state: State, json: bool) -> int:
    """Show a cluster: its scheduler, and the phase of each node."""
    name = state.config.name
    cluster = Cluster(state, View().ask_passphrase, connect_s=LOOK_CONNECT_S)
    scheduler, results = cluster.look()
    if json:
        packages = state.config.node
        print(as_json(name, state.address, results, scheduler=scheduler, packages=packages))
    else:
        where = "elsewhere" if cluster.head.is_away else "here"
        print(f"cluster {name}: {cluster.state.address}")
        for result in (replace(scheduler, name=f"{scheduler.name} ({where})"), *results):
            print(f"  {result.name:24} {result.phase}{f': {result.why}' if result.why else ''}")
        if given := state.config.node.packages:
            print(f"  {'packages for all jobs':24} {', '.join(given)}")
    is_ready = all(result.phase == READY and not result.why for result in (scheduler, *results))
    return EXIT_OK if is_ready else EXIT_FAILED


def add(state: State, hosts: Sequence[str], json: bool, adopt: Adopt) -> int:
    """Add SSH hosts to a cluster that is up.

    Raises:
        BadConfig: one of them has a name that nobody knows: nothing is changed.
    """
    refuse_unknown(hosts)
    state.config = state.config.with_hosts((*state.config.ssh.hosts, *hosts))
    return _up(state, json, adopt)


def remove(state: State, nodes: Sequence[str], json: bool, forget: bool = False) -> int:
    """Take nodes out of a cluster, and leave their machines as they were.

    Args:
        state: of the cluster.
        nodes: names, or how the user calls the hosts.
        json: print the result on stdout as JSON.
        forget: give up on hosts that cannot be reached, and leave them as they are.
    """
    view, name = View(), state.config.name
    with st.alone(name):
        cluster = Cluster(state, view.ask_passphrase)
        members = cluster.named(nodes)
        with view.shown():
            results = cluster.remove(members, view.show)
        gone = {result.name for result in results if not result.why}
        gone |= {member.name for member in members if forget and not isinstance(member, Rented)}
        cluster.leave_out([member for member in members if member.name in gone])
        st.write(state)
        cluster.forget_lost(sorted(gone))
    if json:
        print(as_json(name, state.address, results))
    view.summarize(results, "removed", remedy=FORGOTTEN if forget else FORGET)
    return _code([result for result in results if result.name not in gone])


def drain(state: State, nodes: Sequence[str], json: bool) -> int:
    """Let nodes finish the calls that run, and end; `burla up` brings them back."""
    view, name = View(), state.config.name
    with st.alone(name):
        cluster = Cluster(state, view.ask_passphrase)
        with view.shown():
            results = cluster.drain(nodes, view.show)
    if json:
        print(as_json(name, state.address, results))
    view.summarize(results, "drained")
    return _code(results)


def collect(state: State, json: bool) -> int:
    """Delete machines of a cluster that ended, failed or are past their time; no others."""
    view, name = View(), state.config.name
    cluster = Cluster(state, view.ask_passphrase)
    with st.alone(name), view.shown():
        found = [m for fleet in cluster.fleets().values() for m in fleet.collect(view.show)]
    results = [Result(machine.name, "removed") for machine in found]
    if json:
        print(as_json(name, cluster.state.address, results))
    view.summarize(results, "removed")
    return EXIT_OK


def save(state: State, file: Path | None, json: bool, *, with_jobs: bool = False) -> int:
    """Write the head of a cluster into a file: keys, users, quotas, settings; perhaps its jobs."""
    from . import backup  # archives, the store, SQLite: few commands need them

    file = file or backup.default_file(state.config.name)
    made = backup.save(state, file, with_jobs=with_jobs)
    text = (
        f"{len(made.files)} files of the cluster {made.cluster!r}{' and its jobs' * with_jobs}"
        f" are in {file}. It has the secret"
        " keys of the cluster: keep it as safe as those. `burla restore` brings them back"
    )
    _say_backup(file, made, text, json)
    return EXIT_OK


def restore(file: Path, json: bool) -> int:
    """Bring back what `save` wrote; the scheduler is started by `burla up`."""
    from . import backup

    made = backup.restore(file)
    text = (
        f"the cluster {made.cluster!r} is here again, as of {made.made}, with {len(made.files)}"
        f" files. Start it by `burla up --cluster {made.cluster}`; if this is another machine, it"
        f" must be reached at the address it had: {made.address}"
    )
    _say_backup(file, made, text, json)
    return EXIT_OK


def _say_backup(file: Path, made: "Manifest", text: str, json: bool) -> None:
    if json:
        facts = {"file": str(file), "cluster": made.cluster, "address": made.address}
        print(dumps({**facts, "made": made.made, "files": sorted(made.files)}))
    else:
        print(text)


def _code(results: Sequence[Result]) -> int:
    return EXIT_FAILED if any(result.why for result in results) else EXIT_OK
