"""Where the platform has a user's settings and keys of burla."""

import os
import sys

DIRECTORY_VARIABLE = "BURLA_CONFIG_DIR"
USER_KEY_FILE = "user.key"  # the user's secret key, in the directory


def settings_directory() -> str | None:
    """Return the directory; None: no HOME, and the user is not known to the system.

    As platformdirs has it, which imports half the standard library; and that may be the wrong one,
    for the caller may have a `random.py` beside the script.
    """
    named = os.environ.get(DIRECTORY_VARIABLE)
    if named:
        return os.path.abspath(named)
    if sys.platform == "darwin":
        base = "~/Library/Application Support"
    else:
        xdg = os.environ.get("XDG_CONFIG_HOME", "")
        base = xdg if os.path.isabs(xdg) else "~/.config"
    directory = os.path.join(os.path.expanduser(base), "burla")
    return directory if os.path.isabs(directory) else None
