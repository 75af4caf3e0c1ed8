"""Each case once, small: that it runs and verifies. The numbers mean nothing here."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from perf.__main__ import CASES, main

ROOT = Path(__file__).parents[2]
CASE_S_MAX = 100.0


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("case", CASES)
def test_a_case_measures_burla_beside_a_peer(case: str, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    command = [sys.executable, "-m", "perf", case, "--rounds", "1", "--scale", "0.005"]
    command += ["--peers", "Pool", "--json", str(file)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    try:
        said, errors = process.communicate(timeout=CASE_S_MAX)
    finally:  # whatever a case that failed has started is in its group
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == 0, errors
    for series in json.loads(file.read_text())["series"]:
        assert series["name"].split("/")[0] == case
        assert next(iter(series["seconds"])) == "burla"
        assert len(series["seconds"]) >= 2
        assert series["name"] in said


def test_an_unknown_case_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["huge"])
    assert left.value.code == 2
    assert "no such case: huge; there are tiny" in capsys.readouterr().err
