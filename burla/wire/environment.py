"""The caller's import path, working directory and `__main__`, applied in a worker.

Applied before the function is loaded and after all modules of ours are, because the caller may have
a `worker.py` or a `random.py` beside the script, which then is what the name means.
"""

import os
import sys
from contextlib import suppress
from typing import Any, TypedDict

from .pickling import serve


class Environment(TypedDict):
    """What the caller says about itself; plain data for msgpack."""

    path: list[str]  # sys.path, absolute
    directory: str | None  # working directory; None: it is gone
    argv: list[str]
    main: dict[str, str | None]  # __file__ and __package__ of __main__


def apply_environment(environment: Environment) -> None:
    """Make this process, a worker, import what the caller could import."""
    ours = [entry for entry in sys.path if entry not in environment["path"]]
    sys.path[:] = [*environment["path"], *ours]
    sys.path_importer_cache.clear()
    directory = environment["directory"]
    if directory is not None:
        with suppress(OSError):  # not here, or not any more; the function may do without
            os.chdir(directory)
    sys.argv[:] = environment["argv"]
    main: dict[str, Any] = dict(environment["main"])
    serve({name: value for name, value in main.items() if value is not None})
