"""Attached jobs are detached while they run: all results are there, and none was made twice."""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import Cluster
from terminals import at_terminal, read_until
from waiting import LATE_S, wait_until

import burla
from burla import remote_parallel_map as rpm
from burla.commands import admin
from burla.protocol.job_messages import JOBS, JobList, ListJobs

pytestmark = pytest.mark.slow

SCRIPT = """
import os, sys, threading, time
from pathlib import Path
import burla
from burla.shell import clients
here = Path(sys.argv[1])

def tell_when_seven_are_here():
    "The cluster knows of outcomes before they are here."
    while True:
        for client in list(clients._clients.values()):
            sessions = list(client._connection.sessions.values())
            if any(one.batches.done.total == 7 for one in sessions):
                (here / "has").touch()
                return
        time.sleep(0.01)

threading.Thread(target=tell_when_seven_are_here, daemon=True).start()

def f(x):
    with open(here / "log", "ab", buffering=0) as log:
        log.write(b"%d\\n" % x)
    if x == 3:
        raise ValueError("three")
    print("in", x, flush=True)
    while x > 6 and not (here / "go").exists():
        time.sleep(0.01)
    return bytes(3 << 20) if x == 2 else [x]

results = []
try:
    RUN
except burla.JobDetached as error:
    print(error)
    (here / "had").write_text(repr([index for index, _ in results]))
    (here / "id").write_text(error.job.id)
"""
ALL = "burla.remote_parallel_map(f, range(12), return_exceptions=True, spinner=False"
LIST = SCRIPT.replace("RUN", f"{ALL})")
EACH = f"for one in {ALL}, generator=True, with_index=True): results.append(one)"
ITERATOR = SCRIPT.replace("RUN", EACH)


def ran(place: Path) -> Counter[int]:
    log = place / "log"
    return Counter(map(int, log.read_text().split() if log.exists() else ()))


def wait_two_stay(made: Cluster, place: Path, done: int) -> set[int]:
    """Return the calls that run when so many are done, and no other can begin."""

    def is_so() -> bool:
        said = admin.put(made.address, ListJobs(1, only_open=True), JobList, feature=JOBS)
        is_done = [job.done for job in said.jobs] == [done]
        return is_done and len(ran(place)) == done + 2

    wait_until(is_so, "two calls stay")
    return {x for x in ran(place) if x >= done}


def check_times(place: Path, stayed: set[int]) -> None:
    """Fail if a call has run twice whose outcome was here when the job was detached.

    Those that ran then run once more; so may one that its worker had claimed with one of them.
    """
    counted = ran(place)
    twice = {x for x, times in counted.items() if times == 2}
    assert set(counted) == set(range(12))
    assert max(counted.values()) == 2
    assert stayed <= twice <= set(range(7, 12))


def check(results: list[object], place: Path, stayed: set[int]) -> None:
    """Look at all results, and how often each call ran."""
    assert str(results[3]) == "three"
    assert results[2] == bytes(3 << 20)
    rest = [x for x in range(12) if x not in (2, 3)]
    assert [results[x] for x in rest] == [[x] for x in rest]
    check_times(place, stayed)


def test_ctrl_backslash_at_a_terminal_detaches_a_list(shared: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(LIST)
    line = [sys.executable, str(script), str(tmp_path)]
    with at_terminal(line, os.environ) as (process, terminal):
        stayed = wait_two_stay(shared, tmp_path, 7)
        wait_until((tmp_path / "has").exists, "the other outcomes are here")
        os.write(terminal, b"\x1c")
        shown = read_until(terminal, ".results()")
        assert process.wait(LATE_S) == 0, shown
    assert f'burla.attach("{(tmp_path / "id").read_text()}")' in shown
    (tmp_path / "go").touch()
    job = burla.attach((tmp_path / "id").read_text())
    check(job.results(output=False), tmp_path, stayed)
    job.delete()


def test_the_command_detaches_an_iterator_which_has_given_some(
    shared: Cluster, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(ITERATOR)
    with subprocess.Popen([sys.executable, str(script), str(tmp_path)]) as process:
        stayed = wait_two_stay(shared, tmp_path, 7)
        wait_until((tmp_path / "has").exists, "the other outcomes are here")
        found = subprocess.run(
            [sys.executable, "-m", "burla", "jobs", "list", "--open"],
            capture_output=True,
            text=True,
            check=True,
        )
        which = found.stdout.splitlines()[-1].split()[0]
        said = subprocess.run(
            [sys.executable, "-m", "burla", "jobs", "detach", which],
            capture_output=True,
            text=True,
            check=False,
        )
        assert said.returncode == 0, said
        assert process.wait(LATE_S) == 0
    (tmp_path / "go").touch()
    job = burla.attach((tmp_path / "id").read_text())
    assert job.id in said.stdout
    had = eval((tmp_path / "had").read_text())
    results = dict(job.results(with_index=True, output=False))
    assert sorted([*had, *results]) == list(range(12))
    check_times(tmp_path, stayed)
    assert len(had) == 7
    job.delete()


def test_a_refusal_leaves_the_job_as_it_was(
    shared: Cluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def f(x: int) -> int:
        import time

        with open(tmp_path / "log", "ab", buffering=0) as log:
            log.write(b"%d\n" % x)
        while x > 2 and not (tmp_path / "go").exists():
            time.sleep(0.01)
        return x

    def inputs() -> Iterator[int]:
        yield from range(8)

    def ask() -> None:
        wait_two_stay(shared, tmp_path, 3)
        os.kill(os.getpid(), signal.SIGQUIT)
        (tmp_path / "go").touch()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        found = rpm(f, inputs(), resume=f"r{os.getpid()}")
    finally:
        thread.join()
    assert found == list(range(8))
    assert "is not detached, and goes on here" in capfd.readouterr().err
    assert ran(tmp_path) == Counter(range(8))
