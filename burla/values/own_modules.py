"""The caller's own modules, as a worker of another machine knows them: never mistaken for others.

A worker there may find another `statistics` or `utils` than the caller has beside the script: one
of the standard library, an installed one, an old copy, somebody else's. So the caller says which
modules are its own and what is in them, and what is not the same is refused in words.
"""

import functools
import os
import sys
from collections.abc import Sequence
from hashlib import blake2b
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any, TypedDict

import msgpack

DIGEST_BYTES_MAX = 1 << 20  # of a file are looked at; more have only big extension modules
NEVER_OWN = frozenset(("burla", "cloudpickle", "__main__", "__mp_main__"))  # all pickles name these


class OwnModules(TypedDict):
    """What a caller says about its own modules; plain data for msgpack."""

    machine: str  # its `machine_id`
    places: list[tuple[bytes, int, int]]  # directories, each with its device and inode there
    names: list[str]  # of top-level modules, all that are own
    modules: bytes  # msgpack of {name: (number of its place, digest)}
    complete: bool  # False: there were too many to name them all


def digest(data: bytes, size: int) -> bytes:
    """Return what tells the content of one file, of which `data` is the begin, from another's."""
    return blake2b(data[:DIGEST_BYTES_MAX], digest_size=8, key=str(size).encode()).digest()


def is_package_file(file: str) -> bool:
    """Return whether a module's file is that of a package."""
    return os.path.basename(file).startswith("__init__.")


def place_of(name: str, file: str) -> str:
    """Return the directory that an import path would name to find a module in this file."""
    place = os.path.dirname(file)
    for _ in range(name.count(".") + is_package_file(file)):
        place = os.path.dirname(place)
    return place


@functools.cache
def machine_id() -> str:
    """Return what only processes under the same running kernel have in common; or nothing."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:  # not Linux
        return ""


def guard_own_modules(own: OwnModules | None) -> None:
    """From now on import the caller's own modules under their names, or refuse.

    Args:
        own: None: all modules of the caller are here.
    """
    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder) is not _Guard]
    if own is None:
        return
    guard = _Guard(own)
    for name in list(sys.modules):  # who has it keeps it; the function is to get the caller's
        if guard.is_own(name):
            sys.modules.pop(name, None)
    sys.meta_path.insert(0, guard)


class _Guard:
    """A finder that is asked first, and lets nothing pass for an own module that is another."""

    def __init__(self, own: OwnModules) -> None:
        self._names = frozenset(own["names"]) - NEVER_OWN
        self._places = [os.fsdecode(path) for path, _, _ in own["places"]]
        same = machine_id() == own["machine"] != ""
        self._here = {  # the very directories of the caller
            os.fsdecode(path)
            for path, device, inode in own["places"]
            if same and _is_directory(path, device, inode)
        }
        self._copies = {one for one in self._places if one not in self._here and os.path.isdir(one)}
        self._packed = own["modules"]
        self._complete = own["complete"]

    def is_own(self, name: str) -> bool:
        """Return whether the caller has a module of its own by this name."""
        return name.partition(".")[0] in self._names

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        """Return the caller's module; None: it is not the caller's own, and others may look.

        Raises:
            ModuleNotFoundError: it is the caller's own, and not here.
        """
        if not self.is_own(name):
            has_copies = path is None and self._complete and self._copies
            return self._find_not_own(name) if has_copies else None
        spec = _found_by_others(name, path, target)
        where = None if spec is None else _place_of_spec(name, spec)
        if where in self._here:
            return spec
        place, expected = self._modules.get(name, (None, None))
        if expected is not None:
            is_same = spec is not None and _digest_of(spec) == expected
        elif "." in name:  # the caller may not have it either
            is_same = True
        else:  # a namespace package, of which each module is looked at; or one of too many
            is_same = spec is not None and (not spec.has_location or where in self._copies)
        if is_same:
            return spec
        raise ModuleNotFoundError(self._refusal(name, place, spec), name=name)

    def _find_not_own(self, name: str) -> ModuleSpec | None:
        """Return what the caller would find: nothing that lies in a copy of its directories."""
        spec = _found_by_others(name, None, None)
        if spec is None or _place_of_spec(name, spec) not in self._copies:
            return spec
        rest = [entry for entry in sys.path if entry not in self._copies]
        found = PathFinder.find_spec(name, rest)
        if found is not None:
            return found
        text = f"No module named {name!r}; {spec.origin} is not there on the caller's machine"
        raise ModuleNotFoundError(text, name=name)

    @functools.cached_property
    def _modules(self) -> dict[str, tuple[int, bytes]]:
        modules: dict[str, tuple[int, bytes]] = msgpack.unpackb(self._packed, use_list=False)
        return modules

    def _refusal(self, name: str, place: int | None, spec: ModuleSpec | None) -> str:
        where = found = ""
        if place is not None:
            where = f" in {self._places[place]}"
        if spec is not None:
            found = f"; what this node has by that name is another: {spec.origin or 'a namespace'}"
        return (
            f"the caller's own module {name!r}{where} is not on this node{found}. Modules that are"
            " not installed do not travel to other machines: define what the function needs in the"
            " script itself, or let the nodes have the same file at the same place"
        )


def _is_directory(place: bytes, device: int, inode: int) -> bool:
    try:
        found = os.stat(place)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (device, inode)


def _found_by_others(name: str, path: Any, target: Any) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        if type(finder) is _Guard or find_spec is None:
            continue
        spec: ModuleSpec | None = find_spec(name, path, target)
        if spec is not None:
            return spec
    return None


def _place_of_spec(name: str, spec: ModuleSpec) -> str | None:
    """Return the directory of an import path where a module was found; None: in none."""
    if spec.has_location and spec.origin:
        return place_of(name, os.path.abspath(spec.origin))
    locations = list(spec.submodule_search_locations or ())
    return place_of(name, os.path.abspath(locations[0])) if locations else None


def _digest_of(spec: ModuleSpec) -> bytes | None:
    """Return the digest of a module's file; None: it has none, or it cannot be read."""
    get_data = getattr(spec.loader, "get_data", None)
    if get_data is None or not spec.has_location:
        return None
    try:
        data = get_data(spec.origin)
    except OSError:
        return None
    return digest(data, len(data))
