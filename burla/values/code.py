"""How code objects travel: with the name of their file, which tracebacks and source need.

cloudpickle leaves it out since 3.1.3, so that its pickles do not depend on where a file lies.
"""

from collections.abc import Callable
from types import CodeType
from typing import Any, Generic, TypeVar
from weakref import ref

from . import cloudpickle_parts as parts

_FILENAME = 10  # its place among the arguments of `types.CodeType`

T = TypeVar("T")


class PerCode(Generic[T]):
    """What is found out once of each code object, which never changes: a loop of maps asks again.

    By address, for as long as the code lives. Code is equal to code of another file.
    """

    def __init__(self, find: Callable[[CodeType], T]) -> None:
        """`find` returns it."""
        self._find = find
        self._known: dict[int, tuple[ref[CodeType], T]] = {}

    def of(self, code: CodeType) -> T:
        """Return it."""
        known = self._known.get(id(code))
        if known is not None and known[0]() is code:
            return known[1]
        key, found = id(code), self._find(code)
        self._known[key] = ref(code, lambda gone: self._forget(key, gone)), found
        return found

    def _forget(self, key: int, gone: "ref[CodeType]") -> None:
        known = self._known.get(key)
        if known is not None and known[0] is gone:  # else other code has the address by now
            del self._known[key]


def _reduce(code: CodeType) -> Any:
    make, arguments = parts.code_reduce(code)
    return make, (*arguments[:_FILENAME], code.co_filename, *arguments[_FILENAME + 1 :])


reduce_code = PerCode(_reduce).of  # how to pickle it
