"""Ctrl-C, SIGTERM and sys.exit of the caller stop what runs, and leave the rest alone."""

import os
import signal
from pathlib import Path

import psutil
import pytest
from scripts import Process, started, wait_for_lines
from waiting import wait_gone, wait_until

pytestmark = pytest.mark.slow

# Each function notes its pid and that of a process it started, and goes on for a minute.
CALLS = """
import os, signal, subprocess, sys, time
from burla import remote_parallel_map

here = os.path.dirname(os.path.abspath(__file__))

def note(*pids):
    with open(os.path.join(here, "pids"), "a") as file:
        file.write(" ".join(map(str, pids)) + "\\n")

def long(x):
    child = subprocess.Popen(["sleep", "60"])
    note(os.getpid(), child.pid)
    time.sleep(60)

def stubborn(x):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    note(os.getpid(), child.pid)
    until = time.time() + 60
    while time.time() < until:
        try:
            time.sleep(60)
        except BaseException:
            pass
"""
AFTER = """
print("result", remote_parallel_map(lambda x: x * 2, [1, 2]))
"""


def wait_running(directory: Path, calls: int) -> list[psutil.Process]:
    """Return the processes of so many calls, when they run."""
    lines = wait_for_lines(directory / "pids", calls)
    return [psutil.Process(int(pid)) for line in lines for pid in line.split()]


def finish(process: Process) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=50)
    return process.returncode, out, err


@pytest.mark.parametrize("function", ["long", "stubborn"])
@pytest.mark.parametrize("group", [False, True])
def test_ctrl_c_raises_once_and_stops_all(function: str, group: bool, tmp_path: Path) -> None:
    source = f"""{CALLS}
def own(number, frame):
    raise AssertionError("not sent")
signal.signal(signal.SIGUSR1, own)
times = 0
try:
    remote_parallel_map({function}, range(8))
except KeyboardInterrupt:
    times += 1
    time.sleep(0.05)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert signal.getsignal(signal.SIGUSR1) is own
print("times", times)
{AFTER}"""
    with started(source, tmp_path, private=True, start_new_session=True) as process:
        calls = wait_running(tmp_path, min(2, os.cpu_count() or 1))
        if group:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGINT)
        assert finish(process) == (0, "times 1\nresult [2, 4]\n", "")
        wait_gone(calls)


def test_calls_are_gone_soon_after_ctrl_c_while_the_caller_goes_on(tmp_path: Path) -> None:
    source = f"""{CALLS}
try:
    remote_parallel_map(stubborn, range(8))
except KeyboardInterrupt:
    print("interrupted", flush=True)
    input()
"""
    with started(source, tmp_path, private=True) as process:
        calls = wait_running(tmp_path, min(2, os.cpu_count() or 1))
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == "interrupted\n"
        wait_gone(calls, 10)  # "within seconds"
        process.communicate("\n", timeout=50)


def test_ctrl_c_without_a_handler_ends_the_script_as_usual(tmp_path: Path) -> None:
    with started(f"{CALLS}\nremote_parallel_map(long, [1])", tmp_path, private=True) as process:
        calls = wait_running(tmp_path, 1)
        process.send_signal(signal.SIGINT)
        status, out, err = finish(process)
        assert (status, out) == (-signal.SIGINT, "")
        assert err.rstrip().endswith("KeyboardInterrupt")
        assert err.count("KeyboardInterrupt") == 1, err
        wait_gone(calls)


@pytest.mark.parametrize("function", ["long", "stubborn"])
def test_sigterm_of_the_caller_stops_all(function: str, tmp_path: Path) -> None:
    source = f"{CALLS}\nremote_parallel_map({function}, range(4))"
    with started(source, tmp_path, private=True) as process:
        calls = wait_running(tmp_path, 1)
        everything = calls + psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert finish(process) == (-signal.SIGTERM, "", "")
        wait_gone(everything)


def test_sys_exit_while_calls_run_stops_all_and_keeps_its_code(tmp_path: Path) -> None:
    source = f"""{CALLS}
def on_usr1(number, frame):
    sys.exit(7)
signal.signal(signal.SIGUSR1, on_usr1)
remote_parallel_map(stubborn, range(4))
"""
    with started(source, tmp_path, private=True) as process:
        calls = wait_running(tmp_path, 1)
        everything = calls + psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGUSR1)
        assert finish(process) == (7, "", "")
        wait_gone(everything)


def test_sys_exit_with_a_generator_that_still_runs(tmp_path: Path) -> None:
    source = f"""{CALLS}
results = remote_parallel_map(stubborn, range(4), generator=True)
input()
sys.exit(7)
"""
    with started(source, tmp_path, private=True) as process:
        calls = wait_running(tmp_path, 1)
        assert process.communicate("\n", timeout=50) == ("", "")
        assert process.returncode == 7
        wait_gone(calls)


def test_a_killed_caller_leaves_nothing(tmp_path: Path) -> None:
    source = f"{CALLS}\nremote_parallel_map(stubborn, range(4))"
    with started(source, tmp_path, private=True) as process:
        calls = wait_running(tmp_path, 1)
        everything = calls + psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait(20)
        wait_gone(everything)


@pytest.mark.usefixtures("shared")
def test_a_callers_end_stops_its_calls_on_a_cluster_too(tmp_path: Path) -> None:
    for number in (signal.SIGINT, signal.SIGKILL):
        (tmp_path / "pids").unlink(missing_ok=True)
        with started(f"{CALLS}\nremote_parallel_map(stubborn, range(4))", tmp_path) as process:
            calls = wait_running(tmp_path, 2)
            process.send_signal(number)
            finish(process)
            wait_gone(calls, 40)  # a client that just vanishes is missed after 5 s


@pytest.mark.usefixtures("shared")
def test_a_generator_is_interrupted_too(tmp_path: Path) -> None:
    source = f"""{CALLS}
import threading
def tell_when_it_waits(main=threading.get_ident()):
    while sys._current_frames()[main].f_code.co_name != "wait_event":
        time.sleep(0.01)
    print("waits", flush=True)
results = remote_parallel_map(lambda x: long(x) if x else 0, range(9), generator=True)
print(next(results), flush=True)
threading.Thread(target=tell_when_it_waits).start()
try:
    next(results)
except KeyboardInterrupt:
    print("interrupted")
print(list(results))
{AFTER}"""
    with started(source, tmp_path) as process:
        wait_running(tmp_path, 1)
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["0\n", "waits\n"]
        process.send_signal(signal.SIGINT)
        assert finish(process) == (0, "interrupted\n[]\nresult [2, 4]\n", "")


@pytest.mark.usefixtures("shared")
def test_a_users_own_handler_runs_while_a_call_waits(tmp_path: Path) -> None:
    source = f"""{CALLS}
signal.signal(signal.SIGUSR1, lambda number, frame: print("handled", flush=True))
def wait_for_file(x):
    note(os.getpid())
    while not os.path.exists(os.path.join(here, "go")):
        time.sleep(0.01)
    return x
print(remote_parallel_map(wait_for_file, [1]))
"""
    with started(source, tmp_path) as process:
        wait_running(tmp_path, 1)
        process.send_signal(signal.SIGUSR1)
        assert process.stdout is not None
        assert process.stdout.readline() == "handled\n"
        (tmp_path / "go").touch()
        assert finish(process) == (0, "[1]\n", "")
        wait_until(lambda: process.poll() is not None, "the script ends")
