"""Too few descriptors: said in words at the start, by every program, and never by a traceback."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from stage import limited_to

from burla.system.exit_codes import EXIT_CONFIG
from burla.transport import descriptors

CALL = "import burla; print(list(burla.remote_parallel_map(abs, [-1])))"


def run(most: int, *line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *line],
        preexec_fn=partial(limited_to, most),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize("most", [8, 16, 24, 40])
@pytest.mark.parametrize("program", ["scheduler", "nodelet"])
def test_a_daemon_says_that_it_may_have_too_few(program: str, most: int, tmp_path: Path) -> None:
    option = "--bind" if program == "scheduler" else "--scheduler"
    done = run(most, "-m", f"burla.{program}", option, f"ipc://{tmp_path}/s")
    assert done.returncode == EXIT_CONFIG, done.stderr
    assert f"the limit of open files, {most}, is too low: at least" in done.stderr
    assert "ulimit -n" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_call_says_that_its_process_may_have_too_few(tmp_path: Path) -> None:
    script = tmp_path / "s.py"
    script.write_text(CALL)
    done = run(20, str(script))
    assert "burla.errors.ClusterError: cannot start a private cluster" in done.stderr
    assert "too many open files: this process has" in done.stderr
    assert "raise the limit (ulimit -n)" in done.stderr


def test_a_soft_limit_is_raised_first(tmp_path: Path) -> None:
    script = tmp_path / "s.py"
    lower = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (20, 400))\n"
    script.write_text(lower + CALL)
    done = run(400, str(script))
    assert done.stdout == "[1]\n", done.stderr


def test_what_is_open_is_counted_and_spare_ones_are_there_for_a_moment() -> None:
    assert 3 <= descriptors.opened() < descriptors.limit()
    before = descriptors.limit()
    with descriptors.spare():
        assert descriptors.limit() >= before
    assert descriptors.limit() == before
