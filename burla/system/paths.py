"""Where the platform has what belongs to a user: settings and keys, state, caches, sockets.

As platformdirs has it, which imports half the standard library; and that may be the wrong one, for
the caller may have a `random.py` beside the script.
"""

import functools
import os
import sys

from .environ import variable

DIRECTORY_VARIABLE = "BURLA_CONFIG_DIR"
USER_KEY_FILE = "user.key"  # the user's secret key, in the directory
PACKAGES = "packages"  # in the cache directory: what nodes have installed for functions
SERVER_KEYS_FILE = "server-keys.json"  # of schedulers, in the directory: which replaced which


def settings_directory() -> str | None:
    """Return the directory of burla's settings; None: no HOME, and the system has no such user."""
    named = variable(b"BURLA_CONFIG_DIR")
    if named:
        return os.path.abspath(named)
    return _of_user(b"XDG_CONFIG_HOME", "~/.config", "~/Library/Application Support")


def state_directory() -> str | None:
    """Return the directory of what burla has made and looks after; None: as above."""
    return _of_user(b"XDG_STATE_HOME", "~/.local/state", "~/Library/Application Support")


def data_directory() -> str | None:
    """Return the directory of what burla keeps for its user; None: as above."""
    return _of_user(b"XDG_DATA_HOME", "~/.local/share", "~/Library/Application Support")


def cache_directory() -> str | None:
    """Return the directory of what burla can make again; None: as above."""
    return _of_user(b"XDG_CACHE_HOME", "~/.cache", "~/Library/Caches", "Cache")


def runtime_directories() -> list[str]:
    """Return where the sockets of the user's services lie; they need not exist."""
    named = os.environ.get("XDG_RUNTIME_DIR", "")
    if sys.platform == "win32":
        return []
    return [named, f"/run/user/{os.getuid()}"] if named else [f"/run/user/{os.getuid()}"]


def _of_user(name: bytes, default: str, on_macos: str, on_windows: str = "") -> str | None:
    """Return our directory of one kind: as XDG has it, or below where the platform has them."""
    if sys.platform == "darwin":
        return _absolute(os.path.expanduser(f"{on_macos}/burla"))
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")
        return _absolute(os.path.join(local, "burla", on_windows).rstrip("/\\"))
    return _below(variable(name) or "", variable(b"HOME"), default)


@functools.lru_cache(maxsize=8)
def _below(named: str, home: str | None, default: str) -> str | None:
    """Return our directory in the one named, or in the default one, which depends on `home`."""
    base = named if os.path.isabs(named) else os.path.expanduser(default)
    return _absolute(os.path.join(base, "burla"))


def _absolute(directory: str) -> str | None:
    return directory if os.path.isabs(directory) else None
