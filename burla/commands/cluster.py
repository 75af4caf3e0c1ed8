"""`burla up`, `down`, `status`, `nodes ...` and what else is done with a whole cluster.

Only options stand here: burla.provisioning does it. Other rooms are imported inside commands only.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from burla import errors
from burla.config import adopt_cluster, cluster_address, drop_cluster
from burla.system.exit_codes import EXIT_FAILED, EXIT_OK
from burla.system.logs import LEVELS

from .options import address_in_use, cluster_option, json_option

FORGET = "Give up on hosts that cannot be reached, and leave them as they are."


def _state(named: str | None) -> Any:
    """Return what is known of the cluster that is meant, the one in use if none is named."""
    from burla.provisioning.clusters import state_of

    return state_of(named, cluster_address() if named is None else None)


def _of_file(command: Any) -> Any:
    path = click.Path(dir_okay=False, path_type=Path)
    return click.argument("file", required=False, type=path)(command)


def _named(file: Path | None, cluster: str | None) -> str | None:
    """Return the cluster that the file from which it was made calls so, if it is given."""
    if file is None or cluster is not None:
        return cluster
    from burla.provisioning.config import load

    return load(file).name


def _forget(command: Any) -> Any:
    return click.option("--forget", is_flag=True, help=FORGET)(command)


def _adopt(address: str, before: str) -> str:
    """Make a cluster the one in use, if none is; return what was done in words."""
    try:
        return adopt_cluster(address, before)
    except errors.BadSetting as error:  # the cluster is there all the same
        return f"It is not stored as the cluster to use: {error}"


def _drop(address: str) -> None:
    try:
        drop_cluster(address)
    except errors.BadSetting as error:
        click.echo(f"burla: your settings still name this cluster: {error}", err=True)


@click.command()
@_of_file
@click.option(
    "--cluster",
    metavar="NAME",
    help='Name of the cluster (default: as in FILE, or "default").',
)
@click.option("--local", is_flag=True, help="Make this machine a node.")
@click.option(
    "--ssh",
    "hosts",
    metavar="[USER@]HOST[:PORT]",
    multiple=True,
    help="Make a host a node, over SSH.",
)
@click.option(
    "--gce", is_flag=True, help="Make nodes on Google Compute Engine; needs --project, --zone."
)
@click.option("--slurm", is_flag=True, help="Make nodes by the Slurm of this machine.")
@click.option("--kubernetes", is_flag=True, help="Make nodes as pods of Kubernetes.")
@click.option(
    "--provider",
    metavar="NAME",
    help="Make nodes by another provider: pbs, or one that you installed.",
)
@click.option(
    "--nodes", type=int, help="How many nodes for one of these, or with --local (default: 1)."
)
@click.option("--max-nodes", type=int, help="Limit up to which jobs with grow=True may add nodes.")
@click.option("--project", help="Google Cloud project that pays for --gce.")
@click.option(
    "--zone", "zones", multiple=True, help="Zone for --gce; repeat in order of preference."
)
@click.option(
    "--machine-type", "machine_types", multiple=True, help="Type for --gce; repeat likewise."
)
@click.option("--partition", help="Slurm partition for --slurm.")
@click.option("--context", help="Context of the kubeconfig for --kubernetes.")
@click.option("--namespace", help="Namespace for --kubernetes (default: one of its own).")
@click.option("--image", help="Image of the pods for --kubernetes (default: python:3.X-slim).")
@click.option("--bind", help="Where the scheduler listens on this machine: tcp://ADDRESS:PORT.")
@click.option("--scheduler", help="Address at which nodes reach the scheduler, if not --bind.")
@click.option(
    "--python", metavar="3.X", help="Python of the nodes (default: that which runs this command)."
)
@click.option("--wheelhouse", help='Wheels for nodes without package index: "auto" or a folder.')
@click.option(
    "--package",
    "packages",
    metavar="REQUIREMENT",
    multiple=True,
    help="Have a package on all nodes, for all jobs; repeat for more.",
)
@click.option("--index", help="URL of the package index that nodes install from.")
@click.option("--log-level", type=click.Choice(LEVELS), help="How much all daemons log.")
@json_option
def up(
    file: Path | None,
    cluster: str | None,
    local: bool,
    hosts: tuple[str, ...],
    as_json: bool,
    **settings: Any,
) -> int:
    """Make or repair a cluster.

    FILE (TOML) or the options say what it has. Run again, it repairs what is broken, adds what is
    missing, and changes nothing else.
    """
    from burla.provisioning import cli
    from burla.provisioning.config import BUILT_IN

    said = {
        name: value
        for name, value in settings.items()
        if value is not None and value is not False and value != ()
    }
    here = int(local)
    if local and not any(name in said for name in (*BUILT_IN, "provider")):
        here = said.pop("nodes", 1)
    return cli.up(file, cluster, hosts, here, said, as_json, _adopt, cluster_address)


@click.command()
@_of_file
@cluster_option
@_forget
@json_option
def down(file: Path | None, cluster: str | None, forget: bool, as_json: bool) -> int:
    """End a cluster and leave every machine as it was before.

    FILE: which cluster it is, as for `burla up`.
    """
    from burla.provisioning import cli

    named = _named(file, cluster)
    return cli.down(named, lambda: _state(named), as_json, forget, _drop)


@click.command()
@_of_file
@cluster_option
@json_option
def status(file: Path | None, cluster: str | None, as_json: bool) -> int:
    """Show the state of a cluster that `burla up` made.

    FILE: which cluster it is, as for `burla up`.
    """
    from burla.provisioning import cli

    return cli.status(_state(_named(file, cluster)), as_json)


@click.command()
@cluster_option
@json_option
def gc(cluster: str | None, as_json: bool) -> int:
    """Delete cloud machines that ended, failed or are past their time."""
    from burla.provisioning import cli

    return cli.collect(_state(cluster), as_json)


@click.command()
@cluster_option
@json_option
def doctor(cluster: str | None, as_json: bool) -> int:
    """Look for what keeps calls from working, from here to the nodes.

    A line for each check: pass, warn or fail, and what to do. Ends with 1 if one fails. Run it
    where calls are made; on the head or a node it looks at that machine as well.
    """
    from dataclasses import asdict

    from . import doctor as doctors

    named = None if cluster is None else address_in_use(cluster)
    checks = doctors.run(named, _best_isolation, _wrong_keys)
    if as_json:
        click.echo(json.dumps([asdict(check) for check in checks]))
    else:
        for check in checks:
            click.echo(f"{check.state}  {check.name:12} {check.text}")
            if check.remedy:
                click.echo(f"{'':18}-> {check.remedy}")
    return EXIT_FAILED if any(check.state == doctors.FAIL for check in checks) else EXIT_OK


def _best_isolation(address: str) -> tuple[str, str]:
    """Return the best tier of isolation of a node here, and why none better."""
    from burla.nodelet.config import usable_cpus, usable_ram
    from burla.nodelet.isolation import probe

    confinement = probe.confinement(usable_ram(), usable_cpus(), address or "ipc:///", None)
    tier, why = probe.best(confinement)
    return tier.value, why


def _wrong_keys(address: str | None) -> list[str]:
    """Return what is wrong with the key files of a scheduler on this machine."""
    from burla.provisioning.clusters import NoCluster, keys_of
    from burla.scheduler.auth.key_store import KeyStore
    from burla.scheduler.auth.quota_store import QuotaStore
    from burla.transport.keys import KeyFileError

    try:
        store = KeyStore(keys_of(None, address))
    except NoCluster:
        return []
    wrong = []
    for look in (store.server_pair, store.read, QuotaStore(store).read):
        try:
            look()
        except KeyFileError as error:
            wrong.append(str(error))
    return wrong


@click.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--with-jobs",
    is_flag=True,
    help="Also detached jobs with their inputs and results, which may be gigabytes, and what"
    " `burla jobs` tells.",
)
@cluster_option
@json_option
def backup(file: Path | None, with_jobs: bool, cluster: str | None, as_json: bool) -> int:
    """Save the head of a cluster in FILE (default: burla-NAME-TIME.tar.gz here).

    That is what a new head needs to go on where this one was: keys, who may use the cluster,
    quotas and settings. Can be done while the cluster works. FILE has secret keys in it.
    """
    from burla.provisioning import cli

    return cli.save(_state(cluster), file, as_json, with_jobs=with_jobs)


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
def restore(file: Path, as_json: bool) -> int:
    """Bring back the head of a cluster from FILE, as `burla backup` saved it.

    Then `burla up --cluster NAME` starts it. Nodes and users find it again if it has the address
    that it had; jobs that wait for it go on.
    """
    from burla.provisioning import cli

    return cli.restore(file, as_json)


@click.group()
def nodes() -> None:
    """List, add, drain and remove nodes of a cluster."""


@nodes.command("add")
@click.argument("hosts", nargs=-1, required=True, metavar="[USER@]HOST[:PORT]...")
@cluster_option
@json_option
def nodes_add(hosts: tuple[str, ...], cluster: str | None, as_json: bool) -> int:
    """Add hosts to a cluster, over SSH."""
    from burla.provisioning import cli

    return cli.add(_state(cluster), hosts, as_json, _adopt)


def _node_names(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Return the names of nodes that begin so, for the completion of shells."""
    from burla.provisioning.core.machines import ProvisioningError

    with suppress(ProvisioningError, errors.BurlaError):
        state = _state(context.params.get("cluster"))
        names = [*state.names, *(f"local-{n + 1}" for n in range(state.config.local.nodes))]
        return [name for name in names if name.startswith(begun)]
    return []


@nodes.command("remove")
@click.argument("names", nargs=-1, required=True, shell_complete=_node_names)
@cluster_option
@_forget
@json_option
def nodes_remove(names: tuple[str, ...], cluster: str | None, forget: bool, as_json: bool) -> int:
    """Remove nodes and leave their machines as they were before."""
    from burla.provisioning import cli

    return cli.remove(_state(cluster), names, as_json, forget)


@nodes.command("drain")
@click.argument("names", nargs=-1, required=True, shell_complete=_node_names)
@cluster_option
@json_option
def nodes_drain(names: tuple[str, ...], cluster: str | None, as_json: bool) -> int:
    """Stop nodes after the calls that they run now.

    `burla up` starts them again; a machine of a cloud is deleted.
    """
    from burla.provisioning import cli

    return cli.drain(_state(cluster), names, as_json)


@nodes.command("list")
@cluster_option
@json_option
def list_nodes(cluster: str | None, as_json: bool) -> None:
    """List the nodes of a cluster.

    ISOLATION says how well a node separates jobs: uid, namespaces, landlock or process, best first
    (see burla-nodelet --help). STATE is free, leased, leaving (takes no more work) or lost. JOB is
    shown if it is yours.
    """
    from . import admin

    found = admin.list_nodes(address_in_use(cluster))
    if as_json:
        import msgspec

        click.echo(json.dumps([msgspec.structs.asdict(node) for node in found]))
    else:
        admin.print_nodes(found)
