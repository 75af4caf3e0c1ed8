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

EPILOG = """\b
exit codes: 0 ok, 1 the job failed, 2 wrong usage, 69 no cluster answers,
77 not authorised, 78 bad configuration, 130 Ctrl-C"""


def _print_version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from burla.protocol import VERSION

        click.echo(f"burla {VERSION}")
        context.exit()


@click.group(
    epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True
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
    r"""Run a Python function on every input, on many computers at once, as if it ran here.

    \b
    from burla import remote_parallel_map
    results = remote_parallel_map(function, inputs)

    Without BURLA_CLUSTER (an address as burla-scheduler prints it) or `burla login`, a private
    cluster on this machine is used; it starts with the first call and is gone when the process
    ends. burla-scheduler and burla-nodelet make a cluster for many.
    """


commands.add_command(login)
commands.add_command(auth)


@commands.command()
def demo() -> None:
    """Show what burla does: a first job, a million tiny calls, and real work, in a screen."""
    from . import demo as show

    show.main()


# --- clusters: burla.provisioning does it ---


def _name(command: Any) -> Any:
    option = click.option("--cluster", default="default", show_default=True, help="Its name.")
    return option(command)


def _json(command: Any) -> Any:
    return click.option("--json", is_flag=True, help="Say the result on stdout as JSON.")(command)


@commands.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--cluster", help='Its name (default: the file\'s, or "default").')
@click.option("--local", is_flag=True, help="A node on this machine.")
@click.option("--ssh", "hosts", metavar="[USER@]HOST[:PORT]", multiple=True, help="A host by SSH.")
@click.option("--gce", is_flag=True, help="Machines of Compute Engine; needs a project and zones.")
@click.option("--slurm", is_flag=True, help="Nodes that the Slurm of this machine has.")
@click.option("--nodes", type=int, help="How many of --gce or --slurm (default: 1).")
@click.option("--max-nodes", type=int, help="How many, with those for jobs that have grow=True.")
@click.option("--project", help="Of Compute Engine; pays for --gce.")
@click.option("--zone", "zones", multiple=True, help="For --gce, in order of preference.")
@click.option("--machine-type", "machine_types", multiple=True, help="For --gce, likewise.")
@click.option("--partition", help="Of Slurm, for --slurm.")
@click.option("--bind", help="Where the scheduler listens on this machine: tcp://ADDRESS:PORT.")
@click.option("--scheduler", help="Where nodes reach the scheduler, if it is another address.")
@click.option("--wheelhouse", help='For nodes without an index: "auto", or a folder of wheels.')
@click.option("--index", help="The URL of the index that nodes install from.")
@_json
def up(
    file: Path | None,
    cluster: str | None,
    local: bool,
    hosts: tuple[str, ...],
    json: bool,
    **settings: Any,
) -> int:
    """Make a cluster, as FILE (TOML) or options say; run again, it mends what is broken."""
    from burla.provisioning import cli

    said = {name: x for name, x in settings.items() if x is not None and x is not False and x != ()}
    return cli.up(file, cluster, hosts, int(local), said, json)


def _forget(command: Any) -> Any:
    text = "Hosts that can not be reached stay as they are, and are forgotten."
    return click.option("--forget", is_flag=True, help=text)(command)


@commands.command()
@_name
@_forget
@_json
def down(cluster: str, forget: bool, json: bool) -> int:
    """End a cluster, and leave every machine as it was."""
    from burla.provisioning import cli

    return cli.down(cluster, json, forget)


@commands.command()
@_name
@_json
def status(cluster: str, json: bool) -> int:
    """Show a cluster that `burla up` has made."""
    from burla.provisioning import cli

    return cli.status(cluster, json)


@commands.command()
@_name
@_json
def gc(cluster: str, json: bool) -> int:
    """Delete machines of a cluster that ended, failed or are past their time; no others."""
    from burla.provisioning import cli

    return cli.collect(cluster, json)


@commands.group()
def nodes() -> None:
    """Show, add, drain and remove nodes of a cluster."""


@nodes.command("add")
@click.argument("hosts", nargs=-1, required=True, metavar="[USER@]HOST[:PORT]...")
@_name
@_json
def nodes_add(hosts: tuple[str, ...], cluster: str, json: bool) -> int:
    """Make hosts nodes of a cluster, over SSH."""
    from burla.provisioning import cli

    return cli.add(cluster, hosts, json)


@nodes.command("remove")
@click.argument("names", nargs=-1, required=True)
@_name
@_forget
@_json
def nodes_remove(names: tuple[str, ...], cluster: str, forget: bool, json: bool) -> int:
    """Take nodes out of a cluster, and leave their machines as they were."""
    from burla.provisioning import cli

    return cli.remove(cluster, names, json, forget)


@nodes.command("drain")
@click.argument("names", nargs=-1, required=True)
@_name
@_json
def nodes_drain(names: tuple[str, ...], cluster: str, json: bool) -> int:
    """Let nodes finish the calls that run, take no more, and end."""
    from burla.provisioning import cli

    return cli.drain(cluster, names, json)


@nodes.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON array of objects, for programs.")
def list_nodes(as_json: bool) -> None:
    """Show each node: how far it shuts jobs in, its size, and what it does.

    ISOLATION is uid, namespaces, landlock or process (burla-nodelet --help tells them apart), STATE
    free, leased, leaving (it takes no more work) or lost. JOB is named if it is yours.
    """
    from . import admin

    found = admin.list_nodes()
    if as_json:
        import json

        import msgspec

        click.echo(json.dumps([msgspec.structs.asdict(node) for node in found]))
    else:
        click.echo(admin.as_table(found))


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
