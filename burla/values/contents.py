"""What a value is, as a digest of its content: the same in every process, for what is the same.

Pickles would not do: strings that are one object or two, the order of sets, the lines that code
stands in, and ids of classes make them differ where nothing is different. So a value is pickled for
its digest alone: nothing that is immutable is remembered, sets are in the order of their elements'
digests, code is what it does, and arrays are their bytes. The order of a dict counts, as whoever
walks it sees it. What is found by its name, as a class of a module, is what that module is.
"""

import io
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from opcode import hasconst, opmap
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, TypeVar
from warnings import catch_warnings, simplefilter

from . import cloudpickle_parts as parts
from .imports import imports_of
from .pickling import FunctionPickler, Sent

DIGEST_BYTES = 16
NO_DIGEST = bytes(DIGEST_BYTES)  # of what has none

_ATOMS = frozenset((int, float, str, bytes, bool, type(None), complex))
_SETS = frozenset((set, frozenset))
_OWN_TYPES = 24  # numbers of NumPy's own types of elements are below
_NOT_OF_CLASSES = (  # what says where a class stands, and not what it does
    *("__doc__", "__module__", "__firstlineno__", "__static_attributes__"),
    *("__annotate__", "__annotate_func__", "__annotations_cache__"),
    "__slotnames__",  # what pickling an instance has noted there
)
_NOTED_BY_BODIES = ("__firstlineno__", "__static_attributes__")
_STORE_NAME = opmap["STORE_NAME"]


def digest_of(data: Any) -> bytes:
    """Return the digest of bytes."""
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


def _of_atom(value: Any) -> bytes:
    """Return a small pickle itself, which no other one begins with; the digest of a bigger one."""
    data = pickle.dumps(value, 3)  # without a frame, which takes more than a number
    return data.ljust(DIGEST_BYTES, b"\0") if len(data) <= DIGEST_BYTES else digest_of(data)


def _no_source(name: str) -> bytes:
    return b""


class Contents:
    """Digests of the inputs of one job."""

    def __init__(
        self,
        by_value: frozenset[str] = frozenset(),
        unpack: bool | None = False,
        module: Callable[[str], bytes] = _no_source,
    ) -> None:
        """Take how the inputs are called with.

        Args:
            by_value: names of modules that travel by value, beside `__main__`.
            unpack: an input holds the arguments of its call; None: if it is a tuple.
            module: returns what a module is that classes and functions of inputs are found in.
        """
        self._by_value, self._unpack = by_value, unpack
        self._module = lru_cache(maxsize=None)(module)
        self._pickler: _ContentPickler | None = None  # many jobs need none
        self._file = io.BytesIO()
        self._plain = pickle.Pickler(self._file, 5)
        self._plain.fast = True  # remembers nothing: equal texts may be one object or two

    def of_each(self, values: Iterable[Any]) -> bytes:
        """Return the digests of values, one behind the other; `NO_DIGEST` of what has none."""
        atoms = frozenset[type]() if self._unpack else _ATOMS
        of, of_atom = self.of, _of_atom
        return b"".join([of_atom(one) if type(one) in atoms else of(one) for one in values])

    def of_rows(self, array: Any) -> bytes:
        """Return the digests of the rows of a NumPy array: those that they have one by one."""
        shape = array.shape[1:]
        is_fixed = shape or array.dtype.kind not in "SU"  # texts are as long as each of them is
        if self._unpack or not is_fixed or not _is_plain(array.dtype):
            return self.of_each(array)
        kind = type(array) if shape else array.dtype.type
        head, size = _array_head(kind, array.dtype, shape), array.itemsize
        for one in shape:
            size *= one
        data = array.tobytes()
        return b"".join(
            [digest_of(head + data[at : at + size]) for at in range(0, size * len(array), size)]
            if size
            else [digest_of(head)] * len(array)
        )

    def of(self, value: Any) -> bytes:
        """Return the digest of a value; `NO_DIGEST`: it has none, as it cannot be pickled."""
        found = self._of(value)
        is_unpacked = self._unpack or (self._unpack is None and type(value) is tuple)
        return digest_of(b"unpacked" + found) if is_unpacked and found != NO_DIGEST else found

    def _of(self, value: Any) -> bytes:
        kind = type(value)
        if kind in _ATOMS:
            return _of_atom(value)
        if kind is tuple and _ATOMS.issuperset(map(type, value)):
            self._file.seek(0)
            self._file.truncate()
            self._plain.dump(value)
            return digest_of(self._file.getbuffer())
        if (found := _content_of_array(value)) is not None:
            return digest_of(found[0] + found[1])
        if self._pickler is None:
            self._pickler = _ContentPickler(self._by_value, knows_classes=True)
        try:
            digest = self._pickler.digest(value)
            named = b"".join(map(self._module, sorted(self._pickler.modules)))
            return digest_of(digest + named) if named else digest
        except Exception:  # it is sent, or refused, as ever: but nothing is known by it
            self._pickler = None
            return NO_DIGEST


class FunctionContents:
    """What a function is, in parts that have names, so that it can be told what has changed."""

    def __init__(self, function: Callable[..., Any], by_value: frozenset[str]) -> None:
        """Look at a function as it is now.

        Raises:
            Exception: it has something that cannot be pickled.
        """
        self.modules: set[str] = set()  # of what is referred to by its name
        self.parts: dict[str, bytes] = {}
        self._by_value = by_value
        # What is no variable has a name that none can have.
        bound: Any = function if isinstance(function, MethodType) else None
        of: Any = function if bound is None else bound.__func__
        probe = self._new()
        if type(of) is not FunctionType or not probe.goes_by_value(of):
            self._add("function", function)
            return
        if bound is not None:
            self._add("its object", bound.__self__)
        _, code, defaults, keywords, closure, globals_, attributes = probe.take_apart(of)
        self._add("its code", code)
        self._add("its default arguments", (defaults, keywords, attributes))
        inside = set(code.co_freevars)
        for name, value in zip(code.co_freevars, closure, strict=True):
            self._add(name, value)
        for name, value in globals_:
            self._add(f"global {name}" if name in inside else str(name), value)

    def _new(self) -> "_ContentPickler":
        return _ContentPickler(self._by_value, self.modules)

    def _add(self, name: str, value: Any) -> None:
        self.parts[name] = self._new().digest(value)


class _ContentPickler(FunctionPickler):
    """Pickles for a digest; what it writes is never loaded."""

    def __init__(
        self,
        by_value: frozenset[str],
        modules: set[str] | None = None,
        *,
        knows_classes: bool = False,
        around: "_ContentPickler | None" = None,
    ) -> None:
        """Start anew.

        Args:
            by_value: names of modules that travel by value, beside `__main__`.
            modules: gets the names of those that do not, of which something is met.
            knows_classes: the digest of a class is remembered.
            around: is at the set that what is digested is an element of.
        """
        self._hash = blake2b(digest_size=DIGEST_BYTES)
        super().__init__(self, self._take_buffer, Sent(by_value))
        self.fast = True
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []  # ids of what is gone may be those of others
        self.modules = set() if modules is None else modules
        self._classes: dict[type, tuple[bytes, set[str]]] | None = {} if knows_classes else None
        self._around = around

    def digest(self, value: Any) -> bytes:
        """Return the digest of a value."""
        self._hash = blake2b(digest_size=DIGEST_BYTES)
        self._seen.clear()
        self._alive.clear()
        if self._classes is not None:
            self.modules.clear()
        self.dump(value)
        return self._hash.digest()

    def write(self, data: Any) -> int:
        """Take what the pickler writes."""
        self._hash.update(data)
        return len(data)

    def _take_buffer(self, buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous
            return True
        self._hash.update(b"buffer %d" % raw.nbytes)
        self._hash.update(raw)
        return False

    def persistent_id(self, obj: Any) -> bytes | None:
        """Return what stands for an object: one that was met before, a set, a class of inputs."""
        kind = type(obj)
        if kind in _ATOMS or kind is tuple:
            return None
        if kind in _SETS:
            digests = sorted(self._apart().digest(one) for one in obj)
            return kind.__name__.encode() + b"".join(digests)
        if (seen := self._find_seen(id(obj))) is not None:
            return seen
        if self._classes is not None and isinstance(obj, type) and self._travels(obj.__module__):
            if obj not in self._classes:
                apart = _ContentPickler(self.by_value)
                self._classes[obj] = apart.digest(obj), apart.modules
            digest, modules = self._classes[obj]
            self.modules |= modules
            return b"class" + digest
        self._seen[id(obj)] = len(self._seen)
        self._alive.append(obj)
        return None

    def _apart(self) -> "_ContentPickler":
        return _ContentPickler(self.by_value, self.modules, around=self)

    def _find_seen(self, key: int) -> bytes | None:
        """Return what stands for an object that was met here, or on the way to here."""
        one: _ContentPickler | None = self
        above = 0
        while one is not None:
            if (number := one._seen.get(key)) is not None:
                return b"seen %d %d" % (above, number)
            one, above = one._around, above + 1
        return None

    def reducer_override(self, obj: Any) -> Any:
        """Return how to pickle something for its digest."""
        kind = type(obj)
        if kind is CodeType:
            return _content, _of_code(obj)
        if kind is FunctionType:
            if not self.goes_by_value(obj):
                return NotImplemented
            return _content, self.take_apart(obj)
        if issubclass(kind, type):
            return self._take_class(obj)
        if kind is CellType:
            return _content, ("cell", _in_cell(obj))
        if kind is TypeVar:  # it travels under an id of its own
            bounds = obj.__bound__, obj.__constraints__, obj.__covariant__, obj.__contravariant__
            return _content, ("type variable", obj.__name__, bounds)
        if kind is ModuleType and not self._travels(obj.__name__):
            self.modules.add(obj.__name__)
        if (found := _content_of_array(obj)) is not None:
            return _content, ("array", digest_of(found[0] + found[1]))
        return super().reducer_override(obj)

    def goes_by_value(self, function: FunctionType) -> bool:
        """Return whether a function is what it does, and not a name that can be imported."""
        module = function.__module__
        if module in self.by_value or not parts.should_pickle_by_reference(function):
            return True
        self.modules.add(module)
        return False

    def take_apart(self, function: FunctionType) -> tuple[Any, ...]:
        """Return what a function does, and all that it refers to."""
        attributes, slots = self._dynamic_function_reduce(function)[2][:2]
        globals_ = dict(slots["__globals__"])
        package = function.__globals__.get("__package__")
        self.modules |= _named_by(function.__code__, package if isinstance(package, str) else "")
        if self._travels(function.__globals__.get("__name__")):
            self._add_named_in_text(function, globals_)
        for name in ("__builtins__", "__file__", "__name__", "__package__", "__path__"):
            globals_.pop(name, None)
        return (
            "function",
            function.__code__,
            function.__defaults__,
            function.__kwdefaults__,
            [_in_cell(cell) for cell in function.__closure__ or ()],
            sorted(globals_.items()),
            {name: value for name, value in attributes.items() if name != "__wrapped__"},
        )

    def _take_class(self, cls: type) -> Any:
        try:
            reduced = parts.class_reduce(cls)
        except TypeError:
            return NotImplemented
        if cls.__module__ in self.by_value and reduced is NotImplemented:
            reduced = parts.dynamic_class_reduce(cls)
        if reduced is NotImplemented or len(reduced) == 2:
            self.modules.add(str(cls.__module__))
            return reduced
        tracked = parts.get_or_create_tracker_id(cls)
        made_of = [one for one in reduced[1] if type(one) is not str or one != tracked]
        attributes = {k: v for k, v in reduced[2][0].items() if k not in _NOT_OF_CLASSES}
        if not attributes.get("__annotations__", True):  # who asked for them has put that there
            del attributes["__annotations__"]
        return _content, ("class", made_of, sorted(attributes.items()))


@lru_cache(maxsize=1024)
def _named_by(code: CodeType, package: str) -> frozenset[str]:
    """Return the names of modules that code imports when it runs."""
    found = imports_of(code, package)
    return found.names | found.texts


def _content(*parts: Any) -> None:
    """Stand in a pickle for what is never loaded."""


class _Empty:
    """Stands for what a closure refers to and is not set."""


def _in_cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _Empty


def _of_code(code: CodeType) -> tuple[Any, ...]:
    """Return what code does, wherever it stands."""
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    raw, consts = _without_places(code)
    return ("code", raw, consts, names, counts, code.co_exceptiontable)


def _without_places(code: CodeType) -> tuple[bytes, tuple[Any, ...]]:
    """Return the bytecode and the constants of code without what the body of a class notes.

    From Python 3.13 on that is its line, and a tuple of names that may have any order.
    """
    raw, consts = code.co_code, list(code.co_consts)
    for name in _NOTED_BY_BODIES:
        at = _find_store(raw, code.co_names.index(name)) if name in code.co_names else 0
        if at < 2:
            continue
        operation, number = raw[at - 2], raw[at - 1]
        raw = raw[: at - 2] + raw[at:]
        users = [use for use, used in _pairs(raw) if use in hasconst and used == number]
        if operation in hasconst and number < len(consts) and not users:
            consts[number] = None
    return raw, tuple(consts)


def _find_store(raw: bytes, name: int) -> int:
    """Return where a variable is set that has this number among the names; 0: nowhere."""
    pairs = enumerate(_pairs(raw))
    return next((2 * at for at, pair in pairs if pair == (_STORE_NAME, name)), 0)


def _pairs(raw: bytes) -> Iterator[tuple[int, int]]:
    return zip(raw[::2], raw[1::2], strict=True)


@lru_cache(maxsize=4096)
def digest_of_source(data: bytes) -> bytes:
    """Return the digest of the source of a module: what it does, whatever its comments say."""
    try:
        with catch_warnings():
            simplefilter("ignore")
            code = compile(data, "", "exec", dont_inherit=True)
        return _ContentPickler(frozenset()).digest(code)
    except Exception:  # it is none, or is none of this Python
        return digest_of(data)


# --- arrays ---


def _content_of_array(value: Any) -> tuple[bytes, bytes] | None:
    """Return what a NumPy array or number is, and its bytes; None: it is something else."""
    numpy: Any = sys.modules.get("numpy")
    kind = type(value)
    if numpy is None or not (kind is numpy.ndarray or issubclass(kind, numpy.generic)):
        return None
    if kind.__module__ != "numpy" or not _is_plain(value.dtype):
        return None
    return _array_head(kind, value.dtype, value.shape), value.tobytes()


def _is_plain(dtype: Any) -> bool:
    """Return whether a type of elements is one of NumPy's own, of which its text says all."""
    is_own = dtype.num < _OWN_TYPES and not dtype.hasobject
    return bool(is_own and dtype.names is None and dtype.metadata is None)


def _array_head(kind: type, dtype: Any, shape: Sequence[int]) -> bytes:
    return f"{kind.__name__} {dtype.str} {tuple(shape)} ".encode()
