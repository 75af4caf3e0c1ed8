"""Giving work to the leases of a job, and taking some back. How much is policy: allocation.py.

A lease that has room but nothing to take is among the job's `idle` or `hungry`, so that new work
finds it without a look at all leases. Each lease has at most one unanswered Retract, and one event
sends at most one for each job, so that a job never asks for more than it has leases.
"""

from . import allocation, big_inputs, leases, quarantine, retries
from .job import Job
from .lease import Lease, LeaseState
from .state import State

SCAN_LEASES_MAX = 64  # of a job: with more, who should give work away is not asked each time
SCAN_S = 0.02


def hand_out(state: State, job: Job) -> None:
    """Assign what is pending to leases with room."""
    if job.failed or state.now_s < job.hold_until_s:
        return
    work = job.work
    if work.quarantine:
        quarantine.isolate(state, job)
    only_one = len(work.leases) == 1  # it takes whatever comes
    if not work.pending.total:
        lease_ids: list[bytes] = []
    else:
        lease_ids = list(work.leases) if only_one else [*work.idle, *work.hungry]
    for lease_id in lease_ids:
        if not work.pending.total:
            break
        feed(state, job, work.leases[lease_id])
    if work.unstarted:
        balance(state, job)


def feed(state: State, job: Job, lease: Lease) -> None:
    """Assign to a lease what it should have, or end it when it is drained."""
    if job.moves_failed and (elsewhere := retries.take_out(state, job, lease)):
        _feed(state, job, lease)
        retries.put_back(job, elsewhere)
    else:
        _feed(state, job, lease)


def _feed(state: State, job: Job, lease: Lease) -> None:
    work = job.work
    is_draining = lease.state is LeaseState.DRAINING
    count = 0 if is_draining or job.failed else allocation.portion(work, lease)
    if count and work.batches.announced:
        count = big_inputs.whole_ahead(state, job, lease, count)
    while count or lease.forget:
        part = allocation.in_one_message(work, count) if count else 0
        assigned = work.assign(lease, part, allocation.report_s(len(work.leases)))
        retries.send(state, job, lease, assigned)
        count -= part
    if is_draining:
        _go_on_draining(state, job, lease)
    elif lease.is_alone:
        if not job.failed:
            quarantine.go_on(state, job, lease)
    elif not work.pending.total and not lease.idle() and allocation.is_hungry(work, lease):
        work.hungry[lease.id] = None
    else:
        work.hungry.pop(lease.id, None)


def balance(state: State, job: Job) -> None:
    """Let those who have more than they run give some to those who have nothing to run."""
    work = job.work
    if work.pending.total or job.failed or not (work.idle and work.unstarted):
        return
    if len(work.leases) > SCAN_LEASES_MAX:
        if state.now_s < job.scanned_s + SCAN_S:
            return
        job.scanned_s = state.now_s
    if (found := allocation.to_retract(work)) is not None:
        leases.retract(state, *found)


def _go_on_draining(state: State, job: Job, lease: Lease) -> None:
    """Take back what is not begun; end the lease when nothing runs on it any more."""
    if not lease.held.total:
        leases.end(state, lease, discard=False)
        state.queue_up(job)
    elif not lease.is_retracting and not lease.had_nothing:
        leases.retract(state, lease, lease.held.total)
