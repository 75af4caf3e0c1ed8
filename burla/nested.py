"""`remote_parallel_map` inside a worker: the inputs run right there, one after the other.

It needs no cluster and waits for nobody, so however deep calls are nested, they cannot deadlock.
"""

import errno
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from burla.shell.outcomes import exception_of
from burla.shell.partial import Partial, attach
from burla.shipping.shipped_files import Shipped
from burla.system.environ import variable
from burla.values.calls import bind_any
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
from burla.values.tracebacks import mark

from .arguments import Shape
from .errors import CallTimeout
from .nested_limit import call_within
from .options import Options
from .own_frames import hide_own_frames
from .variables import Chosen

INSTEAD = (ResultNotPicklableError, NotLoadableError, SystemExit, GeneratorExit)


def is_nested() -> bool:
    """Return whether this process is a worker."""
    worker = variable(b"BURLA_WORKER_PID")
    return worker is not None and worker == str(os.getpid())


def put_here(files: Iterable[Shipped]) -> None:
    """Have files where the calls look for them: in the working directory."""
    for name, path in files:
        if name.endswith("/"):
            os.makedirs(name, exist_ok=True)
        elif os.path.realpath(name) != os.path.realpath(path):
            os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
            with open(path, "rb") as source:
                content = source.read()
            if os.path.lexists(name):
                with open(name, "rb") as there:
                    if there.read() == content:
                        continue  # another call has put it there
                raise FileExistsError(
                    errno.EEXIST, "files: a map inside a call would overwrite this file", name
                )
            with open(name, "wb") as target:
                target.write(content)


def refuse_image(image: str) -> None:
    """Refuse to run calls in an image.

    Raises:
        ValueError: there is one.
    """
    if image:
        raise ValueError(
            f"image={image!r} cannot be used inside a call: what a call maps runs in the process"
            " of the call, in the image of that: leave image out"
        )


def list_here(results: Iterator[Any], options: Options) -> list[Any]:
    """Return what `run_here` yields; an error carries the results before it."""
    found: list[Any] = []
    try:
        found += results  # what there is of them stays if it raises
    except BaseException as error:
        values = [value for _, value in found] if options.with_index else found
        attach(error, Partial(lambda part, node: [], (), values, [((0, len(values)),)]))
        raise
    return found


def run_here(
    function: Callable[..., Any],
    inputs: Any,
    shape: Shape,
    variables: Chosen | None = None,
    options: Options | None = None,
) -> Iterator[Any]:
    """Yield the results in order; inputs and results are copies, as if they had travelled.

    Args:
        function: what is called.
        inputs: what the caller passed.
        shape: how inputs become arguments.
        variables: of the environment, set while a call runs.
        options: what is wanted of the outcomes, if not the usual.
    """
    options = Options() if options is None else options
    for index, result in enumerate(_outcomes(function, inputs, shape, variables, options)):
        yield (index, result) if options.with_index else result


def _outcomes(
    function: Callable[..., Any],
    inputs: Any,
    shape: Shape,
    variables: Chosen | None,
    options: Options,
) -> Iterator[Any]:
    call = bind_any(function, bind_call(function, shape.unpack))
    index = 0
    timeout_s = options.timeout_s
    if timeout_s:

        def call_here(value: Any, plain: Callable[[Any], Any] = call) -> Any:
            return call_within(timeout_s, index, plain, value)

        call = call_here
    for batch in cut_batches(inputs, check=shape.check):
        for frames, count in [(leaf.frames, leaf.count) for leaf in batch.leaves]:
            values = load_leaf(frames)
            for offset in range(count):
                before = _put(variables or {})
                try:
                    result = _outcome(call, values, offset, index, options)
                finally:
                    _put(before)
                yield result
                index += 1


def _put(variables: Chosen) -> Chosen:
    """Set variables; return what they were."""
    if sys.platform == "win32":
        raise AssertionError("workers run on Linux")
    before = {name: os.environb.get(name) for name in variables}
    for name, value in variables.items():
        if value is not None:
            os.environb[name] = value
        elif name in os.environb:
            del os.environb[name]
    return before


def _outcome(
    call: Callable[[Any], Any], values: Any, offset: int, index: int, options: Options
) -> Any:
    """Return the result of a call, or its error, if that is wanted as a result."""
    policy, tries = options.policy(), 0
    while True:
        try:
            return _call(call, values, offset, index)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if type(error) is CallTimeout and not hasattr(error, "burla_nested"):
                raise  # of the call that this one is in
            retry = options.retry
            if retry is not None and tries < retry.times and isinstance(error, retry.kinds):
                found: BaseException | None = None
            elif options.goes_on:
                found = error
            else:
                raise
        if found is not None:
            hide_own_frames(found)
            return found
        tries += 1
        if policy is not None and (wait_s := policy.wait_s(tries, random.random())):
            time.sleep(wait_s)


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
        mark(error, index, shown, node)
        raise
