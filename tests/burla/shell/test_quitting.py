r"""Ctrl-\ while a job is waited for."""

import signal
from types import SimpleNamespace

from opening import open_job

from burla.core.effects import DetachWanted
from burla.core.session import Session
from burla.shell.attached import say_refused
from burla.shell.job import Job
from burla.shell.quitting import SIGNAL, Quitting


def test_a_job_that_could_not_be_detached_may_be_asked_for_once_more() -> None:
    """Two presses would else end the program: the first one has been answered."""
    session = Session(open_job(b"J" * 16), [], prompt=True)
    thread = SimpleNamespace(is_private=False)  # nothing is sent
    job = Job(session, thread, "f", False)  # type: ignore[arg-type]
    with Quitting(SimpleNamespace(job=job)):
        for _ in range(3):
            signal.raise_signal(SIGNAL)
            assert isinstance(job.events.get(timeout=0), DetachWanted)
            say_refused(job, "the disk is full")
            assert job.events.empty()
    job.printer.wait_written()
