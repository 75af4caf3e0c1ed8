"""Callers that stand still or are cut off in the middle of a job, and what nodes do meanwhile.

What each call does to the world is counted: every input is to be called once. All programs run
from a copy of ours that is less patient: a caller is away after seconds.
"""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from broken import broken_copy
from marked import Caller, caller, marked_cluster
from scripts import unasked
from waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PATIENT = "SILENT_S = 30.0"
SILENT_S = 8  # in the copy; more than a busy machine keeps anybody from speaking
GONE_S = SILENT_S + 20  # after so long without a word a caller is away, on a busy machine, too
LIMIT_S = 16
CALLS = 60
SCRIPT = f"""
import sys
from burla import remote_parallel_map

def f(x):
    import os, time
    file = os.open("ran", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, b"%d\\n" % x)
    os.close(file)
    print("line", x)
    time.sleep(0.05)
    return x

try:
    assert remote_parallel_map(f, range({CALLS}), spinner=False) == list(range({CALLS}))
except Exception as error:
    print(type(error).__name__, error.away_s >= error.limit_s == {LIMIT_S}, error, file=sys.stderr)
"""


@pytest.fixture(autouse=True)
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change = ("scheduler/core/client.py", PATIENT, f"SILENT_S = {SILENT_S}.0")
    monkeypatch.setenv("PYTHONPATH", str(broken_copy(tmp_path, change)))
    monkeypatch.chdir(tmp_path)  # with -m Python looks here first


def ran(directory: Path) -> list[int]:
    path = directory / "ran"
    return sorted(map(int, path.read_text().split())) if path.exists() else []


def wait_begun(script: Caller, calls: int = 4) -> None:
    def begun() -> bool:
        assert script.process.poll() is None, script.wait_end()
        return len(ran(script.directory)) >= calls

    wait_until(begun, "some calls have run")


def assert_each_ran_once(script: Caller) -> None:
    status, out, err = script.wait_end(60.0)
    assert (status, unasked(err)) == (0, "")
    assert ran(script.directory) == list(range(CALLS))
    assert sorted(out.splitlines()) == sorted(f"line {x}" for x in range(CALLS))


class Tunnel:
    """Forwards connections to a port; it may hang up, and then hangs up on whoever comes."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._is_up = True
        self._open: list[socket.socket] = []
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def hang_up(self) -> None:
        self._is_up = False
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def go_on(self) -> None:
        self._is_up = True

    def close(self) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self.hang_up()
        for thread in self._threads:
            thread.join()
        for each in (self._door, *self._open):
            each.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                here = self._door.accept()[0]
                if not self._is_up:
                    here.close()
                    continue
                there = socket.create_connection(("127.0.0.1", self._to))
                self._open += [here, there]
                for ends in ((here, there), (there, here)):
                    thread = threading.Thread(target=self._forward, args=ends)
                    self._threads.append(thread)
                    thread.start()

    def _forward(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        for each in (one, other):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def tunnel(port: int) -> Iterator[Tunnel]:
    made = Tunnel(port)
    try:
        yield made
    finally:
        made.close()


def wait_away(log: Path) -> None:
    wait_until(lambda: "is away" in log.read_text(), "the caller is taken for away", GONE_S)


def test_callers_that_are_stopped_or_cut_off_go_on_and_nothing_is_run_twice(tmp_path: Path) -> None:
    """One on a cluster and one with a private one are stopped; a third comes through a tunnel."""
    with marked_cluster(tmp_path, 1, 1, bind="tcp://127.0.0.1:0") as (made, _):
        where, _, key = made.address.removeprefix("burla://").partition("?")
        port = int(where.rpartition(":")[2])
        homes = [tmp_path / name for name in ("shared", "private", "cut")]
        for home in homes:
            home.mkdir()
        with (
            tunnel(port) as line,
            caller(SCRIPT, homes[0], cluster=made.address) as shared,
            caller(SCRIPT, homes[1]) as private,
            caller(SCRIPT, homes[2], cluster=f"burla://127.0.0.1:{line.port}?{key}") as cut,
        ):
            for script in (shared, private, cut):
                wait_begun(script)
            line.hang_up()
            for script in (shared, private):
                script.kill(signal.SIGSTOP)
            log = made.directory / "scheduler.log"
            wait_until(lambda: log.read_text().count("is away") == 2, "both are away", GONE_S)
            wait_until(lambda: len(ran(homes[1])) == CALLS, "a private cluster goes on")
            line.go_on()
            for script in (shared, private):
                script.kill(signal.SIGCONT)
            for script in (shared, private, cut):
                assert_each_ran_once(script)


def test_whoever_is_away_for_too_long_is_told_so_and_holds_nothing(tmp_path: Path) -> None:
    with marked_cluster(tmp_path, 1, options=("--away-limit", str(LIMIT_S))) as (made, mark):
        source = SCRIPT.replace("time.sleep(0.05)", "time.sleep(10)")
        with caller(source, tmp_path, cluster=made.address) as script:
            wait_begun(script, 1)
            script.kill(signal.SIGSTOP)
            log = made.directory / "scheduler.log"
            wait_until(lambda: "is given up" in log.read_text(), "it is given up", 60.0)
            script.kill(signal.SIGCONT)
            status, _, err = script.wait_end()
            assert status == 0
            assert err.startswith("CallerAway True this process was away for ")
            assert f"gives up the jobs of a caller that is away after {LIMIT_S} s" in err
            count = len(ran(tmp_path))
            assert count == len(set(ran(tmp_path))) < CALLS
        assert len(mark.processes()) > 0


def test_a_cluster_that_stood_still_as_a_whole_loses_nobody(tmp_path: Path) -> None:
    """As when a container is frozen, or a machine suspended whose clock goes on."""
    source = SCRIPT.replace("time.sleep(0.05)", "time.sleep(0.1)")
    with caller(source, tmp_path) as script:
        wait_begun(script)
        everything = script.mark.processes()
        for process in everything:
            process.suspend()
        threading.Event().wait(SILENT_S + 5)  # nobody can say when enough time has passed
        for process in reversed(everything):
            with suppress(psutil.NoSuchProcess):
                os.kill(process.pid, signal.SIGCONT)
        assert_each_ran_once(script)
