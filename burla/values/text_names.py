"""Which globals a function names only in text: `eval("a + LIMIT")`, `df.query("a > @LIMIT")`, SQL.

cloudpickle sends with a function those globals that its code names. What evaluates text looks into
the function's globals by itself. Where code uses something of that kind, the names in its strings
count, too.
"""

import re
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

_EVALUATES = frozenset(  # names of functions and methods that look names up by text
    ("eval", "exec", "globals", "vars", "query", "sql", "execute", "evaluate", "get_type_hints")
)
_BY_ANY_NAME = frozenset(("eval", "exec", "globals", "vars"))  # the text may be made while it runs
_NAME = re.compile(r"[^\W\d]\w*")
TEXT_CHARS_MAX = 1 << 20  # of one string; a longer one is data


def evaluates_text(code: CodeType) -> bool:
    """Return whether code may look names up by text."""
    return not _used_in(code)[1].isdisjoint(_EVALUATES)


def named_in_text(function: FunctionType) -> list[str]:
    """Return the globals of `function` that its strings name, if it evaluates any; sorted."""
    codes, used = _used_in(function.__code__)
    if used.isdisjoint(_EVALUATES):
        return []
    texts = [text for code in codes for const in code.co_consts for text in _texts_in(const)]
    texts += _annotations_of(function)
    known = function.__globals__
    for name in used & known.keys():
        texts += _annotations_of(known[name])
    found = {name for text in texts for name in _NAME.findall(text[:TEXT_CHARS_MAX])}
    if not used.isdisjoint(_BY_ANY_NAME):
        found |= _definitions_in(known)
    return sorted(name for name in found - used if name in known and not _is_dunder(name))


def _used_in(code: CodeType) -> tuple[list[CodeType], set[str]]:
    """Return code with all that is in it, and the names that it uses."""
    codes = [code]
    used: set[str] = set()
    for one in codes:  # also those that are found meanwhile
        codes += [const for const in one.co_consts if type(const) is CodeType]
        used.update(one.co_names)
    return codes, used


def _texts_in(const: object) -> Iterator[str]:
    if isinstance(const, str):
        yield const
    elif isinstance(const, tuple | frozenset):
        for one in const:
            yield from _texts_in(one)


def _annotations_of(obj: Any) -> list[str]:
    if not isinstance(obj, type | FunctionType):
        return []
    annotations = vars(obj).get("__annotations__") if isinstance(obj, type) else obj.__annotations__
    return [text for text in (annotations or {}).values() if isinstance(text, str)]


def _definitions_in(known: dict[str, Any]) -> set[str]:
    """Return the names of the functions and classes that the module itself defines."""
    here = known.get("__name__")
    return {
        name
        for name, value in list(known.items())
        if isinstance(value, type | FunctionType) and value.__module__ == here
    }


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")
