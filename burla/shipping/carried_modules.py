"""Which modules only the import hooks of this process find, and their code as it is now.

A worker has the usual finders and those of installed packages, not what a script put into
`sys.meta_path` or `sys.path_hooks`: modules from a database, rewritten or decrypted by a loader.
"""

import importlib.machinery
import importlib.util
import sys
import zipimport
from collections.abc import Iterable
from types import CodeType, ModuleType
from typing import Any

from burla.values.carried import carry_module
from burla.values.code import PerCode
from burla.values.imports import codes_in, imports_of

MODULES_MAX = 4096  # carried with one function


def has_hooks() -> bool:
    """Return whether this process may find modules that a worker cannot find."""
    finders = all(_is_everywhere(one) or _module_of(one) in _NO_HOOKS for one in sys.meta_path)
    return not (finders and all(_module_of(one).startswith(_HOOKS) for one in sys.path_hooks))


_HOOKS = ("zipimport", "_frozen_importlib_external", "__editable__")
_NO_HOOKS = ("_pytest.assertion.rewrite", "six")  # their modules are found in the usual way, too
_FINDERS = (
    importlib.machinery.BuiltinImporter,
    importlib.machinery.FrozenImporter,
    importlib.machinery.PathFinder,
)
_LOADERS = (
    *_FINDERS,
    importlib.machinery.SourceFileLoader,
    importlib.machinery.SourcelessFileLoader,
    importlib.machinery.ExtensionFileLoader,
    importlib.machinery.NamespaceLoader,
    zipimport.zipimporter,
)


def _is_everywhere(finder: Any) -> bool:
    """Return whether a worker has this finder: the usual ones, and those of installed packages."""
    kind = finder if isinstance(finder, type) else type(finder)
    return kind in _FINDERS or _module_of(finder).startswith(_INSTALLED)


_INSTALLED = (
    "__editable__",
    "_distutils_hack",
    "_virtualenv",
)  # put there by files in site-packages


def _module_of(hook: Any) -> str:
    kind = hook if hasattr(hook, "__qualname__") else type(hook)
    return str(getattr(kind, "__module__", ""))


def is_usual_loader(loader: Any) -> bool:
    """Return whether a worker has loaders of this kind."""
    kind = loader if isinstance(loader, type) else type(loader)
    return kind in _LOADERS


def found_by_worker(name: str, path: Any) -> importlib.machinery.ModuleSpec | None:
    """Return what a worker of this machine finds; None: nothing."""
    spec = _ask([one for one in sys.meta_path if _is_everywhere(one)], name, path)
    if spec is None or spec.loader is None or is_usual_loader(spec.loader):
        return spec
    return None


def _ask(finders: Iterable[Any], name: str, path: Any) -> importlib.machinery.ModuleSpec | None:
    for finder in finders:
        find_spec = getattr(finder, "find_spec", None)
        try:
            spec: importlib.machinery.ModuleSpec | None = find_spec and find_spec(name, path)
        except Exception:  # a foreign finder that fails is not the caller's fault
            continue
        if spec is not None:
            return spec
    return None


_carried: dict[str, tuple[ModuleType | None, bytes | None, CodeType | None]] = {}


def can_be_carried(name: str) -> bool:
    """Return whether only a hook of this process finds a module, and gives its code."""
    return _carry(name)[0] is not None


def carried_modules(loaded: Iterable[str], codes: Iterable[CodeType]) -> dict[str, bytes]:
    """Return all modules that have to be carried, with those that they and `codes` may import.

    Args:
        loaded: names of loaded ones.
        codes: of functions that travel.
    """
    carried: dict[str, bytes] = {}
    todo = list(loaded)
    tops = {name.partition(".")[0] for name in todo}
    for code in codes:
        imports = _imports_of(code)
        todo += imports.names | imports.texts
        for constant in (constant for one in codes_in(code) for constant in one.co_consts):
            if isinstance(constant, str) and constant.partition(".")[0] in tops:
                todo.append(constant)  # `import_module("...")`
    seen: set[str] = set()
    while todo and len(carried) < MODULES_MAX:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        packed, its_code = _carry(name)
        if packed is None or its_code is None:
            continue
        carried[name] = packed
        parent = name.rpartition(".")[0]
        todo += imports_of(its_code, name).names | imports_of(its_code, parent).names | {parent}
    return carried


_imports_of = PerCode(lambda code: imports_of(code, "")).of


def _carry(name: str) -> tuple[bytes | None, CodeType | None]:
    module = sys.modules.get(name)
    known = _carried.get(name)
    if known is not None and known[0] is module is not None:
        return known[1:]
    packed, code = _look(name) if name else (None, None)
    if module is not None:
        _carried[name] = module, packed, code
    return packed, code


def _look(name: str) -> tuple[bytes | None, CodeType | None]:
    top = name.rpartition(".")[0]
    path = getattr(sys.modules.get(top), "__path__", []) if top else None
    spec = _ask(sys.meta_path, name, path)
    loader: Any = None if spec is None else spec.loader
    if spec is None or loader is None or _is_found_alike(spec, path):
        return None, None
    try:
        source = loader.get_source(name) if hasattr(loader, "get_source") else None
        code = loader.get_code(name) if hasattr(loader, "get_code") else None
        origin = str(spec.origin or f"<{name}>")
        if code is None and source is not None:
            code = compile(source, origin, "exec", dont_inherit=True)
    except Exception:  # it loads in ways of its own
        return None, None
    if not isinstance(code, CodeType):
        return None, None
    is_package = spec.submodule_search_locations is not None
    return carry_module(code, source, origin, spec.has_location, is_package), code


def _is_found_alike(spec: importlib.machinery.ModuleSpec, path: Any) -> bool:
    """Return whether a worker finds this very thing."""
    if not is_usual_loader(spec.loader):
        return False
    found = found_by_worker(spec.name, path)
    return found is not None and found.origin == spec.origin
