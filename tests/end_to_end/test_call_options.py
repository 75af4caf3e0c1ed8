"""Calls that fail, in what order results come, and calls with keywords: with real workers."""

import contextlib
import os
import signal
import subprocess
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from scripts import run, succeed

from burla import CallTimeout, ResultNotSendable, WorkerDied, call, remote_parallel_map as rpm

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared")]


def fragile(x: int, *, times: int = 1) -> Any:
    """Fail in as many ways as there are."""
    if x == 3:
        raise KeyError(x)
    if x == 5:
        os._exit(7)
    if x == 7:
        return (one for one in (x,))
    if x == 9:
        raise SystemExit(2)
    return x * times


@pytest.mark.parametrize("generator", [False, True])
def test_every_input_has_its_result_or_its_exception(generator: bool) -> None:
    inputs: list[Any] = [call(x, times=2) if x % 2 else x for x in range(12)]
    got = dict(rpm(fragile, inputs, generator=generator, with_index=True, return_exceptions=True))
    failed = {index: value for index, value in got.items() if isinstance(value, BaseException)}
    assert {index: type(error).__name__ for index, error in failed.items()} == {
        3: "KeyError",
        5: "WorkerDied",
        7: "ResultNotSendable",
        9: "FunctionExited",
    }
    assert all(error.burla_input_index == index for index, error in failed.items())  # type: ignore[attr-defined]
    assert failed[3].__traceback__ is not None
    assert isinstance(failed[5], WorkerDied)
    assert isinstance(failed[7], ResultNotSendable)
    assert {index: got[index] for index in got if index not in failed} == {
        x: x * (2 if x % 2 else 1) for x in range(12) if x not in failed
    }


def test_among_a_hundred_thousand_tiny_calls_ten_are_bad() -> None:
    got = rpm(lambda x: 1 // (x % 10_000), range(100_000), return_exceptions=True)
    assert [i for i, value in enumerate(got) if value != 0] == [
        i for i in range(100_000) if i % 10_000 < 2
    ]
    assert {type(got[i]) for i in range(0, 100_000, 10_000)} == {ZeroDivisionError}


def test_a_function_that_cannot_be_loaded_is_no_outcome(tmp_path: Path) -> None:
    source = """
    from burla import CallTimeout, JobFailed, remote_parallel_map

    class Broken:
        def __reduce__(self):
            return int, ("no number",)

    broken = Broken()
    try:
        remote_parallel_map(lambda x: broken, [1, 2], return_exceptions=True)
    except JobFailed as error:
        print("failed", len(error.burla_partial))
    """
    assert succeed(source, tmp_path) == "failed 0\n"


def test_ctrl_c_leaves_what_was_there(tmp_path: Path) -> None:
    source = """
    import os, signal, time
    from burla import remote_parallel_map

    def slow(x):
        if x > 3:
            time.sleep(60)
        return x

    def interrupt(seen):
        if seen.done == 4 and not pressed:
            pressed.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    pressed = []
    try:
        remote_parallel_map(slow, range(10), progress=interrupt)
    except KeyboardInterrupt as error:
        print({i: error.burla_partial[i] for i in error.burla_partial})
    """
    assert succeed(source, tmp_path) == "{0: 0, 1: 1, 2: 2, 3: 3}\n"


def test_in_order_although_the_first_is_slow() -> None:
    def first_is_slow(x: int) -> int:
        time.sleep(0.3 if x == 0 else 0)
        return x

    got = list(rpm(first_is_slow, range(20_000), generator=True, ordered=True))
    assert got == list(range(20_000))


def test_in_order_with_little_memory_however_slow_the_first_is() -> None:
    """Megabytes wait for input 0: others are called only as far as they fit."""

    def big(x: int) -> tuple[int, bytes]:
        if x == 0:
            time.sleep(0.5)
        return x, bytes(1 << 20)

    at = 0
    for x, _ in rpm(big, range(200), generator=True, ordered=True):
        assert x == at
        at += 1
    assert at == 200


def hang(how: str) -> str:
    """Last for a minute in some way that is hard to end."""
    match how:
        case "sleep":
            time.sleep(60)
        case "lock":
            sum(range(10**11))
        case "catch":
            while True:
                with contextlib.suppress(BaseException):
                    time.sleep(60)
        case "catch once":
            try:
                time.sleep(60)
            except BaseException:
                return "not in time"
        case "another error":
            try:
                time.sleep(60)
            except Exception as error:
                raise KeyError(how) from error
        case "mask":
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            time.sleep(60)
        case "alarm":
            signal.signal(signal.SIGALRM, lambda *_: None)
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
            time.sleep(60)
        case "threads":
            with ThreadPoolExecutor(1) as pool:
                pool.submit(time.sleep, 60).result()
        case "child":
            subprocess.run(["sleep", "60.25"], check=True)
        case "system":
            os.system("sleep 60.25")
        case "result":
            return Slow()  # type: ignore[return-value]  # it is what cannot be pickled in time
        case _:
            pass
    return how


class Slow:
    def __reduce__(self) -> Any:
        time.sleep(60)
        return str, ("late",)


def test_a_call_that_lasts_is_ended_whatever_it_does_and_no_other_is_touched() -> None:
    kinds = ["sleep", "lock", "catch", "catch once", "another error", "mask", "alarm"]
    kinds += ["threads", "child", "system", "result"]
    inputs = [each for kind in kinds for each in (kind, f"quick {kind}")]
    got = rpm(hang, inputs, timeout=0.3, return_exceptions=True)
    assert got[1::2] == inputs[1::2]
    late: list[Any] = got[0::2]
    assert all(isinstance(error, CallTimeout) for error in late), late
    assert all(isinstance(error, TimeoutError) for error in late)
    assert [error.burla_input_index for error in late] == list(range(0, len(inputs), 2))
    killed = {kind for kind, error in zip(kinds, late, strict=True) if error.killed}
    assert killed == {"lock", "catch", "mask", "threads", "system", "result"}
    assert all(error.timeout == 0.3 for error in late)
    sleep, other = late[kinds.index("sleep")], late[kinds.index("another error")]
    assert traceback.extract_tb(sleep.__traceback__)[-1].line == "time.sleep(60)"
    assert isinstance(other.__cause__, KeyError)
    sleepers = subprocess.run(["pgrep", "-f", "sleep 60.25"], capture_output=True, check=False)
    assert sleepers.stdout == b""  # the children went with the calls


def test_neighbours_in_a_stride_are_run_once_and_not_lost(tmp_path: Path) -> None:
    """Tiny calls share a stride: some of it is done, and not written, when one must be killed."""
    log = tmp_path / "log"

    def tiny(x: int) -> int:
        if "log" not in opened:
            opened["log"] = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.write(opened["log"], b"%d\n" % x)
        if x in (7_777, 17_000):
            sum(range(10**11))
        return x

    opened: dict[str, int] = {}
    tmp_path.chmod(0o777)
    got = rpm(tiny, range(20_000), timeout=0.3, return_exceptions=True)
    assert [i for i, x in enumerate(got) if x != i] == [7_777, 17_000]
    assert sorted(map(int, log.read_text().split())) == list(range(20_000))


def test_without_return_exceptions_it_is_raised() -> None:
    with pytest.raises(CallTimeout, match=r"input 0.*longer than timeout=0\.2 s; it was interr"):
        rpm(time.sleep, [60], timeout=0.2)
    with pytest.raises(CallTimeout, match=r"input 0 = 1.* so its process was killed"):
        rpm(lambda x: sum(range(10**11)), [1], timeout=0.2)


def test_calls_in_calls_have_their_time_limit() -> None:
    def outer(x: float) -> list[Any]:
        return rpm(time.sleep, [0, x], timeout=0.2, return_exceptions=True)

    ((first, second),) = rpm(outer, [60], timeout=30)
    assert first is None
    assert isinstance(second, CallTimeout)
    assert second.burla_input_index == 1


def test_calls_are_called_again_and_that_is_said(tmp_path: Path) -> None:
    source = f"""
    import os, time
    from burla import Retry, remote_parallel_map

    class Mine(Exception):
        pass

    def count(x):
        with open(f"{tmp_path}/tries{{x}}", "a") as file:
            file.write("x")
        return os.path.getsize(f"{tmp_path}/tries{{x}}")

    def flaky(x):
        tries = count(x)
        if x == 1 and tries <= 2:
            raise Mine(x)
        if x == 2 and tries == 1:
            time.sleep(60)
        if x == 3 and tries == 1:
            sum(range(10**11))
        if x == 4:
            raise KeyError(x)
        return x, tries

    retry = Retry(3, on=(Mine, TimeoutError), backoff_s=0.01, jitter=0.5)
    print(remote_parallel_map(flaky, range(6), retries=retry, timeout=0.3, raise_errors=False))
    try:
        remote_parallel_map(flaky, [4], retries=2)
    except KeyError as error:
        print(repr(error), error.burla_input_index, count(4))
    """
    tmp_path.chmod(0o777)
    done = run(source, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "[(0, 1), (1, 3), (2, 2), (3, 2), KeyError(4), (5, 1)]\nKeyError(4) 0 5\n"
    )
    first, second = done.stderr.splitlines()
    assert first.startswith(
        "burla: flaky: 3 calls were called again after errors, 4 times in all: "
    )
    assert "input 1 (Mine, 2 times)" in first
    assert second == (
        "burla: flaky: 1 call was called again after errors, 2 times in all:"
        " input 0 (KeyError, 2 times)"
    )


def test_with_all_options_at_once() -> None:
    def third(x: int, *, key: int = 0) -> tuple[int, int]:
        if x % 3 == 0:
            raise ValueError(x)
        return x, key

    inputs: list[Any] = [call(x, key=x) if x % 2 else x for x in range(30)]
    got = rpm(
        third,
        inputs,
        generator=True,
        ordered=True,
        with_index=True,
        return_exceptions=True,
        timeout=20,
        retries=1,
        spinner=False,
    )
    for x, (index, value) in enumerate(got):
        assert index == x
        if x % 3 == 0:
            assert isinstance(value, ValueError)
        else:
            assert value == (x, x if x % 2 else 0)


def test_calls_in_calls_are_called_again() -> None:
    def outer(x: int) -> list[int]:
        tries: list[int] = []

        def inner(y: int) -> int:
            tries.append(y)
            if len(tries) < 3:
                raise ValueError
            return len(tries)

        return [*rpm(inner, [x], retries=2), len(tries)]

    assert rpm(outer, [1]) == [[3, 3]]
