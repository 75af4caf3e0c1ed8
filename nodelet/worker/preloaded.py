"""Modules imported for jobs that are to come, in a process from which theirs are forked.

Installed ones only, and of those what jobs have imported before: the caller's own may be other ones
at the next call.
"""

import importlib
import os
import sys
from contextlib import suppress
from types import ModuleType

from burla.values import payloads
from burla.values.environment import Environment, installed_places, place_of

from .control import LoadSettings, Modules
from .folders import VARIABLE, enter, own_modules_place

SLOW_NS = 100_000_000  # less is not worth a process
NAMES_MAX = 10_000


class Preloaded:
    """Which files were imported, as they were."""

    def __init__(self, files: list[str], places: tuple[str, ...]) -> None:
        """Take what there is now; in `places` something may be installed later."""
        paths = {*files, *map(os.path.dirname, files), *map(os.path.dirname, places)}
        self._changed_ns = {path: _changed_ns(path) for path in paths}

    def has_changed(self) -> bool:
        """Return whether something was edited, installed or removed since."""
        return any(_changed_ns(path) != then for path, then in self._changed_ns.items())


def installed_since(before: frozenset[str]) -> Modules:
    """Return the installed modules that were imported since, in order."""
    places = installed_places()
    names = [
        name
        for name, module in list(sys.modules.items())
        if name not in before and _is_in(places, module)
    ]
    return Modules(names[:NAMES_MAX])


def preload(modules: Modules, settings: LoadSettings, environment: Environment) -> Preloaded | None:
    """Import what can be, in silence; return None if that brought modules of the caller's own."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    payloads.compile_once()
    payloads.apply_environment(environment)
    attached = environment.get("attached", {})
    payloads.serve_packages(settings.packages, attached, own_modules_place(settings.variables))
    enter(environment["directory"], settings.variables.get(VARIABLE))
    before, places = frozenset(sys.modules), installed_places()
    for name in modules.names:
        with suppress(Exception):  # what pretends to be a module need not be one here
            if name not in sys.modules:
                importlib.import_module(name)
    new = [place_of(sys.modules[name]) for name in sys.modules.keys() - before]
    if any(place and not place.startswith(places) for place in new):
        return None
    return Preloaded([place for place in new if place], places)


def _is_in(places: tuple[str, ...], module: ModuleType) -> bool:
    try:
        return place_of(module).startswith(places)
    except Exception:  # it is something else, and computes what it is asked for
        return False


def _changed_ns(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:  # it is not there
        return -1
