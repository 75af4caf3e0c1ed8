"""Explained asserts in a worker: what pytest rewrote for the caller is rewritten there, too.

pytest rewrites the asserts of test modules, of `conftest.py` and of plugins when they are imported.
A function that travels by value takes rewritten code along; what a worker imports does not.
"""

import ast
import importlib
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType
from typing import Any

REWRITER = "_pytest.assertion.rewrite"


class _Rewritten(SourceFileLoader):
    """Loads a module as pytest does, and neither reads nor writes Python's store of bytecode."""

    def get_code(self, fullname: str) -> CodeType | None:
        return code_of_rewritten(self.get_data(self.path), self.path)


class _Finder:
    """Finds the modules that are to be rewritten; all others are left to whoever comes next."""

    def __init__(self, files: Iterable[str]) -> None:
        self._files = frozenset(files)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.origin not in self._files:
            return None
        spec.loader = _Rewritten(name, spec.origin)
        spec.cached = None
        return spec


def code_of_rewritten(source: bytes, file: str) -> CodeType:
    """Return the code of a module as pytest makes it, or as it is where there is no pytest."""
    tree = ast.parse(source, file)
    # not named as a dependency: the caller has it, and so has a node that can run this
    with suppress(ModuleNotFoundError):
        importlib.import_module(REWRITER).rewrite_asserts(tree, source, file)
    code: CodeType = compile(tree, file, "exec", dont_inherit=True)
    return code


_rewritten: frozenset[str] = frozenset()


def is_rewritten(file: str) -> bool:
    """Return whether this process, a worker, is to rewrite this file of the caller's."""
    return file in _rewritten


def rewrite_on_import(files: Sequence[str]) -> None:
    """Have this process, a worker, rewrite these files when it imports them, and no others."""
    global _rewritten
    _rewritten = frozenset(files)
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
    if files:
        sys.meta_path.insert(0, _Finder(files))


def rewritten_files() -> tuple[str, ...]:
    """Return the files of the modules that pytest has rewritten in this process."""
    if REWRITER not in sys.modules:
        return ()
    found = []
    for module in list(sys.modules.values()):
        spec: Any = getattr(module, "__spec__", None)
        loader = getattr(spec, "loader", None)
        if type(loader).__module__ == REWRITER and spec.origin is not None:
            found.append(str(spec.origin))
    return tuple(sorted(found))
