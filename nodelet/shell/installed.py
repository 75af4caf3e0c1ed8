"""Which packages there are on this node before anything is installed for a job."""

import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache

from burla.protocol.package_messages import Packages, canonical, exact_version, name_of

# Workers have loaded these when they hear which ones the caller has: those are the node's own.
LOADED = frozenset(("burla", "cloudpickle", "msgpack", "xxhash"))

MINOR = f"python{sys.version_info.major}.{sys.version_info.minor}"
PACKAGES = ("site-packages", "dist-packages")
DEPTH_MAX = 8  # of a Python in an image: /opt/somewhere/env/lib/python3.12
_DISTRIBUTION = re.compile(
    r"(?P<name>[A-Za-z0-9._]+)-(?P<version>[^-]+)(?:-.*)?\.(?:dist|egg)-info"
)


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


def lacking_in_image(packages: Packages, there: Mapping[str, str]) -> list[str]:
    """Return which requirements are not met in an image.

    Whoever named packages gets these versions. Else those of the image are wanted: it was chosen.
    """
    met = (*LOADED, *(there if packages.is_whole else ()))
    return [one for one in packages.requirements if name_of(one) not in met]


@lru_cache(16)
def installed_in_image(place: str) -> dict[str, str]:
    """Return the versions of the packages that any Python in an image has, by name.

    They are read off names of directories: whatever else an image says may lead anywhere.
    """
    found: dict[str, str] = {}
    for folder, names, _ in os.walk(place):
        if os.path.basename(folder) in (MINOR, "python3"):
            for name in [one for one in PACKAGES if one in names]:
                listed = os.path.join(folder, name)
                if not os.path.islink(listed):
                    matches = map(_DISTRIBUTION.fullmatch, sorted(os.listdir(listed)))
                    found |= {canonical(m["name"]): m["version"] for m in matches if m}
        if folder.count("/") - place.count("/") >= DEPTH_MAX:
            names.clear()
        else:
            names[:] = sorted(name for name in names if name not in PACKAGES)
    return found


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
