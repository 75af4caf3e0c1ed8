"""stdout and stderr in the order in which they were written, where both end in one place."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import scripts
from clusters import Cluster

pytestmark = pytest.mark.slow

WRITES = """
import sys
from burla import remote_parallel_map

def f(x):
    import ctypes, logging, os, subprocess
    for i in range(300):
        print("out", i)
        print("err", i, file=sys.stderr)
    print("part", end="", flush=True)
    print("err in the middle", file=sys.stderr)
    print(" rest")
    os.write(2, b"raw err\\n")
    os.write(1, b"raw out\\n")
    subprocess.run("echo sub out; echo sub err >&2; echo sub out", shell=True, check=True)
    logging.warning("log line")
    print("after it")
    libc = ctypes.CDLL(None)
    libc.puts(b"c out")
    os.write(2, b"last err\\n")
    return x

remote_parallel_map(f, {inputs})
"""
TOGETHER: dict[str, Any] = {
    "capture_output": False,
    "stdout": subprocess.PIPE,
    "stderr": subprocess.STDOUT,
}
EXPECTED = (
    "".join(f"out {i}\nerr {i}\n" for i in range(300))
    + "parterr in the middle\n rest\nraw err\nraw out\nsub out\nsub err\nsub out\n"
    + "WARNING:root:log line\nafter it\nc out\nlast err\n"
)


def source(inputs: str = "[1]") -> str:
    return WRITES.format(inputs=inputs)


@pytest.mark.parametrize("private", [True, False])
def test_one_file_has_both_in_order(shared: Cluster, tmp_path: Path, private: bool) -> None:
    done = scripts.run(source(), tmp_path, private=private, **TOGETHER)
    assert done.stdout == EXPECTED


def test_each_of_several_workers_writes_in_order(shared: Cluster, tmp_path: Path) -> None:
    done = scripts.run(source("range(6)"), tmp_path, **TOGETHER)
    lines = done.stdout.splitlines(keepends=True)
    assert sorted(lines) == sorted(6 * EXPECTED.splitlines(keepends=True))


def test_a_terminal_has_both_in_order(shared: Cluster, tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    line = scripts.command(source(), tmp_path, "", ())
    with subprocess.Popen(line, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 65536):
                shown += data
        except OSError:  # the other end is closed
            pass
        process.wait()
    os.close(ours)
    assert shown.decode().replace("\r\n", "\n") == EXPECTED


def test_two_places_get_what_is_theirs(shared: Cluster, tmp_path: Path) -> None:
    done = scripts.run(source(), tmp_path)
    assert "err" not in done.stdout.replace("parterr", "")
    assert done.stdout.count("out") == 304
    assert done.stderr.count("err") == 304
    assert "out" not in done.stderr


def test_copies_of_a_template_write_in_order(shared: Cluster, tmp_path: Path) -> None:
    slow = (
        "import time\n"
        "class Slow:\n"
        "    def __reduce__(self):\n"
        "        return time.sleep, (0.1,)\n"
        "slow = Slow()\n"
    )
    text = slow + source("range(6)").replace("    return x", "    return slow")
    done = scripts.run(text, tmp_path, **TOGETHER)
    assert sorted(done.stdout.splitlines()) == sorted(6 * EXPECTED.splitlines())
    at = [i for i, line in enumerate(done.stdout.splitlines()) if line == "raw err"]
    assert len(at) == 6
