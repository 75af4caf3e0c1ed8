"""Detached jobs on their way in: function, blobs and inputs, until all of it is on the disk. Pure.

Calls begin as soon as the first inputs are on the disk. If the caller ends before it is told that
all of it is, the job is not kept: it was never handed over.
"""

from burla.protocol import messages as m
from burla.protocol.arriving import WRONG_MAX, Arriving
from burla.protocol.input_messages import LEAF_BYTES_MAX
from burla.protocol.store_messages import InputsStored, StoreOpened

from . import big_inputs, ending, members
from .effects import Log, Note, ToPeer
from .ending import delete
from .kept_job import KeptJob, Pending
from .state import FREE_MIN, State

UPLOAD_S = 600.0  # that a caller may be away in the middle of its inputs
PENDING_MAX = 512 << 20  # bytes that are being written, of all jobs; the windows keep below
NOT_FOUND = "not found"
LOST = "what the scheduler had stored of the job is gone: start it again"


def open_(
    state: State,
    peer: bytes,
    spec: m.OpenJob,
    function: list[bytes],
    tenant: str,
    who: tuple[str, str, str, str],
) -> None:
    """Begin a job, or go on with it: its caller has connected again.

    `who` is its key, Python, user and host.
    """
    known = state.jobs.get(spec.job)
    if known is None:
        is_lost = spec.done or (spec.adopted and spec.resumed)
        why = LOST if is_lost else _why_not(state, spec, function, tenant)
        if why:
            state.effects.append(ToPeer(peer, m.JobFailed(spec.job, "", why)))
            return
        opened = StoreOpened(spec.job, tenant, *who, made_s=state.wall_s)
        known = KeptJob(opened, spec, function)
        known.upload.blobs = _lacking(state, known)
        state.enter(known)
        state.append(known, Log.INPUTS, opened)
        state.append(known, Log.INPUTS, spec, function)
    elif not state.is_of(tenant, known):
        state.effects.append(ToPeer(peer, m.JobFailed(spec.job, "", NOT_FOUND)))
        return
    elif spec.done and spec.done[-1][1] > known.stored():
        state.effects.append(ToPeer(peer, m.JobFailed(spec.job, "", LOST)))
        return
    known.upload.source, known.upload.unheard_s, known.upload.told = peer, None, -1
    if known.end_said is not None and not known.is_whole():
        why = ending.ended_early(known, known.end_said.said)
        state.effects.append(ToPeer(peer, m.JobFailed(known.id, "", why)))
        return
    if spec.adopted and spec.resumed and not known.is_kept:
        refuse(state, known, "the connection to the scheduler was lost in the middle of it")
        return
    for arriving in known.upload.blobs.values():
        arriving.forget_asked()
    _ask(state, known)
    big_inputs.begin(state, known)
    tell(state, known)


def _why_not(state: State, spec: m.OpenJob, function: list[bytes], tenant: str) -> str:
    """Return why a job cannot be kept; empty: it can."""
    size = sum(map(len, function)) + sum(blob.size for blob in spec.blobs)
    if state.is_full(size):
        free = max(0, state.room) >> 20
        return (
            f"the disk of the scheduler's store is full: {free:,} MiB are free, of which"
            f" {FREE_MIN >> 20} stay so. Delete detached jobs that you need no more"
            " (burla.Job.delete), have an administrator make room on the scheduler's machine, or"
            " call without detach"
        )
    if state.sizes.get(tenant, 0) + size > state.limits.bytes_max:
        return f"{state.over_quota(tenant)}. Delete some that you need no more (burla.Job.delete)"
    jobs = state.counts.get(tenant, 0)
    if jobs >= state.limits.jobs_max:
        return f"you have {jobs:,} detached jobs on this cluster, which is the most: delete some"
    return ""


def _lacking(state: State, job: KeptJob) -> dict[bytes, Arriving]:
    """Return what is not on the disk of the blobs of a job, as far as its user has sent them."""
    tenant = job.opened.tenant
    lacking = {}
    for blob in job.spec.blobs:
        others = state.blobs.get((tenant, blob.digest), {}).values()
        if all(blob.digest in other.upload.blobs for other in others):
            lacking[blob.digest] = Arriving(blob.digest, blob.size)
    return lacking


def _ask(state: State, job: KeptJob) -> None:
    """Ask for what is missing of the first blob that is not whole."""
    for arriving in job.upload.blobs.values():
        if not arriving.is_whole():
            while (part := arriving.ask(state.now_s)) is not None:
                wanted = m.BlobWanted(job.id, arriving.digest, *part)
                state.effects.append(ToPeer(job.upload.source, wanted))
            return


def hear(
    state: State, job: KeptJob, said: m.Inputs | m.InputsEnd | m.CloseJob, payload: list[bytes]
) -> None:
    """Take what its caller says of a job."""
    if isinstance(said, m.CloseJob):
        job.upload.source = b""
        if not job.is_ended:  # else it has heard so, and what there is of the job stays
            delete(state, job)
        return
    if job.is_kept or job.is_ended:
        return
    if isinstance(said, m.InputsEnd):
        state.append(job, Log.INPUTS, said)
        return
    is_next = said.start >= job.end if job.spec.adopted else said.start == job.end
    if not is_next or not _is_batch(said, payload):
        return  # it is here already, or it is no batch
    size, to_come = sum(map(len, payload)), sum([leaf.size for leaf in said.leaves])
    if why := why_no_more(state, job, size, to_come):
        refuse(state, job, why)
        return
    job.end = said.start + sum(leaf.count for leaf in said.leaves)
    state.append(job, Log.INPUTS, said, payload)
    big_inputs.announced(state, job, said)


def _is_batch(said: m.Inputs, payload: list[bytes]) -> bool:
    """Return whether leaves follow each other, and have the frames that came, or a size."""
    at = said.start
    for leaf in said.leaves:
        if leaf.start != at or leaf.batch != said.batch:
            return False
        if bool(leaf.frames) == bool(leaf.size) or leaf.size > LEAF_BYTES_MAX:
            return False
        at += leaf.count
    return at > said.start and sum(leaf.frames for leaf in said.leaves) == len(payload)


def why_no_more(state: State, job: KeptJob, size: int, to_come: int = 0) -> str:
    """Return why nothing more of a job on its way in can be kept; empty: it can.

    `to_come`: bytes of what is announced.
    """
    if state.is_full(size + to_come):
        return "the disk of the scheduler's store is full: the job is not kept"
    if state.sizes.get(job.opened.tenant, 0) + size + to_come > state.limits.bytes_max:
        return f"{state.over_quota(job.opened.tenant)}: the job is not kept"
    if state.pending_of[Log.INPUTS] + size > PENDING_MAX:
        return "too much is being stored at once: the job is not kept. Try again in a while"
    return ""


def piece(state: State, job: KeptJob, said: m.BlobPiece, payload: list[bytes]) -> None:
    """Take a piece of a blob, if it is what was asked for."""
    arriving = job.upload.blobs.get(said.digest)
    if arriving is None:
        return
    wrong = arriving.wrong
    if not arriving.take(said.start, payload, state.now_s):
        return
    if arriving.wrong >= WRONG_MAX:
        refuse(state, job, "what the function refers to has arrived as other bytes again and again")
    elif arriving.wrong == wrong:
        is_last = arriving.is_whole()
        state.effects.append(job.append_blob(said, payload, is_last=is_last))
    _ask(state, job)


def input_piece(state: State, job: KeptJob, said: m.InputPiece, payload: list[bytes]) -> None:
    """Take a piece of a big input, if it is what was asked for."""
    if job.upload.coming.asked and state.is_full(0):
        refuse(state, job, why_no_more(state, job, 0))
    else:
        big_inputs.take(state, job, said, payload)


def refuse(state: State, job: KeptJob, why: str) -> None:
    """Give up a job that cannot be kept, and tell its caller."""
    delete(state, job, why)


def is_on_disk(state: State, job: KeptJob, entry: Pending) -> None:
    """Take note of a part of a job that is on the disk now."""
    match entry.said:
        case m.Inputs() as said:
            job.upload.waiting.append(big_inputs.batch_at(job, said, entry))
            big_inputs.settle(job)
            if said.total is not None:
                job.total = said.total
            members.feed_now(state, job, said, entry.payload)
        case m.InputPiece() as said:
            big_inputs.is_on_disk(state, job, said, entry)
        case m.InputsEnd() as said:
            job.total = said.total
        case m.OpenJob():
            job.opening.at = entry.at, entry.at + entry.size
        case m.BlobPiece() as said if entry.is_last:
            job.upload.blobs.pop(said.digest, None)
        case _:
            pass


def tell(state: State, job: KeptJob) -> None:
    """Tell the caller of a job what of it is on the disk, if it does not know."""
    if job.is_kept or not job.is_written_down():
        if job.is_kept and job.upload.source and job.upload.told < 0:
            job.upload.told = job.stored()
            said = InputsStored(job.id, job.stored(), job.total)
            state.effects.append(ToPeer(job.upload.source, said))
        return
    job.is_kept = job.is_whole()
    if job.is_kept:
        state.save(job)
    if job.upload.source and (job.is_kept or job.stored() > max(0, job.upload.told)):
        job.upload.told = job.stored()
        total = job.total if job.is_kept else None
        state.effects.append(
            ToPeer(job.upload.source, InputsStored(job.id, job.upload.told, total))
        )


def expire(state: State, job: KeptJob) -> None:
    """Give up a job whose caller is gone in the middle of it."""
    if job.is_kept or job.is_ended:
        return
    is_there = state.is_there(job.upload.source)
    big_inputs.expire(state, job, is_there=is_there)
    if is_there:
        job.upload.unheard_s = None
        asked = [one for one in job.upload.blobs.values() if one.asked]
        if asked and all(one.is_stalled(state.now_s) for one in asked):
            for arriving in job.upload.blobs.values():
                arriving.forget_asked()
            _ask(state, job)
    elif job.upload.unheard_s is None:
        job.upload.unheard_s = state.now_s
    elif state.now_s < job.upload.unheard_s + UPLOAD_S:
        pass
    elif job.total is not None and job.id in state.damaged:  # all of it may have been here
        job.is_kept = True
        ending.fail(state, job, ending.INPUTS_LOST)
    else:
        text = f"job {job.id.hex()[:8]} is not kept: its caller went before all of it was here"
        state.effects.append(Note(text))
        job.upload.source = b""
        delete(state, job)
