"""`burla login` and `burla auth`: who may use the cluster. Other rooms are imported inside only.

Everything here goes without a prompt, and prints JSON on request.
"""

import errno
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click

from . import errors
from .cli_options import address_in_use, cluster_option, json_option, say
from .config import cluster_address, store_cluster


def _where(command: Any) -> Any:
    """Add the two options that say whose keys are meant."""
    directory = click.option(
        "--dir",
        "directory",
        metavar="DIR",
        help="The scheduler's key directory, if --cluster is not enough (burla-scheduler --dir).",
    )
    return cluster_option(directory(command))


@click.command()
@click.argument("address", required=False)
@cluster_option
@json_option
def login(address: str | None, cluster: str | None, as_json: bool) -> None:
    """Use the cluster at ADDRESS from now on, with a key of your own.

    Stores the address in your settings, makes a key for you if you have none, and prints the
    command that an administrator must run once on the scheduler's machine to let you in. Does not
    connect to the cluster.
    """
    from burla.transport.addresses import AddressError, take_apart

    if (address is None) == (cluster is None):
        raise click.UsageError("say which cluster: pass its ADDRESS, or --cluster and its name")
    address = (address_in_use(cluster) or "") if address is None else address.strip()
    try:
        where = take_apart(address)
    except AddressError as error:
        raise errors.BadSetting("ADDRESS", address, error.why) from None
    path = store_cluster(address)
    if where.key is None:
        text = f"stored in {path}; this cluster needs no key"
        say(as_json, {"address": address, "settings": path}, text)
        return
    key = _own_key()
    # with the address, for there may be several clusters on the machine where this is run
    words = ("burla", "auth", "add", key, "--user", _user(), "--cluster", address)
    facts = {"address": address, "settings": path, "key": key, "command": shlex.join(words)}
    text = f"stored in {path}\nyour key: {key}\nan administrator of the cluster must run:\n"
    say(as_json, facts, f"{text}  {facts['command']}")


def _own_key() -> str:
    from burla.transport.keys import KeyFileError, load_or_make_pair

    from .config import user_key_path

    path = user_key_path()
    assert path is not None, "the address was stored there"
    try:
        return load_or_make_pair(path, "a user of burla").public.hex()
    except (KeyFileError, OSError) as error:
        raise errors.BurlaError(f"cannot use your key: {error}") from None


def _user() -> str:
    from burla.transport.client_hello import user_name

    return user_name()


@click.group()
def auth() -> None:
    """Manage who may use a cluster.

    Run these on the scheduler's machine; a running scheduler notices each change at once.
    """


@auth.command()
@click.argument("key")
@click.option("--user", required=True, help="Who owns the key; for a node's key, the node's name.")
@click.option(
    "--role", type=click.Choice(["client", "node", "admin"]), default="client", show_default=True
)
@_where
@json_option
def add(
    key: str, user: str, role: str, cluster: str | None, directory: str | None, as_json: bool
) -> None:
    """Let KEY (64 digits, as `burla login` prints them) use the cluster."""
    from burla.scheduler.core import admission
    from burla.transport.keys import parse_key

    try:
        name = parse_key(key).hex()
    except ValueError as error:
        raise click.UsageError(f"{key!r} is not a key: {error}") from None
    kind = admission.Role(role)
    with _open(cluster, directory) as store:
        store.change(lambda table: admission.add(table, name, kind, user, time.time()))
    text = f"key {name[:16]}... now has the role {role}, as {user}"
    say(as_json, {"key": name, "user": user, "role": role}, text)


@auth.command()
@click.argument("what", metavar="KEY|USER")
@_where
@json_option
def revoke(what: str, cluster: str | None, directory: str | None, as_json: bool) -> None:
    """Take all rights from a key, or from all keys of a user.

    The first 8 digits of a key are enough. Takes effect at once, also on open connections.
    """
    from burla.scheduler.core import admission

    gone: list[str] = []

    def change(table: admission.Table) -> admission.Table:
        table, gone[:] = admission.revoke(table, what, time.time())
        return table

    with _open(cluster, directory) as store:
        store.change(change)
    say(as_json, {"revoked": gone}, "\n".join(f"key {key[:16]}... is revoked" for key in gone))


@auth.command()
@_where
@json_option
def token(cluster: str | None, directory: str | None, as_json: bool) -> None:
    """Print a join token, which makes one machine a node.

    It works once, within ten minutes: burla-nodelet --join-token-file FILE.
    """
    from burla.scheduler.core.admission import TOKEN_S

    with _open(cluster, directory) as store:
        made = store.make_token().secret.hex()
    say(as_json, {"token": made, "expires": _iso(time.time() + TOKEN_S)}, made)


@auth.command("list")
@_where
@json_option
def list_keys(cluster: str | None, directory: str | None, as_json: bool) -> None:
    """Show all keys: who owns them, what they may do, and since when."""
    with _open(cluster, directory) as store:
        table = store.read()
    rows = [
        {
            "key": key,
            "user": entry.user,
            "role": entry.role.value,
            "added": _iso(entry.added_s),
            "revoked": _iso(entry.revoked_s),
            "expires": _iso(entry.expires_s),
        }
        for key, entry in table.items()
    ]
    lines = [
        f"{row['key']}  {row['role']:6}  {row['added']}  "
        f"{'revoked ' if row['revoked'] else ''}{row['user']}"
        for row in rows
    ]
    say(as_json, rows, "\n".join(lines) or "no keys yet: `burla auth add` adds one")


KEY_DIRECTORY = "one where `burla-scheduler init` made keys (--dir names another)"


class Size(click.ParamType):  # type: ignore[type-arg]  # generic in newer ones only
    """A number of bytes, as 34359738368, 32G or 512M."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        found = re.fullmatch(r"(\d{1,18})([KMGT]?)(?:i?B)?", str(value).strip(), re.IGNORECASE)
        if found is None:
            self.fail(f"{value!r} is not a number of bytes, as 34359738368 or 32G", param, ctx)
        return int(found[1]) << 10 * " KMGT".index(found[2].upper() or " ")


@auth.command()
@click.argument("user", required=False)
@click.option("--jobs", type=click.IntRange(1), help="Open jobs at once.")
@click.option("--inputs", type=click.IntRange(1), help="Inputs at once that have no outcome yet.")
@click.option("--bytes", "size", type=Size(), help="Bytes of these, and of functions: N, NM, NG.")
@click.option("--reset", is_flag=True, help="Forget what was set before.")
@_where
@json_option
def quota(
    user: str | None,
    jobs: int | None,
    inputs: int | None,
    size: int | None,
    reset: bool,
    cluster: str | None,
    directory: str | None,
    as_json: bool,
) -> None:
    """Show or set what USER, with all keys, may have at once; without USER: what everybody may.

    A running scheduler takes it over within a second; jobs that are open go on. What is not set
    for a user is as for everybody, and else as burla-scheduler was told (--tenant-jobs and so on).
    """
    from burla.scheduler.auth.quota_store import Limits, QuotaStore
    from burla.scheduler.core.admission import is_name

    if user is not None and not is_name(user):
        raise click.UsageError(f"{user!r} is not the name of a user")
    if size == 0:
        raise click.UsageError("--bytes must be at least 1")
    limits = Limits(jobs, inputs, size)
    with _open(cluster, directory) as store:
        quotas = QuotaStore(store)
        table = quotas.read()
        if reset:
            table = quotas.change(lambda table: table.changed(user, None))
        if limits != Limits():
            table = quotas.change(lambda table: table.changed(user, limits))
        known = {entry.user for entry in store.read().values()}
    if user is not None and user not in known:
        click.echo(f"burla: no key of {user!r} is known yet: `burla auth list` has all", err=True)
    users = table.users if user is None else {user: table.users.get(user, Limits())}
    rows = [{"user": None, **_limits(table.everybody)}]
    rows += [{"user": name, **_limits(own)} for name, own in sorted(users.items())]
    lines = [f"{'USER':24} {'JOBS':>10} {'INPUTS':>14} {'BYTES':>18}"]
    for row in rows:
        cells = [
            ("-" if row[name] is None else str(row[name])) for name in ("jobs", "inputs", "bytes")
        ]
        lines.append("{:24} {:>10} {:>14} {:>18}".format(row["user"] or "(everybody)", *cells))
    say(as_json, rows, "\n".join(lines))


def _limits(limits: Any) -> dict[str, Any]:
    return {"jobs": limits.jobs, "inputs": limits.inputs, "bytes": limits.bytes}


@contextmanager
def _open(cluster: str | None, directory: str | None) -> Iterator[Any]:
    """Yield the KeyStore of a scheduler, and say in words what goes wrong with it.

    Raises:
        BadSetting: there is no such directory, or its files are refused.
        BurlaError: the change makes no sense.
    """
    from burla.provisioning.clusters import keys_of
    from burla.scheduler.auth.key_store import KeyStore
    from burla.scheduler.config import keys_directory
    from burla.scheduler.core.admission import AdmissionError
    from burla.transport.keys import KeyFileError, KeyFileMissingError

    if directory is not None and cluster is not None:
        raise click.UsageError("--dir and --cluster both say where the keys are: pass one of them")
    if directory is not None:
        path = keys_directory(directory)
    else:
        path = keys_of(cluster, cluster_address() if cluster is None else None)
    try:
        yield KeyStore(path)
    except AdmissionError as error:
        raise errors.BurlaError(str(error)) from None
    except KeyFileMissingError as error:
        raise errors.BadSetting(
            "the key directory", str(path), f"{KEY_DIRECTORY}; {error}"
        ) from None
    except KeyFileError as error:  # it says what is wrong with which file
        raise errors.BurlaError(str(error)) from None
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):  # it is the right one
            why = f"{error.strerror or error}: {error.filename or path}"
            raise errors.BurlaError(f"the keys of the cluster cannot be used: {why}") from None
        raise errors.BadSetting(
            "the key directory", str(path), f"{KEY_DIRECTORY}; {error}"
        ) from None


def _iso(time_s: float | None) -> str | None:
    """Return a time as text; None: never."""
    if time_s is None:
        return None
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")
