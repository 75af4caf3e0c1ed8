"""`burla`: the command line for people. Other rooms are imported inside its commands only."""

import os
import select
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TextIO

import click

from burla.commands import failures
from burla.commands.auth import auth, login
from burla.commands.cluster import backup, doctor, down, gc, nodes, restore, status, up
from burla.commands.dashboard import dashboard
from burla.commands.env import env
from burla.commands.failures import Failure
from burla.commands.jobs import jobs, schema, top
from burla.commands.logs import logs
from burla.commands.options import address_in_use, cluster_option
from burla.commands.resume import resume
from burla.commands.skill import skill
from burla.protocol.printable import printable
from burla.system.exit_codes import COMMANDS, EXIT_FAILED, EXIT_OK, described

from .config import CLUSTER_VARIABLE

# A line of \b alone keeps click from filling the paragraph after it.
HELP = """Run a Python function on every input, on many computers at once, as if it ran here.

\b
    from burla import remote_parallel_map
    results = remote_parallel_map(function, inputs)

It uses the cluster that BURLA_CLUSTER names, else the one that `burla up` or `burla login` stored.
Without one, a private cluster on this machine starts with the first call and ends with the process.
"""
EPILOG = f"\b\n{described(COMMANDS)}"


def _print_version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from burla.protocol import VERSION

        click.echo(f"burla {VERSION}")
        context.exit()


class _PipeClosed(Exception):
    """Nobody reads a pipe any more that a command writes to: its output, or another one."""

    def __init__(self, error: BrokenPipeError) -> None:
        super().__init__(error)
        self.error = error


class _Commands(click.Group):
    """All commands; click would end the process without a word where any pipe is closed."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _PipeClosed(error) from error


@click.group(
    cls=_Commands,
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


jobs.add_command(logs)
for _command in (
    login,
    auth,
    up,
    down,
    status,
    gc,
    nodes,
    jobs,
    doctor,
    backup,
    restore,
    resume,
    schema,
    skill,
    env,
    top,
    dashboard,
):
    commands.add_command(_command)


@commands.command()
@cluster_option
def demo(cluster: str | None) -> None:
    """Show burla at work: a first job, a million tiny calls, real work."""
    from burla.commands import demo as show

    if cluster is not None:
        os.environ[CLUSTER_VARIABLE] = address_in_use(cluster) or ""
    show.main()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    as_json = "--json" in words
    try:
        code = _run(words)
    except click.ClickException as error:
        return _fail(failures.USAGE, error.format_message(), as_json, error.show)
    except (click.Abort, KeyboardInterrupt):
        return _fail(failures.INTERRUPTED, "interrupted", as_json, lambda: None)
    except _PipeClosed as closed:
        if _is_closed(sys.stdout):  # whoever read it has seen enough
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the rest
            return EXIT_FAILED
        text = _words_of(closed.error)
        return _fail(failures.SYSTEM, text, as_json, lambda: click.echo(f"burla: {text}", err=True))
    except Exception as error:
        failure = failures.failure_of(error)
        if failure is None:
            if as_json:
                click.echo(failures.as_json(failures.INTERNAL, repr(error)))
            raise
        text = printable(_words_of(error), lines=True)  # others' words may be in it
        return _fail(failure, text, as_json, lambda: click.echo(f"burla: {text}", err=True))
    return code if isinstance(code, int) else EXIT_OK


def _run(words: list[str]) -> object:
    """Run a command; return what it returns.

    Raises:
        _PipeClosed: somebody reads no more.
    """
    code = commands.main(words, prog_name="burla", standalone_mode=False)
    try:
        sys.stdout.flush()  # what is wrong with it is known now, not at exit
    except BrokenPipeError as error:
        raise _PipeClosed(error) from error
    return code


def _is_closed(output: TextIO) -> bool:
    """Return whether nobody can read it."""
    try:
        output.write("")
        output.flush()
    except BrokenPipeError:
        return True
    if not hasattr(select, "poll"):
        return True  # it cannot be told
    with suppress(OSError):
        poll = select.poll()
        poll.register(output.fileno(), 0)
        return bool(poll.poll(0))
    return False


def _words_of(error: Exception) -> str:
    """Return what went wrong, of an OSError without its number."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    places = [str(place) for place in (error.filename, error.filename2) if place is not None]
    return ": ".join([*places, error.strerror])


def _fail(failure: Failure, text: str, as_json: bool, show: Callable[[], None]) -> int:
    """Say what went wrong, to a program on stdout or to people on stderr; return the exit code."""
    if as_json:
        click.echo(failures.as_json(failure, text))
    else:
        show()
    return failure.code


if __name__ == "__main__":
    sys.exit(main())
