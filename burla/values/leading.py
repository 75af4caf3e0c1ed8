"""What a function imports before it does anything else, and importing that ahead of its calls.

Many functions import what they need in their body. Each worker would import it in its first call,
32 of them at once on one machine. What each call is certain to begin with may as well be imported
where the function is loaded: then loading takes long, and the other workers are forked from the
first. It is read from bytecode, up to what may branch, run code that is not known, or change what
an import means, as a variable of the environment does: so nothing is imported that would not have
been, and nothing before what was to come first. The caller's own modules are left to the calls.
"""

import functools
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from opcode import opmap, opname, stack_effect
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from .environment import installed_places, place_of
from .many import Many

IMPORTS_MAX = 256  # statements that go with the job of an executor
DEPTH_MAX = 8  # functions that begin by calling others

_EXTENDED = opmap["EXTENDED_ARG"]
_ATTRIBUTE_SHIFT = 1 if sys.version_info >= (3, 12) else 0  # below it: is it of a method call?
# They change nothing but variables of the function.
_QUIET = frozenset(
    (
        *("RESUME", "NOP", "COPY_FREE_VARS", "MAKE_CELL", "PUSH_NULL", "POP_TOP", "COPY"),
        *("SWAP", "KW_NAMES", "NOT_TAKEN", "LOAD_CONST", "LOAD_CONST_IMMORTAL"),
        *("LOAD_SMALL_INT", "LOAD_ATTR", "LOAD_METHOD", "LOAD_GLOBAL", "LOAD_CLOSURE"),
        *("LOAD_DEREF", "LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_LOAD_FAST"),
        *("LOAD_FAST_BORROW", "LOAD_FAST_BORROW_LOAD_FAST_BORROW", "STORE_FAST"),
        *("STORE_FAST_STORE_FAST", "STORE_FAST_LOAD_FAST", "STORE_DEREF", "STORE_GLOBAL"),
        *("IMPORT_NAME", "IMPORT_FROM", "MAKE_FUNCTION", "SET_FUNCTION_ATTRIBUTE"),
        *("BUILD_TUPLE", "BUILD_LIST", "BUILD_MAP", "BUILD_SET", "BUILD_STRING"),
        *("BUILD_CONST_KEY_MAP", "LIST_EXTEND", "DICT_MERGE", "BINARY_OP", "BINARY_SUBSCR"),
        *("COMPARE_OP", "IS_OP", "UNARY_NEGATIVE", "FORMAT_VALUE", "FORMAT_SIMPLE"),
        *("FORMAT_WITH_SPEC", "CONVERT_VALUE"),
    )
)
# No import means something else after one of these.
_HARMLESS = (
    *(print, len, range, int, float, str, bool, abs, round, min, max, sum, repr, type, isinstance),
    *(time.time, time.perf_counter, time.monotonic, time.process_time, time.time_ns),
    *(time.perf_counter_ns, time.sleep, os.getpid),
)


class Import(NamedTuple):
    """One `import` or `from ... import` statement."""

    module: str
    names: tuple[str, ...]  # imported from it


def import_ahead(function: Any) -> None:
    """Import what each call of the function begins with importing, as far as it is installed.

    What cannot be imported is left to the call, to which its error belongs.
    """
    try:
        imports = leading_imports(function)
    except (IndexError, ValueError):  # no compiler has written this code
        return
    places = installed_places() if imports else ()
    for module, names in imports:
        try:
            if not _is_installed(module.partition(".")[0], places):
                return  # it may change what those after it find
            __import__(module, None, None, names, 0)
        except (Exception, SystemExit):
            return


def _is_installed(name: str, places: tuple[str, ...]) -> bool:
    if (module := sys.modules.get(name)) is not None:
        place = place_of(module)
        return not place or place.startswith(places)
    if (spec := find_spec(name)) is None:
        return False
    folders = spec.submodule_search_locations
    place = (spec.origin if spec.has_location else next(iter(folders or ()), "")) or ""
    return place.startswith(places) or spec.origin in ("built-in", "frozen")


def packages_ahead(functions: Iterable[Any]) -> list[Import]:
    """Return what these begin with importing, each function in turn, of third parties.

    The standard library is not worth it: what has begun with one import is not used for another.
    """
    found: dict[Import, None] = {}
    for function in functions:
        with suppress(Exception):  # no compiler has written this code: its calls go on without
            for one in leading_imports(function):
                if one.module.partition(".")[0] not in sys.stdlib_module_names:
                    found[one] = None
    return list(found)[:IMPORTS_MAX]


# --- what the bytecode says ---


def leading_imports(function: Any) -> list[Import]:
    """Return the imports that each call of a function begins with, in order."""
    imports: list[Import] = []
    _read(function, imports, DEPTH_MAX)
    return imports


def _read(function: Any, imports: list[Import], depth: int) -> None:
    """Add the leading imports of a function, and of the one that it begins with calling."""
    while isinstance(function, functools.partial | MethodType):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    if type(function) is Many:
        imports += [Import(*one) for one in function.leading]
        return
    if type(function) is not FunctionType:
        function = vars(type(function)).get("__call__")
    if type(function) is not FunctionType or not depth:
        return
    code = function.__code__
    stack: list[Any] = []  # what lies there; None: nobody knows
    for name, argument, effect in _operations(code):
        value = None
        if name in ("CALL", "CALL_KW", "CALL_FUNCTION_EX"):
            callee = _callee(stack, name, argument)
            if type(callee) is FunctionType:
                _read(callee, imports, depth - 1)
            if not any(callee is one for one in _HARMLESS):
                return
        elif name not in _QUIET:
            return
        elif name == "IMPORT_NAME":
            level, names = stack[-2:]
            if level != 0:  # relative: of a package, perhaps of the caller's
                return
            imports.append(Import(code.co_names[argument], names or ()))
        elif name == "SWAP":
            stack[-1], stack[-argument] = stack[-argument], stack[-1]
            continue
        else:
            value = _loaded(function, name, argument, stack)
        if effect <= 0:
            del stack[len(stack) + effect :]
            stack[-1:] = [value] * bool(stack)
        else:  # an empty place beside a function that is called is as good as the function
            stack += [value] * effect


def _operations(code: CodeType) -> Iterator[tuple[str, int, int]]:
    """Yield name, argument and effect on the stack of the operations, as they stand."""
    raw = code.co_code
    upper = 0
    for operation, low in zip(raw[::2], raw[1::2], strict=True):
        name = opname[operation]
        argument = upper | low
        upper = argument << 8 if operation == _EXTENDED else 0
        if name in ("CACHE", "EXTENDED_ARG", "PRECALL"):
            continue
        if name == "CALL":  # what it is called with, and one of the two places below
            yield name, argument, -argument - 1
        elif name not in opmap:
            return
        else:
            yield name, argument, _effect(operation, argument)


def _effect(operation: int, argument: int) -> int:
    try:
        return stack_effect(operation, argument)
    except ValueError:  # it takes no argument, which older Pythons insist on
        return stack_effect(operation)


def _callee(stack: list[Any], name: str, argument: int) -> Any:
    """Return what is called, if that is known: it lies in one of the two places below."""
    if name == "CALL_FUNCTION_EX":
        places = stack[-4:-1]
    elif name == "CALL_KW":  # their names lie above
        places = stack[-argument - 3 : -argument - 1]
    else:
        places = stack[-argument - 2 : len(stack) - argument]
    return next((place for place in reversed(places) if place is not None), None)


def _loaded(function: FunctionType, name: str, argument: int, stack: list[Any]) -> Any:
    """Return what an operation puts onto the stack, if that is known."""
    code = function.__code__
    match name:
        case "LOAD_CONST" | "LOAD_CONST_IMMORTAL":
            return code.co_consts[argument]
        case "LOAD_SMALL_INT":
            return argument
        case "LOAD_GLOBAL":
            wanted = code.co_names[argument >> 1]
            builtins = function.__builtins__
            return function.__globals__.get(wanted, builtins.get(wanted))
        case "LOAD_DEREF":
            free = len(code.co_freevars)
            cells = [one for one in code.co_cellvars if one not in code.co_varnames]
            at = argument - len(code.co_varnames) - len(cells)
            return _content(function, at) if 0 <= at < free else None
        case "LOAD_ATTR" | "LOAD_METHOD" if type(stack[-1]) is ModuleType:
            shift = _ATTRIBUTE_SHIFT if name == "LOAD_ATTR" else 0
            return vars(stack[-1]).get(code.co_names[argument >> shift])
        case _:
            return None


def _content(function: FunctionType, at: int) -> Any:
    try:
        return (function.__closure__ or ())[at].cell_contents
    except (IndexError, ValueError):  # it is empty
        return None
