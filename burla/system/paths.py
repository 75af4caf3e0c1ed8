"""Where the platform has what belongs to a user: settings and keys, state, caches, sockets.

As platformdirs has it, which imports half the standard library; and that may be the wrong one, for
the caller may have a `random.py` beside the script.
"""

import functools
import os
import sys

DIRECTORY_VARIABLE = "BURLA_CONFIG_DIR"
USER_KEY_FILE = "user.key"  # the user's secret key, in the directory
PACKAGES = "packages"  # in the cache directory: what nodes have installed for functions
SERVER_KEYS_FILE = "server-keys.json"  # of schedulers, in the directory: which replaced which


def settings_directory() -> str | None:
    """Return the directory of burla's settings; None: no HOME, and the system has no such user."""
    named = os.environ.get(DIRECTORY_VARIABLE)
    if named:
        return os.path.abspath(named)
    if sys.platform == "darwin":
        return _absolute(os.path.expanduser("~/Library/Application Support/burla"))
    return _xdg("XDG_CONFIG_HOME", "~/.config")


def state_directory() -> str | None:
    """Return the directory of what burla has made and looks after; None: as above."""
    return _xdg("XDG_STATE_HOME", "~/.local/state")


def data_directory() -> str | None:
    """Return the directory of what burla keeps for its user; None: as above."""
    return _xdg("XDG_DATA_HOME", "~/.local/share")


def cache_directory() -> str | None:
    """Return the directory of what burla can make again; None: as above."""
    return _xdg("XDG_CACHE_HOME", "~/.cache")


def runtime_directories() -> list[str]:
    """Return where the sockets of the user's services lie; they need not exist."""
    named = os.environ.get("XDG_RUNTIME_DIR", "")
    return [named, f"/run/user/{os.getuid()}"] if named else [f"/run/user/{os.getuid()}"]


def _xdg(variable: str, default: str) -> str | None:
    return _below(os.environ.get(variable, ""), os.environ.get("HOME"), default)


@functools.lru_cache(maxsize=8)
def _below(named: str, home: str | None, default: str) -> str | None:
    """Return our directory in the one named, or in the default one, which depends on `home`."""
    base = named if os.path.isabs(named) else os.path.expanduser(default)
    return _absolute(os.path.join(base, "burla"))


def _absolute(directory: str) -> str | None:
    return directory if os.path.isabs(directory) else None
