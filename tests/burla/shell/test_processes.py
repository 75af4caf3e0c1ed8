"""The client in scripts, forked children and workers, with signals and at the end."""

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest
from fake_scheduler import FakeScheduler, hold_back
from waiting import wait_until

from burla import remote_parallel_map as rpm
from burla.protocol import messages as m


def double(x: int) -> int:
    return x * 2


def test_ctrl_c_closes_the_job_and_the_next_call_works(fake: FakeScheduler) -> None:
    fake.script = hold_back(m.Inputs)
    handler = signal.getsignal(signal.SIGINT)
    fake.do(lambda: None)

    def interrupt() -> None:
        wait_until(lambda: fake.count(m.Inputs) == 1, "the call is under way")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        rpm(double, [1])
    thread.join()
    assert signal.getsignal(signal.SIGINT) is handler
    wait_until(lambda: fake.count(m.CloseJob) == 1, "the job is closed")
    fake.script = hold_back()
    assert rpm(double, [1]) == [2]


def test_a_forked_child_makes_a_client_of_its_own(fake: FakeScheduler) -> None:
    results: Any = rpm(double, range(3), generator=True)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with pytest.raises(RuntimeError, match="belongs to process"):
                list(results)
            status = 0 if rpm(double, [4]) == [8] else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert list(results) == [0, 2, 4]
    assert fake.count(m.ClientHello) == 2


SCRIPT = """
import sys, threading, burla
def call():
    print(burla.remote_parallel_map(lambda x: x * 2, [1, 2]))
{body}
"""


@pytest.mark.parametrize(
    ("body", "out", "status"),
    [
        ("call()", "[2, 4]\n", 0),
        ("threading.Thread(target=call).start()", "[2, 4]\n", 0),
        ("call(); import atexit; sys.exit(3)", "[2, 4]\n", 3),
        ("it = burla.remote_parallel_map(len, iter(str, 1), generator=True)", "", 0),
        (
            "import os; os.environ.clear(); os.environ.update(BURLA_CLUSTER={address!r}); call()",
            "[2, 4]\n",
            0,
        ),
    ],
)
@pytest.mark.slow
def test_a_script_ends_cleanly(fake: FakeScheduler, body: str, out: str, status: int) -> None:
    script = SCRIPT.format(body=body.format(address=fake.address))
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == (out, "", status)
    wait_until(lambda: fake.count(m.CloseJob) == 1, "the job is closed")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_script_at_once(fake: FakeScheduler, number: signal.Signals) -> None:
    fake.script = hold_back(m.Inputs)
    script = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(body="call()")], stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: fake.count(m.Inputs) == 1, "the call is under way")
    script.send_signal(number)
    said = script.communicate(timeout=10)[1]
    assert script.returncode == -number
    if number == signal.SIGINT:
        assert said.count("KeyboardInterrupt") == 1
        assert said.count("Traceback") == 1
        wait_until(lambda: fake.count(m.CloseJob) == 1, "the job is closed")


def test_inside_a_worker_the_inputs_run_right_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURLA_WORKER_PID", str(os.getpid()))
    monkeypatch.setenv("BURLA_NODE", "here")
    thread = threading.get_ident()
    assert rpm(lambda x: (threading.get_ident(), x), [1]) == [(thread, 1)]
    shared: list[int] = []
    assert rpm(lambda x: shared, [1])[0] is not shared
    assert list(rpm(pow, [(2, 3)], generator=True)) == [8]
    with pytest.raises(ZeroDivisionError) as caught:
        rpm(lambda x: 1 // x, [1, 0])
    assert caught.value.__notes__ == ["input 1 = 0 · node here"]


def test_importing_burla_is_cheap() -> None:
    code = "import sys, burla; print('zmq' in sys.modules, 'cloudpickle' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
