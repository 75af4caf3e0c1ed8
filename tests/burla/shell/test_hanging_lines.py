"""Where the line about calls that hang goes, and who silences it."""

import io

import pytest
from opening import open_job

from burla.core.effects import ReportHanging
from burla.core.session import Session
from burla.shell.job import Job

JOB = b"j" * 16


@pytest.mark.parametrize(("spinner", "line"), [(True, "burla: f: input 3 has run\n"), (False, "")])
def test_it_goes_to_stderr_unless_that_is_turned_off(
    monkeypatch: pytest.MonkeyPatch, spinner: bool, line: str
) -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stdout", stdout)
    monkeypatch.setattr("sys.stderr", stderr)
    session = Session(open_job(JOB), [], prompt=True)
    job = Job(session, None, "f", spinner)  # type: ignore[arg-type]  # nothing is sent
    job._tell(ReportHanging(JOB, "input 3 has run"))
    job.printer.wait_written()
    assert (stdout.getvalue(), stderr.getvalue()) == ("", line)
