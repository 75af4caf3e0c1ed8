"""Another Python process that plays a worker: loads a function, calls it, sends outcomes back.

Only what turns values into bytes is real here; there is no scheduler, nodelet or socket.
"""

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from burla.arguments import decide_unpack
from burla.shell.outcomes import exception_of
from burla.shipping.modules import environment, new_sent
from burla.values.payloads import (
    apply_environment,
    are_atoms,
    bind_call,
    cut_batches,
    dump_error,
    dump_function,
    dump_result,
    dump_results,
    load_error,
    load_function,
    load_leaf,
    load_result,
    load_results,
    short_repr,
)

SUPPORT = str(Path(__file__).parent)
SERVE = f"import sys; sys.path.append({SUPPORT!r}); import elsewhere; elsewhere.serve()"


def call_elsewhere(
    function: Callable[..., Any],
    inputs: Iterable[Any],
    unpack: bool | None = None,
    python: str = sys.executable,
) -> list[Any]:
    """Return `[function(x) for x in inputs]`, called in a fresh process; raise the first error."""
    return [outcome() for outcome in outcomes_elsewhere(function, inputs, unpack, python)]


def outcomes_elsewhere(
    function: Callable[..., Any],
    inputs: Iterable[Any],
    unpack: bool | None = None,
    python: str = sys.executable,
) -> list[Callable[[], Any]]:
    """Return for each input a callable that returns the result or raises the error."""
    shape = decide_unpack(function, unpack)
    sent = new_sent()
    sample = inputs if isinstance(inputs, list) else []
    request = {
        "environment": environment(),
        "function": dump_function(function, sample=sample, sent=sent),
        "unpack": shape.unpack,
        "leaves": [
            (leaf.count, leaf.frames)
            for batch in cut_batches(inputs, sent, shape.check)
            for leaf in batch.leaves
        ],
    }
    done = subprocess.run(
        [python, "-c", SERVE],
        input=pickle.dumps(request),
        stdout=subprocess.PIPE,
        check=True,
        timeout=50,
    )
    return [_outcome(kind, frames) for kind, frames in pickle.loads(done.stdout)]


def _outcome(kind: str, frames: list[bytes]) -> Callable[[], Any]:
    if kind == "error":
        failure = load_error(frames)

        def raise_it() -> Any:
            raise exception_of(failure)

        return raise_it
    return lambda: load_results(frames)[0] if kind == "results" else load_result(frames)


def serve() -> None:
    """Be the worker: one request on stdin, its outcomes on stdout."""
    request = pickle.load(sys.stdin.buffer)
    apply_environment(request["environment"])
    call = bind_call(load_function(request["function"]), request["unpack"])
    outcomes: list[Any] = []
    for count, frames in request["leaves"]:
        inputs = load_leaf(frames)
        assert len(inputs) == count
        base = len(outcomes)
        outcomes += [_call(call, inputs, offset, base) for offset in range(count)]
    sys.stdout.buffer.write(pickle.dumps(outcomes))


def _call(call: Callable[[Any], Any], inputs: Any, offset: int, base: int) -> Any:
    shown = None
    try:
        (value,) = inputs[offset : offset + 1]
        shown = short_repr(value)
        result = call(value)
        if are_atoms([result]):
            return "results", dump_results([result])
        return "result", dump_result(result)
    except BaseException as error:
        return "error", dump_error(error, "elsewhere", base + offset, shown)
