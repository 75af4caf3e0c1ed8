"""Which cell of a notebook output belongs to.

A kernel tells that by a header, which its streams keep for each context; a thread has a context of
its own, so what it writes goes to the cell that began last, whichever called us. What is kept here
makes that the cell that did.
"""

import io
import sys
from contextvars import Context, ContextVar, copy_context
from typing import Any

_NAME = "_parent_header"  # of the variable; ipykernel 6 and 7 have it alike


def context_of_cell() -> Context:
    """Return the context of now, in which kernels send output to the cell of now."""
    context = copy_context()
    if type(sys.stdout) is type(sys.stderr) is io.TextIOWrapper:  # as nearly always
        return context
    for place in _places():
        header = place.parent_header  # that of the thread, or of the cell that began last
        context.run(getattr(place, _NAME).set, header)
    return context


def _places() -> list[Any]:
    """Return what writes into cells: the streams, and what shows displays."""
    streams: list[Any] = [sys.stdout, sys.stderr]
    found = [one for one in streams if type(one) is not io.TextIOWrapper and _is_of_kernel(one)]
    if found and (shell := notebook_shell()) is not None:
        more = (shell, getattr(shell, "display_pub", None))
        found += [one for one in more if _is_of_kernel(one)]
    return found


def _is_of_kernel(place: object) -> bool:
    return isinstance(getattr(place, _NAME, None), ContextVar)


def notebook_shell() -> Any:
    """Return the shell of IPython, if it runs in the kernel of a notebook; else None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell if getattr(shell, "kernel", None) is not None else None
