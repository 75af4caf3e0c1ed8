"""The caller's settings, and where each comes from: keyword, else environment, else file."""

import os
import sys
from typing import Any

from burla.wire.addresses import FORMS, AddressError, connect_address

from .errors import BadSetting

CLUSTER_VARIABLE = "BURLA_CLUSTER"
DIRECTORY_VARIABLE = "BURLA_CONFIG_DIR"
FILE = "config.toml"
KEYS = ("cluster",)


def cluster_address(cluster: str | None = None) -> str | None:
    """Return the address of the cluster to use; None: none is configured, so a private one.

    Args:
        cluster: what the caller passed; goes before `BURLA_CLUSTER`, which goes before the file.

    Raises:
        BadSetting: what is configured is not an address; it is never passed over.
    """
    if cluster is not None:
        return _checked(cluster, "cluster")
    named = os.environ.get(CLUSTER_VARIABLE)
    if named is not None:
        return _checked(named, CLUSTER_VARIABLE)
    path = _config_path()
    if path is None or "cluster" not in (settings := _read(path)):
        return None
    return _checked(settings["cluster"], f'"cluster" in {path}')


def _checked(address: object, source: str) -> str:
    if not isinstance(address, str) or not address.strip():
        expected = f"{FORMS}, or not there at all for a private cluster on this machine"
        raise BadSetting(source, address, expected)
    try:
        return connect_address(address)
    except AddressError as error:
        raise BadSetting(source, address, f"{FORMS}; {error.why}") from None


def _config_path() -> str | None:
    """Return where the settings file is if there is one."""
    directory = os.environ.get(DIRECTORY_VARIABLE)
    if not directory:
        directory = _users_directory()
        if not os.path.isabs(directory):  # no HOME, and the user is not known to the system
            return None
    path = os.path.join(directory, FILE)
    return path if os.path.exists(path) else None


def _users_directory() -> str:
    """Return where the platform has a user's settings of burla.

    As platformdirs has it, which imports half the standard library; and that may be the wrong one,
    for the caller may have a `random.py` beside the script.
    """
    if sys.platform == "darwin":
        base = "~/Library/Application Support"
    else:
        named = os.environ.get("XDG_CONFIG_HOME", "")
        base = named if os.path.isabs(named) else "~/.config"
    return os.path.join(os.path.expanduser(base), "burla")


def _read(path: str) -> dict[str, Any]:
    import tomllib  # few have a file

    try:
        with open(path, "rb") as file:
            settings = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise BadSetting("the settings file", path, f"readable TOML; {error}") from None
    unknown = sorted(set(settings) - set(KEYS))
    if unknown:  # a misspelt "cluster" must not silently mean a private one
        expected = f"without unknown settings ({', '.join(unknown)}); known: {', '.join(KEYS)}"
        raise BadSetting("the settings file", path, expected)
    return settings
