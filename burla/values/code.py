"""How code objects travel: with the name of their file, which tracebacks and source need.

cloudpickle leaves it out since 3.1.3, so that its pickles do not depend on where a file lies.
"""

from types import CodeType
from typing import Any
from weakref import ref

from . import cloudpickle_parts as parts

_FILENAME = 10  # its place among the arguments of `types.CodeType`

# By address, for as long as the code lives. Code is equal to code of another file.
_known: dict[int, tuple["ref[CodeType]", Any]] = {}


def reduce_code(code: CodeType) -> Any:
    """Return how to pickle code, which never changes: a loop of maps finds that out once."""
    known = _known.get(id(code))
    if known is not None and known[0]() is code:
        return known[1]
    key = id(code)
    reduced = _reduce(code)
    _known[key] = ref(code, lambda gone: _forget(key, gone)), reduced
    return reduced


def _forget(key: int, gone: "ref[CodeType]") -> None:
    known = _known.get(key)
    if known is not None and known[0] is gone:  # else other code has the address by now
        del _known[key]


def _reduce(code: CodeType) -> Any:
    make, arguments = parts.code_reduce(code)
    return make, (*arguments[:_FILENAME], code.co_filename, *arguments[_FILENAME + 1 :])
