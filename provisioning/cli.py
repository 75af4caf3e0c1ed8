"""What `burla up`, `down`, `status` and `nodes ...` do; their options are in burla/cli.py.

Data goes to stdout, progress to stderr. Each returns the exit code.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from burla.provisioning.core.machines import BadConfig, ProvisioningError
from burla.system.exit_codes import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, EXIT_UNREACHABLE

from . import config as c
from . import state as st
from .cluster import Cluster, Result
from .config import ClusterConfig
from .members import Rented
from .state import State
from .view import View, as_json

FORGET = (
    "Fix what is said above and run the same command again; with --forget it gives up on machines"
    " that cannot be reached, and leaves them as they are."
)
FORGOTTEN = "These machines are forgotten; what burla installed on them is still there."


class NoCluster(ProvisioningError):
    """There is no cluster of this name."""


def up(
    file: Path | None,
    name: str | None,
    hosts: Sequence[str],
    local: int,
    settings: dict[str, Any],
    json: bool,
) -> int:
    """Make a cluster, or repair one: start what does not run, do what is not done yet.

    Args:
        file: TOML.
        name: of the cluster; None: as the file says, or "default".
        hosts: SSH hosts besides those of the file.
        local: nodes on this machine besides those of the file.
        settings: what other options say, by their names; go before the file's.
        json: print the result on stdout as JSON.
    """
    config = c.load(file) if file is not None else ClusterConfig()
    config = replace(config, name=name or config.name)
    known = st.read(config.name)
    if file is None and known is not None:  # the same again, and perhaps more
        config = known.config
    config = config.with_options(settings)
    if known is not None and config.bind != known.config.bind:
        _refuse_to_move(known, config.bind)
    config = config.with_hosts((*config.ssh.hosts, *hosts))
    nodes = max(config.local.nodes, local)
    config = replace(config, local=replace(config.local, nodes=nodes))
    machines = config.gce.nodes or config.slurm.nodes or config.grows_by
    if not (config.ssh.hosts or nodes or machines):
        raise BadConfig(
            "a cluster needs nodes: pass --local, --ssh HOST, --gce, --slurm or a TOML file"
        )
    address = known.address if known is not None else ""
    return _up(State(config, address), json)


def _up(state: State, json: bool) -> int:
    view = View()
    with st.alone(state.config.name):
        cluster = Cluster(state, view.ask_passphrase)
        with view.shown():
            results = cluster.up(view.show)
        st.write(cluster.state)
    if json:
        print(as_json(state.config.name, cluster.state.address, results))
    advice = f"Use it: export BURLA_CLUSTER={shlex.quote(cluster.state.address)}"
    usable = not results or any(not result.why for result in results)
    view.summarize(results, "ready", advice if usable else "")
    return _code(results)


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


def down(name: str, json: bool, forget: bool = False) -> int:
    """End a cluster, and leave every machine as it was.

    Args:
        name: of the cluster.
        json: print the result on stdout as JSON.
        forget: give up on hosts that cannot be reached, and leave them as they are.
    """
    state = st.read(name)
    if state is None:
        if json:
            print(as_json(name, "", []))
        print(f"there is no cluster {name!r}: nothing to do", file=sys.stderr)
        return EXIT_OK
    view = View()
    with st.alone(name):
        cluster = Cluster(state, view.ask_passphrase)
        with view.shown():
            results = cluster.down(view.show, forget=forget)
    if json:
        print(as_json(name, state.address, results))
    view.summarize(results, "removed", remedy=FORGOTTEN if forget else FORGET)
    return _code(results)


def status(name: str, json: bool) -> int:
    """Show a cluster: its scheduler, and the phase of each node."""
    cluster = Cluster(_known(name), View().ask_passphrase)
    results = cluster.look()
    away = cluster.head.is_away
    runs = away or cluster.head.scheduler.pid() is not None
    if json:
        print(as_json(name, cluster.state.address if runs else "", results))
    else:
        print(f"cluster {name}: scheduler {_where(away, runs)}, {cluster.state.address}")
        for result in results:
            print(f"  {result.name:24} {result.phase}{f': {result.why}' if result.why else ''}")
    ready = all(result.phase == "ready" for result in results)
    return EXIT_OK if ready and runs else EXIT_FAILED


def _where(is_away: bool, runs: bool) -> str:
    if is_away:
        return "runs elsewhere"
    return "runs here" if runs else "is not running (`burla up` starts it)"


def add(name: str, hosts: Sequence[str], json: bool) -> int:
    """Add SSH hosts to a cluster that is up."""
    state = _known(name)
    state.config = state.config.with_hosts((*state.config.ssh.hosts, *hosts))
    return _up(state, json)


def remove(name: str, nodes: Sequence[str], json: bool, forget: bool = False) -> int:
    """Take nodes out of a cluster, and leave their machines as they were.

    Args:
        name: of the cluster.
        nodes: names, or how the user calls the hosts.
        json: print the result on stdout as JSON.
        forget: give up on hosts that cannot be reached, and leave them as they are.
    """
    state = _known(name)
    view = View()
    with st.alone(name):
        cluster = Cluster(state, view.ask_passphrase)
        members = cluster.named(nodes)
        with view.shown():
            results = cluster.remove(members, view.show)
        gone = {result.name for result in results if not result.why}
        gone |= {member.name for member in members if forget and not isinstance(member, Rented)}
        cluster.leave_out([member for member in members if member.name in gone])
        st.write(state)
    if json:
        print(as_json(name, state.address, results))
    view.summarize(results, "removed", remedy=FORGOTTEN if forget else FORGET)
    return _code(results)


def drain(name: str, nodes: Sequence[str], json: bool) -> int:
    """Let nodes finish the calls that run, and end; `burla up` brings them back."""
    state = _known(name)
    view = View()
    with st.alone(name):
        cluster = Cluster(state, view.ask_passphrase)
        with view.shown():
            results = cluster.drain(nodes, view.show)
    if json:
        print(as_json(name, state.address, results))
    view.summarize(results, "drained")
    return _code(results)


def collect(name: str, json: bool) -> int:
    """Delete machines of a cluster that ended, failed or are past their time; no others."""
    view = View()
    cluster = Cluster(_known(name), view.ask_passphrase)
    with st.alone(name), view.shown():
        found = [m for fleet in cluster.fleets().values() for m in fleet.collect(view.show)]
    results = [Result(machine.name, "removed") for machine in found]
    if json:
        print(as_json(name, cluster.state.address, results))
    view.summarize(results, "removed")
    return EXIT_OK


def exit_code(error: ProvisioningError) -> int:
    """Return the exit code that tells a script what went wrong."""
    match error:
        case BadConfig():
            return EXIT_CONFIG
        case NoCluster():
            return EXIT_UNREACHABLE
        case _:
            return EXIT_FAILED


def _known(name: str) -> State:
    state = st.read(name)
    if state is None:
        others = sorted(path.parent.name for path in st.states_directory().glob(f"*/{st.FILE}"))
        known = f"known here: {', '.join(others)}" if others else "none is known here"
        raise NoCluster(f"there is no cluster {name!r} ({known}): `burla up` makes one")
    return state


def _code(results: Sequence[Result]) -> int:
    return EXIT_FAILED if any(result.why for result in results) else EXIT_OK
