"""`burla login` and `burla auth`: who may use the cluster. Other rooms are imported inside only.

Everything here goes without a prompt, and prints JSON on request.
"""

import errno
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from burla import errors
from burla.config import cluster_address, store_cluster
from burla.system.exit_codes import EXIT_FAILED

from .options import address_in_use, cluster_option, iso, json_option, say

if TYPE_CHECKING:
    from burla.protocol.admin_messages import KeysManaged, ManageKeys

NAME_CHARACTERS_MAX = 256  # protocol.messages.Word


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
    command that an administrator must run once on the scheduler's machine to let you in. Whether
    something listens there is looked at, no more.
    """
    from burla.transport.addresses import FORMS, AddressError, take_apart
    from burla.transport.reaching import why_unreachable

    if (address is None) == (cluster is None):
        raise click.UsageError("say which cluster: pass its ADDRESS, or --cluster and its name")
    address = (address_in_use(cluster) or "") if address is None else address.strip()
    try:
        where = take_apart(address)
    except AddressError as error:
        raise errors.BadSetting("ADDRESS", address, f"{FORMS}; {error.why}") from None
    path = store_cluster(address)
    if why := why_unreachable(where.endpoint):
        click.echo(f"burla: warning: {why}; `burla doctor` looks at the way there", err=True)
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
    from burla.config import user_key_path
    from burla.transport.keys import KeyFileError, load_or_make_pair

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

    On the scheduler's machine, as who made it, they change its files, which a running scheduler
    notices at once. From elsewhere the scheduler is asked, which takes the key of an administrator
    (`burla auth add KEY --user NAME --role admin`).
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
    from burla.protocol import admin_messages as am
    from burla.transport.keys import parse_key

    try:
        name = parse_key(key).hex()
    except ValueError as error:
        raise click.UsageError(f"{key!r} is not a key: {error}") from None
    _check_name(user)
    managed = _manage(cluster, directory, am.ManageKeys(am.KeyOperation.ADD, name, user, role))
    text = f"key {name[:16]}... now has the role {role}, as {user}\n{managed.in_words()}"
    facts = {"key": name, "user": user, "role": role, "in_force": managed.in_force.value}
    say(as_json, facts, text)


@auth.command()
@click.argument("what", metavar="KEY|USER")
@_where
@json_option
def revoke(what: str, cluster: str | None, directory: str | None, as_json: bool) -> None:
    """Take all rights from a key, or from all keys of a user.

    The first 8 digits of a key are enough. Takes effect at once, also on open connections: says
    whether the running scheduler has taken it (with --json: "in_force").
    """
    from burla.protocol import admin_messages as am

    _check_name(what)
    managed = _manage(cluster, directory, am.ManageKeys(am.KeyOperation.REVOKE, what))
    gone = [known.key for known in managed.answer.keys]
    lines = [*(f"key {key[:16]}... is revoked" for key in gone), managed.in_words()]
    say(as_json, {"revoked": gone, "in_force": managed.in_force.value}, "\n".join(lines))


@auth.command()
@_where
@json_option
def token(cluster: str | None, directory: str | None, as_json: bool) -> None:
    """Print a join token, which makes one machine a node.

    It works once, within ten minutes: burla-nodelet --join-token-file FILE.
    """
    from burla.protocol import admin_messages as am

    answer = _manage(cluster, directory, am.ManageKeys(am.KeyOperation.TOKEN)).answer
    made = answer.token.hex()
    say(as_json, {"token": made, "expires": iso(answer.keys[0].expires_s)}, made)


@auth.command("list")
@_where
@json_option
def list_keys(cluster: str | None, directory: str | None, as_json: bool) -> None:
    """Show all keys: who owns them, what they may do, and since when."""
    from burla.protocol import admin_messages as am

    answer = _manage(cluster, directory, am.ManageKeys(am.KeyOperation.LIST)).answer
    rows = [
        {
            "key": known.key,
            "user": known.user,
            "role": known.role,
            "added": iso(known.added_s),
            "revoked": iso(known.revoked_s),
            "expires": iso(known.expires_s),
        }
        for known in answer.keys
    ]
    lines = [
        f"{row['key']}  {row['role']:6}  {row['added']}  {_how_long(row)}{row['user']}"
        for row in rows
    ]
    if answer.total > len(rows):
        lines.append(f"and {answer.total - len(rows)} more")
    say(as_json, rows, "\n".join(lines) or "no keys yet: `burla auth add` adds one")


@auth.command()
@click.option("--server", is_flag=True, help="Replace the scheduler's key instead of your own.")
@click.option("--nodes", is_flag=True, help="Replace those of all nodes, one after the other.")
@click.option(
    "--overlap",
    "overlap_h",
    type=click.FloatRange(0, 720),
    help="Hours for which the old key goes on to count, for what runs under it (default: 168).",
)
@_where
@json_option
def rotate(
    server: bool,
    nodes: bool,
    overlap_h: float | None,
    cluster: str | None,
    directory: str | None,
    as_json: bool,
) -> None:
    """Replace your own key by a new one, with the same rights; or those of the cluster.

    Jobs that run go on. Of your own: without --cluster, all clusters that `burla up` made here are
    told as well; others that you use must be told by `burla login`.

    With --server the scheduler gets a new key after the overlap. Whoever is connected until then
    learns it by itself (scripts, settings, nodes); others need the new address, which is printed.
    With --nodes each node makes itself a new key. Both need the key of an administrator.
    """
    from burla.provisioning.clusters import known

    from . import rotation

    if server and nodes:
        raise click.UsageError("pass --server or --nodes; each is done by itself")
    if nodes and overlap_h is not None:
        raise click.UsageError("--nodes takes no --overlap: each node goes over at once")
    overlap_s = (168.0 if overlap_h is None else overlap_h) * 3600
    if server:
        facts, text = rotation.of_server(
            lambda *told: _manage(*told).answer, cluster, directory, overlap_s
        )
    elif directory is not None:
        raise click.UsageError("--dir is for --server")
    elif nodes:
        facts, text = rotation.of_nodes(cluster)
    else:
        others = [] if cluster is not None else [(o.config.name, o.address) for o in known()]
        facts, text = rotation.of_user(cluster, overlap_s, others)
    say(as_json, facts, text)
    if facts.get("failed"):
        raise click.exceptions.Exit(EXIT_FAILED)


def _how_long(row: dict[str, Any]) -> str:
    """Return for people what is special about how long a key counts."""
    if row["revoked"]:
        return "revoked "
    return f"until {row['expires']}: " if row["expires"] else ""


def _check_name(text: str) -> None:
    if not 0 < len(text) <= NAME_CHARACTERS_MAX or not text.isprintable():
        raise click.UsageError(
            f"{text!r} is not a name: 1 to {NAME_CHARACTERS_MAX} printable characters"
        )


@dataclass(frozen=True)
class Managed:
    """What came of a change of the table, and whether it counts already."""

    answer: "KeysManaged"
    in_force: Any  # scheduler.auth.taken.InForce
    directory: str

    def in_words(self) -> str:
        """Return whether it counts, for people."""
        match self.in_force.value:
            case True:
                return "the running scheduler has taken this"
            case False:
                return (
                    "WARNING: the running scheduler has NOT taken this yet, and goes on with the"
                    f" table as it was; its log says why. The table is in {self.directory}"
                )
            case _:
                return "no scheduler runs with these keys now: this counts when one starts"


def _manage(cluster: str | None, directory: str | None, said: "ManageKeys") -> Managed:
    """Return what is answered where the keys lie, or by the scheduler if that is elsewhere.

    Raises:
        BurlaError: nothing was done; says why.
    """
    from burla.protocol import admin_messages as am
    from burla.protocol.key_messages import KEYS
    from burla.provisioning.clusters import NoCluster
    from burla.scheduler.auth.management import carry_out
    from burla.scheduler.auth.taken import WAIT_S, InForce, wait_in_force
    from burla.shell.curves import curve_for

    from .admin import answered, put

    try:
        with _open(cluster, directory) as store:
            answer = carry_out(store, said)
            is_change = said.operation in (am.KeyOperation.ADD, am.KeyOperation.REVOKE)
            wait_s = WAIT_S if is_change else 0.0
            in_force = wait_in_force(store, wait_s)
            return Managed(answer, in_force, str(store.directory))
    except NoCluster:
        address = address_in_use(cluster)
        if directory is not None or address is None or curve_for(address) is None:
            raise
    feature = KEYS if said.operation is am.KeyOperation.ROTATE_SERVER else ""
    # it is the scheduler itself that has done it
    done = answered(put(address, said, am.KeysManaged, feature=feature))
    return Managed(done, InForce.YES, "")


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
@click.option("--opens", type=click.IntRange(1), help="Jobs opened a second, on average.")
@click.option("--reset", is_flag=True, help="Forget what was set before.")
@_where
@json_option
def quota(
    user: str | None,
    jobs: int | None,
    inputs: int | None,
    size: int | None,
    opens: int | None,
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
    limits = Limits(jobs, inputs, size, opens)
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
    lines = [f"{'USER':24} {'JOBS':>10} {'INPUTS':>14} {'BYTES':>18} {'OPENS/S':>10}"]
    for row in rows:
        cells = [
            ("-" if row[name] is None else str(row[name]))
            for name in ("jobs", "inputs", "bytes", "opens")
        ]
        lines.append(
            "{:24} {:>10} {:>14} {:>18} {:>10}".format(row["user"] or "(everybody)", *cells)
        )
    say(as_json, rows, "\n".join(lines))


def _limits(limits: Any) -> dict[str, Any]:
    return {name: getattr(limits, name) for name in limits.__struct_fields__}


KEY_DIRECTORY = "one where `burla-scheduler init` made keys (--dir names another)"


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
        expected = f"one whose files are sound, and nobody else's to read or write; {error}"
        raise errors.BadSetting("the key directory", str(path), expected) from None
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):  # it is the right one
            why = f"{error.strerror or error}: {error.filename or path}"
            raise errors.BurlaError(f"the keys of the cluster cannot be used: {why}") from None
        raise errors.BadSetting(
            "the key directory", str(path), f"{KEY_DIRECTORY}; {error}"
        ) from None
