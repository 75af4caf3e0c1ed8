"""The function of a job whose inputs say what to call: each has the pickle of its own function.

A pickle is known by its content and loaded once per process. Inputs that lie in one leaf share one
copy of it, so that a thousand calls of one function cost the bytes of one. Loaded by workers: never
imports zmq, asyncio or msgspec.
"""

import os
import pickle
from collections.abc import Callable, Sequence
from typing import Any

from .explain import describe_error
from .frames import NotLoadableError
from .pickling import load_definitions, load_from_caller
from .scopes import Scope, Scopes
from .shared_memory import fetch_part

FUNCTIONS_MAX = 256  # that one process keeps; the oldest goes first
KEPT_BYTES_MAX = 64 << 10  # a bigger pickle is loaded for each call


class InitializerFailed(Exception):
    """The initializer of an executor raised in a worker; the text says what."""


class Packed:
    """A call with big buffers, as an input: they travel beside the pickle."""

    __slots__ = ("buffers", "code", "code_buffers", "data", "definitions")

    def __init__(
        self,
        code: bytes,
        code_buffers: int,
        data: bytes,
        definitions: bytes,
        buffers: Sequence[Any],
    ) -> None:
        """Take it apart.

        Args:
            code: the pickle of the function.
            code_buffers: how many of the buffers are the function's; they come first.
            data: the pickle of its arguments.
            definitions: the pickle of those of their classes that go by value; empty: none do.
            buffers: bytes-like, or references to files in memory.
        """
        self.code, self.code_buffers = code, code_buffers
        self.data, self.definitions, self.buffers = data, definitions, buffers

    def __reduce__(self) -> Any:
        named = (Reference, Shared)
        big = [one if type(one) in named else pickle.PickleBuffer(one) for one in self.buffers]
        return Packed, (self.code, self.code_buffers, self.data, self.definitions, big)


class Reference(bytes):
    """Says where a buffer lies that several calls have: in a file in memory."""


class Shared(int):
    """Says which buffer it is of those that go with the job."""


class Many:
    """Calls what its inputs say.

    An input is a tuple `(pickle of the function, *arguments)` if the arguments are plain; else
    `(None, pickle of the function, pickle of the arguments, definitions)`, or a `Packed`.
    """

    def __init__(
        self,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        shared: Sequence[Any] = (),
    ) -> None:
        """Begin with no function.

        Args:
            initializer: called once in each process before the first call; then all functions
                share their globals, which it may set.
            initargs: what it is called with.
            shared: buffers that calls have in common.
        """
        # What the first calls begin with importing, as `leading.Import`: imported with the job.
        self.leading: Sequence[tuple[str, tuple[str, ...]]] = ()
        self._big = shared
        self._initializer, self._initargs = initializer, initargs
        self._initialized = 0  # in this process, by its id
        self._failed = ""  # what the initializer raised
        self._functions: dict[bytes, tuple[Callable[..., Any], Scope]] = {}
        self._scopes = Scopes()
        self._shared = Scope()  # of what is loaded if there is an initializer
        self._code: bytes | None = b""  # of the function that was called last
        self._function: Callable[..., Any] = _nothing
        self.__name__ = "Executor"  # for people, where the name of the function is said

    def __reduce__(self) -> Any:
        big = [pickle.PickleBuffer(one) for one in self._big]
        made = Many, (self._initializer, self._initargs, big)
        # a state, which workers of older releases take, too, and do not look at
        return (*made, {"leading": [tuple(one) for one in self.leading]}) if self.leading else made

    def __call__(self, code: Any, *args: Any) -> Any:
        """Call the function whose pickle is `code`."""
        if self._initializer is not None and self._initialized != os.getpid():
            self._initialize(self._initializer)
        if code is self._code:
            return self._function(*args)
        if type(code) is bytes:
            return self._find(code)(*args)
        if code is None:
            return self._call_packed(Packed(args[0], 0, args[1], args[2], ()))
        return self._call_packed(code)

    def _call_packed(self, packed: Packed) -> Any:
        buffers = [self._open(one) for one in packed.buffers]
        count = packed.code_buffers
        if count or len(packed.code) > KEPT_BYTES_MAX:
            scope = Scope() if self._initializer is None else self._shared
            function = self._load(packed.code, buffers[:count], scope)
        else:
            function = self._find(packed.code)
        try:
            if packed.definitions:
                load_definitions(pickle.loads(packed.definitions))
            args, kwargs = pickle.loads(packed.data, buffers=buffers[count:])
        except Exception as error:
            raise NotLoadableError(describe_error(error)) from error
        return function(*args, **kwargs)

    def _open(self, buffer: Any) -> Any:
        if type(buffer) is Reference:
            return fetch_part(buffer)
        if type(buffer) is Shared:
            return memoryview(self._big[buffer]).toreadonly()  # other calls have it, too
        return buffer

    def _find(self, code: bytes) -> Callable[..., Any]:
        known = self._functions.get(code)
        if known is None:
            scope = Scope() if self._initializer is None else self._shared
            known = self._load(code, (), scope), scope
            self._functions[code] = known
            if len(self._functions) > FUNCTIONS_MAX:
                del self._functions[next(iter(self._functions))]
        elif self._initializer is None:
            self._scopes.turn_to(known[1])
        self._code, self._function = code, known[0]
        return known[0]

    def _load(self, code: bytes, buffers: Sequence[Any], scope: Scope) -> Callable[..., Any]:
        if self._initializer is None:
            self._scopes.turn_to(scope)
        self._code = b""  # also if that fails
        function: Callable[..., Any] = load_from_caller(code, buffers)[-2]
        return function

    def _initialize(self, initializer: Callable[..., object]) -> None:
        if self._failed:
            raise InitializerFailed(self._failed)
        try:
            initializer(*self._initargs)
        except BaseException as error:
            self._failed = describe_error(error)
            raise InitializerFailed(self._failed) from error
        self._initialized = os.getpid()


def _nothing(*args: Any) -> Any:
    raise AssertionError("a call came before its function")
