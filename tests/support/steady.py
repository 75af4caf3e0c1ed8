"""A job that lasts until it is told to end, in a process of its own: nothing of it may be lost."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

from marked import NAME as MARK, Mark
from users import User
from waiting import wait_until

SCRIPT = """
import os, sys, time
from burla import remote_parallel_map

def f(i):
    time.sleep(0.2)
    print("called", i, flush=True)
    return i

def inputs():
    number = 0
    while not os.path.exists(sys.argv[1]):
        yield number
        number += 1

print("results", *sorted(remote_parallel_map(f, inputs(), generator=True, spinner=False)))
"""
END_S = 100.0


class SteadyJob:
    """Calls that go on while a test does something to their cluster."""

    def __init__(self, user: User, address: str, mark: Mark, directory: Path) -> None:
        """Start it, and wait until it runs."""
        self._stop, self._out, self._err = (directory / name for name in ("stop", "out", "err"))
        line = [sys.executable, "-u", "-c", SCRIPT, str(self._stop)]
        with self._out.open("w") as out, self._err.open("w") as err:
            env = {"HOME": str(user.home), "BURLA_CLUSTER": address, MARK: mark.word}
            self._process = subprocess.Popen(line, env=env, stdout=out, stderr=err)
        wait_until(lambda: self._out.stat().st_size > 0, "it runs")

    def end(self) -> None:
        """Let it end; each call was run once, each result came once, and nobody complained."""
        assert self._process.poll() is None
        self._stop.touch()
        assert self._process.wait(END_S) == 0
        *called, results = self._out.read_text().splitlines()
        numbers = results.split()[1:]
        assert numbers == [str(number) for number in range(len(numbers))]
        wanted = Counter(f"called {number}" for number in numbers)
        assert (wanted - Counter(called), Counter(called) - wanted) == ({}, {})
        assert self._err.read_text() == ""
