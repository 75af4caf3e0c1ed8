"""Which frames of a traceback a caller sees: their own.

How burla works inside does not help someone whose function raised. `BURLA_TRACEBACKS=full` shows
all frames, to whoever looks for a fault in burla.
"""

import functools
import os
import sys
import warnings
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

VARIABLE = "BURLA_TRACEBACKS"
FULL = "full"
CHAIN_MAX = 100  # exceptions of a chain; a retry loop may chain without end


def hide_own_frames(error: BaseException) -> None:
    """Take the frames of this package out of the tracebacks of an error and its causes."""
    if os.environ.get(VARIABLE, "").strip().lower() == FULL:
        return
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo and len(seen) < CHAIN_MAX:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        BaseException.__setattr__(one, "__traceback__", _without_ours(one.__traceback__))
        todo += [one.__cause__, one.__context__]


def hides_own_frames(method: Callable[P, R]) -> Callable[P, R]:
    """Have what a function raises hold no frames of this package."""

    @functools.wraps(method)
    def hiding(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except BaseException as error:
            hide_own_frames(error)
            raise

    return hiding


def warn_caller(text: str) -> None:
    """Warn of something at the line of the caller that called us; by default once a text."""
    depth, frame = 1, sys._getframe()
    while frame.f_back is not None and _is_ours(frame):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(text, stacklevel=depth)


def _is_ours(frame: FrameType) -> bool:
    name = str(frame.f_globals.get("__name__"))
    return name == "burla" or name.startswith("burla.")


def _without_ours(traceback: TracebackType | None) -> TracebackType | None:
    entries = []
    below_ours = False  # in what our code called, as when it waits or pickles
    while traceback is not None:
        name = str(traceback.tb_frame.f_globals.get("__name__"))
        if _is_ours(traceback.tb_frame):
            below_ours = True
        elif not (below_ours and _is_called_by_us(name)):
            below_ours = False
            entries.append(traceback)
        traceback = traceback.tb_next
    kept = None
    for entry in reversed(entries):
        # None where an interrupt came between two lines, which the constructor does not take
        line = entry.tb_lineno or entry.tb_frame.f_code.co_firstlineno
        kept = TracebackType(kept, entry.tb_frame, entry.tb_lasti, line)
    return kept


def _is_called_by_us(name: str) -> bool:
    return name in _CALLED_BY_US or name.partition(".")[0] in _LOOPS


_LOOPS = frozenset(("asyncio", "trio", "outcome", "uvloop"))
_CALLED_BY_US = frozenset(
    ("threading", "queue", "pickle", "cloudpickle.cloudpickle", "cloudpickle", "zmq.sugar.socket")
)
