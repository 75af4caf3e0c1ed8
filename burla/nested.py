"""`remote_parallel_map` inside a worker: the inputs run right there, one after the other.

It needs no cluster and waits for nobody, so however deep calls are nested, they cannot deadlock.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from burla.shell.outcomes import exception_of
from burla.values.payloads import (
    NotLoadableError,
    ResultNotPicklableError,
    bind_call,
    cut_batches,
    dump_error,
    dump_result,
    load_error,
    load_leaf,
    load_result,
    short_repr,
)
from burla.values.tracebacks import note_of

from .arguments import Shape
from .shipped_files import Shipped
from .variables import Chosen

INSTEAD = (ResultNotPicklableError, NotLoadableError, SystemExit, GeneratorExit)


def is_nested() -> bool:
    """Return whether this process is a worker."""
    return os.environ.get("BURLA_WORKER_PID") == str(os.getpid())


def put_here(files: Iterable[Shipped]) -> None:
    """Have files where the calls look for them: in the working directory."""
    for name, path in files:
        if name.endswith("/"):
            os.makedirs(name, exist_ok=True)
        elif os.path.realpath(name) != os.path.realpath(path):
            os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
            with open(path, "rb") as source, open(name, "wb") as target:
                target.write(source.read())


def run_here(
    function: Callable[..., Any], inputs: Any, shape: Shape, variables: Chosen | None = None
) -> Iterator[Any]:
    """Yield the results in order; inputs and results are copies, as if they had travelled.

    Args:
        function: what is called.
        inputs: what the caller passed.
        shape: how inputs become arguments.
        variables: of the environment, set while a call runs.
    """
    call = bind_call(function, shape.unpack)
    index = 0
    for batch in cut_batches(inputs, check=shape.check):
        for frames, count in [(leaf.frames, leaf.count) for leaf in batch.leaves]:
            values = load_leaf(frames)
            for offset in range(count):
                with _set(variables or {}):
                    result = _call(call, values, offset, index)
                yield result
                index += 1


@contextmanager
def _set(variables: Chosen) -> Iterator[None]:
    before = {name: os.environb.get(name) for name in variables}
    _put(variables)
    try:
        yield
    finally:
        _put(before)


def _put(variables: Chosen) -> None:
    for name, value in variables.items():
        if value is not None:
            os.environb[name] = value
        elif name in os.environb:
            del os.environb[name]


def _call(call: Callable[[Any], Any], values: Any, offset: int, index: int) -> Any:
    node = os.environ.get("BURLA_NODE", "")
    shown = None
    try:
        value = values[offset]
        shown = short_repr(value)
        return load_result(dump_result(call(value)))
    except INSTEAD as error:
        raise exception_of(load_error(dump_error(error, node, index, shown))) from error
    except Exception as error:
        error.add_note(note_of(index, shown, node))
        error.burla_input_index = index  # type: ignore[attr-defined]  # ours, on any exception
        raise
