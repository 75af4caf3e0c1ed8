"""How detached jobs end: all outcomes are on the disk, or they failed, or are cancelled. Pure."""

from burla.protocol import messages as m
from burla.protocol.store_messages import StoredState, StoreEnded

from .effects import Delete, DropBlob, Log, ToPeer
from .kept_job import KeptJob
from .state import State

INPUTS_LOST = "some of its inputs were lost to damage of the scheduler's disk"
OUTPUT_S = 10.0  # that output which went ahead of the last outcome is waited for


def look(state: State, job: KeptJob) -> None:
    """End a job that has all it can get, or that has failed."""
    progress = job.progress
    if job.is_ended or job.blocked:
        return
    if progress.failure is not None:
        _finish(state, job, StoredState.FAILED, progress.failure.text)
    elif progress.failed and not job.goes_on():
        _finish_with_output(state, job, StoredState.FAILED, "a call failed")
    elif job.is_whole() and progress.done.total == job.total:
        _finish_with_output(state, job, StoredState.DONE, "")


def _finish_with_output(state: State, job: KeptJob, to: StoredState, said: str) -> None:
    if job.output_by_s is None:
        job.output_by_s = state.now_s + OUTPUT_S
    if not job.peer or not job.progress.lacks_output() or state.now_s >= job.output_by_s:
        _finish(state, job, to, said)


def _finish(state: State, job: KeptJob, to: StoredState, said: str) -> None:
    if not any(isinstance(entry.said, m.JobOutput) for entry in job.pending):
        close(state, job)
        end(state, job, to, said)


def fail(state: State, job: KeptJob, text: str) -> None:
    """End a job that cannot go on."""
    if not job.is_ended:
        state.append(job, Log.OUTCOMES, m.JobFailed(job.id, "", text))
        close(state, job)
        end(state, job, StoredState.FAILED, text)


def close(state: State, job: KeptJob) -> None:
    """Take a job from the core."""
    state.to_core(job, m.CloseJob(job.id))
    state.give_to_core(job, b"")
    job.output_by_s = None


def end(state: State, job: KeptJob, to: StoredState, said: str) -> None:
    """Write down that a job has ended; it has when that is on the disk."""
    job.end_said, job.blocked = StoreEnded(job.id, to, said, state.wall_s), ""
    state.append(job, Log.OUTCOMES, job.end_said)
    state.await_no_more(job)
    tell_source(state, job, ended_early(job, said))


def end_again(state: State, job: KeptJob) -> None:
    """Write down once more that a job has ended, after that could not be."""
    if job.end_said is not None:
        state.append(job, Log.OUTCOMES, job.end_said)


def ended_early(job: KeptJob, said: str) -> str:
    """Say that a job has ended whose inputs are still sent, and where what is of it can be read."""
    what = f'burla.attach("{job.id.hex()}").results()'
    return f"it has ended before all its inputs were here: {said}. {what} raises what a call raised"


def tell_source(state: State, job: KeptJob, why: str) -> None:
    """Tell who still sends inputs of a job that nobody waits for them any more."""
    if job.upload.source and not job.is_kept:
        state.effects.append(ToPeer(job.upload.source, m.JobFailed(job.id, "", why)))


def delete(state: State, job: KeptJob, why: str = "it was deleted") -> None:
    """Forget a job and all that there is of it; `why`: told to who still sends inputs."""
    if not job.is_ended:
        tell_source(state, job, why)
    close(state, job)
    unnamed = state.leave(job)
    state.effects.append(Delete(job.id))
    state.effects += [DropBlob(job.opened.tenant, digest) for digest in unnamed]
