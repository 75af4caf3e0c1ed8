"""What a user reads when a call's process ends: who did it if that is known, and no other cause."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from clusters import Cluster

import burla
from burla import remote_parallel_map

pytestmark = pytest.mark.slow


def dying(function: Callable[[int], Any]) -> burla.WorkerDied:
    with pytest.raises(burla.WorkerDied) as caught:
        remote_parallel_map(function, [1])
    return caught.value


def send(number: int) -> Callable[[int], None]:
    def call(x: int) -> None:
        import time

        os.kill(os.getpid(), number)
        time.sleep(30)

    return call


def close_all(x: int) -> None:
    os.closerange(3, 1000)


def close_all_and_go_on(x: int) -> None:
    import time

    os.closerange(0, 1000)
    time.sleep(30)


def become_another(x: int) -> None:
    os.execv("/bin/sleep", ["sleep", "30"])


def use_up_time(x: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (1, 5))
    while True:
        pass


def exit_in_a_thread(x: int) -> None:
    import threading

    thread = threading.Thread(target=os._exit, args=(7,))
    thread.start()
    thread.join()


@pytest.mark.parametrize("function", [close_all, close_all_and_go_on, become_another])
def test_a_closed_connection_is_told_as_that(
    shared: Cluster, function: Callable[[int], None]
) -> None:
    error = dying(function)
    assert "The node ended it, because its connection to the node was closed" in str(error)
    assert "memory" not in str(error)
    assert error.last_words == ""


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGKILL, "The node did not send it"),
        (signal.SIGTERM, "Who sent it is not known"),
        (signal.SIGHUP, "Who sent it is not known"),
        (signal.SIGALRM, "A timer"),
    ],
)
def test_a_signal_is_told_with_what_is_known(
    shared: Cluster, number: signal.Signals, said: str
) -> None:
    error = dying(send(number))
    assert error.how == f"signal {number.name}"
    assert said in str(error)
    assert "ative code" not in str(error)


def test_a_kill_is_told_with_the_memory_that_there_was(shared: Cluster) -> None:
    assert "GB were free" in str(dying(send(signal.SIGKILL)))


def test_limits_and_exits_are_told_as_such(shared: Cluster) -> None:
    assert "RLIMIT_CPU" in str(dying(use_up_time))
    assert "exit status 7" in str(dying(exit_in_a_thread))


def crash(x: int) -> None:
    import ctypes

    print("before")
    ctypes.string_at(0)


def test_where_native_code_crashed_is_in_the_error(
    shared: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    error = dying(crash)
    assert error.last_words == "before"
    assert "Fatal Python error: Segmentation fault" in error.dump
    assert error.dump.splitlines()[-1].endswith("in crash")
    assert error.dump in str(error)
    assert capfd.readouterr().err == ""  # three times would be two too many


def test_a_function_may_use_faulthandler_for_itself(
    shared: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    def own(x: int) -> None:
        import faulthandler

        faulthandler.enable()
        crash(x)

    error = dying(own)
    assert "Segmentation fault" in error.last_words
    assert error.dump == ""
    assert "Segmentation fault" in capfd.readouterr().err

    def dump(x: int) -> bool:
        import faulthandler
        import sys

        faulthandler.dump_traceback(sys.stderr)
        faulthandler.disable()
        return faulthandler.is_enabled()

    assert remote_parallel_map(dump, [1]) == [False]
    assert "in dump" in capfd.readouterr().err


def test_what_dies_while_the_function_is_loaded_is_told_as_that(shared: Cluster) -> None:
    class Deadly:
        def __reduce__(self) -> Any:
            return os._exit, (4,)

    deadly = Deadly()
    error = dying(lambda x: deadly)
    assert "by exit status 4 while it loaded the function" in str(error)
