"""How the function may be called: checks of all arguments, and the tuple rule.

Pure: everything here is decided before anything is started or sent.
"""

import inspect
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from types import FunctionType
from typing import Any

from burla.values.payloads import name_of as name_of
from burla.values.payloads import short_repr


def check_arguments(
    function_: object,
    inputs: object,
    func_cpu: object = 1,
    func_ram: object = None,
    max_parallelism: object = None,
    generator: object = False,
    spinner: object = True,
    unpack: object = None,
    grow: object = None,
) -> None:
    """Check the arguments of `remote_parallel_map`.

    Raises:
        TypeError: one is of a wrong kind; the text names it, its value and what is expected.
        ValueError: one has an impossible value.
    """
    _check_function(function_)
    _check_inputs(inputs)
    _check_count("func_cpu", func_cpu, "CPUs for each call")
    if func_ram is not None:
        _check_ram(func_ram)
    if max_parallelism is not None:
        _check_count("max_parallelism", max_parallelism, "calls at the same time, or None")
    for name, value in (("generator", generator), ("spinner", spinner)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {short_repr(value)}")
    for name, value in (("unpack", unpack), ("grow", grow)):
        if value is not None and not isinstance(value, bool):
            raise TypeError(f"{name} must be True, False or None, not {short_repr(value)}")


def _check_function(function: object) -> None:
    if type(function) is FunctionType and not vars(function):  # the usual one, in less time
        if not function.__code__.co_flags & _NOT_CALLED:
            return
    elif not callable(function):
        raise TypeError(f"function_ must be callable, not {short_repr(function)}")
    name = name_of(function)
    for target in (function, type(function).__call__):
        if inspect.iscoroutinefunction(target):
            raise TypeError(
                f"function_ {name!r} is an async function, calling it does not run it;"
                " pass a function that does, such as: lambda x: asyncio.run(your_function(x))"
            )
        if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
            raise TypeError(
                f"function_ {name!r} is a generator function, calling it does not run it;"
                " pass a function that returns a list, such as: lambda x: list(your_function(x))"
            )


_NOT_CALLED = (  # a call of such a function does not run it
    inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ITERABLE_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
)


def _check_inputs(inputs: object) -> None:
    kind = type(inputs)
    if kind in (list, tuple, range):
        return
    if hasattr(kind, "__iter__") or hasattr(kind, "__getitem__"):
        if getattr(inputs, "ndim", None) == 0 and getattr(kind, "__module__", "") == "numpy":
            raise TypeError(
                f"inputs must be iterable, not {short_repr(inputs)}, an array without dimensions"
            )
        if getattr(kind, "__iter__", True) is not None and not isinstance(inputs, type):
            return
    shown = short_repr(inputs)
    if hasattr(kind, "__aiter__"):
        raise TypeError(f"inputs must be iterable, not {shown}, which only `async for` can walk")
    if callable(inputs):
        raise TypeError(
            f"inputs must be iterable, not {shown}; is it a function that returns them? Call it"
        )
    raise TypeError(f"inputs must be iterable, such as a list, not {shown}")


def _check_count(name: str, value: Any, what: str) -> None:
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        raise TypeError(f"{name} must be a whole number of {what}, not {short_repr(value)}")
    if operator.index(value) < 1:
        raise ValueError(f"{name} must be at least 1, not {short_repr(value)}: {what}")


def _check_ram(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"func_ram must be a number of GB for each call, or None, not {short_repr(value)}"
        )
    if not 0 < float(value) < float("inf"):
        raise ValueError(f"func_ram must be more than 0 GB, not {short_repr(value)}")


# --- the tuple rule ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shape:
    """How inputs become arguments of the function."""

    unpack: bool  # True: call function(*input)
    check: "Arity | None"  # refuses inputs that the function cannot take; None: it takes any


@dataclass(frozen=True, slots=True)
class Arity:
    """How many positional arguments the function takes; refuses inputs that don't fit."""

    name: str
    low: int
    high: int | None  # None: any number
    tuples_only: bool  # False: unpack=True was asked for, then anything iterable is unpacked

    def __call__(self, inputs: Sequence[Any], start: int) -> None:
        """Check inputs, of which the first has index `start`.

        Raises:
            TypeError: the function cannot take one; the text names its index.
        """
        if set(map(type, inputs)) == {tuple} and all(map(self._fits, set(map(len, inputs)))):
            return
        for index, value in enumerate(inputs, start):
            self._check_one(value, index)

    def _fits(self, count: int) -> bool:
        return self.low <= count and (self.high is None or count <= self.high)

    def _check_one(self, value: Any, index: int) -> None:
        takes = f"{self.name} takes {self._takes()}"
        if not isinstance(value, tuple) and (self.tuples_only or not hasattr(value, "__iter__")):
            raise TypeError(
                f"input {index} = {short_repr(value)}: {takes},"
                " so each input must be a tuple of them"
            )
        try:
            count = len(value)
        except TypeError:  # an iterator: only the call will tell
            return
        if not self._fits(count):
            raise TypeError(
                f"input {index} = {short_repr(value)}: {takes}, but the input has {count}"
            )

    def _takes(self) -> str:
        if self.low == self.high:
            return f"{self.low} positional argument{'s' if self.low != 1 else ''}"
        if self.high is None:
            return f"at least {self.low} positional arguments"
        return f"{self.low} to {self.high} positional arguments"


def decide_unpack(function: Callable[..., Any], unpack: bool | None = None) -> Shape:
    """Return how each input is handed to the function.

    An input that is a tuple is unpacked if the function cannot be called with a single argument,
    else passed whole, also where no signature can be read; `unpack` overrides.

    Raises:
        TypeError: no input could ever be handed to it that way.
    """
    counts = _positional(function)
    if counts is None:
        return Shape(bool(unpack), Arity(name_of(function), 0, None, False) if unpack else None)
    low, high = counts
    takes_one = low <= 1 and (high is None or high >= 1)
    if takes_one and not unpack:
        return _WHOLE
    name = name_of(function)
    if unpack is not False:
        return Shape(True, Arity(name, low, high, tuples_only=unpack is None))
    takes = Arity(name, low, high, True)._takes()
    raise TypeError(f"unpack=False, but {name} takes {takes} and cannot be called with one")


_WHOLE = Shape(unpack=False, check=None)


def _positional(function: Callable[..., Any]) -> tuple[int, int | None] | None:
    """Return the least and greatest number of positional arguments; None: it cannot be known."""
    if type(function) is FunctionType and not vars(function):  # the usual one, in less time
        code = function.__code__
        if not code.co_kwonlyargcount:
            high = code.co_argcount
            low = high - len(function.__defaults__ or ())
            return low, None if code.co_flags & inspect.CO_VARARGS else high
    try:
        parameters = inspect.signature(function).parameters.values()
    except Exception:  # builtins without a signature raise ValueError, odd objects anything
        return None
    low = high = 0
    any_number = False
    for one in parameters:
        required = one.default is one.empty
        if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD):
            low, high = low + required, high + 1
        elif one.kind is one.VAR_POSITIONAL:
            any_number = True
        elif one.kind is one.KEYWORD_ONLY and required:
            name = name_of(function)
            raise TypeError(
                f"function_ {name!r} needs the keyword argument {one.name!r}, which no input can"
                f" give; pass functools.partial({name}, {one.name}=...)"
            )
    return low, None if any_number else high
