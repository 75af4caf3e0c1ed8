"""Which modules are the caller's own, and what is in them: told to workers of other machines.

Own is what is neither installed nor of the standard library: beside the script, in directories on
`sys.path`, editable installs. All that could be imported is looked at, not only what is loaded,
because a function may import inside. What was found is kept and looked at again in proportion: it
takes no more than a hundredth of the time of a loop of maps.
"""

import functools
import importlib.machinery
import os
import sys
import time
import zipimport
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

import msgpack

from burla.values.attributes import dict_of
from burla.values.own_modules import (
    DIGEST_BYTES_MAX,
    NEVER_OWN,
    OwnModules,
    digest,
    is_package_file,
    machine_id,
    place_of,
)

MODULES_MAX = 512  # that are told, loaded ones first
NAMES_BYTES_MAX = 64 << 10  # of the names of all modules
DEPTH_MAX = 16  # of packages in packages: a link may lead up again
REST_FACTOR = 100  # times as long as a look around took, its result is good


def own_modules(
    path: tuple[str, ...],
    by_value: Callable[[], frozenset[str]] = frozenset,
    clock_s: Callable[[], float] = time.perf_counter,
) -> bytes:
    """Return msgpack of `OwnModules`; the same object if nothing has changed.

    Args:
        path: absolute import path.
        by_value: returns the names of modules that travel by themselves.
        clock_s: tells when it is time to look again.
    """
    global _last
    key = (path, len(sys.modules), tuple(map(_changed_ns, _own_entries(path))))
    last, began_s = _last, clock_s()  # another thread may replace it
    if last is not None and last.key == key and began_s < last.until_s:
        return last.packed
    packed: bytes = msgpack.packb(_look_around(path, by_value()))
    if last is not None and last.packed == packed:
        packed = last.packed
    now_s = clock_s()
    _last = _Look(key, packed, now_s + REST_FACTOR * (now_s - began_s))
    return packed


@functools.lru_cache(maxsize=8)
def _own_entries(path: tuple[str, ...]) -> tuple[str, ...]:
    return tuple([entry for entry in path if not _is_installed(entry)])


class _Look(NamedTuple):
    key: tuple[object, ...]
    packed: bytes
    until_s: float


_last: _Look | None = None


def _look_around(path: Sequence[str], by_value: frozenset[str]) -> OwnModules:
    files = _own_files(path, by_value)
    places: dict[str, int] = {}
    modules: dict[str, tuple[int, bytes]] = {}
    for name, file in islice(files.items(), MODULES_MAX):
        known = _digest_of(file) or _digest_in_archive(name, file)
        if known is not None:
            place = place_of(name, file)
            modules[name] = places.setdefault(place, len(places)), known
    for entry in path:
        is_own = not _is_installed(entry) and not _holds_distributions(entry)
        if is_own and os.path.isdir(entry):
            places.setdefault(entry, len(places))
    names = list(dict.fromkeys(name.partition(".")[0] for name in files))
    return OwnModules(
        machine=machine_id(),
        places=[(os.fsencode(place), *_identity(place)) for place in places],
        names=names,
        modules=msgpack.packb(modules),
        complete=len(modules) == len(files),
    )


def _own_files(path: Sequence[str], by_value: frozenset[str]) -> dict[str, str]:
    """Return the file of each own module by its name: loaded ones, then what can be imported."""
    files: dict[str, str] = {}
    taken = set(NEVER_OWN)  # top-level names that mean something else
    for name, module in sys.modules.copy().items():
        if "." in name and name.partition(".")[0] in NEVER_OWN:
            continue
        file = _file_of(module)
        if name not in by_value and file is not None and _is_own_file(name, file):
            files[name] = file
        elif "." not in name and (file is not None or not _is_namespace(module)):
            taken.add(name)
    files = {name: file for name, file in files.items() if name.partition(".")[0] not in taken}
    files |= {name: files.pop(name) for name in list(files) if "." in name}  # top-level ones first
    seen = taken | {name for name in files if "." not in name} | _FIRST
    packages = [(name, os.path.dirname(f)) for name, f in files.items() if is_package_file(f)]
    spaces: dict[str, str] = {}
    for entry in path:
        listing = _list_modules(entry)
        if not _is_installed(entry) and not listing.holds_distributions:
            new = {name: file for name, file in listing.files.items() if name not in seen}
            files |= new
            packages += [(n, os.path.dirname(f)) for n, f in new.items() if is_package_file(f)]
            spaces = listing.spaces | spaces
        seen |= listing.files.keys()
    packages += [(name, place) for name, place in spaces.items() if name not in seen]
    for name, file in _walk(packages):
        files.setdefault(name, file)
        if len(files) > MODULES_MAX:
            break
    left = NAMES_BYTES_MAX
    return {name: file for name, file in files.items() if (left := left - len(name)) >= 0}


def _walk(packages: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield name and file of all modules inside, those of upper levels first."""
    for package, directory in packages:  # grows meanwhile
        for name, file in _list_modules(directory).files.items():
            yield f"{package}.{name}", file
            if is_package_file(file) and package.count(".") < DEPTH_MAX:
                packages.append((f"{package}.{name}", os.path.dirname(file)))


# built in and frozen: found before any path is looked at
_FIRST = {
    *sys.builtin_module_names,
    *(n for n in sys.stdlib_module_names if importlib.machinery.FrozenImporter.find_spec(n)),
}


class _Listing(NamedTuple):
    changed_ns: int
    files: dict[str, str]  # of the modules that an import finds in a directory, by their names
    spaces: dict[str, str]  # directories that are packages if no module has their name
    holds_distributions: bool = False  # as `pip install --target` makes


_listings: dict[str, _Listing] = {}
LISTINGS_MAX = 4096


def _list_modules(directory: str) -> _Listing:
    changed_ns = _changed_ns(directory)
    known = _listings.get(directory)
    if known is not None and known.changed_ns == changed_ns:
        return known
    try:
        entries = frozenset(os.listdir(directory))
    except OSError:  # a zip file, or not there
        return _Listing(changed_ns, {}, {})
    has_metadata = any(entry.endswith(".dist-info") for entry in entries)
    listing = _Listing(changed_ns, {}, {}, has_metadata)
    for stem in sorted({entry.partition(".")[0] for entry in entries} - {"__init__"}):
        if stem.isidentifier():
            _list_module(directory, stem, entries, listing)
    if len(_listings) >= LISTINGS_MAX:
        _listings.clear()
    _listings[directory] = listing
    return listing


def _holds_distributions(directory: str) -> bool:
    return _list_modules(directory).holds_distributions


def _list_module(directory: str, name: str, entries: frozenset[str], listing: _Listing) -> None:
    """Add what an import of this name finds: a package before a module."""
    inside = _package_files(os.path.join(directory, name)) if name in entries else ()
    inits = [file for file in inside if is_package_file(file)]
    others = [f"{name}{suffix}" for suffix in _SUFFIXES if f"{name}{suffix}" in entries]
    if inits:
        listing.files[name] = os.path.join(directory, name, inits[0])
    elif others:
        listing.files[name] = os.path.join(directory, others[0])
    elif inside:
        listing.spaces[name] = os.path.join(directory, name)


_inside: dict[str, tuple[int, tuple[str, ...]]] = {}  # by directory, with its mtime


def _package_files(directory: str) -> tuple[str, ...]:
    """Return names of files that make a directory a package, the one that decides first."""
    changed_ns = _changed_ns(directory)
    known = _inside.get(directory)
    if known is not None and known[0] == changed_ns:
        return known[1]
    entries: list[str] = []
    with suppress(OSError):
        entries = os.listdir(directory)
    inits = [f"__init__{suffix}" for suffix in _SUFFIXES if f"__init__{suffix}" in entries]
    found = (*inits, *[entry for entry in entries if entry.endswith(".py")][:1])
    if len(_inside) >= LISTINGS_MAX:
        _inside.clear()
    _inside[directory] = changed_ns, found
    return found


_SUFFIXES = [  # in the order in which `importlib` tries them
    *importlib.machinery.EXTENSION_SUFFIXES,
    *importlib.machinery.SOURCE_SUFFIXES,
    *importlib.machinery.BYTECODE_SUFFIXES,
]


def _file_of(module: object) -> str | None:
    file = dict_of(module).get("__file__")  # a lazy module stays unloaded
    return file if isinstance(file, str) and os.path.isabs(file) else None


def _is_namespace(module: object) -> bool:
    return "__path__" in dict_of(module)


def _is_own_file(name: str, file: str) -> bool:
    return not _is_installed(file) and not _holds_distributions(place_of(name, file))


_digests: dict[str, tuple[tuple[int, int, int], bytes]] = {}
DIGESTS_MAX = 4 * MODULES_MAX


def _digest_of(file: str) -> bytes | None:
    try:
        now = os.stat(file)
        is_now = now.st_ino, now.st_size, now.st_mtime_ns
        known = _digests.get(file)
        if known is not None and known[0] == is_now:
            return known[1]
        with open(file, "rb") as opened:
            found = digest(opened.read(DIGEST_BYTES_MAX), now.st_size)
    except OSError:
        return None
    if len(_digests) >= DIGESTS_MAX:
        _digests.clear()
    _digests[file] = is_now, found
    return found


def _digest_in_archive(name: str, file: str) -> bytes | None:
    """Return the digest of a loaded module that lies in a zip file."""
    loader = getattr(sys.modules.get(name), "__loader__", None)
    if not isinstance(loader, zipimport.zipimporter):
        return None
    try:
        data = loader.get_data(file)
    except OSError:
        return None
    return digest(data, len(data))


def _changed_ns(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _identity(place: str) -> tuple[int, int]:
    try:
        found = os.stat(place)
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _is_installed(path: str) -> bool:
    """Return whether this lies in the standard library or among installed packages."""
    whole = os.path.join(path, "")
    return whole.startswith(_STANDARD) or "/site-packages/" in whole or "/dist-packages/" in whole


_LIBRARY = os.path.dirname(os.__file__)
_STANDARD = (  # the second: where it lies if it is zipped
    os.path.join(_LIBRARY, ""),
    os.path.join(
        os.path.dirname(_LIBRARY), f"python{sys.version_info[0]}{sys.version_info[1]}.zip", ""
    ),
)
