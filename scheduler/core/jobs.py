"""The life of jobs, as far as clients decide it: they are opened, get inputs, and are closed."""

from burla.protocol import job_messages as jm, messages as m
from burla.protocol.ranges import ascend
from burla.protocol.too_large import too_large

from . import (
    big_inputs,
    blobs,
    following,
    given_up,
    leases,
    reconcile,
    records,
    retries,
    warm_leases,
)
from .batch import Batch
from .client import Client
from .failing import fail as fail
from .job import Job, cost_of
from .pending_reasons import unsatisfiable
from .quotas import Quotas, Usage, excess, too_often
from .state import State

RESUME_S = 5.0  # nodelets say Hello within a second or two of the scheduler's return
JOB_BYTES_MAX = 2 * m.JOB_INPUT_WINDOW  # besides the last batch, whatever its size
NOT_FOUND = "not found"


def open_(state: State, client: Client, spec: m.OpenJob, function: list[bytes]) -> None:
    """Enter a job of a client, or take up again what the client says that it holds of it."""
    if spec.done and not ascend(spec.done):
        raise ValueError("its ranges do not ascend")
    known, is_momentary = state.jobs.get(spec.job), False
    if known is None and (said := given_up.what_became_of(state, client, spec.job)):
        state.send(client.peer, said)
        why = ""
    elif known is None:
        why, is_momentary = _enter(state, client, spec, function)
        state.record(client.user, "open job", spec.job, why or "ok")
    elif known.owner == client.session:
        _resume(state, known, spec)
        why = ""
    else:
        why = NOT_FOUND
        state.record(client.user, "open job", spec.job, why)
    if why:
        state.send(client.peer, m.JobFailed(spec.job, "", why, momentary=is_momentary))


def _enter(
    state: State, client: Client, spec: m.OpenJob, function: list[bytes]
) -> tuple[str, bool]:
    """Enter a new job; return which quota keeps it from being opened, and whether for now only.

    Empty: none does.
    """
    tenant, cost = state.tenants.of(client.user), cost_of(spec, function)
    quotas = state.tenants.quotas_of(tenant)
    is_counted = not state.is_private
    if is_counted and state.opens.wait_s(tenant.encode(), state.now_s, quotas.opens_per_s) is None:
        return too_often(quotas), True
    if why := _excess(state, tenant, quotas, 1, 0, cost):
        return why, not excess(quotas, Usage(), 1, 0, cost)
    if spec.blobs and (why := blobs.why_never(state, spec.blobs)):
        return why, False
    usage = state.usages.get(tenant) or Usage()
    job = state.jobs[spec.job] = Job(
        spec,
        function,
        client.session,
        client.python,
        client.name,
        usage,
        tenant=tenant,
        opened_s=state.now_s,
        cost=cost,
    )
    state.usages[tenant] = usage
    state.records.opened(job, user_of(state, job), state.tenants, state.now_s)
    state.queue_up(job)
    if spec.blobs:
        blobs.enter(state, job)
    # later on its first OpenJob was lost on the way, and nobody holds anything
    if spec.resumed and state.now_s < state.former.settled_s:
        if state.former.awaited != set():  # else all nodes that may hold some of it have said so
            job.hold_until_s = state.now_s + RESUME_S
        for node in state.nodes.values():
            reconcile.adopt_orphans(state, node, job)
    if spec.tried:
        retries.note(state, job, None, spec.tried)
    state.marks.jobs[job.id] = None
    state.journal.add(state.now_s, _opened, state, job)
    if state.is_private:
        fail_if_unfit(state, job)
    return "", False


def _excess(state: State, tenant: str, quotas: Quotas, jobs: int, inputs: int, size: int) -> str:
    """Return which of its quotas so much more of a tenant would exceed; empty: none.

    Jobs whose clients are away give up their room, those first that were opened first.
    """
    while why := excess(quotas, state.usages.get(tenant) or Usage(), jobs, inputs, size):
        away = (job for job in state.jobs.values() if job.is_away and job.tenant == tenant)
        if (job := next(away, None)) is None:
            return why
        given_up.remember(state, job, for_room=True)
        close(state, job, "its caller is away, and its other jobs need the room")
    return ""


def _opened(state: State, job: Job) -> str:
    return f"job {job.id.hex()[:8]} of {user_of(state, job)} opened: {job.spec.name}"


def user_of(state: State, job: Job) -> str:
    """Return whose job it is, for people: by the name that goes with the key, if it is known."""
    client = state.clients.get(job.owner)
    key = client.user if client is not None else job.tenant
    return state.tenants.users.get(key, job.user)


def _resume(state: State, job: Job, spec: m.OpenJob) -> None:
    """The client reconnected: what was sent to it may be lost; nodelets still have it."""
    job.reopen_by_s = None
    job.is_away = False
    state.marks.jobs[job.id] = None
    job.work.undo(spec.done)
    retries.note(state, job, None, spec.tried)
    job.said, job.slots_said = "", 0
    if spec.blobs:
        blobs.resume(state, job)
    big_inputs.resume(state, job)
    job.failed = job.failure is not None  # the error of a call comes again, or that is called again
    if job.failure is not None:
        state.tell(job, job.failure)
    _tell_lost_again(state, job)
    all_leases = (*job.work.leases.values(), *job.past.values())
    if not job.work.limbo and not any(lease.amid is not None for lease in all_leases):
        return
    if state.now_s >= job.hold_until_s:  # one at a time, or a flickering connection stops it
        job.hold_until_s = state.now_s + RESUME_S
    holders = [lease.node for lease in all_leases]
    for node in dict.fromkeys(holders):
        state.send(state.nodes[node].peer, m.HelloRequired())  # it sends everything again


def _tell_lost_again(state: State, job: Job) -> None:
    """Tell a client that reconnected which inputs its nodes died of, as far as it does not know."""
    for index, said in list(job.lost.items()):
        if index in job.work.done:  # as the client has just said
            del job.lost[index]
        else:
            job.work.finish(None, index, index + 1)
            state.tell(job, said)


def inputs(state: State, job: Job, message: m.Inputs, payload: list[bytes]) -> None:
    """Take a batch.

    Raises:
        ValueError: it contradicts itself or what came before.
    """
    batch = Batch.from_inputs(message, payload)
    quotas = state.tenants.quotas_of(job.tenant)
    count, cost = batch.stop - batch.start, batch.cost
    if (known := job.work.batches.kept.get(batch.number)) is not None:
        count, cost = 0, max(0, cost - known.cost)  # that is counted already
    why = _excess(state, job.tenant, quotas, 0, count, cost)
    is_momentary = bool(why) and not excess(quotas, Usage(), 0, count, cost)
    if known is None and job.work.batches.size > JOB_BYTES_MAX:
        why = f"the job has over {JOB_BYTES_MAX} bytes of inputs without an outcome"
        is_momentary = False
    if batch.cost > quotas.bytes_max:
        refuse(state, state.clients[job.owner], message, payload, quotas.bytes_max)
    elif why:  # nothing more of it is kept
        if not job.failed:
            fail(state, job, "", why, momentary=is_momentary)
    else:
        job.work.enter(batch)
        if state.inputs.early:
            big_inputs.entered(state, job, batch)
        if known is None:
            job.work.coming = message.coming
            state.records.open[job.id].counts.bytes_in += batch.size
        state.marks.jobs[job.id] = None
    if message.total is not None:
        inputs_end(state, job, message.total)


def refuse(
    state: State, client: Client, message: m.OpenJob | m.Inputs, payload: list[bytes], most: int
) -> None:
    """Fail the job of a client because its function, or a batch of it, has more bytes than may be.

    `payload` is empty if not all of it was taken.
    """
    text, index = too_large(message, payload, most)
    job = state.jobs.get(message.job)
    if job is None:
        state.record(client.user, "open job", message.job, text)
        state.send(client.peer, m.JobFailed(message.job, "", text, index))
    elif job.owner == client.session and not job.failed:
        fail(state, job, "", text, index=index)


def inputs_end(state: State, job: Job, total: int) -> None:
    """Note that no more batches come."""
    job.work.total, job.work.coming = total, 0
    retire_if_complete(state, job)  # who makes inputs may find late that there are no more
    state.marks.jobs[job.id] = None


def close(state: State, job: Job, why: str = "") -> None:
    """Forget a job, and stop all of it; `why`: unless it is over or its caller has ended it."""
    state.journal.add(state.now_s, _closed, state, job, why)
    past = list(job.past.values())
    for lease in list(job.work.leases.values()):
        leases.end(state, lease, discard=True)
        leases.disown(job, lease)
    for lease in past:
        warm_leases.close(state, job, lease)
    if job.spec.blobs:
        blobs.leave(state, job)
    state.records.ended(job, why, state.now_s)
    following.end(state, job.id)
    del state.jobs[job.id]
    job.charge.end()
    if not job.charge.usage.jobs:
        del state.usages[job.tenant]


def _closed(state: State, job: Job, why: str) -> str:
    done = job.work.done.total
    if not why and job.failed:
        why = f"failed: {job.failure.text if job.failure is not None else 'a call failed'}"
    elif not why and job.work.total == done:
        why = "complete"
    took_s = state.now_s - job.opened_s
    text = f"job {job.id.hex()[:8]} of {user_of(state, job)} ended: {why or 'by its caller'}"
    return f"{text}; {done} outcomes in {took_s:.3g} s"


def lose_call(state: State, job: Job, index: int, nodes: tuple[str, ...]) -> None:
    """Give up one input of a job that goes on: its nodes were lost each time."""
    job.work.finish(None, index, index + 1)
    record = state.records.open[job.id]
    record.counts.failed += 1
    record.counts.calls += 1
    text = f"each node that ran it was lost: {', '.join(nodes)}"[: jm.FAULT_CHARS_MAX]
    records.note_fault(record, jm.Fault(index, "NodeLost", text, nodes[-1] if nodes else ""))
    job.lost[index] = m.CallLost(job.id, index, nodes)
    state.tell(job, job.lost[index])
    retire_if_complete(state, job)


def retire_if_complete(state: State, job: Job) -> None:
    """Take the nodes of a job that has all its outcomes; they need not wait for its last word."""
    if job.work.is_complete():
        state.records.open[job.id].done_s = state.now_s
        for lease in list(job.work.leases.values()):
            warm_leases.retire(state, job, lease)


def end_session(state: State, session: bytes) -> None:
    """Stop all that a client has here."""
    for job in [job for job in state.jobs.values() if job.owner == session]:
        close(state, job, "its caller is gone")
    warm_leases.end_session(state, session)


def expire(state: State, job: Job) -> None:
    """Close a job that its client has forgotten; end what it waited for from its nodelets."""
    if job.reopen_by_s is not None and state.now_s >= job.reopen_by_s:
        close(state, job, "its caller knows it no longer")
    elif (job.hold_until_s or job.work.limbo.total) and state.now_s >= job.hold_until_s:
        job.hold_until_s = 0.0
        job.work.release_limbo()
        state.marks.jobs[job.id] = None
    elif job.moves_failed and job.failed_calls:  # some may have waited for another node in vain
        state.marks.jobs[job.id] = None


def fail_if_unfit(state: State, job: Job) -> None:
    """Fail a job that no node could ever run."""
    misfit = unsatisfiable(job, state.nodes.values(), is_private=state.is_private)
    if misfit is not None:
        fail(state, job, *misfit)
