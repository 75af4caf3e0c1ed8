"""Makes the surroundings of a worker those of the caller, before and after its function is loaded.

A worker that goes on with a next job of the same surroundings has them set anew: what the last
function changed is not there any more.
"""

import os
import re
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from burla.values.surroundings import (
    LOCALE_CATEGORIES,
    WORKER_PID,
    Decimals,
    Filter,
    Pattern,
    Surroundings,
    Variables,
    environ_bytes,
    unpack,
)

from . import limits
from .records import Logs, show_at_caller

_Filters = list[tuple[str, Any, Any, Any, int]]
_QUIET: _Filters = [("ignore", None, Warning, None, 0)]


class Applied:
    """What was done to this process for the caller's sake."""

    def __init__(self) -> None:
        self._base: dict[bytes, bytes] | None = None  # variables before the first job
        self._all: dict[bytes, bytes] = {}  # variables as they were set last,
        self._ours: dict[str, str] = {}  # and those of them that are ours
        self._packed = b""
        self._wanted: Surroundings | None = None
        self._filters: _Filters = []
        self._logs = Logs()

    def begin(self, packed: bytes, variables: Mapping[str, str], func_cpu: int) -> None:
        """Apply surroundings before a function is loaded.

        Args:
            packed: of the caller; empty: nothing is known.
            variables: ours, which every worker of the job has.
            func_cpu: threads that numeric libraries may use, unless a variable says otherwise.
        """
        if self._base is None:
            self._base = dict(environ_bytes())
        if packed != self._packed:
            self._packed = packed
            self._wanted = unpack(packed) if packed else None
            self._filters = _filters_of(self._wanted.filters) if self._wanted else []
            self._all = {}
        wanted = self._wanted
        if (
            self._ours.keys() == variables.keys() and environ_bytes() == self._all
        ):  # as it mostly is
            self._set_ours(variables)
        else:
            theirs = wanted.variables if wanted else Variables(False, {}, [])
            self._all = _all_variables(self._base, theirs, variables)
            limits.limit_threads(func_cpu, self._all)
            self._ours = dict(variables)
            _set_variables(self._all)
        if wanted is None:
            return
        _set_interpreter(wanted)
        if wanted.decimals is not None or "decimal" in sys.modules:
            _set_decimals(wanted.decimals)
        if wanted.locale or "locale" in sys.modules:
            _set_locale(wanted.locale)
        if wanted.authkey:
            _set_authkey(wanted.authkey)
        self._logs.apply(wanted.logging, wanted.token)
        _set_filters(_QUIET)  # the caller has seen what the imports have to say

    def _set_ours(self, variables: Mapping[str, str]) -> None:
        for name, value in variables.items():
            if self._ours.get(name) != value:
                os.environ[name] = self._ours[name] = value
                self._all[os.fsencode(name)] = os.fsencode(value)

    def finish(self) -> None:
        """Apply what the imports of the function may have changed."""
        if self._wanted is not None:
            self._logs.apply(self._wanted.logging, self._wanted.token)
            _set_filters(self._filters)
            show_at_caller(self._wanted.token)


# --- environment variables ---


def _all_variables(
    base: Mapping[bytes, bytes], theirs: Variables, ours: Mapping[str, str]
) -> dict[bytes, bytes]:
    wanted = theirs.values.copy() if theirs.are_all else {**base, **theirs.values}
    for name in theirs.unset:
        wanted.pop(name, None)
    for key, value in ours.items():
        wanted[os.fsencode(key)] = os.fsencode(value)
    wanted[WORKER_PID.encode()] = b"%d" % os.getpid()
    return wanted


def _set_variables(wanted: Mapping[bytes, bytes]) -> None:
    """Change those that differ, in C's environment as well."""
    now = environ_bytes()
    if now == wanted:
        return
    zone = now.get(b"TZ")
    for name in now.keys() - wanted.keys():
        del os.environb[name]
    for name, value in wanted.items():
        if now.get(name) != value:
            os.environb[name] = value
    if zone != wanted.get(b"TZ"):
        time.tzset()


# --- the interpreter ---


def _set_interpreter(wanted: Surroundings) -> None:
    if sys.getrecursionlimit() != wanted.recursion_limit:
        with suppress(RecursionError):  # lower than we are deep
            sys.setrecursionlimit(wanted.recursion_limit)
    if sys.get_int_max_str_digits() != wanted.int_digits:
        sys.set_int_max_str_digits(wanted.int_digits)


def _set_decimals(wanted: Decimals | None) -> None:
    import decimal  # few functions need it

    decimal.setcontext(context := decimal.Context())
    if wanted is None:
        return
    context.prec, context.rounding = wanted.precision, wanted.rounding
    context.Emin, context.Emax = wanted.e_min, wanted.e_max
    context.capitals, context.clamp = wanted.capitals, wanted.clamp
    for signal in context.traps:
        context.traps[signal] = signal.__name__ in wanted.traps


_last_locale: tuple[Mapping[str, str], str] = {}, ""  # what was wanted, and what came of it


def _set_locale(wanted: Mapping[str, str]) -> None:
    import locale  # as above

    global _last_locale
    if _last_locale == (wanted, locale.setlocale(locale.LC_ALL)):
        return
    for name in LOCALE_CATEGORIES:
        category, value = getattr(locale, name), wanted.get(name, "C")
        if locale.setlocale(category) != value:
            with suppress(locale.Error):  # this machine does not have it
                locale.setlocale(category, value)
    _last_locale = wanted, locale.setlocale(locale.LC_ALL)


def _set_authkey(key: bytes) -> None:
    import multiprocessing  # as above

    multiprocessing.current_process().authkey = key


# --- warning filters ---


def _set_filters(wanted: _Filters) -> None:
    if warnings.filters != wanted:
        warnings.resetwarnings()  # C code holds on to the list, and must hear of it
        warnings.filters[:] = wanted  # type: ignore[index]  # it is a list


def _filters_of(filters: list[Filter]) -> _Filters:
    return [
        (one.action, _pattern_of(one.message), _category_of(*one.category),
         _pattern_of(one.module), one.line)
        for one in filters
    ]  # fmt: skip


def _pattern_of(pattern: Pattern | None) -> Any:
    if pattern is None or pattern.flags is None:
        return None if pattern is None else pattern.text
    return re.compile(pattern.text, pattern.flags)


class _Named(type):
    """The class of stand-ins for categories whose modules nobody has imported yet."""

    place: tuple[str, str]

    def __subclasscheck__(cls, category: type) -> bool:
        return any((one.__module__, one.__qualname__) == cls.place for one in category.__mro__)


def _category_of(module: str, name: str) -> type:
    if module == "builtins":
        found = getattr(sys.modules["builtins"], name, None)
        if isinstance(found, type):
            return found
    return _Named(name.rpartition(".")[2], (Warning,), {"place": (module, name)})
