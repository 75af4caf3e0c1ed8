"""Objects of which there is one, found by its name: sentinels, `NewType`s, type parameters.

`x is MISSING` must be true in a worker, too. So what pickles itself as a name, and what has nothing
but its identity and is a global of some module, travels as that global, whatever module it is.
"""

import copyreg
import importlib
import sys
import typing
from collections.abc import Callable, Collection
from types import FunctionType
from typing import Any

from .attributes import answers_itself, dict_of, take_apart

Reduced = tuple[Callable[..., Any], tuple[Any, ...], Any]  # what makes it, of what, and its state


def pickles_itself(obj: Any, kind: type) -> str | tuple[Any, ...] | None:
    """Return what its `__reduce__` gives, if that may be a name; None: it is not asked."""
    reduce, reduce_ex = kind.__reduce__, kind.__reduce_ex__
    if type(reduce) is FunctionType or type(reduce_ex) is FunctionType or kind in _TYPING:
        own: Any = reduce_ex
        reduced: str | tuple[Any, ...]
        reduced = take_apart(obj, kind) if answers_itself(kind) else own(obj, 5)
        return reduced
    return None


def is_only_itself(obj: Any, kind: type, odd: bool) -> bool:
    """Return whether the object has nothing but its identity, as far as pickling knows.

    Args:
        obj: any object.
        kind: its type.
        odd: `answers_itself(kind)`.
    """
    ways: tuple[Any, ...] = (kind.__reduce_ex__, kind.__reduce__)
    if ways != (object.__reduce_ex__, object.__reduce__):
        return False
    if dict_of(obj) if odd else getattr(obj, "__dict__", None):
        return False
    try:
        return not (take_apart(obj, kind) if odd else object.__reduce_ex__(obj, 2))[2]
    except TypeError:  # it holds what Python does not see: a lock, a ContextVar
        return False


def global_name(obj: Any, kind: type, modules: Collection[str]) -> tuple[str, str] | None:
    """Return the module and name of the global that `obj` is; None: it is none.

    Args:
        obj: any object but a bare `object()`, for which there is `bare_objects`.
        kind: its type; the module of the type is looked at first.
        modules: names of those that are looked at besides.
    """
    for module in (kind.__module__, *modules):
        for name, value in _globals_of(module):
            if value is obj:
                return module, name
    return None


def bare_objects() -> dict[int, tuple[object, str, str]]:
    """Return the globals of all modules that are an `object()`, by id: those with their names."""
    return {
        id(value): (value, module, name)
        for module in list(sys.modules)
        for name, value in _globals_of(module)
        if type(value) is object
    }


def _globals_of(module: str) -> list[tuple[str, Any]]:
    return list(getattr(sys.modules.get(module), "__dict__", {}).items())


def parts_of(obj: Any, kind: type) -> Reduced:
    """Return how to make an object like this one where its module is not."""
    if kind is typing.NewType:
        return typing.NewType, (obj.__name__, obj.__supertype__), None
    if kind in _TYPING:
        return _make_parameter, (kind.__name__, obj.__name__, _options_of(obj)), None
    return copyreg.__newobj__, (kind,), obj.__getstate__()  # type: ignore[attr-defined]


_TYPING = frozenset((typing.ParamSpec, typing.TypeVarTuple))


def _options_of(parameter: Any) -> dict[str, Any]:
    options = {
        "bound": getattr(parameter, "__bound__", None),
        "covariant": getattr(parameter, "__covariant__", False),
        "contravariant": getattr(parameter, "__contravariant__", False),
    }
    if getattr(parameter, "has_default", lambda: False)():
        options["default"] = parameter.__default__
    return {name: value for name, value in options.items() if value}


def _make_parameter(kind: str, name: str, options: dict[str, Any]) -> Any:
    return getattr(typing, kind)(name, **options)


def set_state(obj: Any, state: Any) -> None:
    """Give an object that `parts_of` took apart its state."""
    if (own := getattr(obj, "__setstate__", None)) is not None:
        own(state)
        return
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    if attributes:
        vars(obj).update(attributes)
    for name, value in (slots or {}).items():
        object.__setattr__(obj, name, value)


_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE of CPython's object.h


def home_of(cls: type) -> str | None:
    """Return the module that has a class whose `__module__` names one that has not; None: others.

    pytest's `Skipped` calls itself a builtin, for a shorter name in a report. The functions of a
    class, or of what it derives from, know better where they are from.
    """
    if not cls.__flags__ & _HEAP_TYPE:  # static, of C: has no functions
        return None
    name = cls.__qualname__
    if getattr(sys.modules.get(cls.__module__), name.partition(".")[0], None) is not None:
        return None
    for base in cls.__mro__[:-1]:
        for value in list(vars(base).values()):
            module = value.__globals__.get("__name__") if type(value) is FunctionType else None
            if vars(sys.modules.get(str(module), object)).get(name) is cls:
                return str(module)
    return None


def find_class(module: str, name: str) -> Any:
    """Return the class that `home_of` found."""
    return getattr(importlib.import_module(module), name)
