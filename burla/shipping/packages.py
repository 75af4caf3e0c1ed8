"""Which installed packages a function needs, as they are here: `packages=` of a call.

What it needs is found by the names that it and the caller's own modules import, and by those that
its pickle and its inputs refer to, with all that these packages require. The nodes get a list of
exact versions; a package that no index has goes along as the files that are installed here.
"""

import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from types import MappingProxyType

from msgspec import Struct, field
from msgspec.structs import replace

from burla.config import packages_setting
from burla.errors import BadSetting
from burla.protocol import package_messages as pm
from burla.values.imports import imports_of
from burla.values.payloads import short_repr

from .distributions import Distribution, Installed, closure, may_hold_distributions
from .own_files import State, are_same, is_settled, state_of
from .own_search import Search

AUTO, OFF = "auto", "off"
EXPECTED = (
    "'auto', 'off', requirements, or the path of a requirements file, pyproject.toml, uv.lock"
)
SAMPLE_MAX = 16  # of inputs, whose classes are looked at
SCANNED_MAX = 1 << 20  # bytes of a pickle that are looked through
# The node has its own: of burla, and of what its workers have loaded before they hear of any job.
OF_NODE = frozenset(("burla", "cloudpickle", "msgpack"))


class Wanted(Struct, frozen=True):
    """What a caller wants of packages."""

    mode: str = AUTO  # or OFF, or empty: as listed
    requirements: tuple[str, ...] = ()
    is_whole: bool = False  # these are all, with exact versions


class Needs(Struct, frozen=True):
    """What goes with a job."""

    packed: bytes = b""  # `package_messages.Packages`
    carried: tuple[Distribution, ...] = ()  # in files
    here: MappingProxyType[str, Distribution] = field(default_factory=lambda: MappingProxyType({}))
    missing: tuple[str, ...] = ()  # that packages require, and that are not installed here

    def without(self, names: Iterable[str]) -> "Needs | None":
        """Return the same with these in files; None: they are not here, or nobody knows of what.

        Args:
            names: of packages that a node cannot have.
        """
        chosen = [self.here.get(name) for name in names]
        more = [one for one in chosen if one is not None and one.files]
        if len(more) < len(chosen):
            return None
        packages = pm.unpack(self.packed)
        left = [one for one in packages.requirements if pm.name_of(one) not in {*names}]
        packed = pm.pack(pm.Packages(tuple(left), packages.is_whole)) if left else b""
        return Needs(packed, (*self.carried, *more), self.here, self.missing)

    def as_named(self) -> "Needs":
        """Return the same in the very versions that are said, whatever there is of them already."""
        if not self.packed:
            return self
        packages = pm.Packages(pm.unpack(self.packed).requirements, is_whole=False)
        return replace(self, packed=pm.pack(packages))


NOTHING = Needs()


def packages_needed(
    wanted: Wanted,
    roots: frozenset[str],
    imported: Mapping[str, Sequence[str]],
    pickles: Sequence[bytes],
    inputs: object,
) -> Needs:
    """Return what a function needs; the same object as long as nothing has changed.

    Args:
        wanted: by the caller.
        roots: names that the code of the function imports.
        imported: names that each of the caller's own modules imports.
        pickles: of the function.
        inputs: as the caller gave them.
    """
    global _known
    if wanted.mode == OFF:
        return NOTHING
    referred = [_referred(one[:SCANNED_MAX]) for one in pickles] if not wanted.requirements else []
    key = (wanted, roots, tuple(referred), _modules_of(inputs), tuple(sys.path))
    known = _known
    is_same = known is not None and known.key == key and known.imported is imported
    is_same = is_same and known is not None and known.is_settled
    if known is not None and is_same and are_same(known.places, known.states):
        return known.needs
    now_ns = time.time_ns()
    names = _reached(roots.union(*referred, key[3]), imported)
    needs, places = _find(wanted, names)
    states = {place: state for place in places if (state := state_of(place)) is not None}
    settled = all(is_settled(state, now_ns) for state in states.values())
    if known is not None and (known.needs.packed, known.needs.carried) == (
        needs.packed,
        needs.carried,
    ):
        needs = known.needs
    _known = _Known(key, imported, [*states], [*states.values()], settled, needs)
    return needs


class _Known(Struct, frozen=True):
    key: tuple[object, ...]
    imported: object
    places: list[str]  # where packages are installed, as they were
    states: list[State]
    is_settled: bool
    needs: Needs


_known: _Known | None = None


def packages_of_script(path: str) -> Needs:
    """Return what functions of a script may need, by what it imports; it is not run.

    Raises:
        ValueError: it is no Python.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        try:
            code = compile(file.read(), path, "exec", dont_inherit=True)
        except SyntaxError as error:
            raise ValueError(f"{path} cannot be compiled: {error}") from None
    imports = imports_of(code, "")
    here = os.path.dirname(os.path.abspath(path))
    if here not in sys.path:
        sys.path.insert(0, here)  # as if it were run
    search = Search(tuple(entry or os.getcwd() for entry in sys.path), frozenset())
    search.follow(imports)
    return _find(packages_of_settings(), _reached(imports.names | imports.texts, search.imported))[
        0
    ]


def _reached(roots: Iterable[str], imported: Mapping[str, Sequence[str]]) -> set[str]:
    """Return the names that are imported, by the caller's own modules too, and are not of these."""
    todo, seen, foreign = list(roots), set[str](), set[str]()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        if (parent := name.rpartition(".")[0]) and name.partition(".")[0] in imported:
            todo.append(parent)
        if name in imported:
            todo += imported[name]
        elif name.partition(".")[0] not in imported:
            foreign.add(name)
    return foreign


def _find(wanted: Wanted, names: set[str]) -> tuple[Needs, list[str]]:
    directory = os.getcwd() if "" in sys.path else ""
    path = [entry or directory for entry in sys.path if isinstance(entry, str)]
    places = [entry for entry in path if may_hold_distributions(entry)]
    installed = Installed(places)
    if wanted.mode == AUTO:
        tops = {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names}
        roots = installed.of_modules(sorted(tops))
        roots = {name: one for name, one in roots.items() if name not in OF_NODE}
        return _pinned(roots, installed), places
    return _listed(wanted, installed), places


def _pinned(roots: dict[str, Distribution], installed: Installed) -> Needs:
    """Return the exact versions of these and of all that they require."""
    if not roots:
        return NOTHING
    found, missing = closure(roots, installed)
    chosen = [one for name, one in sorted(found.items()) if name not in OF_NODE]
    carried = tuple(one for one in chosen if one.origin and one.origin != "editable" and one.files)
    pins = tuple(f"{one.name}=={one.version}" for one in chosen if not one.origin)
    here = MappingProxyType({one.name: one for one in chosen})
    packed = pm.pack(pm.Packages(pins)) if pins else b""
    return Needs(packed, carried, here, tuple(missing))


def _listed(wanted: Wanted, installed: Installed) -> Needs:
    """Return what a caller has listed: as it is here if it is here, else as an index has it."""
    from packaging.requirements import Requirement

    roots, open_, meant = {}, [], []
    for text in wanted.requirements:
        needed = Requirement(pm.split_hashes(text)[0])
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        meant.append(text)
        one = installed.by_name.get(pm.canonical(needed.name))
        is_met = one is not None and needed.specifier.contains(one.version, prereleases=True)
        if one is not None and is_met and not needed.extras:
            roots[one.name] = one
        else:
            open_.append(text)
    if wanted.is_whole:
        carried = tuple(one for one in roots.values() if one.origin and one.files)
        names = {one.name for one in carried}
        pins = tuple(x for x in meant if pm.name_of(x) not in names)
        here = MappingProxyType(roots)
        return Needs(pm.pack(pm.Packages(pins)) if pins else b"", carried, here)
    needs = _pinned(roots, installed)
    if not open_:
        return needs
    pins = pm.unpack(needs.packed).requirements if needs.packed else ()
    packed = pm.pack(pm.Packages((*open_, *pins), is_whole=False))
    return Needs(packed, needs.carried, needs.here, needs.missing)


# --- what nodes have said that they cannot have ---

_lacking: dict[str, frozenset[str]] = {}  # by address of a cluster
_as_lacking: tuple[Needs, frozenset[str], Needs] = (NOTHING, frozenset(), NOTHING)


def remember_lacking(address: str, names: Iterable[str]) -> None:
    """Have files of these packages go along at once from now on."""
    _lacking[address] = _lacking.get(address, frozenset()).union(names)


def as_lacking(address: str, needs: Needs) -> Needs:
    """Return what goes with a job to a cluster that has said what it cannot have."""
    global _as_lacking
    names = _lacking.get(address)
    if not names or not needs.packed:
        return needs
    known = _as_lacking
    if known[0] is not needs or known[1] is not names:
        pins = (pm.name_of(one) for one in pm.unpack(needs.packed).requirements)
        with_files = needs.without([name for name in pins if name in names])
        known = _as_lacking = needs, names, with_files or needs
    return known[2]


# --- names in what travels ---


def names_in(pickled: bytes) -> frozenset[str]:
    """Return the loaded modules that texts in a pickle may name: it refers to things by those."""
    found = set()
    for match in re.finditer(rb"\x8c(.)", pickled, re.DOTALL):
        text = pickled[match.end() : match.end() + match[1][0]]
        if text[:1].isalpha() or text[:1] == b"_":
            name = text.decode("ascii", "replace")
            if name in sys.modules:
                found.add(name)
    return frozenset(found)


_referred = lru_cache(maxsize=256)(names_in)
_NO_NAMES: frozenset[str] = frozenset()


def _modules_of(inputs: object) -> frozenset[str]:
    """Return the modules of the classes of some inputs."""
    if type(inputs) is range:
        return _NO_NAMES
    kinds = {type(inputs)}
    if isinstance(inputs, list | tuple):
        for one in inputs[:SAMPLE_MAX]:
            kinds.add(type(one))
            if isinstance(one, list | tuple):
                kinds.update(map(type, one[:SAMPLE_MAX]))
            elif isinstance(one, dict):
                kinds.update(map(type, islice(one.values(), SAMPLE_MAX)))
    kinds -= _PLAIN
    return frozenset(kind.__module__ for kind in kinds) if kinds else _NO_NAMES


_PLAIN = frozenset((int, float, str, bytes, bool, list, tuple, dict, set, frozenset, type(None)))


# --- what the caller wants ---


def read_packages(packages: object) -> Wanted | None:
    """Return what `packages=` of a call asks for; None: nothing, so the settings count.

    Raises:
        TypeError: it is of a wrong kind.
        ValueError: it asks for what cannot be.
        OSError: a file that it names cannot be read.
    """
    if packages is None:
        return None
    if isinstance(packages, str | os.PathLike):
        return _read_word(os.fspath(packages))
    if isinstance(packages, list | tuple) and all(isinstance(one, str) for one in packages):
        from .requirement_files import are_hashed

        listed = tuple(_checked(one) for one in packages)
        return Wanted("", listed, are_hashed(listed, "packages"))
    raise TypeError(f"packages must be {EXPECTED}, not {short_repr(packages)}")


def packages_of_settings() -> Wanted:
    """Return what the settings ask for.

    Raises:
        BadSetting: it cannot be.
    """
    said, source = packages_setting()
    try:
        if isinstance(said, str | list):
            return read_packages(said) or Wanted()
    except (ValueError, OSError) as error:
        raise BadSetting(source, said, f"{EXPECTED}; {error}") from None
    raise BadSetting(source, said, EXPECTED)


def _read_word(word: str) -> Wanted:
    if word in (AUTO, OFF):
        return Wanted(word)
    if not os.path.isfile(word):
        raise ValueError(f"packages={word!r}: there is no such file; it is to be {EXPECTED}")
    from .requirement_files import read_file

    requirements, is_whole = read_file(word)
    return Wanted("", tuple(_checked(one) for one in requirements), is_whole)


def _checked(requirement: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        Requirement(pm.split_hashes(requirement)[0])
        return pm.checked(requirement.strip())
    except InvalidRequirement as error:
        raise ValueError(f"packages: {requirement!r} is no requirement: {error}") from None
    except ValueError as error:
        raise ValueError(f"packages: {error}; install it here, and leave packages out") from None
