"""Which modules a piece of code may import, read from its bytecode."""

from collections.abc import Iterator
from opcode import opmap
from types import CodeType
from typing import NamedTuple

# What imports by a text: with these names in it, code may import what it does not name.
DYNAMIC = frozenset(
    (
        *("import_module", "__import__", "find_spec", "iter_modules", "walk_packages"),
        *("run_module", "resolve_name", "import_string", "load_object", "locate"),
    )
)
# What looks into a package that is named by a text.
_READING = frozenset(
    (
        *("files", "read_text", "read_binary", "open_text", "open_binary", "get_data"),
        *("resource_string", "resource_stream", "resource_filename", "PackageLoader"),
    )
)
_IMPORT, _CONST, _EXTENDED = opmap["IMPORT_NAME"], opmap["LOAD_CONST"], opmap["EXTENDED_ARG"]
_SMALL_INT = opmap.get("LOAD_SMALL_INT", -1)  # from 3.14 on


class Imports(NamedTuple):
    """What code may import."""

    names: frozenset[str]  # absolute; some may be of no module: `from a import b` gives a and a.b
    texts: frozenset[str]  # constants that may be names of modules
    is_dynamic: bool  # and what else, only its run would tell
    asks_for_file: bool  # it looks where its own file lies


def imports_of(code: CodeType, package: str) -> Imports:
    """Return all that this code, and what is defined in it, may import.

    Args:
        code: of a function or module.
        package: the one that relative imports start from; empty: none.
    """
    names: set[str] = set()
    texts: set[str] = set()
    is_dynamic = asks_for_file = False
    for one in codes_in(code):
        names.update(_imported(one, package))
        asks_for_file = asks_for_file or "__file__" in one.co_names
        if not DYNAMIC.isdisjoint(one.co_names):
            is_dynamic = True
        elif _READING.isdisjoint(one.co_names):
            continue
        texts.update(_named_in_text(one, package))
    return Imports(frozenset(names), frozenset(texts), is_dynamic, asks_for_file)


NO_IMPORTS = Imports(frozenset(), frozenset(), False, False)


def join_imports(one: Imports, other: Imports) -> Imports:
    """Return what two pieces of code may import together."""
    if not any(one):
        return other
    return Imports(
        one.names | other.names,
        one.texts | other.texts,
        one.is_dynamic or other.is_dynamic,
        one.asks_for_file or other.asks_for_file,
    )


def codes_in(code: CodeType) -> Iterator[CodeType]:
    """Yield the code and all that is defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_in(constant)


def _imported(code: CodeType, package: str) -> Iterator[str]:
    raw = code.co_code  # two bytes an instruction; caches between them are zeros
    if _IMPORT not in raw[::2]:
        return
    level: object = 0
    names: object = None
    upper = 0
    for operation, low in zip(raw[::2], raw[1::2], strict=True):
        argument = upper | low
        upper = argument << 8 if operation == _EXTENDED else 0
        if operation == _CONST:
            level, names = names, code.co_consts[argument]
        elif operation == _SMALL_INT:
            level, names = names, argument
        elif operation == _IMPORT:
            up = level if type(level) is int else 0
            module = absolute(code.co_names[argument], up, package)
            if module is None:
                continue
            yield module
            if isinstance(names, tuple):
                yield from (f"{module}.{name}" for name in names)


def _named_in_text(code: CodeType, package: str) -> Iterator[str]:
    """Yield what may be a name of a module in constant texts."""
    for constant in code.co_consts:
        if isinstance(constant, str) and constant.replace(".", "_").isidentifier():
            name = constant.lstrip(".")
            module = absolute(name, len(constant) - len(name), package)
            if module is not None:
                yield module


def absolute(name: str, level: int, package: str) -> str | None:
    """Return what a relative import means; None: nothing."""
    if not level:
        return name
    parents = package.split(".") if package else []
    if level > len(parents):
        return None
    parents = parents[: len(parents) - level + 1]
    return ".".join([*parents, name] if name else parents)
