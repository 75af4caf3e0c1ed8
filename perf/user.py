"""One user of a cluster, in a process of its own: says when its results came.

`python -m perf.user CALLS SECONDS`: connects, says "ready", waits for a line on stdin, maps, and
prints one line of JSON: {"begun": ..., "first": ..., "last": ...} on the clock that all share.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from burla import remote_parallel_map

from .functions import sleep


@dataclass(frozen=True)
class Times:
    """When things happened to one user; seconds on the clock that all processes share."""

    begun: float
    first: float
    last: float


class User:
    """The handle on such a process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Wait until it is ready."""
        self.process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        assert self._stdout.readline() == "ready\n"

    def begin(self) -> None:
        """Let it call."""
        self._stdin.write("go\n")
        self._stdin.flush()

    def times(self) -> Times:
        """Wait until it has all results, and return when they came."""
        return Times(**json.loads(self._stdout.readline()))


@contextmanager
def user(name: str, calls: int, seconds: float) -> Iterator[User]:
    """Start a user called `name` of the cluster that BURLA_CLUSTER names."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(calls), str(seconds)],
        env=os.environ | {"USER": name, "LOGNAME": name},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        with process:
            yield User(process)
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Be the user."""
    calls, seconds = int(sys.argv[1]), float(sys.argv[2])
    assert remote_parallel_map(sleep, [0.0], spinner=False) == [0.0]  # connected, all imported
    print("ready", flush=True)
    sys.stdin.readline()
    begun = time.monotonic()
    results = remote_parallel_map(sleep, [seconds] * calls, generator=True, spinner=False)
    assert next(results) == seconds
    first = time.monotonic()
    assert list(results) == [seconds] * (calls - 1)
    print(json.dumps({"begun": begun, "first": first, "last": time.monotonic()}), flush=True)


if __name__ == "__main__":
    main()
