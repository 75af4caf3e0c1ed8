"""Modules imported for jobs that are to come, in a process from which theirs are forked.

Installed ones only, and of those what jobs have imported before: the caller's own may be other ones
at the next call.
"""

import importlib
import os
import sys
from contextlib import suppress
from importlib.abc import MetaPathFinder
from types import ModuleType

from burla.values import payloads
from burla.values.environment import Environment, installed_places, place_of

from .control import LoadSettings, Modules
from .folders import VARIABLE, enter, own_modules_place

SLOW_NS = 30_000_000  # less is not worth a process; NumPy takes 50 to 100 ms
NAMES_MAX = 10_000


class Lookups(MetaPathFinder):
    """Notes the top-level names that imports look for meanwhile, whether they are found or not."""

    def __init__(self) -> None:
        """Begin with none."""
        self.names: set[str] = set()

    def __enter__(self) -> None:
        sys.meta_path.insert(0, self)

    def __exit__(self, *_: object) -> None:
        sys.meta_path.remove(self)

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        """Find nothing: others do."""
        self.names.add(name.partition(".")[0])


class Preloaded:
    """Which files were imported, as they were."""

    def __init__(
        self, files: list[str], places: tuple[str, ...], looked_for: frozenset[str] = frozenset()
    ) -> None:
        """Take what there is now.

        Args:
            files: that were imported.
            places: where something may be installed later.
            looked_for: top-level names, by imports.
        """
        self.looked_for = looked_for
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
    lookups = Lookups()
    with lookups:
        for name in modules.names:
            with suppress(Exception):  # what pretends to be a module need not be one here
                if name not in sys.modules:
                    importlib.import_module(name)
    new = [place_of(sys.modules[name]) for name in sys.modules.keys() - before]
    if any(place and not place.startswith(places) for place in new):
        return None
    return Preloaded([place for place in new if place], places, frozenset(lookups.names))


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
