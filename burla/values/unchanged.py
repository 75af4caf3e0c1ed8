"""Whether a function is, with all that its pickle is made of, what it was at the last map.

A loop of maps sends one function again and again, and of all that it does for a small map this
takes longest. So what the pickle is made of is looked at each time, object by object, and is only
pickled again if one of them is another. That can be said of functions that refer to numbers, texts,
modules and functions like themselves; one that refers to what may change unseen, as a list is, is
pickled each time.
"""

import copyreg
import operator
import sys
from collections.abc import Sequence
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

from . import cloudpickle_parts as parts
from .code import PerCode
from .leaves import ATOMS
from .parts import FunctionPieces
from .pickling import Sent
from .text_names import evaluates_text

LENGTH_MAX = 4096  # of a text that is kept for this
PICKLE_MAX = 64 << 10
FUNCTIONS_MAX = 64  # that are looked at

_PLAIN = frozenset((int, float, complex, bool, str, bytes, list, tuple, dict, set, object))
_MISSING = object()

Look = list[object]  # the same objects again: the same pickle


class _Kept(NamedTuple):
    look: Look
    pickle: tuple[bytes, ...]
    codes: tuple[CodeType, ...]  # for `Sent`


_kept: _Kept | None = None  # of the function that was pickled last


def pickled_before(look: Look, sent: Sent) -> FunctionPieces | None:
    """Return the pickle of the function of which `look` was taken; None: another one was the last.

    `sent` takes note of what goes with it, as it does when a function is pickled.
    """
    kept = _kept  # another thread may replace it
    if kept is None or not _are_same(kept.look, look):
        return None
    sent.codes += kept.codes
    return FunctionPieces.of(kept.pickle)


def keep(look: Look, again: Look | None, pieces: FunctionPieces, sent: Sent) -> None:
    """Keep a pickle for the next map; `look`, `again`: taken before and after it was made."""
    global _kept
    is_small = not pieces.buffers and sum(map(len, pieces.data)) <= PICKLE_MAX
    if is_small and not sent.classes and again is not None and _are_same(look, again):
        _kept = _Kept(look, tuple(map(bytes, pieces.data)), tuple(sent.codes))


def look_at(function: object, classes: Sequence[type], sent: Sent) -> Look | None:
    """Return all that the pickle of a function is made of; None: some of it may change unseen.

    Args:
        function: what is called.
        classes: that go along.
        sent: of the job.
    """
    is_known = sent.modules is not None and not parts.modules_by_value
    if type(function) is not FunctionType or not is_known or not _PLAIN.issuperset(classes):
        return None
    walk = _Walk(sent.by_value)
    walk.found += (sent.modules, _registered(), *classes)
    if not walk.takes(function) or (sent.carried is not None and sent.carried(walk.codes)):
        return None
    return walk.found


def _are_same(some: Look, others: Look) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))


_last_registered: tuple[int] = (-1,)


def _registered() -> object:
    """Return the same object as long as nothing more is registered with `copyreg`."""
    global _last_registered
    if _last_registered[0] != len(copyreg.dispatch_table):
        _last_registered = (len(copyreg.dispatch_table),)
    return _last_registered


class _Walk:
    """One look at a function and at all functions that it refers to."""

    def __init__(self, by_value: frozenset[str]) -> None:
        self.found: Look = []
        self.codes: list[CodeType] = []  # of functions that go by value
        self._by_value = by_value  # names of modules that travel
        self._functions: list[FunctionType] = []
        self._cells: dict[int, int] = {}  # number by address: functions may share one

    def takes(self, function: FunctionType) -> bool:
        """Find all; return False if something may change unseen."""
        functions = self._functions
        functions.append(function)
        # the list grows meanwhile
        return all(len(functions) <= FUNCTIONS_MAX and self._takes_parts(one) for one in functions)

    def _takes_parts(self, function: FunctionType) -> bool:
        name, module = function.__qualname__, function.__module__
        home = sys.modules.get(module) if type(module) is str else None
        if type(home) is not ModuleType or module in self._by_value:
            return False
        space = vars(home)
        is_public = space.get(name) is function
        self.found += (name, module, is_public)
        if module != "__main__":
            return is_public  # goes by that name
        if function.__globals__ is not space or vars(function) or function.__kwdefaults__:
            return False
        code, annotations = function.__code__, function.__annotations__
        names = _globals_of(code)
        if names is None:
            return False
        self.codes.append(code)
        self.found += (code, function.__name__, function.__defaults__, len(annotations))
        cells = function.__closure__ or ()
        self.found += [self._cells.setdefault(id(cell), len(self._cells)) for cell in cells]
        try:
            values = [cell.cell_contents for cell in cells]
        except ValueError:  # one is empty
            return False
        values += [function.__doc__, *(function.__defaults__ or ()), *annotations]
        values += [*annotations.values(), *[space.get(one, _MISSING) for one in names]]
        return all(map(self._takes_value, values))

    def _takes_value(self, value: Any) -> bool:
        kind = type(value)
        if kind is FunctionType:
            if value not in self._functions:
                self._functions.append(value)
            self.found.append(self._functions.index(value))
            return True
        self.found.append(value)
        if kind in (str, bytes, tuple) and len(value) > LENGTH_MAX:
            return False
        if kind is tuple:
            return ATOMS.issuperset(map(type, value)) and all(map(self._takes_value, value))
        if kind is ModuleType:  # goes by its name
            name = vars(value).get("__name__")
            self.found.append(name)
            travels = type(name) is not str or name == "__main__" or name in self._by_value
            return not travels and sys.modules.get(name) is value
        return kind in ATOMS or value is _MISSING or (kind is type and value in _PLAIN)


# What the pickle of a function says of its globals, beside those that its code names.
_BASE = ("__package__", "__name__", "__path__", "__file__")


def _find_globals(code: CodeType) -> tuple[str, ...] | None:
    return None if evaluates_text(code) else (*_BASE, *parts.extract_code_globals(code))


_globals_of = PerCode(_find_globals).of  # None: it may look up any, by a text
