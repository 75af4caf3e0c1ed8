"""The caller's import path, working directory and `__main__`, applied in a worker.

Applied before the function is loaded and after all modules of ours are, because the caller may have
a `worker.py` or a `random.py` beside the script, which then is what the name means.
"""

import importlib
import os
import sys
from contextlib import suppress
from types import ModuleType
from typing import TypedDict

from .pickling import serve


class Environment(TypedDict):
    """What the caller says about itself; plain data for msgpack."""

    path: list[bytes]  # sys.path, absolute; file names need not be valid UTF-8, so bytes
    directory: bytes | None  # working directory; None: it is gone
    shadowed: list[str]  # modules of the standard library that stand behind others in `path`
    argv: list[bytes]
    main: dict[str, str]  # __file__ and __package__ of __main__, if it has them
    memory: bytes | None  # directory in memory that caller and worker share; None: there is none


def apply_environment(environment: Environment) -> None:
    """Make this process, a worker, import what the caller could import."""
    path = [os.fsdecode(entry) for entry in environment["path"]]
    sys.path[:] = [*path, *(entry for entry in sys.path if entry not in path)]
    importlib.invalidate_caches()
    for name in environment["shadowed"]:
        sys.modules.pop(name, None)  # who has it keeps it; the function is to get the caller's
    if environment["directory"] is not None:
        with suppress(OSError):  # not here, or not any more; the function may do without
            os.chdir(environment["directory"])
    sys.argv[:] = [os.fsdecode(arg) for arg in environment["argv"]]
    serve(dict(environment["main"]))


def forget_own_modules(kept: frozenset[str]) -> None:
    """Forget the modules that are not installed, so that a next job has the caller's as they are.

    Args:
        kept: names of modules that stay, wherever they come from.
    """
    standard = os.path.dirname(os.__file__)
    packages = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    installed = tuple(os.path.join(path, "") for path in (standard, *packages))
    for name in sys.modules.keys() - kept:
        place = _place_of(sys.modules[name])
        if place and not place.startswith(installed):
            del sys.modules[name]


def _place_of(module: ModuleType) -> str:
    """Return where a module lies; empty: nowhere, it is built in or was made by code."""
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        return file
    path = list(getattr(module, "__path__", ()))  # of a namespace package
    return str(path[0]) if path else ""
