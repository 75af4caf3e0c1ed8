"""`burla auth rotate`: new keys in the middle of jobs, of a user, of the scheduler, of nodes."""

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from burla import errors
from burla.config import server_keys_path, user_key_path
from burla.protocol import admin_messages as am, messages as m
from burla.protocol.key_messages import KEYS
from burla.shell.curves import curve_for
from burla.transport.addresses import full_address, take_apart
from burla.transport.keys import KeyFileError, make_pair, write_private
from burla.transport.server_keys import ServerKeys

from .admin import answered, list_nodes, put
from .options import address_in_use, iso

NODE_S = 30.0  # for a node to be back under its new key; it takes about a second

Said = tuple[dict[str, Any], str]  # facts for programs, and words for people
Manage = Callable[[str | None, str | None, am.ManageKeys], am.KeysManaged]


def of_user(cluster: str | None, overlap_s: float, others: Iterable[tuple[str, str]]) -> Said:
    """Replace the key of whoever runs this.

    Args:
        cluster: which one, if that is named.
        overlap_s: for how long the old one counts.
        others: clusters that are to know as well, by name and address.

    Raises:
        BurlaError: nothing was done.
    """
    address = address_in_use(cluster)
    if address is not None and curve_for(address) is None:
        raise errors.BurlaError(f"the cluster at {address} needs no keys: there is none to replace")
    path, pair = user_key_path(), make_pair()
    assert path is not None, "there is a key"
    text = f"# secret key of a user of burla: never share it\n{pair.secret.hex()}\n"
    try:
        write_private(f"{path}.new", text, replace=True)
    except (KeyFileError, OSError) as error:
        raise errors.BurlaError(f"cannot keep a new key: {error}") from None
    said = m.ReplaceKey(pair.public, overlap_s)
    try:
        answer = answered(put(address, said, am.KeysManaged))
    except errors.BurlaError:
        os.unlink(f"{path}.new")
        raise
    left = []
    for name, other in others:
        if other != address and other.startswith("burla:"):
            try:
                answered(put(other, said, am.KeysManaged))
            except errors.BurlaError as error:
                left.append(name)
                _warn(f"cluster {name} was not told: {error}")
    os.replace(f"{path}.new", path)
    old = next(known for known in answer.keys if known.key != pair.public.hex())
    facts = {"key": pair.public.hex(), "old": old.key, "old_expires": iso(old.expires_s)}
    text = f"your key is {facts['key']} now; the old one counts until {facts['old_expires']}"
    return {**facts, "not_told": left}, text


def of_server(manage: Manage, cluster: str | None, directory: str | None, overlap_s: float) -> Said:
    """Have the scheduler get a new key.

    Args:
        manage: carries out what is done to keys, where they lie.
        cluster: which one.
        directory: of its keys, if that is named.
        overlap_s: after which it counts.

    Raises:
        BurlaError: nothing was done.
    """
    said = am.ManageKeys(am.KeyOperation.ROTATE_SERVER, overlap_s=overlap_s)
    answer = manage(cluster, directory, said)
    facts: dict[str, Any] = {"server_key": answer.server_key.hex(), "from": iso(answer.from_s)}
    text = (
        f"the key of the scheduler will be {facts['server_key']} from {facts['from']} on. Whoever"
        " is connected until then learns it, and goes on"
    )
    address = None if directory is not None else address_in_use(cluster)
    key = None if address is None else take_apart(address).key
    if address is not None and key is not None:  # who ran this need not connect to know it
        ServerKeys(server_keys_path()).learn(key, answer.server_key, answer.from_s)
        facts["address"] = full_address(take_apart(address).endpoint, answer.server_key)
        text += f"; others need the new address, then:\n  burla login '{facts['address']}'"
    return facts, text


def of_nodes(cluster: str | None) -> Said:
    """Have each node make itself a new key, one after the other.

    Raises:
        BurlaError: the cluster does not answer, or has no keys.
    """
    address = address_in_use(cluster)
    if address is not None and curve_for(address) is None:
        raise errors.BurlaError(f"the cluster at {address} needs no keys: there is none to replace")
    done: list[str] = []
    failed: dict[str, str] = {}
    nodes = [n for n in list_nodes(address) if n.state is not m.NodeState.LOST]
    for name in dict.fromkeys(node.name for node in nodes):
        said = am.ManageKeys(am.KeyOperation.ROTATE_NODE, user=name)
        try:
            answered(put(address, said, am.KeysManaged, NODE_S, KEYS))
            done.append(name)
        except errors.Refused:
            raise  # that is so for all of them
        except errors.BurlaError as error:
            failed[name] = str(error)
            _warn(f"the key of node {name} was not replaced: {error}")
    text = f"{len(done)} nodes have a new key, {len(failed)} failed"
    return {"renewed": done, "failed": failed}, text


def _warn(text: str) -> None:
    print(f"burla: {text}", file=sys.stderr)
