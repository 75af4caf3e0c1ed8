"""Words for what went wrong with a value: which part cannot be pickled, what an input looked like.

Everything here runs code of the caller's objects (`repr`, `__reduce__`), so everything is guarded.
"""

import functools
import reprlib
from collections.abc import Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

from .frames import Pieces
from .pickling import FunctionPickler, Sent

REPR_CHARS_MAX = 80  # one line of a terminal
TEXT_CHARS_MAX = 10_000  # of a foreign error message inside ours
DEPTH_MAX = 12  # steps of a path to the part that cannot be pickled
PARTS_MAX = 2_000  # parts looked at in search of it


def short_repr(obj: object) -> str:
    """Return `repr(obj)` in one line of at most REPR_CHARS_MAX, whatever the object does."""
    try:
        text = _bounded_repr.repr(obj)
    except Exception as error:
        text = f"<{type_name(obj)} object; its repr raised {type(error).__name__}>"
    text = " ".join(text.split())
    return text if len(text) <= REPR_CHARS_MAX else text[: REPR_CHARS_MAX - 1] + "…"


_bounded_repr = reprlib.Repr()  # goes into builtin containers only as far as it shows them
_bounded_repr.maxlist = _bounded_repr.maxtuple = _bounded_repr.maxset = 12
_bounded_repr.maxdict = _bounded_repr.maxfrozenset = _bounded_repr.maxdeque = 12
_bounded_repr.maxarray = 12
_bounded_repr.maxstring = _bounded_repr.maxlong = _bounded_repr.maxother = 2 * REPR_CHARS_MAX
_bounded_repr.maxlevel = 4


def type_name(obj: object) -> str:
    """Return the name of an object's type, with its module unless that says nothing."""
    cls = type(obj)
    module = getattr(cls, "__module__", "builtins")
    name = getattr(cls, "__qualname__", str(cls))
    return str(name) if module in ("builtins", "__main__") else f"{module}.{name}"


def name_of(function: object) -> str:
    """Return what to call a callable: partials, bound methods and instances have names too."""
    if type(function) is functools.partial:
        return f"partial({name_of(function.func)})"
    try:
        name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None)
    except Exception:  # its own `__getattr__` raises what it likes
        name = None
    return name if isinstance(name, str) else type(function).__qualname__


def describe_error(error: BaseException) -> str:
    """Return `Type: text` of an exception, bounded, whatever its `__str__` does."""
    return f"{type_name(error)}: {text_of(error)}".removesuffix(": ")


def text_of(error: BaseException) -> str:
    """Return `str(error)`, bounded, whatever it does."""
    try:
        text = str(error)
    except Exception as problem:
        text = f"<its text cannot be had: {type(problem).__name__}>"
    return text if len(text) <= TEXT_CHARS_MAX else text[:TEXT_CHARS_MAX] + "…"


def why_not_picklable(
    obj: object, name: str, error: BaseException, by_value: frozenset[str] = frozenset()
) -> str:
    """Return which part of `obj` cannot be pickled, by its path from `name`, and why."""
    if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
        return f"{name} is nested too deeply"
    path, what, part, because = _find(obj, name, by_value)
    because = because or error
    if not path:
        return describe_error(because)
    prefix = f"{what}: " if what else ""
    return f"{prefix}{path} is a {type_name(part)} ({describe_error(because)})"


def _find(obj: object, name: str, by_value: frozenset[str]) -> tuple[str, str, object, Any]:
    """Walk down to the smallest part that cannot be pickled by itself."""
    because = _problem(obj, by_value)
    if because is None:  # only the whole fails
        return "", "", obj, None
    path, what = name, ""
    seen = {id(obj)}
    looked_at = 0
    for _ in range(DEPTH_MAX):
        for step, words, part in _parts(obj):
            looked_at += 1
            if looked_at > PARTS_MAX:
                return path, what, obj, because
            if id(part) in seen:
                continue
            problem = _problem(part, by_value)
            if problem is not None:
                seen.add(id(part))
                obj, because = part, problem
                path, what = step.format(path), what or words
                break
        else:
            return path, what, obj, because
    return path, what, obj, because


def _problem(obj: object, by_value: frozenset[str]) -> Exception | None:
    sent = Sent(by_value)
    pieces = Pieces()
    try:
        FunctionPickler(pieces, pieces.hold, sent).dump(obj)
    except Exception as error:
        return error
    return None


def _parts(obj: Any) -> Iterator[tuple[str, str, object]]:
    """Yield `(path with a {} for the whole, words, part)` of what a pickle of `obj` contains."""
    try:
        yield from _parts_unguarded(obj)
    except Exception:  # an object that cannot be looked into has no parts to name
        return


def _parts_unguarded(obj: Any) -> Iterator[tuple[str, str, object]]:
    if isinstance(obj, FunctionType):
        yield from _parts_of_function(obj)
    elif isinstance(obj, MethodType):
        yield "{}.__self__", "the object of the bound method", obj.__self__
        yield "{}.__func__", "", obj.__func__
    elif isinstance(obj, functools.partial):
        yield "{}.func", "the function of the partial", obj.func
        for i, value in enumerate(obj.args):
            yield f"{{}}.args[{i}]", f"argument {i} of the partial", value
        for key, value in obj.keywords.items():
            yield f"{{}}.keywords[{_key(key)}]", f"argument {key!r} of the partial", value
    elif isinstance(obj, dict):
        for key, value in obj.items():
            yield f"{{}}[{_key(key)}]", "", value
            yield f"<key {_key(key)} of {{}}>", "", key
    elif isinstance(obj, list | tuple):
        for i, value in enumerate(obj):
            yield f"{{}}[{i}]", "", value
    elif isinstance(obj, set | frozenset):
        for value in obj:
            yield "<an element of {}>", "", value
    elif isinstance(obj, type):
        for key, value in vars(obj).items():
            if key not in ("__dict__", "__weakref__"):
                yield f"{{}}.{key}", "", getattr(value, "__func__", value)
    elif not isinstance(obj, ModuleType):
        yield from _parts_of_instance(obj)


def _parts_of_function(function: FunctionType) -> Iterator[tuple[str, str, object]]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            value = cell.cell_contents
        except ValueError:  # still empty
            continue
        yield f"{{}}.__closure__[{name!r}]", f"closure variable {name!r}", value
    for name in _global_names(code):
        if name in function.__globals__:
            yield (
                f"{{}}.__globals__[{name!r}]",
                f"global variable {name!r}",
                function.__globals__[name],
            )
    for i, value in enumerate(function.__defaults__ or ()):
        yield f"{{}}.__defaults__[{i}]", f"default value {i}", value
    for name, value in (function.__kwdefaults__ or {}).items():
        yield f"{{}}.__kwdefaults__[{name!r}]", f"default value of {name!r}", value
    for name, value in vars(function).items():
        yield f"{{}}.{name}", f"attribute {name!r}", value
    for name, value in function.__annotations__.items():
        yield f"{{}}.__annotations__[{name!r}]", f"annotation of {name!r}", value


def _global_names(code: Any) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, type(code)):
            yield from _global_names(constant)


def _parts_of_instance(obj: Any) -> Iterator[tuple[str, str, object]]:
    for name, value in getattr(obj, "__dict__", {}).items():
        yield f"{{}}.{name}", "", value
    for cls in type(obj).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(obj, name):
                yield f"{{}}.{name}", "", getattr(obj, name)
    yield "type({})", "its class", type(obj)


def _key(key: object) -> str:
    return short_repr(key).replace("{", "{{").replace("}", "}}")
