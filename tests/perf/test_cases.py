"""Each case once, small: that it runs and verifies. The numbers mean nothing here."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from waiting import wait_gone

from perf.__main__ import ALONE, BESIDE_PEERS, BY_NAME, LAST_S, USUAL, estimate, main

ROOT = Path(__file__).parents[2]
CASE_S_MAX = 100.0


def measured(case: str, folder: Path) -> list[dict[str, Any]]:
    """Run `case` as a user would, but tiny; return its series, each of which was told."""
    file = folder / "out.json"
    command = [sys.executable, "-m", "perf", case, "--rounds", "1", "--scale", "0.005"]
    command += ["--peers", "Pool", "--json", str(file)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    try:
        said, errors = process.communicate(timeout=CASE_S_MAX)
        if not process.returncode:
            wait_gone(group(process.pid))  # nobody but those who saw its end a moment later
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == 0, errors
    series: list[dict[str, Any]] = json.loads(file.read_text())["series"]
    for each in series:
        assert each["name"].split("/")[0] == case
        assert next(iter(each["seconds"])) == "burla"
        assert each["name"] in said
    assert series
    return series


def group(leader: int) -> list[psutil.Process]:
    """Return what runs in the process group of `leader`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) == leader and process.pid != leader:
                found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("case", BESIDE_PEERS)
def test_a_case_measures_burla_beside_a_peer(case: str, tmp_path: Path) -> None:
    for series in measured(case, tmp_path):
        assert len(series["seconds"]) >= 2


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("case", ALONE + BY_NAME)
def test_a_case_measures_burla_alone(case: str, tmp_path: Path) -> None:
    for series in measured(case, tmp_path):
        assert all(len(seconds) == 1 for seconds in series["seconds"].values())


@pytest.mark.slow
def test_who_is_not_root_is_told_that_machines_need_root() -> None:
    source = "import os; from perf.up import measure; from perf.measure import Options; "
    source += "os.seteuid(65534); list(measure(Options(('burla',), 1, 1)))"
    done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "perf: up makes machines of namespaces, which only root may: try sudo\n"


def test_an_unknown_case_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["huge"])
    assert left.value.code == 2
    assert "no such case: huge; there are tiny" in capsys.readouterr().err


def test_it_is_said_how_long_cases_take() -> None:
    assert sorted(LAST_S) == sorted(USUAL)
    assert sum(LAST_S.values()) < 10 * 60
    assert estimate(["tiny"]) == "perf: 1 case(s) on a quiet machine: at most 2 min"
    assert estimate(["executor", "up"]).endswith("at most 1 min, and some minutes each for up")
