"""Ctrl-C as it comes from a terminal: to the whole group, again and again, at the worst moment."""

import os
import sys
import time
from pathlib import Path

import pytest
from marked import Caller, caller
from scripts import unasked
from terminals import at_terminal, read_until
from waiting import LATE_S, wait_until

pytestmark = pytest.mark.slow

CALLS = """
import os, random, signal, subprocess, sys, threading, time
from burla import remote_parallel_map

def stay(x):
    child = subprocess.Popen(["sleep", "600"])  # in the group of its worker, not in ours
    print("in", x)
    time.sleep(600)

def stubborn(x):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stay(x)

def interrupted(function, inputs=range(6)):
    try:
        remote_parallel_map(function, inputs)
    except KeyboardInterrupt:
        return True
    return False
"""


@pytest.mark.parametrize("function", ["stay", "stubborn"])
def test_ctrl_c_at_a_terminal_interrupts_once_and_the_next_call_works(
    tmp_path: Path, function: str
) -> None:
    source = f"""{CALLS}
print("first", interrupted({function}))
print("then", remote_parallel_map(abs, [-1]), flush=True)
print("second", interrupted({function}))
print("end", remote_parallel_map(abs, [-1]), flush=True)
"""
    script = tmp_path / "script.py"
    script.write_text(source)
    env = {name: value for name, value in os.environ.items() if name != "BURLA_CLUSTER"}
    with at_terminal([sys.executable, str(script)], env) as (process, terminal):
        shown = read_until(terminal, "in 0")
        os.write(terminal, b"\x03")
        shown += read_until(terminal, "then [1]")
        shown += read_until(terminal, "in 0")
        os.write(terminal, b"\x03")
        shown += read_until(terminal, "end [1]")
        assert process.wait(LATE_S) == 0, shown
    assert "first True" in shown
    assert "second True" in shown
    assert "Traceback" not in shown


def test_an_impatient_user_who_hits_ctrl_c_again_and_again_leaves_nothing(tmp_path: Path) -> None:
    with caller(CALLS + "remote_parallel_map(stubborn, range(6))", tmp_path) as script:
        wait_shown(script, "in")
        for _ in range(20):
            if script.process.poll() is not None:
                break
            os.killpg(script.process.pid, 2)
            time.sleep(0.02)
        assert script.wait_end()[0] in (-2, 1, 130)
        script.mark.wait_gone()
        wait_until(lambda: not script.left(), "its temporary directory is empty")


def wait_shown(script: Caller, text: str) -> None:
    """Return when the script has printed a line that begins with `text`."""
    assert script.process.stdout is not None
    line = script.process.stdout.readline()
    assert line.startswith(text), line


def test_a_handler_that_does_not_raise_lets_the_job_go_on(tmp_path: Path) -> None:
    source = f"""{CALLS}
seen = []
handler = lambda number, frame: seen.append(number)
signal.signal(signal.SIGINT, handler)

def f(x):
    print("in", x)
    while not os.path.exists("go"):
        time.sleep(0.01)
    return x

assert remote_parallel_map(f, range(6)) == list(range(6))
assert seen == [signal.SIGINT], seen
assert signal.getsignal(signal.SIGINT) is handler
"""
    with caller(source, tmp_path) as script:
        wait_shown(script, "in")
        os.killpg(script.process.pid, 2)
        (tmp_path / "go").touch()
        status, _, err = script.wait_end()
    assert (status, unasked(err)) == (0, "")


@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4])
def test_ctrl_c_while_the_private_cluster_starts_leaves_nothing(
    tmp_path: Path, delay_s: float
) -> None:
    source = CALLS + "print('go', flush=True)\nremote_parallel_map(stubborn, range(6))"
    with caller(source, tmp_path) as script:
        wait_shown(script, "go")
        time.sleep(delay_s)
        os.killpg(script.process.pid, 2)
        status, _, err = script.wait_end()
        assert status == -2, err
        assert err.count("KeyboardInterrupt") == 1, err
        script.mark.wait_gone()
        wait_until(lambda: not script.left(), "its temporary directory is empty")


@pytest.mark.parametrize("step", ["mkdir", "chmod"])
def test_ctrl_c_right_after_something_was_made_for_the_private_cluster_leaves_nothing(
    tmp_path: Path, step: str
) -> None:
    source = f"""
import os, signal
from burla import remote_parallel_map

def step(*arguments, really=os.{step}):
    really(*arguments)
    if not has_come:
        has_come.append(signal.raise_signal(signal.SIGINT))

has_come = []
os.{step} = step
remote_parallel_map(abs, [-1])
"""
    with caller(source, tmp_path) as script:
        status, _, err = script.wait_end()
        assert status == -2, err
        assert err.count("KeyboardInterrupt") == 1, err
        script.mark.wait_gone()
        wait_until(lambda: not script.left(), "its temporary directory is empty")


def test_ctrl_c_while_the_first_call_imports_comes_behind_it(tmp_path: Path) -> None:
    source = """
import signal, sys
from burla import remote_parallel_map

class Impatient:
    def find_spec(self, name, *rest):
        if name in ("burla.private_cluster", "burla.protocol.codec", "msgspec"):
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Impatient())
for moment in ("private cluster", "codec"):
    try:
        remote_parallel_map(abs, [-1])
    except KeyboardInterrupt:
        print("interrupted")
print(remote_parallel_map(abs, [-1]))
"""
    with caller(source, tmp_path) as script:
        assert script.wait_end() == (0, "interrupted\ninterrupted\n[1]\n", "")


def test_ctrl_c_at_any_moment_is_raised_once_and_harms_nothing(tmp_path: Path) -> None:
    source = f"""{CALLS}
chance = random.Random(3)
square = lambda x: x * x
assert remote_parallel_map(square, range(10)) == [x * x for x in range(10)]
times = 0
for turn in range(60):
    inputs = chance.choice([range(300_000), range(50), [bytes(200_000)] * 20])
    function = square if isinstance(inputs, range) else len
    timer = threading.Timer(chance.uniform(0, 0.08), os.kill, (os.getpid(), signal.SIGINT))
    caught = 0
    try:
        timer.start()
        got = remote_parallel_map(function, inputs)
        timer.join()
        time.sleep(0.01)  # it may come just now
    except KeyboardInterrupt:
        caught += 1
    timer.join()
    assert caught == 1, (turn, caught)
    times += caught
    if turn % 6 == 0:
        assert remote_parallel_map(square, range(100)) == [x * x for x in range(100)]
print(times)
"""
    with caller(source, tmp_path) as script:
        status, out, err = script.wait_end(50)
    assert (status, out) == (0, "60\n"), err
    assert not err
