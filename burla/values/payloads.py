"""Functions, inputs and outcomes <-> bytes: all that client and workers need to know.

The parts live in `pickling` (frames, what goes by value), `leaves` (inputs), `tracebacks` (errors),
`environment` (the caller's modules) and `explain` (words). The scheduler and the nodelet never
import any of them. An encoded value is a list of frames, each at most FRAME_BYTES_MAX.
"""

import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .environment import (
    apply_environment,
    compile_once,
    forget_own_modules,
    unpack_environment,
)
from .explain import describe_error, name_of, short_repr, why_not_picklable
from .frames import (
    Frames,
    NotLoadableError,
    Pieces,
    TooLargeError,
    cut,
    join,
    take_apart_plain,
)
from .held_parts import HeldFunction, hold
from .leaves import (
    AtomsPickler,
    Batch,
    InputNotLoadableError,
    Leaf,
    are_atoms,
    cut_batches,
    is_lazy,
    load_leaf,
)
from .own_modules import (
    serve_own_modules,
    serve_own_modules_again,
    serves_one_of,
    unpack_own_modules,
)
from .packages import serve_packages
from .parts import Arrived, FunctionPieces, load_parts, referred
from .pickling import (
    FunctionPickler,
    ResultNotPicklableError,
    Sent,
    begin_job,
    dumps,
    load_from_caller,
    loads,
    take_apart_any,
)
from .tracebacks import Failure, dump_error, load_error, note_of
from .unchanged import keep, look_at, pickled_before

__all__ = [
    "Arrived",
    "Batch",
    "Failure",
    "Frames",
    "HeldFunction",
    "InputNotLoadableError",
    "Leaf",
    "NotLoadableError",
    "Pieces",
    "ResultNotPicklableError",
    "Sent",
    "TooLargeError",
    "apply_environment",
    "are_atoms",
    "bind_call",
    "compile_once",
    "cut_batches",
    "dump_error",
    "dump_function",
    "dump_result",
    "dump_results",
    "dump_results_if_atoms",
    "dumps",
    "forget_own_modules",
    "hold_function",
    "is_lazy",
    "load_error",
    "load_function",
    "load_leaf",
    "load_own_modules",
    "load_result",
    "load_results",
    "loads",
    "name_of",
    "note_of",
    "serve_packages",
    "serves_one_of",
    "short_repr",
    "take_apart_function",
    "take_apart_result",
    "take_apart_results",
    "unpack_environment",
]

SAMPLE_MAX = 256  # inputs whose classes are sent along with the function


def dump_function(
    function: Callable[..., Any],
    *,
    sample: Sequence[Any] = (),
    sent: Sent | None = None,
    name: str | None = None,
) -> list[bytes]:
    """Return the frames of a function with its globals and closure as they stand now.

    Args and errors are those of `take_apart_function`.
    """
    pieces = take_apart_function(function, sample=sample, sent=sent, name=name)
    try:
        return pieces.cut()
    except TooLargeError as error:
        raise _too_large(function, name, error) from None


def take_apart_function(
    function: Callable[..., Any],
    *,
    sample: Sequence[Any] = (),
    sent: Sent | None = None,
    name: str | None = None,
) -> FunctionPieces:
    """Return what `dump_function` makes frames of; it aliases what the function refers to.

    Args:
        function: any callable.
        sample: some of the inputs; the classes of the first SAMPLE_MAX go along.
        sent: says which modules travel, and takes note of what was sent, for `cut_batches`.
        name: what the function is called in an error, if not by its own name.

    Raises:
        TypeError: it cannot be pickled; the text names the part by its path.
    """
    sent = Sent() if sent is None else sent
    classes = list(dict.fromkeys(map(type, sample[:SAMPLE_MAX])))
    look = look_at(function, classes, sent)
    if look is not None and (before := pickled_before(look, sent)) is not None:
        return before
    pieces = FunctionPieces()
    try:
        FunctionPickler(pieces, pieces.hold, sent).dump((function, classes))
        if needed := sent.needed():
            pieces.close()
            pieces = FunctionPieces()
            FunctionPickler(pieces, pieces.hold, sent).dump((*needed, function, classes))
        elif look is not None:
            keep(look, look_at(function, classes, sent), pieces, sent)
        return pieces
    except Exception as error:
        sent.classes.clear()
        name = name or name_of(function)
        why = why_not_picklable(function, name, error, sent.by_value)
        raise TypeError(f"function_ {name!r} cannot be sent: {why}") from error
    finally:
        pieces.close()


def hold_function(
    function: Callable[..., Any], pieces: FunctionPieces, directory: str | None
) -> HeldFunction:
    """Return a function as it is sent: small in frames, big in parts that are sent if missing.

    Args:
        function: for errors.
        pieces: of it.
        directory: where parts are put down for workers on this machine; None: they are sent.

    Raises:
        ValueError: it is too large to be sent.
    """
    try:
        return hold(pieces, directory)
    except TooLargeError as error:
        raise _too_large(function, None, error) from None


def _too_large(function: Callable[..., Any], name: str | None, error: TooLargeError) -> ValueError:
    return ValueError(
        f"function_ {name or name_of(function)!r} cannot be sent: with all that it refers to it"
        f" has {error}. Pass big data as inputs, or let the function read it where it runs"
    )


def load_function(frames: Frames, parts: Sequence[Arrived] = ()) -> Callable[..., Any]:
    """Return a function that was sent, fresh: with globals and classes of its own.

    Whatever an earlier call of this loaded is no longer what later inputs refer to. `parts`: those
    that did not come in `frames`.
    """
    begin_job()
    arrived = parts or referred(frames)
    data, buffers = load_parts(frames[0], arrived) if arrived else join(frames)
    function: Callable[..., Any] = load_from_caller(data, buffers)[-2]
    return function


def load_own_modules(attached: Mapping[str, bytes | memoryview], place: str) -> None:
    """Have this process, a worker, import the caller's own modules, and those of no earlier job.

    Args:
        attached: to the function; they are in what is called "own".
        place: a directory of the lease, for their files.
    """
    if "own" not in attached:
        serve_own_modules(None, (), place)
        return
    if serve_own_modules_again(attached["own"]):
        return
    own = unpack_own_modules(attached["own"])
    parts = [attached[f"own/{number}"] for number in range(len(own.packed))]
    serve_own_modules(own, parts, place)


def bind_call(function: Callable[..., Any], unpack: bool | None) -> Callable[[Any], Any]:
    """Return what a worker calls with each input; `unpack`: None: if the input is a tuple."""
    if unpack is False:
        return function
    if unpack is None:

        def call_tuples_unpacked(argument: Any) -> Any:
            return function(*argument) if type(argument) is tuple else function(argument)

        return call_tuples_unpacked

    def call_unpacked(arguments: Any) -> Any:
        return function(*arguments)

    return call_unpacked


def dump_results(results: list[Any]) -> list[bytes]:
    """Return the frames of results of which `are_atoms` is true, in one pickle."""
    return take_apart_results(results).cut()


def take_apart_results(results: list[Any]) -> Pieces:
    """Return what `dump_results` makes frames of, big texts and bytes uncopied."""
    pieces = Pieces()
    pickle.Pickler(pieces, 5).dump(results)
    return pieces


def dump_results_if_atoms(results: list[Any]) -> list[bytes] | None:
    """Return `dump_results(results)`, or None unless `are_atoms`; faster than asking both."""
    data = AtomsPickler().dump(results)
    return None if data is None else cut([data], [])


def load_results(frames: Frames) -> list[Any]:
    """Return what `dump_results` was given."""
    results: list[Any] = loads(frames)
    return results


def dump_result(result: object) -> list[bytes]:
    """Return the frames of one result as it is now.

    Raises:
        ResultNotPicklableError: it cannot be pickled; the text names the part by its path.
    """
    return take_apart_result(result).cut()


def take_apart_result(result: object) -> Pieces:
    """Return what `dump_result` makes frames of; it may alias the result.

    Raises:
        ResultNotPicklableError: it cannot be pickled; the text names the part by its path.
    """
    try:
        return take_apart_plain(result) if are_atoms((result,)) else take_apart_any(result)
    except Exception as error:
        why = why_not_picklable(result, "result", error)
        raise ResultNotPicklableError(why) from error


def load_result(frames: Frames) -> Any:
    """Return what `dump_result` was given.

    Raises:
        NotLoadableError: it cannot be unpickled here.
    """
    try:
        return loads(frames)
    except NotLoadableError:
        raise
    except Exception as error:
        raise NotLoadableError(describe_error(error)) from error
