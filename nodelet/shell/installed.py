"""Which packages there are on this node before anything is installed for a job."""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress

from burla.protocol.package_messages import Packages, canonical, exact_version, name_of

# Workers have loaded these when they hear which ones the caller has: those are the node's own.
LOADED = frozenset(("burla", "cloudpickle", "msgpack", "xxhash"))


def lacking(packages: Packages, there: Mapping[str, str]) -> list[str]:
    """Return which requirements are not met as it is.

    Args:
        packages: what a job needs.
        there: versions of what workers find without any more, by name.
    """
    lacks = []
    for one in packages.requirements:
        name = name_of(one)
        if name in LOADED and name in there:
            continue
        if not packages.is_whole or there.get(name) != exact_version(one):
            lacks.append(one)
    return lacks


_installed: tuple[tuple[tuple[str, int], ...], dict[str, str]] = ((), {})


def installed() -> dict[str, str]:
    """Return the versions of the packages that this Python has, by name."""
    global _installed
    states = []
    for path in sys.path:
        with suppress(OSError):
            states.append((path, os.stat(path).st_mtime_ns))
    if _installed[0] != tuple(states):
        _installed = tuple(states), installed_in(sys.path)
    return _installed[1]


def installed_in(path: list[str]) -> dict[str, str]:
    """Return the versions of the packages that an import path has, by name."""
    import importlib.metadata  # a tenth of what a nodelet imports, and most leases ask nothing

    found: dict[str, str] = {}
    for one in importlib.metadata.distributions(path=path):
        with suppress(KeyError, TypeError):
            found.setdefault(canonical(one.metadata["Name"]), one.version)
    return found
