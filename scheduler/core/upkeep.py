"""What time brings: silences, holds that end, words for those who wait, nodes that change hands."""

from burla.protocol import messages as m

from . import (
    absence,
    big_inputs,
    blobs,
    jobs,
    leasing,
    nodes,
    operators,
    quarantine,
    questions,
    records,
)
from .autoscaling import Autoscalers
from .job import Job
from .pending_reasons import reasons
from .state import State

UNFIT_S = 5.0  # nodes may still join; then a job that fits none of them fails
WAIT_SAID_S = 0.5  # a job that waits longer is told why


def tick(state: State, autoscalers: Autoscalers) -> None:
    """Do what is due. Costs O(state); a few times a second."""
    nodes.expire(state)
    absence.expire(state)
    operators.expire(state)
    autoscalers.expire(state)
    autoscalers.tell_unheeded(state)
    for job in list(state.jobs.values()):
        jobs.expire(state, job)
        if job.id in state.jobs:
            quarantine.expire(state, job)
    if state.blobs.by_name:
        blobs.expire(state)
    big_inputs.expire(state)
    _tell_waiting(state, autoscalers)
    leasing.drain_for_waiting(state)
    questions.file(state)


def _tell_waiting(state: State, autoscalers: Autoscalers) -> None:
    """Tell those jobs that wait for a node why, if that has changed."""
    waiting = [job for job in state.jobs.values() if _must_be_told(state, job, autoscalers)]
    if not waiting:
        return
    whys = reasons(waiting, state.jobs.values(), list(state.nodes.values()))
    for job in waiting:
        if state.now_s < job.hold_until_s:
            why = "its nodes are telling what they have run already"
        elif not job.has_room:
            why = f"{blobs.why_lacking(job)} waiting for room: what the functions of other jobs"
            why = f"{why} refer to takes all that the cluster keeps for them"
        elif job.lacks and blobs.is_awaited_whole(state, job):
            why = f"{blobs.why_lacking(job)} on the way to the cluster"
        elif job.id in whys:
            why = whys[job.id] + autoscalers.said_of(job, state)
        else:
            continue
        if why != job.said:
            job.said = why
            records.note_reason(state.records.open[job.id], why, state.now_s)
            state.tell(job, m.JobStatus(job.id, why, job.slots_said))


def _must_be_told(state: State, job: Job, autoscalers: Autoscalers) -> bool:
    """Return whether a job waits; one that waits in vain fails here."""
    waited_s = state.now_s - job.opened_s
    if state.is_private and not job.work.leases and not job.failed:
        jobs.fail_if_unfit(state, job)  # there is no other node to wait for
    if job.work.leases or job.failed or job.is_away or waited_s < WAIT_SAID_S:
        return False
    if waited_s >= UNFIT_S and not autoscalers.may_make(job, state.now_s):
        jobs.fail_if_unfit(state, job)
    return not job.failed
