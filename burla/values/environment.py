"""The caller's import path, working directory and `__main__`, applied in a worker.

Applied before the function is loaded and after all modules of ours are, because the caller may have
a `worker.py` or a `random.py` beside the script, which then is what the name means.
"""

import functools
import importlib
import math
import os
import sys
import time
from importlib.machinery import FileFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any, TypedDict

import msgpack

from .assertions import rewrite_on_import
from .pickling import serve
from .standard import with_ours

COMPILED_MAX = 256  # modules of which a worker keeps the code,
COMPILED_BYTES_MAX = 256 << 10  # if their source is no longer than this
# A directory that had not changed for so long when it was listed has another time after its next
# change: the coarsest file systems have times of two seconds.
SETTLED_S = 2.5


class Environment(TypedDict):
    """What the caller says about itself; plain data for msgpack."""

    path: list[bytes]  # sys.path, absolute; file names need not be valid UTF-8, so bytes
    directory: bytes | None  # working directory; None: it is gone
    shadowed: list[str]  # modules of the standard library that stand behind others in `path`
    argv: list[bytes]
    main: dict[str, str]  # __file__ and __package__ of __main__, if it has them
    attached: dict[str, bytes]  # what goes along by a name, if it is little: see attachments.py
    memory: bytes | None  # directory in memory that caller and worker share; None: there is none
    rewritten: list[bytes]  # files whose asserts pytest has rewritten
    one_output: bool  # stdout and stderr of the caller are one place
    surroundings: bytes  # values.Surroundings, packed


@functools.lru_cache(maxsize=2)  # a loop of maps says the same again and again
def unpack_environment(packed: bytes) -> Environment:
    """Return what the caller says about itself; not to be changed."""
    environment: Environment = msgpack.unpackb(packed)
    return environment


def apply_environment(environment: Environment) -> None:
    """Make this process, a worker, import what the caller could import.

    Where it works is for the worker to see to: `directory` may not be here.
    """
    path = _path_here(*environment["path"])
    sys.path[:] = [*path, *[entry for entry in sys.path if entry not in path]]
    _look_anew()
    rewrite_on_import(_texts(*environment.get("rewritten", ())))
    for name in environment["shadowed"]:
        sys.modules.pop(name, None)  # who has it keeps it; the function is to get the caller's
    sys.argv[:] = _texts(*environment["argv"])
    serve(dict(environment["main"]))


@functools.lru_cache(maxsize=8)
def _path_here(*entries: bytes) -> tuple[str, ...]:
    return with_ours([os.fsdecode(entry) for entry in entries])


@functools.lru_cache(maxsize=8)
def _texts(*names: bytes) -> tuple[str, ...]:
    return tuple(map(os.fsdecode, names))


_looked_s = 0.0  # when imports last looked anew; 0: never


def _look_anew() -> None:
    """Have imports find what was written since the last job; most directories are as they were.

    A finder lists its directory again when that has another time of change. What that does not tell
    is a change right behind the one before the listing, so only what was quiet then is trusted.
    """
    global _looked_s
    finders, quiet_s = sys.path_importer_cache, _looked_s - SETTLED_S
    settled = {
        path: finder
        for path, finder in list(finders.items())
        if type(finder) is FileFinder
        and path[:1] == "/"  # others mean something else in another working directory
        and getattr(finder, "_path_mtime", math.inf) < quiet_s  # -1: it has listed nothing yet
    }
    for path in settled:
        del finders[path]
    importlib.invalidate_caches()
    finders.update(settled)
    _looked_s = time.time()


def forget_own_modules(kept: frozenset[str]) -> None:
    """Forget the modules that are not installed, so that a next job has the caller's as they are.

    Args:
        kept: names of modules that stay, wherever they come from.
    """
    if sys.modules.keys() <= kept:  # as mostly
        return
    installed = installed_places()
    # All are looked at first: a namespace package looks for the package that it is in.
    places = {name: place_of(sys.modules[name]) for name in sys.modules.keys() - kept}
    for name, place in places.items():
        if place and not place.startswith(installed):
            del sys.modules[name]


def installed_places() -> tuple[str, ...]:
    """Return with what the places of all modules begin that are installed or standard."""
    standard = os.path.dirname(os.__file__)
    packages = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    return tuple(os.path.join(path, "") for path in (standard, *packages))


def compile_once() -> None:
    """Have this process, a worker, compile a module anew only if its source is another.

    The caller's modules are loaded for each job, and Python's own store of bytecode is often
    switched off, as in containers, or lies where nothing can be written.
    """
    setattr(SourceFileLoader, "source_to_code", _source_to_code)  # noqa: B010  # it is a method


_compile = SourceFileLoader.source_to_code
_compiled: dict[str, tuple[bytes, CodeType]] = {}  # source and code by path, oldest first


def _source_to_code(loader: Any, data: Any, path: Any, **options: Any) -> Any:
    """Do as `SourceFileLoader.source_to_code` does, which is asked where there is no bytecode."""
    if options or not isinstance(data, bytes) or len(data) > COMPILED_BYTES_MAX:
        return _compile(loader, data, path, **options)
    known = _compiled.get(path)
    if known is None or known[0] != data:
        _compiled.pop(path, None)
        known = _compiled[path] = data, _compile(loader, data, path)
        if len(_compiled) > COMPILED_MAX:
            del _compiled[next(iter(_compiled))]
    return known[1]


def place_of(module: ModuleType) -> str:
    """Return where a module lies; empty: nowhere, it is built in or was made by code."""
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        return file
    try:
        path = list(getattr(module, "__path__", ()))  # of a namespace package
    except KeyError:  # the package that it is in was taken away, by whom ever
        return ""
    return str(path[0]) if path else ""
