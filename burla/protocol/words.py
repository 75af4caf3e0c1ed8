"""What makes the words in a decoded message printable: made once per type of message. Pure."""

import types
from collections.abc import Callable, Hashable
from functools import cache, partial
from typing import Annotated, Any, Union, get_args, get_origin

from msgspec import Meta, Struct, structs

from .fields import LINES
from .printable import printable

Clean = Callable[[Any], Any]  # value -> the same one, or another with printable words


@cache
def cleaner(kind: Hashable, lines: bool = False) -> Clean | None:
    """Return what makes the words in values of a type printable; None: it has none."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        metas = [meta for meta in arguments[1:] if isinstance(meta, Meta)]
        lines = lines or any((meta.extra or {}).get(LINES) for meta in metas)
        return cleaner(arguments[0], lines)
    if kind is str:
        return partial(printable, lines=lines)
    if isinstance(kind, type) and issubclass(kind, Struct):
        return _of_struct(kind)
    if origin in (Union, types.UnionType):
        cleaners = [c for each in arguments if (c := cleaner(each, lines)) is not None]
        assert len(cleaners) <= 1, f"which of {kind} a value is must be looked at first"
        return partial(_optional, cleaners[0]) if cleaners else None
    if origin is tuple and (clean := cleaner(arguments[0], lines)) is not None:
        return partial(_tuple, clean)
    return None


def _of_struct(kind: type[Struct]) -> Clean | None:
    found = [(f.name, c) for f in structs.fields(kind) if (c := cleaner(f.type)) is not None]
    return partial(_struct, found) if found else None


def _struct(fields: list[tuple[str, Clean]], value: Struct) -> Struct:
    changed = {}
    for name, clean in fields:
        before = getattr(value, name)
        after = clean(before)
        if after is not before:
            changed[name] = after
    return structs.replace(value, **changed) if changed else value


def _tuple(clean: Clean, value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        return value
    cleaned = tuple(map(clean, value))
    is_same = all(after is before for after, before in zip(cleaned, value, strict=True))
    return value if is_same else cleaned


def _optional(clean: Clean, value: Any) -> Any:
    return None if value is None else clean(value)
