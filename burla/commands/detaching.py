"""`burla jobs detach`: asks the client of a job to detach it, and waits until it has done so."""

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from burla.detached import Job
from burla.errors import JobNotFound
from burla.protocol.detach_messages import ADOPT, TRIES_MAX, id_of
from burla.protocol.job_messages import JOBS, OPEN_STATES, DetachJob, JobShown, ShowJob

from . import admin

if TYPE_CHECKING:
    from burla.protocol.job_messages import JobRecord

WAIT_S = 60.0  # that a client may take to hand all over
LOOK_S = 0.1


def detach(address: str | None, digits: str) -> tuple["JobRecord", str]:
    """Return the job, and the id under which it goes on.

    Raises:
        NoJob: there is none, or it is not detached.
    """
    address = admin.required(address)
    said = admin.put(address, DetachJob(digits), JobShown, feature=ADOPT)
    if said.record is None or said.why:
        raise admin.NoJob(said.why)
    job = said.record.summary.job
    until_s = time.monotonic() + WAIT_S
    while True:
        now = admin.put(address, ShowJob(job.hex(), brief=True), JobShown, feature=JOBS).record
        is_over = now is None or now.summary.state not in OPEN_STATES
        if stored := _stored(address, job) or (_opened(address, job) if is_over else ""):
            return said.record, stored
        if is_over:
            why = f"job {job.hex()} is over. If it is detached, its script has said its new id"
            raise admin.NoJob(why)
        if time.monotonic() > until_s:
            why = f"job {job.hex()} is not detached after {WAIT_S:.0f} s: its script says why"
            raise admin.NoJob(why)
        time.sleep(LOOK_S)


def _stored(address: str, job: bytes) -> str:
    """Return the id under which a job is stored; empty: it is not, or is another user's."""
    for tried in range(TRIES_MAX):
        stored = Job(id_of(job, tried).hex(), address)
        with suppress(JobNotFound):
            if stored.status().state != "sent":
                return stored.id
    return ""


def _opened(address: str, job: bytes) -> str:
    """Return the id under which a job of another user goes on; empty: there is none."""
    for tried in range(TRIES_MAX):
        stored = id_of(job, tried).hex()
        shown = admin.put(address, ShowJob(stored, brief=True), JobShown, feature=JOBS)
        if shown.record is not None:
            return stored
    return ""
