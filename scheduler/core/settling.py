"""What follows from all that one event has marked: decided once, just before effects are sent."""

from burla.protocol.messages import JobStatus

from . import big_inputs, dispatch, leasing
from .effects import Effect
from .lease import SERVING, Lease
from .state import State


def settle(state: State) -> list[Effect]:
    """Hand out free nodes, then work; return all that is to be done.

    This goes on until nothing is marked: nearly always that is one pass.
    """
    marks = state.marks
    while marks.nodes or marks.jobs or marks.leases:
        if marks.nodes or marks.jobs:
            leasing.hand_out(state)
        jobs, marks.jobs = marks.jobs, {}
        leases, marks.leases = marks.leases, {}
        for job_id in jobs:
            if job := state.jobs.get(job_id):
                if job.spec.lazy and job.work.slots != job.slots_said:
                    job.slots_said = job.work.slots
                    state.tell(job, JobStatus(job.id, job.said, job.slots_said))
                dispatch.hand_out(state, job)
        for lease in leases.values():
            if lease.state in SERVING:
                _feed(state, lease)
    if state.inputs.waits:
        big_inputs.admit(state)
    effects, state.effects = state.effects, []
    return effects


def _feed(state: State, lease: Lease) -> None:
    job = state.jobs[lease.job]
    if state.now_s >= job.hold_until_s:
        dispatch.feed(state, job, lease)
        dispatch.balance(state, job)
