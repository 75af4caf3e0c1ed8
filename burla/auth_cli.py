"""`burla login` and `burla auth`: who may use the cluster. Other rooms are imported inside only.

Everything here goes without a prompt, and prints JSON on request.
"""

import json
import time
from datetime import UTC, datetime
from typing import Any

import click

from . import errors

directory_option = click.option(
    "--dir", "directory", metavar="DIR", help="The scheduler's directory, as in burla-scheduler."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def say(as_json: bool, facts: Any, text: str) -> None:
    """Print what a command found out, for a program or for people."""
    click.echo(json.dumps(facts) if as_json else text)


@click.command()
@click.argument("address")
@json_option
def login(address: str, as_json: bool) -> None:
    """Use the cluster at ADDRESS from now on, with a key of your own.

    Stores the address in your settings, makes your key if you have none, and prints what an
    administrator must run on the scheduler's machine, once. Does not connect.
    """
    from burla.transport.addresses import AddressError, take_apart

    from .config import store_cluster

    try:
        where = take_apart(address)
    except AddressError as error:
        raise errors.BadSetting("ADDRESS", address, error.why) from None
    path = store_cluster(address.strip())
    if where.key is None:
        say(as_json, {"address": address, "settings": path}, f"{path}: needs no key")
        return
    key = _own_key()
    command = f"burla auth add {key} --user {_user()}"
    facts = {"address": address, "settings": path, "key": key, "command": command}
    say(as_json, facts, f"your key: {key}\nan administrator of the cluster runs:\n  {command}")


def _own_key() -> str:
    from burla.transport.keys import KeyFileError, load_or_make_pair

    from .config import user_key_path

    path = user_key_path()
    assert path is not None, "the address was stored there"
    try:
        return load_or_make_pair(path, "a user of burla").public.hex()
    except (KeyFileError, OSError) as error:
        raise errors.BadSetting("the user's key", path, f"a file of yours alone; {error}") from None


def _user() -> str:
    from burla.transport.client_hello import user_name

    return user_name()


@click.group()
def auth() -> None:
    """Say whose keys may do what; on the scheduler's machine, which notices at once."""


@auth.command()
@click.argument("key")
@click.option("--user", required=True, help="Whose key it is; of a node, its name.")
@click.option(
    "--role", type=click.Choice(["client", "node", "admin"]), default="client", show_default=True
)
@directory_option
@json_option
def add(key: str, user: str, role: str, directory: str | None, as_json: bool) -> None:
    """Let KEY (64 digits, as `burla login` prints) use the cluster."""
    from burla.scheduler.core import admission
    from burla.transport.keys import parse_key

    try:
        name = parse_key(key).hex()
    except ValueError as error:
        raise click.UsageError(f"{key!r} is no key: {error}") from None
    kind = admission.Role(role)
    _change(directory, lambda table: admission.add(table, name, kind, user, time.time()))
    say(as_json, {"key": name, "user": user, "role": role}, f"{name[:16]}... is {role} {user}")


@auth.command()
@click.argument("what", metavar="KEY|USER")
@directory_option
@json_option
def revoke(what: str, directory: str | None, as_json: bool) -> None:
    """Take all rights from a key (its first 8 digits do), or from all keys of a user.

    Counts from the next message on, also on connections that exist.
    """
    from burla.scheduler.core import admission

    gone: list[str] = []

    def change(table: admission.Table) -> admission.Table:
        table, gone[:] = admission.revoke(table, what, time.time())
        return table

    _change(directory, change)
    text = "\n".join(f"{key[:16]}... may do nothing any more" for key in gone)
    say(as_json, {"revoked": gone}, text)


@auth.command()
@directory_option
@json_option
def token(directory: str | None, as_json: bool) -> None:
    """Print a join token: it makes one machine a node, within ten minutes."""
    from burla.scheduler.core import admission
    from burla.transport.keys import make_pair

    pair, now_s = make_pair(), time.time()
    role = admission.Role.JOIN
    _change(
        directory, lambda table: admission.add(table, pair.public.hex(), role, "join token", now_s)
    )
    facts = {"token": pair.secret.hex(), "expires": _told(now_s + admission.TOKEN_S)}
    say(as_json, facts, pair.secret.hex())


@auth.command("list")
@directory_option
@json_option
def list_keys(directory: str | None, as_json: bool) -> None:
    """Show all keys: whose they are, what they may do, and since when."""
    from burla.transport.keys import KeyFileError

    try:
        table = _roster(directory).read()
    except KeyFileError as error:
        raise _refused(error) from None
    rows = [
        {
            "key": key,
            "user": entry.user,
            "role": entry.role.value,
            "added": _told(entry.added_s),
            "revoked": _told(entry.revoked_s),
            "expires": _told(entry.expires_s),
        }
        for key, entry in table.items()
    ]
    lines = [
        f"{row['key']}  {row['role']:6}  {row['added']}  "
        f"{'revoked ' if row['revoked'] else ''}{row['user']}"
        for row in rows
    ]
    say(as_json, rows, "\n".join(lines) or "no keys yet")


def _change(directory: str | None, change: Any) -> None:
    from burla.scheduler.core.admission import AdmissionError
    from burla.transport.keys import KeyFileError

    try:
        _roster(directory).change(change)
    except AdmissionError as error:
        raise errors.BurlaError(str(error)) from None
    except (KeyFileError, OSError) as error:
        raise _refused(error) from None


def _roster(directory: str | None) -> Any:
    from burla.scheduler.auth.key_store import KeyStore
    from burla.scheduler.config import ConfigError, keys_directory

    try:
        return KeyStore(keys_directory(directory))
    except ConfigError as error:
        raise _refused(error) from None


def _refused(error: Exception) -> errors.BadSetting:
    expected = f"where burla-scheduler init has made the keys; {error}"
    return errors.BadSetting("the directory of the keys", "--dir", expected)


def _told(time_s: float | None) -> str | None:
    if time_s is None:
        return None
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")
