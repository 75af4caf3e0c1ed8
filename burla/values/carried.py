"""Modules that only the caller's import hooks find: their code travels, and loads by its name.

In a worker they are like other own modules: loaded when they are imported, anew for each job.
"""

import importlib.util
import marshal
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any, NamedTuple


class CarriedModule(NamedTuple):
    """What a worker needs to load a module; plain data."""

    code: bytes  # marshalled
    magic: bytes  # of the Python that did that
    source: str | None  # for tracebacks; None: its loader gives none
    origin: str
    has_file: bool  # the origin is where it lies
    is_package: bool


def carry_module(
    code: CodeType, source: str | None, origin: str, has_file: bool, is_package: bool
) -> bytes:
    """Return a module as `load_carried` takes it, ready to be kept."""
    magic = importlib.util.MAGIC_NUMBER
    carried = CarriedModule(marshal.dumps(code), magic, source, origin, has_file, is_package)
    return marshal.dumps(tuple(carried))


def load_carried(modules: dict[str, bytes]) -> None:
    """Let imports find these modules; those of an earlier job are forgotten."""
    drop_carried()
    if modules:
        sys.meta_path.insert(0, _Finder(modules))


class Carrier:
    """Stands in a pickle before all that needs the modules."""

    def __init__(self, modules: dict[str, bytes]) -> None:
        self.modules = modules

    def __reduce__(self) -> Any:
        return load_carried, (self.modules,)


def drop_carried() -> None:
    """Forget all carried modules."""
    for finder in [one for one in sys.meta_path if type(one) is _Finder]:
        sys.meta_path.remove(finder)
        for name in finder.modules:
            sys.modules.pop(name, None)


class _Finder:
    """Finds and loads what was carried.

    It derives from nothing: `importlib.abc` loads half of the standard library.
    """

    def __init__(self, modules: dict[str, bytes]) -> None:
        self.modules = modules

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self.modules:
            return None
        module = self._module(name)
        loader: Any = self
        return ModuleSpec(name, loader, origin=module.origin, is_package=module.is_package)

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to Python."""

    def is_package(self, name: str) -> bool:
        return self._module(name).is_package

    def get_code(self, name: str) -> CodeType:
        module = self._module(name)
        if module.magic == importlib.util.MAGIC_NUMBER:
            code: CodeType = marshal.loads(module.code)
            return code
        if module.source is None:
            raise ImportError(f"the caller's {name!r} was compiled by another Python", name=name)
        compiled: CodeType = compile(module.source, module.origin, "exec", dont_inherit=True)
        return compiled

    def get_source(self, name: str) -> str | None:
        return self._module(name).source

    def exec_module(self, module: ModuleType) -> None:
        carried = self._module(module.__name__)
        if carried.has_file:
            module.__file__ = carried.origin
        exec(self.get_code(module.__name__), vars(module))

    def _module(self, name: str) -> CarriedModule:
        if name not in self.modules:
            raise ImportError(f"{name!r} is not among the caller's modules", name=name)
        return CarriedModule(*marshal.loads(self.modules[name]))
