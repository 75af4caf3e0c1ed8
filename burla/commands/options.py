"""What several commands of `burla` share: options, and how a result is printed."""

import json
from datetime import UTC, datetime
from typing import Any

import click

from burla.config import cluster_address


def _names(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Return the names of clusters that begin so, for the completion of shells."""
    from burla.provisioning.clusters import known

    return [name for state in known() if (name := state.config.name).startswith(begun)]


cluster_option = click.option(
    "--cluster",
    shell_complete=_names,
    metavar="NAME|ADDRESS",
    help="Which cluster: what `burla up` called it here, or its address. Default: the one in use"
    " (BURLA_CLUSTER, else as stored by `burla up` or `burla login`).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def say(as_json: bool, facts: Any, text: str) -> None:
    """Print what a command found out, for a program or for people."""
    click.echo(json.dumps(facts) if as_json else text)


def iso(time_s: float | None) -> str | None:
    """Return a time as text; None: never."""
    if time_s is None:
        return None
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")


def address_in_use(cluster: str | None) -> str | None:
    """Return the address of the cluster that is named by --cluster, or else is in use, if any.

    Raises:
        ProvisioningError: none of that name is known.
        BadSetting: what is configured is no address.
    """
    if cluster is None:
        return cluster_address()
    from burla.provisioning.clusters import address_of

    return address_of(cluster)
