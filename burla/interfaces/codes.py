"""Functions and arguments <-> inputs of a job of many functions: see `values/many.py`."""

import pickle
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from burla.arguments import check_function
from burla.shipping.modules import new_sent
from burla.shipping.packages import names_in
from burla.values.explain import name_of, why_not_picklable
from burla.values.frames import Pieces
from burla.values.leaves import ATOMS
from burla.values.many import Packed
from burla.values.parts import INLINE_BYTES_MAX
from burla.values.payloads import short_repr, take_apart_function
from burla.values.pickling import InputPickler, Sent

KEPT_MAX = 256  # functions whose pickles are kept
KEPT_BYTES_MAX = 64 << 10  # of one of them; what is bigger, or has buffers, is its owner's to keep
SCANNED_MAX = 64 << 10  # bytes of the pickle of arguments, that are looked through for names
FRESH_S = 0.001  # for so long what a function refers to is not looked at again, but for its names


@dataclass(slots=True)
class Code:
    """A function as it travels."""

    data: bytes  # its pickle
    buffers: list[Any]  # that belong to it; with them it is not kept by workers
    sent: Sent  # what went with it
    name: str
    function: Callable[..., Any]  # kept, so that its id stays its own
    names: tuple[Any, ...] | None = None  # what its globals and cells were; None: it went by a name
    until_s: float = 0.0  # of that
    modules: frozenset[str] | None = None  # that its pickle refers to; None: not looked for yet


@dataclass(slots=True)
class Call:
    """One call as it waits to be sent."""

    code: Code
    input: Any  # a tuple of atoms, or a `Packed`

    def shown(self) -> str:
        """Return it in words, for errors."""
        given = self.input
        if type(given) is tuple and given[0] is not None:
            text = short_repr(given[1:])
            text = f"({text[1:-1].removesuffix(',')})" if text.endswith(")") else text
        else:
            text = "(…)"
        return f"{self.code.name}{text}"


class Codes:
    """The functions that one executor was given lately. One thread at a time."""

    def __init__(self) -> None:
        """Know none."""
        self._known: OrderedDict[int, Code] = OrderedDict()

    def of(self, function: Callable[..., Any]) -> Code:
        """Return a function as it travels, as it is now.

        Raises:
            TypeError: it cannot be pickled; the text names the part by its path.
        """
        known = self._known.get(id(function))
        if known is not None and known.function is function:
            if known.names is None:
                return known
            if time.monotonic() < known.until_s and _is_same(known.names, _names_of(function)):
                return known
        made, is_told = _take_apart(function)
        if is_told and not made.buffers and len(made.data) <= KEPT_BYTES_MAX:
            self._known[id(function)] = made
            self._known.move_to_end(id(function))
            if len(self._known) > KEPT_MAX:
                self._known.popitem(last=False)
        return made


def _take_apart(function: Callable[..., Any]) -> tuple[Code, bool]:
    """Return it, and whether it can be told later that it is still the same."""
    check_function(function)
    sent = new_sent()
    pieces = take_apart_function(function, sent=sent)
    data = b"".join(pieces.written())
    code = Code(data, list(pieces.buffers), sent, name_of(function), function)
    if not (sent.codes or sent.classes or sent.carried):
        return code, _is_by_name(function)
    if type(function) is not FunctionType:  # a class, or what has a state: nothing tells
        return code, False
    code.names = _names_of(function)
    code.until_s = time.monotonic() + FRESH_S
    return code, True


def _is_by_name(function: object) -> bool:
    """Return whether what is not sent by value is a name, with no object that could change."""
    if type(function) is BuiltinFunctionType:  # also a method of an object, as `{}.get`
        return isinstance(function.__self__, ModuleType | type)
    return type(function) in (FunctionType, type)


def _names_of(function: Any) -> tuple[Any, ...]:
    """Return what a function refers to by its names, to be compared by identity."""
    found = function.__globals__
    cells = function.__closure__ or ()
    return (
        *(function.__code__, function.__defaults__, function.__kwdefaults__),
        *map(found.get, function.__code__.co_names),
        *(_content(cell) for cell in cells),
    )


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None


def _is_same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def pack(code: Code, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """Return a call with these arguments as they are now; big buffers are not copied.

    Raises:
        TypeError: an argument cannot be pickled; the text names the part by its path.
    """
    is_small = not code.buffers and len(code.data) < INLINE_BYTES_MAX
    if not kwargs and is_small and ATOMS.issuperset(map(type, args)):
        return Call(code, (code.data, *args))
    pieces = Pieces()
    pickler: Any = InputPickler(pieces, pieces.hold, code.sent)
    try:
        pickler.dump((args, kwargs))
    except Exception as error:
        by_value = code.sent.by_value
        what = {f"argument {at}": value for at, value in enumerate(args)}
        what |= {f"argument {name!r}": value for name, value in kwargs.items()}
        for name, value in what.items():
            if (why := _why_not(value, name, by_value)) is not None:
                raise TypeError(f"the call of {code.name} cannot be sent: {why}") from error
        raise TypeError(f"the call of {code.name} cannot be sent: {error}") from error
    data = b"".join(pieces.written())
    definitions = pickle.dumps(pickler.definitions, 5) if pickler.definitions else b""
    if is_small and not pieces.buffers:
        return Call(code, (None, code.data, data, definitions))
    count = len(code.buffers)
    if not count and not is_small:  # workers do not keep what is big
        return Call(code, Packed(code.data, 0, data, definitions, pieces.buffers))
    return Call(code, Packed(code.data, count, data, definitions, [*code.buffers, *pieces.buffers]))


def modules_of(call: Call) -> frozenset[str]:
    """Return the loaded modules that a call refers to, by its function or its arguments."""
    code, given = call.code, call.input
    if code.modules is None:
        code.modules = names_in(code.data)
    if type(given) is not tuple:
        data, definitions = given.data, given.definitions
    elif given[0] is None:
        data, definitions = given[2:]
    else:
        return code.modules
    return code.modules.union(*map(names_in, (data[:SCANNED_MAX], definitions)))


def _why_not(value: object, name: str, by_value: frozenset[str]) -> str | None:
    """Return why one argument cannot be pickled; None: it can."""
    pieces = Pieces()
    try:
        pickler: Any = InputPickler(pieces, pieces.hold, Sent(by_value))
        pickler.dump(value)
    except Exception as error:
        return why_not_picklable(value, name, error, by_value)
    return None
