"""How code objects travel: with the name of their file, which tracebacks and source need.

cloudpickle leaves it out since 3.1.3, so that its pickles do not depend on where a file lies.
"""

from types import CodeType
from typing import Any

from . import cloudpickle_parts as parts

_FILENAME = 10  # its place among the arguments of `types.CodeType`


def reduce_code(code: CodeType) -> Any:
    """Return how to pickle code."""
    make, arguments = parts.code_reduce(code)
    return make, (*arguments[:_FILENAME], code.co_filename, *arguments[_FILENAME + 1 :])
