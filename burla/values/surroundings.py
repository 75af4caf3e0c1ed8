"""The caller's surroundings, as they are at the call: one structure of plain data.

What a function finds around it without being handed it: environment variables, logging, warning
filters, limits of the interpreter. `burla/surroundings.py` looks at them in the caller,
`nodelet/worker/surroundings.py` applies them in a worker. It may hold passwords and tokens: it is
never logged, and no text of ours has any of it.
"""

import os
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgpack

WORKER_PID = "BURLA_WORKER_PID"  # set by a worker; says to a process whether it is one

# Not LC_CTYPE: Python sets it by itself, and uses UTF-8 whatever it is.
LOCALE_CATEGORIES = ("LC_NUMERIC", "LC_TIME", "LC_COLLATE", "LC_MONETARY", "LC_MESSAGES")


class Variables(NamedTuple):
    """Environment variables. File names need not be valid UTF-8, so bytes."""

    are_all: bool  # a worker has these and no others; else they change what its machine has
    values: dict[bytes, bytes]
    unset: list[bytes]


class LoggerState(NamedTuple):
    """One logger that is not as `logging` makes them; the name of the root is empty."""

    name: str
    level: int
    propagate: bool
    disabled: bool
    handled: int | None  # from this level on, handlers of the caller want its records; None: none


class Logging(NamedTuple):
    """What the caller has configured of `logging`."""

    disabled: int  # what `logging.disable` said last
    loggers: list[LoggerState]


class Pattern(NamedTuple):
    """A regular expression of a warning filter."""

    text: str
    flags: int | None  # None: it is compared as it is


class Filter(NamedTuple):
    """One of `warnings.filters`."""

    action: str
    message: Pattern | None
    category: tuple[str, str]  # module and qualified name
    module: Pattern | None
    line: int


class Decimals(NamedTuple):
    """The current context of `decimal`."""

    precision: int
    rounding: str
    e_min: int
    e_max: int
    capitals: int
    clamp: int
    traps: list[str]  # names of signals


class Surroundings(NamedTuple):
    """All of it."""

    token: bytes  # what the lines of stderr begin with that hold log records; see records.py
    variables: Variables
    logging: Logging
    filters: list[Filter]
    recursion_limit: int
    int_digits: int  # sys.set_int_max_str_digits
    decimals: Decimals | None  # None: as `decimal` has it
    locale: dict[str, str]  # by category, such as LC_NUMERIC, what is not "C"
    authkey: bytes  # of `multiprocessing`; empty: nothing can need it

    def __repr__(self) -> str:
        return "Surroundings(...)"  # there may be passwords in it


def pack(surroundings: Surroundings) -> bytes:
    """Return the bytes of all of it."""
    data: bytes = msgpack.packb(surroundings, unicode_errors="surrogatepass")
    return data


def unpack(data: bytes) -> Surroundings:
    """Return what `pack` has packed."""
    token, variables, logs, filters, recursion, digits, decimals, locale, key = msgpack.unpackb(
        data, unicode_errors="surrogatepass"
    )
    return Surroundings(
        token=token,
        variables=Variables(*variables),
        logging=Logging(logs[0], [LoggerState(*one) for one in logs[1]]),
        filters=[_filter_of(*one) for one in filters],
        recursion_limit=recursion,
        int_digits=digits,
        decimals=None if decimals is None else Decimals(*decimals),
        locale=locale,
        authkey=key,
    )


def _filter_of(action: str, message: Any, category: Any, module: Any, line: int) -> Filter:
    return Filter(
        action=action,
        message=None if message is None else Pattern(*message),
        category=(category[0], category[1]),
        module=None if module is None else Pattern(*module),
        line=line,
    )


def environ_bytes() -> Mapping[bytes, bytes]:
    """Return the environment variables of this process, not to be changed."""
    data = getattr(os.environ, "_data", None)  # a copy by public ways takes 20 times as long
    if type(data) is dict and sys.platform != "win32":  # there it has texts
        return data
    return {os.fsencode(name): os.fsencode(value) for name, value in os.environ.items()}
