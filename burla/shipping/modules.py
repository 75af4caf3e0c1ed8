"""What the caller can import: told to workers on the same machine, or sent by value.

Modules that a worker finds through the caller's `sys.path` load there under their own names, as
they stand at the call. `__main__` always travels by value, and so do modules that no finder finds.
"""

import functools
import importlib.machinery
import operator
import os
import sys
from collections.abc import Collection, Iterable
from functools import partial
from types import GeneratorType, ModuleType
from typing import NamedTuple

import msgpack

from burla.protocol.messages import ENVIRONMENT_BYTES_MAX
from burla.shell.streams import has_one_output
from burla.values.assertions import rewritten_files
from burla.values.attributes import dict_of
from burla.values.environment import Environment
from burla.values.pickling import CarriedBy, Sent

from .carried_modules import (
    can_be_carried,
    carried_modules,
    found_by_worker,
    has_hooks,
    is_usual_loader,
)
from .own_modules import Found, own_modules, sources
from .own_search import STANDARD_PLACES, holds_distributions, is_installed

Inline = tuple[tuple[str, bytes], ...]


def packed_environment(
    memory: str | None = None,
    *,
    travels: bool = False,
    attached: Inline = (),
    surroundings: bytes = b"",
) -> bytes:
    """Return `environment` as it travels; a loop of maps packs it once.

    Args:
        memory: directory in memory that this process shares with the workers, if it does.
        travels: the workers may be on other machines: own modules are not where they are here.
        attached: what goes along by a name.
        surroundings: what else they need to do as this process would, packed.

    Raises:
        ValueError: it is too big.
    """
    return _pack(_look_around(memory, travels, attached), surroundings)


def environment(memory: str | None = None, *, surroundings: bytes = b"") -> Environment:
    """Return what a worker on this machine needs to import what this process can.

    Args:
        memory: directory in memory that this process shares with the workers, if it does.
        surroundings: what else it needs to do as this process would, packed.
    """
    return _describe(_look_around(memory, travels=False), surroundings)


class _Look(NamedTuple):
    """What says all about the environment of a call."""

    path: tuple[str, ...]
    directory: str | None
    shadowed: tuple[str, ...]
    argv: tuple[str, ...]
    main_file: str | None
    main_package: str | None
    attached: Inline
    memory: str | None
    one_output: bool
    rewritten: tuple[str, ...]


def _look_around(memory: str | None, travels: bool, attached: Inline = ()) -> _Look:
    directory = _directory()
    path = _import_path(directory)
    if travels:  # what lies elsewhere under names of ours is not ours
        path = _installed_entries(path)
    argv = _texts(getattr(sys, "argv", [""]))
    main = vars(sys.modules["__main__"]) if "__main__" in sys.modules else {}
    file, package = main.get("__file__"), main.get("__package__")
    return _Look(
        path=path,
        directory=directory,
        shadowed=_shadowed(path),
        argv=argv,
        main_file=file if isinstance(file, str) else None,
        main_package=package if isinstance(package, str) else None,
        attached=attached,
        memory=memory,
        one_output=has_one_output(),
        rewritten=rewritten_files(),
    )


def _directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # deleted
        return None


def _import_path(directory: str | None) -> tuple[str, ...]:
    return _absolute(_texts(sys.path), directory)


def _texts(entries: Iterable[object]) -> tuple[str, ...]:
    return tuple([one for one in entries if type(one) is str or isinstance(one, str)])


@functools.lru_cache(maxsize=8)
def _installed_entries(path: tuple[str, ...]) -> tuple[str, ...]:
    return tuple([one for one in path if is_installed(one) or holds_distributions(one)])


@functools.lru_cache(maxsize=8)
def _absolute(path: tuple[str, ...], directory: str | None) -> tuple[str, ...]:
    """Return a search path as seen from a working directory; None: there is none."""
    whole = []
    for entry in path:
        if directory is not None or os.path.isabs(entry):
            whole.append(os.path.join(directory or "", entry) if entry else str(directory))
    return tuple(dict.fromkeys(whole))


@functools.lru_cache(maxsize=8)
def _pack(around: _Look, surroundings: bytes) -> bytes:
    packed: bytes = msgpack.packb(_describe(around, surroundings))
    if len(packed) > ENVIRONMENT_BYTES_MAX:
        raise ValueError(
            f"os.environ, sys.path, sys.argv and the like have {len(packed)} bytes,"
            f" at most {ENVIRONMENT_BYTES_MAX} can be sent to the workers"
        )
    return packed


def _describe(around: _Look, surroundings: bytes) -> Environment:
    main = {"__file__": around.main_file, "__package__": around.main_package}
    return Environment(
        path=[os.fsencode(entry) for entry in around.path],
        directory=None if around.directory is None else os.fsencode(around.directory),
        shadowed=list(around.shadowed),
        argv=[os.fsencode(arg) for arg in around.argv],
        main={name: value for name, value in main.items() if value is not None},
        attached=dict(around.attached),
        memory=None if around.memory is None else os.fsencode(around.memory),
        one_output=around.one_output,
        rewritten=[os.fsencode(file) for file in around.rewritten],
        surroundings=surroundings,
    )


def _shadowed(path: tuple[str, ...]) -> tuple[str, ...]:
    """Return the modules of the standard library instead of which others are found in `path`.

    Workers have imported some of the former already.
    """
    found: set[str] = set()
    for entry in _before_standard(path):
        found |= _standard_names_in(entry)
    if not found:
        return ()
    names = []
    for name in sorted(found):
        loaded = getattr(sys.modules.get(name), "__file__", None)
        if name not in sys.builtin_module_names and not str(loaded).startswith(STANDARD_PLACES):
            names.append(name)  # else the caller has the standard one, from before
    return tuple(names)


@functools.lru_cache(maxsize=8)
def _before_standard(path: tuple[str, ...]) -> tuple[str, ...]:
    """Return what is looked at before the standard library: what comes later shadows nothing."""
    library, zipped = STANDARD_PLACES
    whole = [os.path.join(one, "") for one in path]
    inside = (at for at, one in enumerate(whole) if one.startswith(library))
    before = zip(path[: next(inside, len(path))], whole, strict=False)
    return tuple([one for one, place in before if place != zipped])


_listings: dict[str, tuple[int, frozenset[str]]] = {}  # by directory, with its mtime


def _standard_names_in(directory: str) -> frozenset[str]:
    try:
        changed_ns = os.stat(directory).st_mtime_ns
        known = _listings.get(directory)
        if known is not None and known[0] == changed_ns:
            return known[1]
        names = (name.partition(".") for name in os.listdir(directory))
        stems = {stem for stem, _, suffix in names if suffix in _MODULE_SUFFIXES}
    except OSError:  # a zip file, or not there
        return frozenset()
    found = frozenset(stems & sys.stdlib_module_names)
    _listings[directory] = changed_ns, found
    return found


# a directory may be a package
_MODULE_SUFFIXES = frozenset(("", *(s[1:] for s in importlib.machinery.all_suffixes())))


class _Asked(NamedTuple):
    """Which loaded modules a worker of this machine cannot import by itself."""

    lost: frozenset[str] = frozenset()  # they go by value
    carried: CarriedBy | None = None  # gives those of hooks, if there are hooks
    otherwise: frozenset[str] = frozenset()  # all that go in one of these ways
    is_relative: bool = False  # what is found depends on the working directory
    loaded: int = 0  # how many modules
    goes_along: bool = False  # some were loaded by hooks, and are carried with every function


_asked = _Asked()


class _Seen(NamedTuple):
    """On what that depends: the objects, for another may get the id of one that is gone."""

    path: tuple[str, ...]
    modules: list[object]
    hooks: list[object]

    def is_still_so(self, path: tuple[str, ...], hooks: list[object]) -> bool:
        """Return whether all is the same, without a word to objects that may compare themselves.

        The loaded modules are looked at where they are: to copy thousands takes as long again.
        """
        try:
            return (
                self.path == path
                and _are_same(self.hooks, hooks)
                and _are_same(self.modules, sys.modules.values())
            )
        except RuntimeError:  # another thread imports something
            return False


def _are_same(some: list[object], others: Collection[object]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))


_last: tuple[_Seen, _Asked] | None = None


def new_sent() -> Sent:
    """Return what a function is to take along of the modules that workers cannot import."""
    asked = _sort_modules()
    return Sent(asked.lost, asked.carried, None if asked.goes_along else asked)


def found_modules(function: object, inputs: object, sent: Sent) -> Found:
    """Return what a function and own modules import, and the own ones as they travel.

    Args:
        function: what is called.
        inputs: where its inputs come from; may import as it goes.
        sent: what was sent with the function.

    Raises:
        TypeError: it needs what cannot travel.
        ValueError: they are too big.
    """
    asked = _asked  # `new_sent` has just looked; but reading the first inputs may import
    if len(sys.modules) != asked.loaded:
        asked = _sort_modules()
    directory = _directory() if asked.is_relative else None
    here = partial(_import_path, directory)
    codes = [*sent.codes, inputs.gi_code] if type(inputs) is GeneratorType else sent.codes
    return own_modules((asked, directory), here, asked.otherwise, codes, function)


def own_sources(function: object, sent: Sent, names: Iterable[str]) -> dict[str, bytes]:
    """Return the files of the caller's own modules that a function imports, by their names.

    Args:
        function: what is called.
        sent: what was sent with it.
        names: of modules that are needed, too.
    """
    asked = _sort_modules()
    home = getattr(function, "__module__", None)
    needed = frozenset([*names, home] if isinstance(home, str) else names)
    return sources(_import_path(_directory()), asked.otherwise, sent.codes, needed)


def by_value_modules() -> frozenset[str]:
    """Return the names of the loaded modules, beside `__main__`, that a worker cannot import."""
    return _sort_modules().lost


def _sort_modules() -> _Asked:
    global _asked, _last
    path = tuple(map(str, sys.path))
    hooks = [*sys.meta_path, *sys.path_hooks]
    last = _last  # another thread may replace it
    if last is not None and last[0].is_still_so(path, hooks):  # a loop of maps asks again and again
        return last[1]
    seen = _Seen(path, list(sys.modules.values()), hooks)
    lost = frozenset(_find_by_value_modules())
    is_relative, loaded = not all(map(os.path.isabs, path)), len(seen.modules)
    if has_hooks():
        of_hooks = frozenset(filter(can_be_carried, _loaded_by_hooks(lost)))
        carried = partial(carried_modules, of_hooks)
        ways = lost - of_hooks, carried, lost | of_hooks
        asked = _Asked(*ways, is_relative, loaded, goes_along=bool(of_hooks))
    else:
        asked = _Asked(lost, None, lost, is_relative, loaded)
    _asked, _last = asked, (seen, asked)
    return asked


def _loaded_by_hooks(lost: frozenset[str]) -> Iterable[str]:
    """Return what is lost, or was loaded in another way than a worker would."""
    installed = tuple(os.path.join(os.path.abspath(entry), "") for entry in _installed())
    names = set(lost)
    for name, module in sys.modules.copy().items():
        if name not in ("__main__", "__mp_main__") and issubclass(type(module), ModuleType):
            attributes = dict_of(module)
            file, spec = attributes.get("__file__"), attributes.get("__spec__")
            is_own = not (isinstance(file, str) and file.startswith(installed))
            if is_own and not is_usual_loader(getattr(spec, "loader", None)):
                names.add(name)
    return sorted(names)


def _find_by_value_modules() -> list[str]:
    directories = tuple(os.path.join(os.path.abspath(entry), "") for entry in _installed())
    found = []
    for name, module in sys.modules.copy().items():
        if name == "__main__" or not issubclass(type(module), ModuleType):  # one may say it is
            continue
        if name == "__mp_main__":  # the script, in a child that multiprocessing spawned
            found.append(name)
            continue
        attributes = dict_of(module)  # a lazy module stays unloaded
        file = attributes.get("__file__")
        if isinstance(file, str) and file.startswith(directories):
            continue
        if _is_lost(name, module, file):
            found.append(attributes.get("__name__", name))
    return found


def _installed() -> list[str]:
    """Return the directories of the standard library and of installed packages."""
    standard = os.path.dirname(os.__file__)
    return [standard, *(p for p in sys.path if p.endswith(("site-packages", "dist-packages")))]


_verdicts: dict[str, tuple[ModuleType, tuple[str, ...], bool]] = {}


def _is_lost(name: str, module: ModuleType, file: object) -> bool:
    """Return whether no finder finds this module where it came from."""
    path = tuple(sys.path)
    known = _verdicts.get(name)
    if known is not None and known[0] is module and known[1] == path:
        return known[2]
    verdict = not _can_be_found(name, file)
    _verdicts[name] = (module, path, verdict)
    return verdict


def _can_be_found(name: str, file: object) -> bool:
    if name in sys.builtin_module_names:
        return True
    top, _, rest = name.partition(".")
    if not isinstance(file, str):  # a namespace package, or made by code: by that of its package
        return found_by_worker(top, None) is not None
    if not rest:
        spec = found_by_worker(name, None)
    else:
        parent = sys.modules.get(name.rpartition(".")[0])
        parent_path = getattr(parent, "__path__", None)
        if parent_path is None or found_by_worker(top, None) is None:
            return False
        spec = found_by_worker(name, parent_path)
    return spec is not None and (spec.origin is None or _same_file(spec.origin, file))


def _same_file(one: str, other: str) -> bool:
    return os.path.abspath(one) == os.path.abspath(other)
