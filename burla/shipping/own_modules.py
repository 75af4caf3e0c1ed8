"""What travels of the caller's own modules with a function, as it stands at the call.

A loop of maps finds, reads and packs once: then it only looks whether any of the files and
directories that were looked at has another state.
"""

import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b
from importlib.machinery import EXTENSION_SUFFIXES
from types import CodeType
from typing import NamedTuple
from zlib import compress

import msgpack

from burla.values.attributes import dict_of
from burla.values.imports import NO_IMPORTS, Imports, imports_of, join_imports
from burla.values.own_modules import OwnFile, OwnModules, pack_own_modules, platform

from .attachments import Attachments, attach, join_small
from .own_files import FILES_MAX, State, are_same, is_settled, read
from .own_metadata import metadata_files
from .own_search import Search

WARN_BYTES = 10_000_000  # more than this is told
BYTES_MAX = 256 << 20  # more than this does not travel: big files of data are left behind
ALONE_BYTES_MIN = 256 << 10  # a file from here on is a part of its own
TOLD_MAX = 3  # of big files
KEPT_MAX = 4  # of what was packed last, for functions that take turns


class Travels(NamedTuple):
    """The caller's own modules, ready to be sent."""

    name: str  # tells these files from all others
    attached: Attachments  # an `OwnModules` and its parts
    warning: str  # what the user should hear; empty: nothing


class Found(NamedTuple):
    """What was found by following imports; the same object if nothing has changed."""

    travels: Travels | None  # None: nothing of the caller's own
    roots: frozenset[str]  # names that the code of the function imports
    imported: Mapping[str, Sequence[str]]  # names that each of the caller's own modules imports


class _Known(NamedTuple):
    """What was found before, and what must be as it was for that to be right."""

    key: tuple[object, str | None]
    imports: Imports
    paths: list[str]
    states: list[State]
    is_settled: bool
    found: Found


_known: list[_Known] = []  # the last one first


def own_modules(
    key: tuple[object, str | None],
    path: Callable[[], tuple[str, ...]],
    by_value: frozenset[str],
    codes: Sequence[CodeType],
    function: object,
) -> Found:
    """Return what has to travel; the same object if nothing has changed.

    Args:
        key: an object that is the same as long as `sys.modules` and the like are unchanged; the
            working directory, if that matters.
        path: returns the absolute import path.
        by_value: names of modules that travel in another way.
        codes: of what travels by value.
        function: what is called.

    Raises:
        TypeError: the function needs what cannot travel.
        ValueError: the modules are too big.
    """
    global _known
    package = _main_package()
    imports = NO_IMPORTS
    for code in codes:
        imports = join_imports(imports, _imports_of(code, package))
    before = _known  # another thread may replace it
    same = None
    for one in before:
        is_key = one.key[0] is key[0] and one.key[1] == key[1]
        if is_key and one.imports == imports:
            if one.is_settled and are_same(one.paths, one.states):
                return one.found
            same = one.found
            break
    found = _find(key, path(), by_value, imports, function)
    if same is not None and _are_equal(found.found, same):
        found = found._replace(found=same)
    others = [one for one in before if one.imports != imports or one.key[0] is not key[0]]
    _known = [found, *others[: KEPT_MAX - 1]]
    return found.found


def sources(
    path: tuple[str, ...],
    by_value: frozenset[str],
    codes: Sequence[CodeType],
    names: frozenset[str],
) -> dict[str, bytes]:
    """Return the files of the caller's own modules that code imports, by the module's name.

    Args:
        path: absolute import path.
        by_value: names of modules that travel in another way.
        codes: what imports.
        names: of modules that are needed, too.
    """
    imports, package = NO_IMPORTS, _main_package()
    for code in codes:
        imports = join_imports(imports, _imports_of(code, package))
    search = Search(path, by_value)
    search.follow(imports._replace(names=imports.names | names))
    found = {}
    for name, module in sorted(search.found.items()):
        file = module.file if module.loader is None else module.loader.archive
        if file is not None:
            with suppress(OSError):
                found[name] = read(file).data
    return found


def _are_equal(one: Found, other: Found) -> bool:
    facts = [
        (found[1:], found.travels and (found.travels.name, found.travels.warning))
        for found in (one, other)
    ]
    return facts[0] == facts[1]


@lru_cache(maxsize=1024)
def _imports_of(code: CodeType, package: str) -> Imports:
    return imports_of(code, package)


def _main_package() -> str:
    """Return where relative imports of code that travels by value start from."""
    package = dict_of(sys.modules.get("__main__")).get("__package__")
    return package if isinstance(package, str) else ""


# --- finding ---


def _find(
    key: tuple[object, str | None],
    path: tuple[str, ...],
    by_value: frozenset[str],
    imports: Imports,
    function: object,
) -> _Known:
    now_ns = time.time_ns()
    search = Search(path, by_value)
    home = getattr(function, "__module__", None)
    names = imports.names | {home} if isinstance(home, str) else imports.names
    search.follow(imports._replace(names=names))
    needed = set(search.found)
    search.follow_loaded()
    search.add_metadata(metadata_files([*search.files.values()], path))
    travels = _pack(search, needed) if search.files or search.archives else None
    states = list(search.watched.values())
    settled = all(is_settled(state, now_ns) for state in states)
    found = Found(travels, imports.names | imports.texts, search.imported)
    return _Known(key, imports, list(search.watched), states, settled, found)


# --- packing ---


def _pack(search: Search, needed: set[str]) -> Travels:
    files = dict(search.files)
    archives = _archive_entries(search.archives)
    files |= {path: file for file, path in archives.items()}
    modules = {module.file for module in search.modules.values()} | set(search.archives)
    names = {module.file: name for name, module in search.modules.items() if module.file}
    sizes = {file: search.watched[file][1] for file in files.values() if file in search.watched}
    left_out = _leave_out(sizes, modules)
    refused: dict[str, str] = {}
    taken: list[tuple[str, str, bytes]] = []
    for path, file in sorted(files.items()):
        if file in left_out or not file:
            continue
        try:
            taken.append((path, file, read(file).data))
        except OSError as error:
            name = names.get(file)
            if name is not None:
                refused[name] = f"{file} cannot be read: {error.strerror}"
    _refuse(refused, needed, search)
    places, parts = join_small([data for _, _, data in taken], ALONE_BYTES_MIN)
    parts = [(f"own/{number}", data) for number, data in parts]
    parts[0] = parts[0][0], compress(parts[0][1], 1)
    own = OwnModules(
        name="",
        platform=platform(),
        files=[
            OwnFile(
                os.fsencode(path), os.fsencode(file), *place, len(data), os.access(file, os.X_OK)
            )
            for (path, file, data), place in zip(taken, places, strict=True)
        ],
        packed=[True, *[False] * (len(parts) - 1)],
        tops=search.top_names(),
        archives=[os.fsencode(entry) for entry in _archive_paths(archives)],
        extensions=[
            name
            for name, module in search.modules.items()
            if module.file and module.file.endswith(tuple(EXTENSION_SUFFIXES))
        ],
        refused=refused,
    )
    digest = blake2b(msgpack.packb(own), digest_size=16)
    for _, part in parts:
        digest.update(part)
    own = own._replace(name=digest.hexdigest())
    attached = attach([("own", pack_own_modules(own)), *parts])
    return Travels(own.name, attached, _warning(sizes, left_out, search.is_cut))


def _archive_entries(archives: Iterable[str]) -> dict[str, str]:
    """Return where each archive goes."""
    return {
        archive: f".archives/{number}/{os.path.basename(archive)}"
        for number, archive in enumerate(archives)
    }


def _archive_paths(archives: Mapping[str, str]) -> Iterator[str]:
    """Yield what stands for the entries of `sys.path` that are archives or directories in one."""
    for archive, where in archives.items():
        entries = [one for one in sys.path if isinstance(one, str) and os.path.isabs(one)]
        inside = [one[len(archive) :] for one in entries if f"{one}/".startswith(f"{archive}/")]
        yield from (where + rest for rest in inside or [""])


def _leave_out(sizes: Mapping[str, int], modules: Collection[str | None]) -> dict[str, int]:
    """Return big files of data, without which the rest is not too much.

    Raises:
        ValueError: it is too much even so.
    """
    left_out: dict[str, int] = {}
    total = sum(sizes.values())
    for file, size in _biggest_first(sizes):
        if total <= BYTES_MAX:
            break
        if file not in modules:
            left_out[file] = size
            total -= size
    if total > BYTES_MAX:
        raise ValueError(
            f"your own modules have {_mb(total)}, at most {_mb(BYTES_MAX)} can be sent; the biggest"
            f" files: {_list(sizes)}"
        )
    return left_out


def _refuse(refused: Mapping[str, str], needed: set[str], search: Search) -> None:
    """Raise if the function names a module that cannot travel; nodes refuse the others."""
    for name in sorted(needed & refused.keys()):
        raise TypeError(
            f"function_ cannot be sent: it needs your own module {name!r}, and {refused[name]}"
        )


def _warning(sizes: Mapping[str, int], left_out: Mapping[str, int], is_cut: bool) -> str:
    remedy = "hand big data over as inputs or by files=, or keep it outside of packages"
    if is_cut:
        return (
            f"burla: there are over {FILES_MAX} files in your packages: not all are sent; {remedy}"
        )
    if left_out:
        return (
            f"burla: your packages have over {_mb(BYTES_MAX)}: not sent are {_list(left_out)};"
            f" {remedy}"
        )
    total = sum(sizes.values())
    if total > WARN_BYTES:
        return (
            f"burla: {_mb(total)} of your own modules and packages are sent with the function;"
            f" the biggest files: {_list(sizes)}; {remedy}"
        )
    return ""


def _biggest_first(sizes: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(sizes.items(), key=lambda one: (-one[1], one[0]))


def _list(sizes: Mapping[str, int]) -> str:
    biggest = _biggest_first(sizes)
    told = ", ".join(f"{file} ({_mb(size)})" for file, size in biggest[:TOLD_MAX])
    return told if len(biggest) <= TOLD_MAX else f"{told}, ..."


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
