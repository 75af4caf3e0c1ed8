"""`burla`: the command line for people. Other rooms are imported inside its commands only."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from burla.system.exit_codes import (
    EXIT_CONFIG,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NOT_AUTHORISED,
    EXIT_OK,
    EXIT_UNREACHABLE,
)

from . import errors
from .auth_cli import auth, login

# A line of \b alone keeps click from filling the paragraph after it.
HELP = """Run a Python function on every input, on many computers at once, as if it ran here.

\b
    from burla import remote_parallel_map
    results = remote_parallel_map(function, inputs)

It uses the cluster that BURLA_CLUSTER or `burla login` names. Without one, a private cluster on
this machine starts with the first call and ends with the process. `burla up` makes a cluster.
"""
EPILOG = """\b
exit codes: 0 ok, 1 the job failed, 2 wrong usage, 69 no cluster answers,
77 not authorised, 78 bad configuration, 130 Ctrl-C"""
FORGET = "Give up on hosts that cannot be reached, and leave them as they are."


def _print_version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from burla.protocol import VERSION

        click.echo(f"burla {VERSION}")
        context.exit()


@click.group(
    help=HELP,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def commands() -> None:
    """Hold all commands; what they share is said in `HELP`."""


commands.add_command(login)
commands.add_command(auth)


@commands.command()
def demo() -> None:
    """Show burla at work: a first job, a million tiny calls, real work."""
    from . import demo as show

    show.main()


# --- clusters: burla.provisioning does it ---


def _name(command: Any) -> Any:
    option = click.option(
        "--cluster", default="default", show_default=True, help="Name of the cluster."
    )
    return option(command)


def _json(command: Any) -> Any:
    return click.option("--json", is_flag=True, help="Print the result as JSON.")(command)


@commands.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--cluster", help='Name of the cluster (default: as in FILE, or "default").')
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
@click.option("--nodes", type=int, help="How many nodes for --gce or --slurm (default: 1).")
@click.option("--max-nodes", type=int, help="Limit up to which jobs with grow=True may add nodes.")
@click.option("--project", help="Google Cloud project that pays for --gce.")
@click.option(
    "--zone", "zones", multiple=True, help="Zone for --gce; repeat in order of preference."
)
@click.option(
    "--machine-type", "machine_types", multiple=True, help="Type for --gce; repeat likewise."
)
@click.option("--partition", help="Slurm partition for --slurm.")
@click.option("--bind", help="Where the scheduler listens on this machine: tcp://ADDRESS:PORT.")
@click.option("--scheduler", help="Address at which nodes reach the scheduler, if not --bind.")
@click.option("--wheelhouse", help='Wheels for nodes without package index: "auto" or a folder.')
@click.option("--index", help="URL of the package index that nodes install from.")
@_json
def up(
    file: Path | None,
    cluster: str | None,
    local: bool,
    hosts: tuple[str, ...],
    json: bool,
    **settings: Any,
) -> int:
    """Make or repair a cluster.

    FILE (TOML) or the options say what it has. Run again, it repairs what is broken, adds what is
    missing, and changes nothing else.
    """
    from burla.provisioning import cli

    said = {
        name: value
        for name, value in settings.items()
        if value is not None and value is not False and value != ()
    }
    return cli.up(file, cluster, hosts, int(local), said, json)


def _forget(command: Any) -> Any:
    return click.option("--forget", is_flag=True, help=FORGET)(command)


@commands.command()
@_name
@_forget
@_json
def down(cluster: str, forget: bool, json: bool) -> int:
    """End a cluster and leave every machine as it was before."""
    from burla.provisioning import cli

    return cli.down(cluster, json, forget)


@commands.command()
@_name
@_json
def status(cluster: str, json: bool) -> int:
    """Show the state of a cluster that `burla up` made."""
    from burla.provisioning import cli

    return cli.status(cluster, json)


@commands.command()
@_name
@_json
def gc(cluster: str, json: bool) -> int:
    """Delete cloud machines that ended, failed or are past their time."""
    from burla.provisioning import cli

    return cli.collect(cluster, json)


@commands.group()
def nodes() -> None:
    """List, add, drain and remove nodes of a cluster."""


@nodes.command("add")
@click.argument("hosts", nargs=-1, required=True, metavar="[USER@]HOST[:PORT]...")
@_name
@_json
def nodes_add(hosts: tuple[str, ...], cluster: str, json: bool) -> int:
    """Add hosts to a cluster, over SSH."""
    from burla.provisioning import cli

    return cli.add(cluster, hosts, json)


@nodes.command("remove")
@click.argument("names", nargs=-1, required=True)
@_name
@_forget
@_json
def nodes_remove(names: tuple[str, ...], cluster: str, forget: bool, json: bool) -> int:
    """Remove nodes and leave their machines as they were before."""
    from burla.provisioning import cli

    return cli.remove(cluster, names, json, forget)


@nodes.command("drain")
@click.argument("names", nargs=-1, required=True)
@_name
@_json
def nodes_drain(names: tuple[str, ...], cluster: str, json: bool) -> int:
    """Stop nodes after the calls that they run now.

    `burla up` starts them again; a machine of a cloud is deleted.
    """
    from burla.provisioning import cli

    return cli.drain(cluster, names, json)


@nodes.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of objects.")
def list_nodes(as_json: bool) -> None:
    """List the nodes of the cluster in use.

    ISOLATION says how well a node separates jobs: uid, namespaces, landlock or process, best first
    (see burla-nodelet --help). STATE is free, leased, leaving (takes no more work) or lost. JOB is
    shown if it is yours.
    """
    from . import admin

    found = admin.list_nodes()
    if as_json:
        import json

        import msgspec

        click.echo(json.dumps([msgspec.structs.asdict(node) for node in found]))
    else:
        admin.print_nodes(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    try:
        code = commands.main(arguments, prog_name="burla", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except errors.BurlaError as error:
        click.echo(f"burla: {error}", err=True)
        return exit_code(error)
    except RuntimeError as error:  # of provisioning, which is not loaded unless it was used
        return _provisioning_failed(error)
    return code if isinstance(code, int) else EXIT_OK


def _provisioning_failed(error: RuntimeError) -> int:
    from burla.provisioning import cli
    from burla.provisioning.core import machines

    if not isinstance(error, machines.ProvisioningError):
        raise error
    click.echo(f"burla: {error}", err=True)
    return cli.exit_code(error)


def exit_code(error: errors.BurlaError) -> int:
    """Return the exit code that tells a script what went wrong."""
    match error:
        case errors.BadSetting():
            return EXIT_CONFIG
        case errors.NotAuthorised():
            return EXIT_NOT_AUTHORISED
        case errors.ClusterUnreachable():
            return EXIT_UNREACHABLE
        case _:
            return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
