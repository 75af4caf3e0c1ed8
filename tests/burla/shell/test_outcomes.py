import threading
import traceback
from typing import Any

import pytest

from burla.errors import (
    CallFailed,
    FunctionExited,
    InputNotLoadable,
    JobFailed,
    RemoteError,
    ResultNotSendable,
)
from burla.limits import GB
from burla.protocol.deaths import CLOSED, Death, OutOfMemoryFigures
from burla.shell.outcomes import exception_of, result_not_loadable, worker_died
from burla.values.payloads import (
    NotLoadableError,
    ResultNotPicklableError,
    dump_error,
    dump_result,
    load_error,
    load_result,
)


def outcome(error: BaseException, **more: Any) -> BaseException:
    try:
        raise error
    except BaseException as raised:
        frames = dump_error(raised, "n1", 17, "'x'")
    return exception_of(load_error(frames), **more)


class Unloadable:
    def __reduce__(self) -> Any:
        return int, ("not a number",)


@pytest.mark.parametrize("error", [ValueError("x"), TimeoutError(), StopIteration(3)])
def test_what_was_raised_is_raised(error: Exception) -> None:
    assert type(outcome(error)) is type(error)


@pytest.mark.parametrize(
    ("error", "public", "text"),
    [
        (SystemExit(3), FunctionExited, "the function raised SystemExit: 3"),
        (KeyboardInterrupt(), FunctionExited, "the function raised KeyboardInterrupt, which"),
        (GeneratorExit(), FunctionExited, "the function raised GeneratorExit"),
        (NotLoadableError("no module x"), InputNotLoadable, "cannot unpickle.*no module x"),
        (ResultNotPicklableError("result is a lock"), ResultNotSendable, "result is a lock"),
        (ValueError(threading.Lock()), RemoteError, "ValueError: .*Remote traceback"),
    ],
)
def test_what_cannot_be_raised_here_becomes_a_public_error_that_names_the_input(
    error: BaseException, public: type[CallFailed], text: str
) -> None:
    raised: Any = outcome(error)
    assert type(raised) is public
    assert str(raised).startswith("input 17 = 'x' · node n1: ")
    assert raised.burla_input_index == 17
    with pytest.raises(public, match=f"(?s){text}"):
        raise raised
    assert "raise error" in "".join(traceback.format_exception(raised))


def test_causes_stay_with_the_public_error() -> None:
    error = ResultNotPicklableError("r")
    error.__cause__ = ValueError("why")
    raised = outcome(error)
    assert isinstance(raised.__cause__, ValueError)


def test_what_is_known_of_an_exception_that_stayed_there_can_be_asked() -> None:
    raised = outcome(ValueError(threading.Lock()))
    assert isinstance(raised, RemoteError)
    assert raised.type_name == "ValueError"
    assert "lock" in raised.text
    assert "raise error" in raised.remote_traceback


def test_stop_iteration_does_not_end_an_iterator_silently() -> None:
    raised = outcome(StopIteration(3), in_iterator=True)
    assert type(raised) is RuntimeError
    assert type(raised.__cause__) is StopIteration
    assert raised.burla_input_index == 17  # type: ignore[attr-defined]  # ours


def test_a_result_that_cannot_be_unpickled_is_an_error_of_its_input() -> None:
    with pytest.raises(NotLoadableError, match="ValueError: invalid literal") as caught:
        load_result(dump_result(Unloadable()))
    public = result_not_loadable(17, "n1", caught.value)
    assert public.burla_input_index == 17
    assert str(public).startswith("input 17 · node n1: the result cannot be unpickled here: Value")
    assert isinstance(public.__cause__, ValueError)


def test_a_function_that_could_not_be_loaded_is_no_error_of_an_input() -> None:
    try:
        raise ModuleNotFoundError("no module named x")
    except ModuleNotFoundError as raised:
        error = exception_of(load_error(dump_error(raised, "n1", -1)))
    assert type(error) is JobFailed
    expected = "the function cannot be loaded on node n1: ModuleNotFoundError: no module named x"
    assert str(error) == expected
    assert type(error.__cause__) is ModuleNotFoundError
    assert not hasattr(error.__cause__, "__notes__")


def unpickled_with(cause: Exception) -> NotLoadableError:
    error = NotLoadableError(f"{type(cause).__name__}: {cause}")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("cause", "remedy"),
    [
        (ModuleNotFoundError("No module named 'x'"), "importable"),
        (AttributeError("Can't get attribute 'X'"), "importable"),
        (MemoryError("mine"), "memory"),
        (FileNotFoundError(2, "No such file or directory", "/nope"), "operating system"),
        (ValueError("bad state"), "raised while it was put together"),
    ],
)
def test_what_cannot_be_unpickled_is_told_with_its_own_cause(cause: Exception, remedy: str) -> None:
    for text in (str(outcome(unpickled_with(cause))), str(of_result(unpickled_with(cause)))):
        assert remedy in text
        assert ("importable" in text) == (remedy == "importable")


def of_result(error: NotLoadableError) -> BaseException:
    return result_not_loadable(17, "n1", error)


def test_a_death_is_told_with_what_is_known_of_it() -> None:
    seen = OutOfMemoryFigures(GB // 2, 0, 16 * GB, 12 * GB)
    killed = worker_died(17, Death("signal", 9, 3, seen=seen), "input 17")
    assert "the call used 0.5 GB, 12 of the node's 16 GB were free" in str(killed)
    closed = worker_died(17, Death("signal", 9, 3, killed_for=CLOSED), "input 17")
    assert "connection to the node was closed" in str(closed)
    assert "memory" not in str(closed)
    dump = 'Fatal Python error: Segmentation fault\n\n  File "a.py", line 1 in f\n'
    crashed = worker_died(17, Death("signal", 11, 1, last_words="bye", dump=dump), "input 17")
    assert "died by signal SIGSEGV" in str(crashed)
    assert str(crashed).endswith("line 1 in f")
    assert crashed.dump in str(crashed)
    loading = worker_died(0, Death("fork", 11, 3, was_loading=True), "input 0")
    assert "fork error EAGAIN" in str(loading)
    assert "while it loaded the function" in str(loading)
    assert str(worker_died(0, Death("exit", -1, 1), "c")).startswith(
        "c: its worker process died by exit status unknown"
    )
