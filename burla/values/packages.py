"""Where a worker finds packages that this Python does not have: found before its own.

But after the standard library: old distributions have modules that are called as some of its are.

Most of them lie in an environment that the nodelet has made. What no index has comes from the
caller, as the files that are installed there, and is put down as the caller's own modules are.
"""

import importlib
import os
import site
import sys
from collections.abc import Mapping

from .own_modules import NAME_BYTES, platform, put_down, unpack_own_modules
from .standard import is_standard

NAME = "packages"  # what is attached: an `OwnModules`, and its parts behind a slash
INSIDE = "site-packages"  # what is called so is taken for installed everywhere

_served: list[str] = []
_order: tuple[list[str], list[str]] = ([], [])  # sys.path without them: as we left it, and before


def serve_packages(directory: str, attached: Mapping[str, bytes | memoryview], place: str) -> None:
    """From now on import what is there, and what came with the job, and no others.

    Args:
        directory: where the nodelet has installed some, or several places as in PATH; empty:
            nowhere.
        attached: to the function.
        place: a directory of the lease.

    Raises:
        ImportError: it cannot be read, or what came was built for another kind of machine.
    """
    global _served, _order
    wanted = directory.split(os.pathsep) if directory else []
    for one in wanted:
        if one not in _served and not os.access(one, os.R_OK | os.X_OK):
            raise ImportError(
                f"jobs cannot read {one}, where this node has installed packages: its operator"
                " gives it another --packages-directory"
            )
    if NAME in attached:
        wanted.insert(0, _put_down(attached, place))
    if not wanted and not _served:
        return
    gone = {*_served, *wanted}
    rest = [entry for entry in sys.path if entry not in gone]
    if not wanted:
        sys.path[:] = _order[1] if rest == _order[0] else rest
    else:
        first = [entry for entry in rest if is_standard(entry)]
        others = [entry for entry in rest if not is_standard(entry)]
        if rest != _order[0]:
            _order = [*first, *others], rest
        sys.path[:] = [*first, *wanted, *others]
    for one in wanted:
        if one not in _served:
            importlib.invalidate_caches()
            site.addsitedir(one)  # for what its .pth files say
    _served = wanted


def _put_down(attached: Mapping[str, bytes | memoryview], place: str) -> str:
    """Return the directory in which files of the caller are; several workers may do so at once."""
    name = bytes(attached[NAME][:NAME_BYTES]).hex()
    directory = os.path.join(place, f"packages-{name}", INSIDE)
    if os.path.isdir(directory):
        return directory
    own = unpack_own_modules(attached[NAME])
    if own.extensions and own.platform != platform():
        raise ImportError(
            f"no index of this node has {', '.join(own.extensions)}, and what the caller has was"
            f" built for {own.platform}; this node is {platform()}. Give the nodes an index or a"
            " wheelhouse that has it, or [node] packages in the cluster's file; or call from a"
            " machine like them"
        )
    parts = [attached[f"{NAME}/{number}"] for number in range(len(own.packed))]
    put_down(own, parts, directory)
    return directory
