"""The surroundings of a call, looked at in the caller; values/surroundings.py says what they are.

A loop of maps looks again and again, and packs only what has changed. May be called by several
threads at once.
"""

import decimal
import locale
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, NamedTuple

from burla.values import records
from burla.values.surroundings import (
    LOCALE_CATEGORIES,
    Decimals,
    Filter,
    LoggerState,
    Logging,
    Pattern,
    Surroundings,
    Variables,
    environ_bytes,
    pack,
)

from .variables import Chosen, variables

TOKEN = records.new_token()  # of this process


def packed_surroundings(chosen: Chosen, *, private: bool) -> bytes:
    """Return the surroundings of a call as they stand now.

    Args:
        chosen: environment variables that the call names.
        private: its workers are on this machine, started by this process.
    """
    look = _Look(
        variables=_variables(chosen, private),
        logging=_logging(),
        filters=tuple(warnings.filters),
        recursion_limit=sys.getrecursionlimit(),
        int_digits=sys.get_int_max_str_digits(),
        decimals=_look_at_decimals(),
        locale=locale.setlocale(locale.LC_ALL),
        authkey=_authkey() if private else b"",
    )
    known = _packed.get(private)
    if known is not None and known[0] == look:
        return known[1]
    packed = pack(_describe(look))
    _packed[private] = look, packed
    return packed


class _Look(NamedTuple):
    """All that is looked at, by the quickest way to compare it."""

    variables: Variables
    logging: Logging
    filters: tuple[Any, ...]
    recursion_limit: int
    int_digits: int
    decimals: tuple[Any, ...]
    locale: str
    authkey: bytes


_packed: dict[bool, tuple[_Look, bytes]] = {}  # the last of private clusters, and of others


def _describe(look: _Look) -> Surroundings:
    return Surroundings(
        token=TOKEN,
        variables=look.variables,
        logging=look.logging,
        filters=list(_filters(look.filters)),
        recursion_limit=look.recursion_limit,
        int_digits=look.int_digits,
        decimals=_decimals(look.decimals),
        locale=_locale(look.locale),
        authkey=look.authkey,
    )


# --- environment variables ---

_last_variables: dict[bool, tuple[dict[bytes, bytes], Chosen, Variables]] = {}


def _variables(chosen: Chosen, private: bool) -> Variables:
    here = environ_bytes()
    known = _last_variables.get(private)
    if known is not None and known[0] == here and known[1] == chosen:
        return known[2]
    now = dict(here)
    told = variables(chosen, private=private)
    _last_variables[private] = now, chosen, told
    return told


# --- logging ---

_state_of = attrgetter("level", "propagate", "disabled", "handlers")
_State = tuple[int, bool, bool, list[logging.Handler]]


class _Loggers(NamedTuple):
    """The loggers of this process at one time, and what is said of them."""

    disabled: int
    known: tuple[object, ...]  # all entries of logging's table
    loggers: list[logging.Logger]  # those that are loggers, and the root
    states: list[_State]
    handlers: list[logging.Handler]
    levels: list[int]  # of handlers
    told: Logging


_loggers: _Loggers | None = None
_DEFAULT: _State = (logging.NOTSET, True, False, [])


def _logging() -> Logging:
    """Return how logging is configured; hundreds of loggers are looked at in microseconds."""
    global _loggers
    manager = logging.root.manager
    known, last = tuple(manager.loggerDict.values()), _loggers
    if last is not None and last.known == known:
        loggers = last.loggers
        same = (
            last.disabled == manager.disable
            and last.states == list(map(_state_of, loggers))
            and last.levels == [handler.level for handler in last.handlers]
        )
        if same:
            return last.told
    else:
        loggers = [one for one in known if isinstance(one, logging.Logger)]
        loggers.insert(0, logging.root)
    states = [(*_state_of(one)[:3], list(one.handlers)) for one in loggers]
    handlers = [handler for state in states for handler in state[3]]
    told = Logging(
        disabled=manager.disable,
        loggers=[
            LoggerState("" if one is logging.root else one.name, *state[:3], _handled(state[3]))
            for one, state in zip(loggers, states, strict=True)
            if one is logging.root or state != _DEFAULT
        ],
    )
    levels = [handler.level for handler in handlers]
    _loggers = _Loggers(manager.disable, known, loggers, states, handlers, levels, told)
    return told


def _handled(handlers: list[logging.Handler]) -> int | None:
    """Return the level from which on some handler wants a record."""
    levels = [one.level for one in handlers if not isinstance(one, logging.NullHandler)]
    return min(levels, default=None)


# --- warnings ---


def _filters(filters: tuple[Any, ...]) -> Iterator[Filter]:
    for action, message, category, module, line in filters:
        place = (category.__module__, category.__qualname__)
        yield Filter(action, _pattern(message), place, _pattern(module), line)


def _pattern(pattern: Any) -> Pattern | None:
    if pattern is None or isinstance(pattern, str):
        return None if pattern is None else Pattern(pattern, None)
    return Pattern(pattern.pattern, pattern.flags)


# --- the interpreter and the C library ---


def _look_at_decimals() -> tuple[Any, ...]:
    # as it is pickled: to walk its table of traps takes ten times as long
    *limits, _, traps = _reduce(decimal.getcontext())[1]
    return (*limits, *traps)


_reduce: Callable[[decimal.Context], Any] = decimal.Context.__reduce__
_PLAIN = (28, decimal.ROUND_HALF_EVEN, -999999, 999999, 1, 0)
_PLAIN_TRAPS = ["InvalidOperation", "DivisionByZero", "Overflow"]


def _decimals(look: tuple[Any, ...]) -> Decimals | None:
    limits = look[:6]
    traps = [signal.__name__ for signal in look[6:]]
    if limits == _PLAIN and set(traps) == set(_PLAIN_TRAPS):
        return None
    return Decimals._make([*limits, traps])


def _locale(composed: str) -> dict[str, str]:
    """Return by category what is not as in every new process.

    Args:
        composed: "C", or "LC_CTYPE=C.UTF-8;LC_NUMERIC=de_DE.UTF-8;...", as the C library has it.
    """
    if "=" in composed:
        parts = dict(part.split("=", 1) for part in composed.split(";"))
        names = {name: parts.get(name, "C") for name in LOCALE_CATEGORIES}
    else:
        names = dict.fromkeys(LOCALE_CATEGORIES, composed)
    return {category: name for category, name in names.items() if name != "C"}


def _authkey() -> bytes:
    """Return the key of `multiprocessing`, if something of it is loaded that asks for keys."""
    loaded = sys.modules
    if "multiprocessing.connection" not in loaded:  # managers need it, too
        return b""
    return bytes(loaded["multiprocessing.process"].current_process().authkey)
