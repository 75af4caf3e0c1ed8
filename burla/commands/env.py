"""`burla env`: which installed packages go with a script, and what nodes here keep of them."""

import os
import sys
from collections.abc import Iterator
from glob import glob
from typing import TYPE_CHECKING

import click

from burla.system.paths import PACKAGES, cache_directory

from .options import address_in_use, cluster_option, json_option, say

if TYPE_CHECKING:
    from burla.shipping.distributions import Distribution
    from burla.shipping.packages import Needs

script_argument = click.argument("script", type=click.Path(exists=True, dir_okay=False))


@click.group()
def env() -> None:
    """Show which installed packages go along with your functions."""


@env.command()
@script_argument
@json_option
def show(script: str, as_json: bool) -> None:
    """Show which installed packages functions of SCRIPT take along.

    They are those that SCRIPT and your own modules import, with all that these require: a function
    takes what it needs of them. SCRIPT is not run.
    """
    from burla.shipping.packages import OFF, packages_of_script, packages_of_settings

    needs = packages_of_script(script)
    rows = [(one.name, one.version, _way(one, needs)) for one in needs.here.values()]
    if as_json:
        facts = [dict(zip(("name", "version", "way"), row, strict=True)) for row in rows]
        say(as_json, {"packages": facts, "missing": list(needs.missing)}, "")
        return
    widths = [max((len(row[at]) for row in rows), default=0) for at in (0, 1)]
    for name, version, way in rows:
        click.echo(f"{name:{widths[0]}}  {version:{widths[1]}}  {way}")
    if not rows:
        is_off = packages_of_settings().mode == OFF
        click.echo("nothing: packages is off" if is_off else "nothing is imported", err=True)


def _way(one: "Distribution", needs: "Needs") -> str:
    if one.origin == "editable":
        return "as your own modules (editable)"
    if one in needs.carried:
        return f"in files (installed from {one.origin})"
    return "from the nodes' index, else in files" if one.files else "from the nodes' index"


@env.command()
@script_argument
@cluster_option
@json_option
def check(script: str, cluster: str | None, as_json: bool) -> int:
    """Check what functions of SCRIPT need, here and at the nodes of the cluster.

    Exit code 1 if something that a package requires is not installed here, or no node runs this
    Python.
    """
    from burla.shipping.packages import packages_of_script

    found = list(_faults(packages_of_script(script), cluster))
    if as_json:
        say(as_json, {"faults": found}, "")
        return 1 if found else 0
    for fault in found:
        click.echo(fault, err=True)
    if not found:
        click.echo("all is well")
    return 1 if found else 0


def _faults(needs: "Needs", cluster: str | None) -> Iterator[str]:
    for missing in needs.missing:
        yield f"not installed here: {missing}"
    for one in needs.here.values():
        if one.origin and not one.files:
            yield f"{one.name} is of no index ({one.origin}), and nobody has noted its files"
    address = address_in_use(cluster)
    if address is None:
        return
    from .admin import list_nodes  # only who has a cluster asks it

    mine = f"{sys.version_info[0]}.{sys.version_info[1]}"
    nodes = list_nodes(address)
    others = sorted({node.python for node in nodes if node.python != mine})
    if others and len(others) == len({node.python for node in nodes}):
        yield (
            f"you run Python {mine}, and the nodes run {', '.join(others)}: use one of these here,"
            f" as by `uv venv --python {others[-1]}`"
        )


@env.command()
@click.option("--directory", "named", help="Where a node installs packages (default: all here).")
@json_option
def prune(named: str | None, as_json: bool) -> None:
    """Remove what nodes on this machine have installed, if no job uses it just now.

    So is what was packed of your own installed packages to be sent.
    """
    home = os.path.expanduser("~/.burla/*/packages")
    places = [named] if named else [*glob(home), os.path.join(cache_directory() or "", PACKAGES)]
    removed = []
    if places := list(filter(os.path.isdir, places)):
        from burla.nodelet.shell.environments import Store  # which only Linux can load

        removed = [one for place in places for one in Store(place).prune(0)]
    size = sum(one.size for one in removed)
    if named is None:
        from burla.shipping.packed_files import PackedFiles

        size += sum(PackedFiles().prune(0))
    text = f"removed {len(removed)} environments, {size / 1e6:,.1f} MB"
    say(as_json, {"removed": len(removed), "bytes": size}, text)
