"""Errors look as if they had been raised here, name their input, and never hang the call."""

import ctypes
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripts import run, succeed

from burla import (
    FunctionExited,
    InputNotLoadable,
    RemoteError,
    ResultNotSendable,
    WorkerDied,
    remote_parallel_map,
)
from burla.errors import JobFailed

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared")]


def double(x: int) -> int:
    return x * 2


def still_works() -> bool:
    return remote_parallel_map(lambda x: x + 1, [1, 2]) == [2, 3]


def test_the_original_exception_comes_with_its_frames_causes_and_input() -> None:
    def inner(x: int) -> int:
        try:
            return 1 // (17 - x)
        except ZeroDivisionError as error:
            raise KeyError("seventeen") from error

    def outer(x: int) -> int:
        return inner(x)

    with pytest.raises(KeyError) as caught:
        remote_parallel_map(outer, range(100))
    error: Any = caught.value
    assert error.args == ("seventeen",)
    assert error.burla_input_index == 17
    assert error.__notes__ == ["input 17 = 17 · node node0"]
    frames = traceback.extract_tb(error.__traceback__)
    names = [(frame.name, frame.filename, frame.line) for frame in frames[-2:]]
    assert names == [
        ("outer", __file__, "return inner(x)"),
        ("inner", __file__, 'raise KeyError("seventeen") from error'),
    ]
    assert type(error.__cause__) is ZeroDivisionError
    assert traceback.extract_tb(error.__cause__.__traceback__)[-1].name == "inner"
    assert still_works()


def test_a_script_shows_the_remote_traceback(tmp_path: Path) -> None:
    source = """
    from burla import remote_parallel_map

    class Special(Exception):
        pass

    def fail(x):
        raise Special(f"no {x}")  # here

    try:
        remote_parallel_map(fail, ["a"])
    except Special as error:
        print("caught as the same class")
    remote_parallel_map(fail, ["a"])
    """
    done = run(source, tmp_path)
    assert done.returncode == 1
    assert done.stdout == "caught as the same class\n"
    last = done.stderr.splitlines()
    assert "__main__.Special: no a" in last or "Special: no a" in last
    assert last[-1] == "input 0 = 'a' · node node0"
    assert 'raise Special(f"no {x}")  # here' in done.stderr
    assert f'File "{tmp_path}/script.py", line 8, in fail' in done.stderr
    assert done.stderr.count("Traceback") == 1


def test_the_first_error_stops_the_job(tmp_path: Path) -> None:
    begun = str(tmp_path)

    def fail_first(x: int) -> None:
        if x == 0:
            raise ValueError("first")
        open(os.path.join(begun, str(x)), "w").close()
        time.sleep(0.02)

    with pytest.raises(ValueError, match="first"):
        remote_parallel_map(fail_first, range(1000))
    assert still_works()  # on both slots of the only node: the job before has ended
    count = len(os.listdir(begun))
    assert count < 900
    assert still_works()
    assert len(os.listdir(begun)) == count


def test_a_generator_yields_nothing_after_the_error() -> None:
    results = remote_parallel_map(lambda x: 1 // x, [1, 1, 0], generator=True)
    with pytest.raises(ZeroDivisionError):
        list(results)
    assert list(results) == []


class Locked(Exception):
    """Holds what cannot be pickled, but does not say so in its text."""

    def __init__(self, text: str, *more: object) -> None:
        super().__init__(text, *more)
        self.code = 3
        self.lock = threading.Lock()

    def __str__(self) -> str:
        return str(self.args[0])


class Odd(Exception):
    """Wants arguments that nobody keeps, so plain pickling fails."""

    def __init__(self, *, code: int, place: str) -> None:
        super().__init__(f"{place}: {code}")
        self.code = code


class Explosive:
    """Fails when it is unpickled, wherever that is."""

    def __reduce__(self) -> Any:
        return eval, ("1 // 0",)

    def __str__(self) -> str:
        return "bang"


def test_an_exception_comes_without_an_attribute_that_cannot_be_pickled() -> None:
    def fail(x: str) -> None:
        raise Locked("stuck")

    with pytest.raises(Locked, match=r"^stuck\n") as info:
        remote_parallel_map(fail, ["a"])
    assert (info.value.code, vars(info.value).get("lock")) == (3, None)
    assert "left behind, as it cannot be pickled: lock" in info.value.__notes__


def test_an_exception_that_cannot_be_pickled_is_shown_as_text() -> None:
    def fail(x: str) -> None:
        if x == "b":
            raise Locked("stuck", threading.Lock()) from OSError("the cause")

    with pytest.raises(RemoteError, match=r"(?s)input 1 = 'b' · node node0.*Locked: stuck") as info:
        remote_parallel_map(fail, ["a", "b"])
    error = info.value
    assert (error.burla_input_index, error.text) == (1, "stuck")
    assert error.type_name.endswith("Locked")
    assert "raise Locked" in error.remote_traceback
    assert type(error.__cause__) is OSError


def test_an_exception_that_cannot_be_unpickled_is_shown_as_text() -> None:
    def fail(x: int) -> None:
        raise ValueError(Explosive())

    with pytest.raises(RemoteError, match=r"(?s)input 0.*ValueError: bang"):
        remote_parallel_map(fail, [5])


def test_an_odd_init_does_no_harm() -> None:
    def fail(x: int) -> None:
        raise Odd(code=x, place="there")

    with pytest.raises(Odd, match="there: 5") as info:
        remote_parallel_map(fail, [5])
    assert (type(info.value), info.value.code) == (Odd, 5)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_would_end_a_process_is_an_error_that_names_the_input(
    error: type[BaseException],
) -> None:
    def leave(x: int) -> None:
        if x:
            raise error("gone")

    with pytest.raises(FunctionExited, match=rf"input 1 = 7 .*{error.__name__}: gone") as info:
        remote_parallel_map(leave, [0, 7])
    assert info.value.burla_input_index == 1
    assert still_works()


def test_sys_exit_and_exceptions_groups_are_told(tmp_path: Path) -> None:
    with pytest.raises(FunctionExited, match="SystemExit: 3"):
        remote_parallel_map(lambda x: sys.exit(3), [0])

    def group(x: int) -> None:
        raise ExceptionGroup("many", [ValueError(x), TypeError("t")])

    with pytest.raises(ExceptionGroup) as info:
        remote_parallel_map(group, [1])
    assert [type(one) for one in info.value.exceptions] == [ValueError, TypeError]


def by_exit(x: int) -> None:
    os._exit(5)


def by_segfault(x: int) -> None:
    ctypes.string_at(0)


def by_signal(x: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("die", "how"),
    [(by_exit, "exit status 5"), (by_segfault, "signal SIGSEGV"), (by_signal, "signal SIGKILL")],
)
def test_an_input_that_always_kills_its_worker_is_named_after_three_deaths(
    die: Callable[[int], None], how: str, tmp_path: Path
) -> None:
    deaths = str(tmp_path / "deaths")

    def poison(x: int) -> int:
        if x == 30:
            with open(deaths, "a") as file:
                file.write("x")
            die(x)
        return x

    with pytest.raises(WorkerDied, match=rf"input 30 = 30 · node node0.* 3 times.*{how}") as info:
        remote_parallel_map(poison, range(60))
    error = info.value
    assert (error.burla_input_index, error.how, error.deaths) == (30, how, 3)
    assert len(Path(deaths).read_text()) >= 3
    assert still_works()


def test_a_death_that_does_not_come_again_is_no_error(tmp_path: Path) -> None:
    once = str(tmp_path / "once")

    def die_once(x: int) -> int:
        if x == 500 and not os.path.exists(once):
            open(once, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return x * 2

    assert remote_parallel_map(die_once, range(1000)) == list(range(0, 2000, 2))


def test_a_result_that_cannot_be_pickled_is_named_with_its_part() -> None:
    def give(x: int) -> Any:
        return {"deep": [1, threading.Lock()]} if x else x

    with pytest.raises(ResultNotSendable, match=r"input 1 = 1 .*lock") as info:
        remote_parallel_map(give, [0, 1])
    assert info.value.burla_input_index == 1


def test_a_result_that_cannot_be_unpickled_here_is_named() -> None:
    with pytest.raises(ResultNotSendable, match=r"input 1 .*unpickled here.*ZeroDivision"):
        remote_parallel_map(lambda x: BadCopy() if x else None, [0, 1])


class BadCopy:
    def __reduce__(self) -> Any:
        return eval, ("1 // 0",)


def test_an_input_that_cannot_be_unpickled_there_is_named() -> None:
    with pytest.raises(InputNotLoadable, match=r"input 2 .*ZeroDivision") as info:
        remote_parallel_map(lambda x: None, [1, 2, BadCopy(), 3])
    assert info.value.burla_input_index == 2
    assert still_works()


def test_a_function_that_cannot_be_loaded_there_is_a_clear_error(tmp_path: Path) -> None:
    bad = BadCopy()
    with pytest.raises((InputNotLoadable, JobFailed, RemoteError, ZeroDivisionError)) as info:
        remote_parallel_map(lambda x: bad, [1, 2])
    assert "division" in str(info.value)
    assert still_works()


# --- before anything is sent ---


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"function_": 5}, TypeError, "function_ must be callable"),
        ({"inputs": 5}, TypeError, "inputs must be iterable"),
        ({"func_cpu": 0}, ValueError, "func_cpu must be at least 1"),
        ({"func_cpu": 1.5}, TypeError, "func_cpu must be a whole number"),
        ({"func_ram": -1}, ValueError, "func_ram must be more than 0"),
        ({"max_parallelism": 0}, ValueError, "max_parallelism must be at least 1"),
        ({"generator": "yes"}, TypeError, "generator must be True or False"),
        ({"unpack": "yes"}, TypeError, "unpack must be"),
    ],
)
def test_a_bad_argument_is_named_before_anything_starts(
    arguments: Any,
    error: type[Exception],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BURLA_CLUSTER", "ipc:///nowhere/to/be/found")
    with pytest.raises(error, match=words):
        remote_parallel_map(**({"function_": double, "inputs": [1]} | arguments))


def test_generator_and_async_functions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURLA_CLUSTER", "ipc:///nowhere/to/be/found")

    def generate(x: int) -> Any:
        yield x

    async def wait(x: int) -> int:
        return x

    with pytest.raises(TypeError, match=r"'.*generate' is a generator function"):
        remote_parallel_map(generate, [1])
    with pytest.raises(TypeError, match=r"'.*wait' is an async function"):
        remote_parallel_map(wait, [1])


def test_what_cannot_be_sent_is_named_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURLA_CLUSTER", "ipc:///nowhere/to/be/found")
    kept = {"list": [0, threading.Lock()]}
    with pytest.raises(TypeError, match=r"function_ .*kept.*'list'.*1.*lock"):
        remote_parallel_map(lambda x: kept, [1])
    with pytest.raises(TypeError, match=r"input 2\b.*lock"):
        remote_parallel_map(double, [1, 2, threading.Lock()])
    with pytest.raises(TypeError, match=r"input 1 = \(1, 2, 3\).*pow_ takes 2"):
        remote_parallel_map(lambda_pow(), [(1, 2), (1, 2, 3)])


def lambda_pow() -> Callable[[int, int], int]:
    def pow_(a: int, b: int) -> int:
        return int(a**b)

    return pow_


def test_an_input_in_the_middle_that_cannot_be_sent_is_named_too() -> None:
    inputs = (threading.Lock() if x == 5000 else x for x in range(10_000))
    with pytest.raises(TypeError, match=r"input 5000\b.*lock"):
        remote_parallel_map(lambda x: x, inputs)
    assert still_works()


def test_bad_arguments_start_no_process(tmp_path: Path) -> None:
    source = """
    import psutil
    from burla import remote_parallel_map
    for arguments in ((5, [1]), (str, 5), (str, [1], 0)):
        try:
            remote_parallel_map(*arguments)
        except (TypeError, ValueError):
            pass
    assert remote_parallel_map(str, []) == []
    print(psutil.Process().children())
    """
    assert succeed(source, tmp_path, private=True) == "[]\n"


def test_pickled_errors_of_a_call_keep_their_index() -> None:
    with pytest.raises(FunctionExited) as info:
        remote_parallel_map(lambda x: sys.exit(), [0])
    assert pickle.loads(pickle.dumps(info.value)).burla_input_index == 0
