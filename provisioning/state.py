"""What `burla up` has made, on disk: so that every other command finds it again.

One folder a cluster, in the user's state directory, with a JSON file that is replaced as a whole.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from burla.provisioning.core.machines import BadConfig, ProvisioningError
from burla.scheduler.auth.key_store import KNOWN_KEYS
from burla.system.paths import SERVER_KEYS_FILE, settings_directory, state_directory
from burla.transport.server_keys import ServerKeys, renewed

from .config import ClusterConfig

if sys.platform != "win32":
    import fcntl


FILE = "cluster.json"
KEYS = "keys"  # folder of the scheduler's keys, in that of the cluster
DIRECTORY_VARIABLE = "BURLA_STATE_DIR"


class State(msgspec.Struct):
    """One cluster that is up, or half of it."""

    config: ClusterConfig
    address: str = ""  # of the scheduler, as clients and nodes reach it
    names: dict[str, str] = {}  # name of a node -> its SSH target
    untouched: tuple[str, ...] = ()  # nodes whose machines could never be reached: nothing is there


def states_directory() -> Path:
    """Return the folder that holds all clusters of this user.

    Raises:
        BadConfig: there is no HOME for it.
    """
    directory = os.environ.get(DIRECTORY_VARIABLE) or state_directory()
    if directory is None:
        raise BadConfig(f"cannot find a place for clusters (no HOME): set {DIRECTORY_VARIABLE}")
    return Path(directory)


def directory_of(cluster: str) -> Path:
    """Return the folder of one cluster."""
    return states_directory() / cluster


def read(cluster: str) -> State | None:
    """Return what is known of a cluster; None: it was never up, or is down.

    Raises:
        BadConfig: the file is broken, or of another version.
    """
    path = directory_of(cluster) / FILE
    try:
        found = msgspec.json.decode(path.read_bytes(), type=State)
        found.address = _up_to_date(found.address, path.parent / KEYS)
        return found
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, BadConfig) as error:
        raise BadConfig(
            f"{path} is not what `burla up` wrote ({error}): move it out of the way"
        ) from error


def _up_to_date(address: str, keys: Path) -> str:
    """Return an address with the key that its scheduler has by now, here or elsewhere."""
    settings = settings_directory()
    places = [keys / KNOWN_KEYS, *([Path(settings, SERVER_KEYS_FILE)] if settings else [])]
    for path in filter(Path.exists, places if "?key=" in address else []):
        address = renewed(address, ServerKeys(str(path)))
    return address


def write(state: State) -> None:
    """Keep what is known of a cluster."""
    directory = directory_of(state.config.name)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = directory / f"{FILE}.new"
    try:
        new.write_bytes(msgspec.json.format(msgspec.json.encode(state), indent=1) + b"\n")
    except OSError as error:  # of a full disk it names no file
        raise OSError(error.errno, error.strerror, str(new)) from None
    new.replace(directory / FILE)


def forget(cluster: str) -> None:
    """Remove the folder of a cluster that is down."""
    directory = directory_of(cluster)
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    if directory.exists():
        directory.rmdir()


@contextmanager
def alone(cluster: str) -> Iterator[None]:
    """Keep other commands off a cluster meanwhile.

    Raises:
        ProvisioningError: another one is working on it.
    """
    if sys.platform == "win32":
        raise ProvisioningError(
            "clusters are made and ended from Linux or macOS, on Windows in WSL: run it there"
        )
    directory = directory_of(cluster)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ProvisioningError(
            f"another command is working on the cluster {cluster!r}: wait until it has ended"
        ) from None
    finally:
        os.close(descriptor)
        with suppress(OSError):
            directory.rmdir()  # there is no such cluster, or not any more
