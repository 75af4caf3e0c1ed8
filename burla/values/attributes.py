"""Objects that answer for their attributes by code of their own, taken apart without asking them.

Proxies, mocks and records with `__getattr__`, `__getattribute__` or a `__class__` that is not true.
Pickle asks such an object for `__getnewargs__`, and an empty one for `__setstate__`, and gets what
the code makes of that: an error, endless recursion, or an attribute that nobody meant. Here counts
what its class says, as for all special methods of Python.
"""

import copyreg
import importlib
import sys
from types import FunctionType
from typing import Any

_NO = object()
_SLOT_BYTES = 8
KINDS_MAX = 4096

_answers: dict[int, tuple[type, bool]] = {}  # by id: a metaclass may have no hash


def answers_itself(kind: type) -> bool:
    """Return whether instances are asked for attributes in a way of their own."""
    known = _answers.get(id(kind))
    if known is not None:
        return known[1]
    odd = any(_has_own_answers(vars(cls)) for cls in kind.__mro__ if cls is not object)
    if len(_answers) >= KINDS_MAX:
        _answers.clear()
    _answers[id(kind)] = kind, odd
    return odd


def _has_own_answers(attributes: Any) -> bool:
    return (
        "__getattr__" in attributes
        or type(attributes.get("__getattribute__")) is FunctionType
        or "__class__" in attributes
    )


def of_class(kind: type, name: str) -> Any:
    """Return what the class has under a name, unbound; `None` if it has nothing."""
    for cls in kind.__mro__:
        found = vars(cls).get(name, _NO)
        if found is not _NO:
            return found
    return None


def call(obj: Any, kind: type, name: str, *args: Any) -> Any:
    """Call a method of the class, whatever the object says it has."""
    method = of_class(kind, name)
    return method.__get__(obj, kind)(*args)


def dict_of(obj: Any) -> dict[str, Any]:
    """Return the `__dict__` of an object, empty if it has none."""
    try:
        found = object.__getattribute__(obj, "__dict__")
    except AttributeError:
        return {}
    return found if isinstance(found, dict) else {}


def take_apart(obj: Any, kind: type) -> Any:
    """Return what `obj.__reduce_ex__` should, and how the state is set without asking.

    Raises:
        TypeError: it has what Python does not see, as many classes of C have.
    """
    if (wrapper := _wrapper_of(kind)) is not None:
        return _take_wrapper_apart(obj, kind, wrapper)
    if of_class(kind, "__reduce_ex__") is not _OBJECTS_REDUCE_EX:
        return with_setter(call(obj, kind, "__reduce_ex__", 5))
    if of_class(kind, "__reduce__") is not _OBJECTS_REDUCE:
        return with_setter(call(obj, kind, "__reduce__"))
    args, options = _new_arguments(obj, kind)
    items = iter(list.__iter__(obj)) if issubclass(kind, list) else None
    pairs = iter(dict.items(obj)) if issubclass(kind, dict) else None
    if args is None and items is None and pairs is None:
        _check_size(kind)
    made_of = (kind, args or (), options)
    return make_object, made_of, _state_of(obj, kind), items, pairs, set_state


def _wrapper_of(kind: type) -> str | None:
    """Return which class of wrapt this is; they refuse to be pickled, being proxies of anything."""
    for cls in kind.__mro__:
        if cls.__name__ in _WRAPPERS and str(cls.__module__).partition(".")[0] in _WRAPT:
            return cls.__name__
    return None


_WRAPT = ("wrapt", "_wrappers")  # the second: what its C part calls itself
_WRAPPERS = ("BoundFunctionWrapper", "FunctionWrapper", "ObjectProxy")


def _take_wrapper_apart(obj: Any, kind: type, wrapper: str) -> Any:
    module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", "")
    found: Any = sys.modules.get(module) if isinstance(module, str) else None
    for part in name.split(".") if module != "__main__" else ():
        found = getattr(found, part, None)
    if found is obj:
        return name  # of a module that the other side has, too
    public: Any = wrapper if getattr(sys.modules.get("wrapt"), wrapper, None) is kind else kind
    if wrapper == "ObjectProxy":
        return make_wrapper, (public, obj.__wrapped__)
    if wrapper == "FunctionWrapper":
        how = obj.__wrapped__, obj._self_wrapper, obj._self_enabled
        return make_wrapper, (public, *how)
    return bind, (obj._self_parent, obj._self_instance)


def with_setter(reduced: Any) -> Any:
    """Return what a class's own `__reduce__` gave, so that the object is never asked."""
    if not isinstance(reduced, tuple) or len(reduced) < 2:
        return reduced
    make, args, *rest = reduced
    if make is copyreg.__newobj__:  # type: ignore[attr-defined]
        make, args = make_object, (args[0], args[1:], {})
    rest += [None] * (4 - len(rest))
    return make, args, *rest[:3], rest[3] or set_state


_OBJECTS_REDUCE_EX = vars(object)["__reduce_ex__"]
_OBJECTS_REDUCE = vars(object)["__reduce__"]
_OBJECTS_GETSTATE = vars(object).get("__getstate__")


def _new_arguments(obj: Any, kind: type) -> tuple[Any, dict[str, Any]]:
    if of_class(kind, "__getnewargs_ex__") is not None:
        args, options = call(obj, kind, "__getnewargs_ex__")
        return tuple(args), dict(options)
    if of_class(kind, "__getnewargs__") is not None:
        return tuple(call(obj, kind, "__getnewargs__")), {}
    return None, {}


def _check_size(kind: type) -> None:
    """Do as `object.__reduce_ex__` does: what is larger than its attributes holds more."""
    size = object.__basicsize__ + _SLOT_BYTES * len(_slots_of(kind))
    size += _SLOT_BYTES * (bool(kind.__dictoffset__) + bool(kind.__weakrefoffset__))
    if kind.__itemsize__ or kind.__basicsize__ > size:
        raise TypeError(f"cannot pickle {kind.__name__!r} object")


def _slots_of(kind: type) -> list[str]:
    names: list[str] = copyreg._slotnames(kind)  # type: ignore[attr-defined]
    return names


def _state_of(obj: Any, kind: type) -> Any:
    if of_class(kind, "__getstate__") is not _OBJECTS_GETSTATE:
        return call(obj, kind, "__getstate__")
    slots = {}
    for name in _slots_of(kind):
        try:
            slots[name] = of_class(kind, name).__get__(obj, kind)
        except AttributeError:  # never set
            continue
    attributes = dict_of(obj) or None
    return (attributes, slots) if slots else attributes


# --- named in pickles ----------------------------------------------------------------------------


class LateDescriptor:
    """Stands in a class for what is known only when the class is there."""

    def __init__(self) -> None:
        self._descriptor: Any = None

    def means(self, descriptor: Any) -> None:
        """Say what it stands for."""
        self._descriptor = descriptor

    def __get__(self, obj: Any, kind: Any) -> Any:
        return self._descriptor.__get__(obj, kind)


def make_object(kind: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Return a new object without the state."""
    return kind.__new__(kind, *args, **options)


def make_wrapper(kind: Any, *args: Any) -> Any:
    """Return a proxy; the class is one of wrapt if it is a name."""
    of = getattr(importlib.import_module("wrapt"), kind) if isinstance(kind, str) else kind
    return of(*args)


def bind(function: Any, instance: Any) -> Any:
    """Return a method of an instance."""
    return function.__get__(instance, type(instance))


def set_state(obj: Any, state: Any) -> None:
    """Give an object its state, without asking it what it has."""
    kind = type(obj)
    if of_class(kind, "__setstate__") is not None:
        call(obj, kind, "__setstate__", state)
        return
    pair = isinstance(state, tuple) and len(state) == 2
    attributes, slots = state if pair else (state, None)
    if attributes:
        dict_of(obj).update(attributes)
    for name, value in (slots or {}).items():
        member = of_class(kind, name)
        if hasattr(type(member), "__set__"):
            member.__set__(obj, value)
        else:
            dict_of(obj)[name] = value
