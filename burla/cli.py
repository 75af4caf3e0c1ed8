"""`burla`: the command line for people. Other rooms are imported inside its commands only."""

import os
import sys
from collections.abc import Sequence

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
from .cli_options import address_in_use, cluster_option
from .cluster_cli import backup, down, gc, nodes, restore, status, up
from .config import CLUSTER_VARIABLE

# A line of \b alone keeps click from filling the paragraph after it.
HELP = """Run a Python function on every input, on many computers at once, as if it ran here.

\b
    from burla import remote_parallel_map
    results = remote_parallel_map(function, inputs)

It uses the cluster that BURLA_CLUSTER names, else the one that `burla up` or `burla login` stored.
Without one, a private cluster on this machine starts with the first call and ends with the process.
"""
EPILOG = """\b
exit codes: 0 ok, 1 the job failed, 2 wrong usage, 69 no cluster answers,
77 not authorised, 78 bad configuration, 130 Ctrl-C"""


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


for _command in (login, auth, up, down, status, gc, nodes, backup, restore):
    commands.add_command(_command)


@commands.command()
@cluster_option
def demo(cluster: str | None) -> None:
    """Show burla at work: a first job, a million tiny calls, real work."""
    from . import demo as show

    if cluster is not None:
        os.environ[CLUSTER_VARIABLE] = address_in_use(cluster) or ""
    show.main()


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
