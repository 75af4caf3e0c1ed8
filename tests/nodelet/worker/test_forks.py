"""What is made once, before workers are forked, and what it leaves as it was."""

import subprocess
import sys
from pathlib import Path

PREPARED = """
import gc, os, signal, sys
from burla.nodelet.worker import worker

def places():
    return [os.fstat(fd)[:2] for fd in range(3)]

before, opened = places(), len(os.listdir("/proc/self/fd"))
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
worker.prepare()
assert places() == before
assert len(os.listdir("/proc/self/fd")) == opened
assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
# they are for pipes, wherever this process itself writes to
assert not sys.stdout.seekable() and sys.stdout.line_buffering and sys.stdout.fileno() == 1
assert not sys.stderr.seekable() and sys.stderr.line_buffering and sys.stderr.fileno() == 2
assert sys.stdin.read() == ""
print("to stdout \\udc80", end="", flush=True)
print("to stderr", end="", file=sys.stderr, flush=True)
"""


def test_the_streams_of_workers_are_made_beforehand_and_go_where_they_did(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("wb") as out:  # a file: it can be sought in
        done = subprocess.run(
            [sys.executable, "-c", PREPARED],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"to stderr")
    assert path.read_bytes() == b"to stdout \\udc80"
