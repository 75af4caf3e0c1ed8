"""How the function may be called: checks of all arguments, and the tuple rule.

Pure: everything here is decided before anything is started or sent.
"""

import inspect
import operator
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from types import FunctionType
from typing import Any

from msgspec import Struct

from burla.values.calls import call
from burla.values.leaves import is_sliceable_array
from burla.values.payloads import name_of as name_of, short_repr


def check_arguments(
    function_: object,
    inputs: object,
    func_cpu: object = 1,
    func_ram: object = None,
    max_parallelism: object = None,
    spinner: object = True,
    unpack: object = None,
    grow: object = None,
) -> None:
    """Check the arguments of `remote_parallel_map`.

    Raises:
        TypeError: one is of a wrong kind; the text names it, its value and what is expected.
        ValueError: one has an impossible value.
    """
    check_function(function_)
    _check_inputs(inputs)
    _check_count("func_cpu", func_cpu, "CPUs for each call")
    if func_ram is not None:
        _check_ram(func_ram)
    if max_parallelism is not None:
        _check_count("max_parallelism", max_parallelism, "calls at the same time, or None")
    if not isinstance(spinner, bool):
        raise TypeError(f"spinner must be True or False, not {short_repr(spinner)}")
    for name, value in (("unpack", unpack), ("grow", grow)):
        if value is not None and not isinstance(value, bool):
            raise TypeError(f"{name} must be True, False or None, not {short_repr(value)}")


def check_function(function: object) -> None:
    """Refuse what cannot be called, or would not run by a call.

    Raises:
        TypeError: the text names it.
    """
    if type(function) is FunctionType and not vars(function):  # the usual one, in less time
        if not function.__code__.co_flags & _NOT_CALLED:
            return
    elif not callable(function):
        raise TypeError(f"function_ must be callable, not {short_repr(function)}")
    name = name_of(function)
    for target in (function, type(function).__call__):
        try:
            is_async, is_generator = (
                inspect.iscoroutinefunction(target),
                inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target),
            )
        except Exception:  # its `__class__` says function, and it has no code
            continue
        if is_async:
            raise TypeError(
                f"function_ {name!r} is an async function, calling it does not run it;"
                " pass a function that does, such as: lambda x: asyncio.run(your_function(x))"
            )
        if is_generator:
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
    if type(value) is int and value >= 1:  # as nearly always
        return
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


class Shape(Struct, frozen=True):
    """How inputs become arguments of the function."""

    unpack: bool | None  # True: call function(*input); None: if the input is a tuple
    check: "Arity | None"  # refuses inputs that the function cannot take; None: it takes any


@dataclass(frozen=True, slots=True)
class Arity:
    """How many positional arguments the function takes; refuses inputs that don't fit."""

    name: str
    low: int
    high: int | None  # None: any number
    tuples_only: bool  # False: unpack=True was asked for, then anything iterable is unpacked
    others_whole: bool = False  # what is no tuple is passed whole, and need not be checked
    refusal: str = ""  # of all that is no `burla.call`
    function: Callable[..., Any] | None = field(default=None, compare=False)

    def __call__(self, inputs: Sequence[Any], start: int) -> None:
        """Check inputs, of which the first has index `start`.

        Raises:
            TypeError: the function cannot take one; the text names its index.
        """
        kinds = set(map(type, inputs))
        if call in kinds:
            for index, value in enumerate(inputs, start):
                if type(value) is call:
                    self._check_call(value, index)
                else:
                    self((value,), index)
            return
        if self.refusal:
            raise TypeError(self.refusal)
        if kinds == {tuple} and all(map(self._fits, set(map(len, inputs)))):
            self._say_unpacked()
            return
        if self.others_whole and tuple not in kinds:
            return
        for index, value in enumerate(inputs, start):
            if type(value) is tuple or not self.others_whole:
                self._check_one(value, index)
        self._say_unpacked()

    def _check_call(self, value: call, index: int) -> None:
        signature = _signature_of(self.function) if self.function is not None else None
        if signature is None:
            return
        try:
            signature.bind(*value.args, **value.kwargs)
        except TypeError as error:
            raise TypeError(
                f"input {index} = {short_repr(value)}: {self.name} cannot be called so: {error}"
            ) from None

    def _say_unpacked(self) -> None:
        """Say it once of a function that could take a tuple as one argument, too."""
        if self.others_whole and self.name not in _said:
            _said.add(self.name)
            print(
                f"burla: {self.name} takes {self._takes()}: inputs that are tuples are unpacked"
                " into them (unpack=False passes each tuple as one argument)",
                file=sys.stderr,
            )

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
            whole = "; unpack=False passes tuples as one argument" if self.others_whole else ""
            raise TypeError(
                f"input {index} = {short_repr(value)}: {takes}, but the input has {count}{whole}"
            )

    def _takes(self) -> str:
        if self.low == self.high:
            return f"{self.low} positional argument{'s' if self.low != 1 else ''}"
        if self.high is None:
            at_least = f"at least {self.low}" if self.low else "any number of"
            return f"{at_least} positional argument{'s' if self.low != 1 else ''}"
        return f"{self.low} to {self.high} positional arguments"


def decide_unpack(
    function: Callable[..., Any], unpack: bool | None = None, inputs: object = None
) -> Shape:
    """Return how each input is handed to the function.

    An input that is a tuple is unpacked if the function takes more than one argument, as it is
    called (what a decorator wraps does not count); a function of one argument gets it whole, and so
    does one whose signature cannot be read. `unpack` overrides.

    Args:
        function: what is called.
        unpack: what the caller asked for; None: nothing.
        inputs: what the caller passed, if it is known.

    Raises:
        TypeError: no input could ever be handed to it that way.
    """
    try:
        counts = _positional(function)
    except _KeywordNeededError as needed:
        return Shape(False, Arity(name_of(function), 0, None, False, False, str(needed), function))
    if counts is None:
        any_number = Arity(name_of(function), 0, None, False, function=function)
        return Shape(bool(unpack), any_number if unpack else None)
    low, high = counts
    takes_one = low <= 1 and (high is None or high >= 1)
    takes_more = high is None or high > 1
    if unpack is False and takes_one:
        return _WHOLE
    if unpack is None and takes_one and (not takes_more or _has_no_tuples(inputs)):
        return _WHOLE
    name = name_of(function)
    if unpack is None and takes_one:
        arity = Arity(name, low, high, tuples_only=True, others_whole=True, function=function)
        return Shape(None, arity)
    if unpack is not False:
        return Shape(True, Arity(name, low, high, tuples_only=unpack is None, function=function))
    takes = Arity(name, low, high, True)._takes()
    refusal = f"unpack=False, but {name} takes {takes} and cannot be called with one"
    if type(inputs) in (list, tuple) and call in set(map(type, inputs)):  # type: ignore[call-overload]
        return Shape(False, Arity(name, low, high, True, False, refusal, function))
    raise TypeError(refusal)


_WHOLE = Shape(unpack=False, check=None)
_said: set[str] = set()  # functions of which it was said that tuples are unpacked


def _has_no_tuples(inputs: object) -> bool:
    """Return whether it is known, and soon told, that no input is a tuple."""
    if type(inputs) is list or type(inputs) is tuple:
        return tuple not in set(map(type, inputs))
    return type(inputs) is range or is_sliceable_array(inputs)


def _positional(function: Callable[..., Any]) -> tuple[int, int | None] | None:
    """Return the least and greatest number of positional arguments; None: it cannot be known."""
    if type(function) is FunctionType and not vars(function):  # the usual one, in less time
        code = function.__code__
        if not code.co_kwonlyargcount:
            high = code.co_argcount
            low = high - len(function.__defaults__ or ())
            return low, None if code.co_flags & inspect.CO_VARARGS else high
    signature = _signature(function)
    if signature is None:
        return None
    parameters = signature.parameters.values()
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
            raise _KeywordNeededError(
                f"function_ {name!r} needs the keyword argument {one.name!r}, which no plain input"
                f" can give; pass functools.partial({name}, {one.name}=...), or inputs that are"
                f" burla.call(..., {one.name}=...)"
            )
    return low, None if any_number else high


class _KeywordNeededError(Exception):
    """A function has a keyword argument that must be given; the text says what to do."""


def _signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return the signature of the function that was asked about last, or of another."""
    if _asked[0] is not function:
        _asked[:] = [function, _signature(function)]
    return _asked[1]  # type: ignore[no-any-return]  # what was put there


_asked: list[Any] = [None, None]


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return the signature by which it is called: a decorator may add or drop arguments."""
    if issubclass(type(function), partial) and type(function).__call__ is partial.__call__:
        of: Any = [vars(partial)[name].__get__(function) for name in ("func", "args", "keywords")]
        function = partial(of[0], *of[1], **of[2])  # a subclass may say that it is a function
    for follow_wrapped in (False, True):  # what is written in C may say nothing of itself
        try:
            return inspect.signature(function, follow_wrapped=follow_wrapped)
        except Exception:  # builtins without a signature raise ValueError, odd objects anything
            continue
    return None
