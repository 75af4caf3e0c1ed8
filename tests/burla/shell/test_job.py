"""A map call as its calling thread holds it."""

import gc
import weakref
from types import SimpleNamespace

import pytest
from opening import open_job

from burla.core.progress import Progress
from burla.core.session import Session
from burla.shell.job import Job


@pytest.mark.parametrize("prints", [False, True])
@pytest.mark.parametrize("shows", [False, True])
def test_a_job_that_is_closed_is_freed_at_once(
    prints: bool, shows: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its function and inputs: else they wait for a garbage collector, which looks at all."""
    session = Session(open_job(b"J" * 16), [], prompt=True)
    thread = SimpleNamespace(post=lambda command: None)  # nothing is sent
    told: list[Progress] = []
    job = Job(session, thread, "f", False, callback=told.append)  # type: ignore[arg-type]
    if shows:
        job.show()
    if prints:
        job.printer.put("a line")
    job.finish()
    assert told
    freed = weakref.ref(job)
    gc.disable()
    try:
        job.close()
        del job
        assert freed() is None
    finally:
        gc.enable()
    assert capsys.readouterr().err == "a line\n" * prints
