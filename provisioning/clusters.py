"""Which cluster is meant: by its name, by its address, or by neither; and where its keys lie.

One person may have several clusters on a machine: those that `burla up` made, and one that was made
by hand (`burla-scheduler init`). What is not named is the one that this person uses.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from burla.provisioning.core.machines import BadConfig, ProvisioningError
from burla.provisioning.core.steps import NAME
from burla.scheduler.auth.key_store import SERVER_KEY, KeyStore
from burla.scheduler.config import ConfigError, keys_directory
from burla.transport.addresses import AddressError, take_apart
from burla.transport.keys import KeyFileError

from . import state as st
from .state import KEYS, State

DEFAULT = "default"
ADDRESS = "://"  # is in an address, and in no name


class NoCluster(ProvisioningError):
    """There is no such cluster, or it is not told which is meant."""


def known() -> Iterator[State]:
    """Yield what is known of each cluster of this user, by name; broken files are passed over."""
    with suppress(BadConfig):  # there is no HOME
        for path in sorted(st.states_directory().glob(f"*/{st.FILE}")):
            with suppress(BadConfig):
                if (found := st.read(path.parent.name)) is not None:
                    yield found


def state_of(named: str | None, in_use: str | None) -> State:
    """Return what is known of a cluster that `burla up` made here.

    Args:
        named: its name or address; None: the one in use, else "default", else the only one.
        in_use: address of the cluster that this user's scripts use; None: none.

    Raises:
        NoCluster: there is none, or it is not told which.
        BadConfig: its file is broken.
    """
    if named is not None and ADDRESS not in named:
        return _by_name(named)
    if named is not None:
        return _by_address(named)
    with suppress(NoCluster):
        if in_use is not None:
            return _by_address(in_use)
    if (found := st.read(DEFAULT)) is not None:
        return found
    there = list(known())
    if len(there) > 1:
        raise NoCluster(f"say which cluster is meant, by --cluster: {_names()}")
    return there[0] if there else _by_name(DEFAULT)


def address_of(named: str) -> str:
    """Return the address of a cluster that is named, or that itself.

    Raises:
        NoCluster: none of this name is known here.
        BadConfig: it is no address.
    """
    if ADDRESS not in named:
        return _by_name(named).address
    try:
        take_apart(named)
    except AddressError as error:
        raise BadConfig(f"--cluster is {named!r}: {error.why}") from None
    return named


def keys_of(named: str | None, in_use: str | None) -> Path:
    """Return the key directory of a cluster whose scheduler is on this machine.

    Args:
        named: its name or address; None: the one in use, else the only one that has keys.
        in_use: as for `state_of`.

    Raises:
        NoCluster: its keys are not here, or it is not told which.
    """
    folders = dict(_folders())
    if named is not None and ADDRESS not in named:
        _by_name(named)  # complains
        if named in folders:
            return folders[named]
        raise NoCluster(
            f"the cluster {named!r} has no keys on this machine: without a tcp:// bind it needs"
            " none, and whoever may open its socket file may use it"
        )
    wanted = named or in_use
    key = take_apart(address_of(wanted)).key if wanted is not None else None
    for folder in folders.values():
        with suppress(KeyFileError):
            if key is not None and KeyStore(folder).server_pair().public == key:
                return folder
    if named is not None:
        raise NoCluster(f"the keys of {named} are not on this machine, or not this user's to read")
    if len(folders) == 1:
        return next(iter(folders.values()))
    if folders:
        names = ", ".join(name or "--dir of burla-scheduler" for name in folders)
        raise NoCluster(f"say which cluster is meant, by --cluster or --dir: {names}")
    raise NoCluster(
        "there is no cluster with keys on this machine: run this where its scheduler is, as the"
        " user who made it by `burla up --bind tcp://...` or `burla-scheduler init`, or pass --dir"
    )


def _folders() -> Iterator[tuple[str, Path]]:
    """Yield the key directories of this user: name of the cluster, empty for one made by hand."""
    for state in known():
        folder = st.directory_of(state.config.name) / KEYS
        if (folder / SERVER_KEY).exists():
            yield state.config.name, folder
    with suppress(ConfigError):
        by_hand = keys_directory(None)
        if (by_hand / SERVER_KEY).exists():
            yield "", by_hand


def _by_name(name: str) -> State:
    found = st.read(name) if NAME.fullmatch(name) else None
    if found is None:
        raise NoCluster(f"there is no cluster {name!r} ({_names()}): `burla up` makes one")
    return found


def _by_address(address: str) -> State:
    for found in known():
        if _place(found.address) == _place(address):
            return found
    raise NoCluster(f"the cluster at {address} was not made by `burla up` here ({_names()})")


def _place(address: str) -> object:
    """Return what tells a cluster from others: by which name it is reached makes no difference."""
    try:
        where = take_apart(address)
    except AddressError:
        return address
    return where.key or where.endpoint


def _names() -> str:
    names = ", ".join(found.config.name for found in known())
    return f"known here: {names}" if names else "none is known here"
