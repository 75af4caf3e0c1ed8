"""`burla resume`: what is kept on this computer of jobs with `resume=`, and its removal."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from .options import json_option, say

if TYPE_CHECKING:
    from burla.resume.checkpoints import Kept


class NothingKept(Exception):
    """Nothing is kept under a name."""

    def __init__(self, *names: str) -> None:
        shown = ", ".join(map(repr, names))
        super().__init__(f"nothing is kept under {shown}: see `burla resume list`")


@click.group()
def resume() -> None:
    """Show and remove the results that `resume=` keeps on this computer."""


@resume.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the names, the one used last first."""
    from burla.resume.checkpoints import all_kept

    _print(all_kept(), as_json)


@resume.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show what is kept under NAME: a line for each function, and each state of it."""
    from burla.resume.checkpoints import all_kept

    found = all_kept(name)
    if not found:
        raise NothingKept(name)
    _print(found, as_json)


@resume.command()
@click.argument("names", metavar="NAME...", nargs=-1)
@click.option("--all", "is_all", is_flag=True, help="Remove what is kept under all names.")
@json_option
def drop(names: tuple[str, ...], is_all: bool, as_json: bool) -> None:
    """Remove what is kept under each NAME: then all is called anew."""
    from burla.resume.checkpoints import all_kept, drop as drop_kept

    if bool(names) == is_all:
        raise click.UsageError("name what to remove, or give --all")
    kept = {one.name for one in all_kept()}
    if missing := sorted(set(names) - kept):
        raise NothingKept(*missing)
    gone = sorted(kept) if is_all else list(dict.fromkeys(names))
    size = sum(drop_kept(name) for name in gone)
    say(as_json, {"removed": gone, "bytes": size}, f"removed {_size(size)}")


def _print(found: "list[Kept]", as_json: bool) -> None:
    from burla.resume.checkpoints import days_left

    if as_json:
        facts = [
            {
                "name": kept.name,
                "function": kept.function,
                "results": kept.results,
                "bytes": kept.size,
                "used": datetime.fromtimestamp(kept.used_s, UTC).isoformat(),
                "days_left": days_left(kept),
                "folder": str(kept.folder),
            }
            for kept in found
        ]
        say(as_json, {"kept": facts}, "")
        return
    rows = [("NAME", "FUNCTION", "RESULTS", "SIZE", "LAST USED", "KEPT FOR")]
    for kept in found:
        used = datetime.fromtimestamp(kept.used_s).strftime("%Y-%m-%d %H:%M")
        figures = f"{kept.results:,}", _size(kept.size), used, f"{days_left(kept)} days"
        rows.append((kept.name, kept.function, *figures))
    if len(rows) == 1:
        click.echo("nothing is kept", err=True)
        return
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
