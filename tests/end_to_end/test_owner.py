"""However the caller ends, nothing of its job is left: no process, no socket file, no directory."""

import signal
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
from marked import Caller, caller, marked_cluster
from waiting import wait_until

pytestmark = pytest.mark.slow

GONE_S = 3.0  # after the death of a caller nothing of its private cluster is alive: promised

# Two workers are in a call that refuses to end and has a child in a session of its own.
BUSY = """
import atexit, os, signal, subprocess, sys, threading, time
from burla import remote_parallel_map

def f(x):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    open(f"in{x}", "w").close()
    while True:
        time.sleep(1)

def wait_busy():
    while not os.path.exists("in0"):
        time.sleep(0.01)
"""
IN_LIST = BUSY + "remote_parallel_map(f, range(5))\n"
WITH_GENERATOR = BUSY + "results = remote_parallel_map(f, range(5), generator=True)\nwait_busy()\n"
NEXT = "from burla import remote_parallel_map\nprint(remote_parallel_map(abs, [-1]))\n"
WITH_THREAD = (
    BUSY
    + "threading.Thread(target=remote_parallel_map, args=(f, range(5)), daemon=True).start()\n"
    + "wait_busy()\n"
)


def wait_busy(script: Caller) -> None:
    def busy() -> bool:
        assert script.process.poll() is None, script.wait_end()
        return (script.directory / "in0").exists()

    wait_until(busy, "a worker is in a call")


def assert_nothing_left(script: Caller) -> None:
    script.mark.wait_gone(GONE_S)
    wait_until(lambda: not script.left(), "its temporary directory is empty")


@pytest.mark.parametrize("source", [IN_LIST, WITH_GENERATOR + "time.sleep(600)"])
def test_kill_9_of_the_caller(tmp_path: Path, source: str) -> None:
    with caller(source, tmp_path) as script:
        wait_busy(script)
        assert len(script.mark.processes()) >= 6  # caller, daemons, zygote, worker, sleep
        assert script.left()
        script.kill()
        script.process.wait()
        assert_nothing_left(script)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_that_ends_the_caller(tmp_path: Path, number: int) -> None:
    with caller(IN_LIST, tmp_path) as script:
        wait_busy(script)
        script.kill(number)
        assert script.process.wait() == -number
        assert_nothing_left(script)


ENDS: dict[str, tuple[str, int]] = {
    "sys.exit beside a generator": (WITH_GENERATOR + "sys.exit(7)", 7),
    "sys.exit beside a thread": (WITH_THREAD + "sys.exit(7)", 7),
    "the end of the script": (WITH_GENERATOR, 0),
    "an exception": (WITH_GENERATOR + "raise ValueError(results)", 1),
    "os._exit": (WITH_GENERATOR + "os._exit(9)", 9),
    "os._exit in atexit": (WITH_GENERATOR + "atexit.register(os._exit, 9)", 9),
    "a segfault": (WITH_GENERATOR + "import ctypes; ctypes.string_at(0)", -signal.SIGSEGV),
    "sys.exit in a SIGTERM handler": (
        BUSY
        + "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        + "threading.Timer(0, lambda: (wait_busy(), os.kill(os.getpid(), 15))).start()\n"
        + "remote_parallel_map(f, range(5))\n",
        3,
    ),
    "an error in the inputs": (
        BUSY
        + "def inputs():\n    yield from range(2)\n    wait_busy()\n    raise KeyError('mine')\n"
        + "remote_parallel_map(f, inputs())\n",
        1,
    ),
    "exec of another program": (WITH_GENERATOR + "os.execv('/bin/true', ['true'])", 0),
}


@pytest.mark.parametrize("how", ENDS)
def test_every_other_end_of_the_caller(tmp_path: Path, how: str) -> None:
    source, wanted = ENDS[how]
    with caller(source, tmp_path) as script:
        status, _, err = script.wait_end()
        assert status == wanted, err
        assert_nothing_left(script)


def test_kill_9_of_the_caller_with_its_daemons_leaves_no_process(tmp_path: Path) -> None:
    with caller(IN_LIST, tmp_path) as script:
        wait_busy(script)
        own = psutil.Process(script.process.pid)
        for daemon in (*own.children(), own):
            daemon.kill()
        script.process.wait()
        script.mark.wait_gone(GONE_S)


def test_a_forked_child_outlives_its_parent_and_has_a_cluster_of_its_own(tmp_path: Path) -> None:
    source = """
import os, time
from burla import remote_parallel_map

print(remote_parallel_map(abs, [-1]), flush=True)
parent = os.getpid()
if os.fork() == 0:
    while os.getppid() == parent:
        time.sleep(0.01)
    print(remote_parallel_map(abs, [-2]), flush=True)
else:
    os._exit(0)
"""
    with caller(source, tmp_path) as script:
        assert script.wait_end()[1].splitlines() == ["[1]", "[2]"]
        script.process.wait()
        wait_until(lambda: not script.mark.processes(), "the child has ended too")
        assert_nothing_left(script)


# --- a cluster that others use too ---


ON_SHARED: dict[str, tuple[str, int]] = {
    "kill": (IN_LIST, signal.SIGKILL),
    "term": (IN_LIST, signal.SIGTERM),
    "exit": (WITH_GENERATOR + "sys.exit()", 0),
    "gone": (WITH_GENERATOR + "os._exit(0)", 0),
}


def test_the_calls_of_callers_that_end_are_stopped_on_a_shared_cluster(tmp_path: Path) -> None:
    with marked_cluster(tmp_path, 1, 1, 1, 1) as (made, mark), ExitStack() as stack:

        def sleeping() -> int:
            count = 0
            for process in mark.processes():
                with suppress(psutil.NoSuchProcess):
                    count += process.name() == "sleep"
            return count

        scripts = {}
        for name, (source, _) in ON_SHARED.items():
            home = tmp_path / name
            home.mkdir()
            scripts[name] = stack.enter_context(caller(source, home, cluster=made.address))
        for name, script in scripts.items():
            number = ON_SHARED[name][1]
            if number:
                wait_busy(script)
                script.kill(number)
            script.process.wait()
            assert (script.directory / "in0").exists()
        wait_until(lambda: not sleeping(), "the calls are stopped, with what they started")
        assert [nodelet.poll() for nodelet in made.nodelets] == [None] * 4
        with caller(NEXT, tmp_path, cluster=made.address) as script:
            assert script.wait_end() == (0, "[1]\n", "")


def test_a_caller_that_is_stopped_for_a_while_goes_on(tmp_path: Path) -> None:
    source = """
from burla import remote_parallel_map

def f(x):
    import os, time
    open(f"in{x}", "w").close()
    time.sleep(0.02)
    return x

assert remote_parallel_map(f, range(100)) == list(range(100))
"""
    with (
        marked_cluster(tmp_path, 2) as (made, _),
        caller(source, tmp_path, cluster=made.address) as script,
    ):
        wait_busy(script)
        script.kill(signal.SIGSTOP)
        wait_until(lambda: (tmp_path / "in99").exists(), "its calls have run meanwhile")
        script.kill(signal.SIGCONT)
        assert script.wait_end() == (0, "", "")
