"""The caller's settings, and where each comes from: keyword, else environment, else file."""

import contextlib
import functools
import os
import re
from typing import Any

from burla.system.environ import variable
from burla.system.paths import SERVER_KEYS_FILE, USER_KEY_FILE, settings_directory

from .errors import BadSetting

CLUSTER_VARIABLE = "BURLA_CLUSTER"
GROW_VARIABLE = "BURLA_GROW"
PACKAGES_VARIABLE = "BURLA_PACKAGES"
RECONNECT_VARIABLE = "BURLA_RECONNECT_TIMEOUT_S"
FILE = "config.toml"
SETTINGS_FILE = "the settings file"  # as errors name it
KEYS = ("cluster", "grow", "packages", "reconnect_timeout_s")
RECONNECT_TIMEOUT_S = 600.0
WHOLE = "`burla status` on the machine of its administrator prints the whole address"
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def cluster_address(cluster: str | None = None) -> str | None:
    """Return the address of the cluster to use; None: none is configured, so a private one.

    Args:
        cluster: what the caller passed; goes before `BURLA_CLUSTER`, which goes before the file.

    Raises:
        BadSetting: what is configured is not an address; it is never passed over.
    """
    if cluster is not None:
        return _checked(cluster, "cluster")
    named = variable(b"BURLA_CLUSTER")
    if named is not None:
        return _checked(named, CLUSTER_VARIABLE)
    settings, path = _settings()
    if "cluster" not in settings:
        return None
    return _up_to_date(_checked(settings["cluster"], f'"cluster" in {path}'))


def _up_to_date(address: str) -> str:
    """Return the stored address with the key that its scheduler has by now, and store that."""
    path = server_keys_path()
    if path is None or "?key=" not in address or not os.path.exists(path):
        return address
    from burla.transport.addresses import AddressError
    from burla.transport.server_keys import ServerKeys, renewed  # few schedulers get another key

    try:
        new = renewed(address, ServerKeys(path))
    except AddressError:  # who uses it complains
        return address
    if new != address:
        with contextlib.suppress(BadSetting):  # it is found out each time, then
            store_cluster(new)
    return new


def may_grow(grow: bool | None = None) -> bool:
    """Return whether machines may be made for a job.

    Args:
        grow: what the caller passed; goes before `BURLA_GROW`, which goes before the file.

    Raises:
        BadSetting: what is configured is neither yes nor no.
    """
    if grow is not None:
        return grow
    named = os.environ.get(GROW_VARIABLE)
    if named is not None:
        if (word := named.strip().lower()) not in (*YES, *NO):
            raise BadSetting(GROW_VARIABLE, named, f"one of {', '.join((*YES, *NO))}")
        return word in YES
    settings, path = _settings()
    said = settings.get("grow", False)
    if not isinstance(said, bool):
        raise BadSetting(f'"grow" in {path}', said, "true or false")
    return said


def packages_setting() -> tuple[object, str]:
    """Return what is configured of the packages of functions, and where, for errors.

    `BURLA_PACKAGES` goes before the file; default: "auto".
    """
    named = os.environ.get(PACKAGES_VARIABLE)
    if named is not None:
        return named, PACKAGES_VARIABLE
    settings, path = _settings()
    return settings.get("packages", "auto"), f'"packages" in {path}'


def reconnect_timeout_s() -> float:
    """Return how many seconds a scheduler that has answered before may be silent.

    `BURLA_RECONNECT_TIMEOUT_S` goes before the file; default: ten minutes.

    Raises:
        BadSetting: what is configured is no such number.
    """
    said: object
    if (named := os.environ.get(RECONNECT_VARIABLE)) is not None:
        source, said = RECONNECT_VARIABLE, _number(named)
    else:
        settings, path = _settings()
        source = f'"reconnect_timeout_s" in {path}'
        said = settings.get("reconnect_timeout_s", RECONNECT_TIMEOUT_S)
    if not isinstance(said, int | float) or isinstance(said, bool) or not 0 < said < 1e9:
        raise BadSetting(source, named if named is not None else said, "seconds, more than 0")
    return float(said)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _checked(address: object, source: str) -> str:
    from burla.transport.addresses import FORMS, AddressError, connect_address  # private: none

    if not isinstance(address, str) or not address.strip():
        expected = f"{FORMS}, or not there at all for a private cluster on this machine"
        raise BadSetting(source, address, expected)
    try:
        return connect_address(address)
    except AddressError as error:
        raise BadSetting(source, address, f"{FORMS}; {error.why}. {WHOLE}") from None


def settings_path() -> str | None:
    """Return where the settings file is, or would be; None: nowhere."""
    directory = settings_directory()
    return None if directory is None else _file_in(directory)


@functools.lru_cache(maxsize=8)
def _file_in(directory: str) -> str:
    return os.path.join(directory, FILE)


def store_cluster(address: str) -> str:
    """Write the address of the cluster into the settings file; return where that is.

    Raises:
        BadSetting: the file is there and is no such file, or cannot be written.
    """
    path = settings_path()
    if path is None:
        raise BadSetting(
            "BURLA_CONFIG_DIR", None, "a directory for settings, because there is no HOME"
        )
    _replace(path, [f'cluster = "{address}"', *_other_lines(path)])
    return path


def adopt_cluster(address: str, before: str = "") -> str:
    """Make a new cluster the one in use, unless another one is; return in words what was done.

    Args:
        address: of the cluster.
        before: address that it had; what is stored of that is brought up to date.

    Raises:
        BadSetting: the settings file is no such file, or cannot be written.
    """
    import shlex  # not for those who only call

    settings, path = _settings()
    stored = settings.get("cluster")
    stored = _up_to_date(stored) if isinstance(stored, str) else stored
    if stored not in (None, before, address) and not _is_same_place(stored, address):
        text = f"Your scripts and commands go on using {stored} (stored in {path})."
        return f"{text} To use this one instead: burla login {shlex.quote(address)}"
    path = store_cluster(address)
    text = f"Your scripts and commands use it from now on (stored in {path})"
    named = os.environ.get(CLUSTER_VARIABLE, address).strip()
    return (
        text if named == address else f"{text} where {CLUSTER_VARIABLE} is not set, as it is here"
    )


REPAIR = "Correct it, or remove it and run `burla login ADDRESS`"


def _is_same_place(stored: object, address: str) -> bool:
    """Return whether two addresses differ only in the key: it was made anew at its place."""
    from burla.transport.addresses import AddressError, take_apart

    try:
        return take_apart(str(stored)).endpoint == take_apart(address).endpoint
    except AddressError:
        return False


def drop_cluster(address: str) -> None:
    """Take a cluster that is no more out of the settings, if it is the one in use there.

    Raises:
        BadSetting: the settings file is no such file, or cannot be written.
    """
    settings, path = _settings()
    stored = settings.get("cluster")
    if path is None or not isinstance(stored, str) or _up_to_date(stored) != address:
        return
    if lines := _other_lines(path):
        _replace(path, lines)
    else:
        os.unlink(path)


def _other_lines(path: str) -> list[str]:
    """Return what a settings file says but for the cluster; nothing if there is none."""
    if not os.path.exists(path):
        return []
    _read(path)
    with open(path) as file:
        return [x for x in file.read().splitlines() if not re.match(r"\s*cluster\s*=", x)]


def _replace(path: str, lines: list[str]) -> None:
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        with open(f"{path}.new", "w") as file:
            file.write("\n".join(lines) + "\n")
        os.replace(f"{path}.new", path)
    except OSError as error:
        raise BadSetting(SETTINGS_FILE, path, f"writable; {error.strerror}") from None


def server_keys_path() -> str | None:
    """Return where it is kept which keys of schedulers were replaced by which; None: nowhere."""
    directory = settings_directory()
    return None if directory is None else os.path.join(directory, SERVER_KEYS_FILE)


def user_key_path() -> str | None:
    """Return where the user's secret key is, or would be; None: nowhere."""
    directory = settings_directory()
    return None if directory is None else os.path.join(directory, USER_KEY_FILE)


def _settings() -> tuple[dict[str, Any], str | None]:
    """Return what the settings file says, nothing if there is none, and where it is."""
    path = settings_path()
    return (_read(path) if path is not None and os.path.exists(path) else {}), path


def _read(path: str) -> dict[str, Any]:
    import tomllib  # few have a file

    try:
        with open(path, "rb") as file:
            settings = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise BadSetting(SETTINGS_FILE, path, f"readable TOML; {error}. {REPAIR}") from None
    unknown = sorted(set(settings) - set(KEYS))
    if unknown:  # a misspelt "cluster" must not silently mean a private one
        expected = f"without unknown settings ({', '.join(unknown)}); known: {', '.join(KEYS)}"
        newer = "Or a newer burla has written it: use that here, too"
        raise BadSetting(SETTINGS_FILE, path, f"{expected}. {REPAIR}. {newer}")
    return settings
