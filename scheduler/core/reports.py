"""What nodelets say of their leases: outcomes, output, what they give back, what has ended."""

from burla.protocol import messages as m
from burla.protocol.ranges import ascend

from . import following, jobs, leases, records, retries
from .effects import Publish
from .job import Job
from .lease import SERVING, Lease, LeaseState
from .node import Node
from .state import State


def _lease_on(state: State, node: Node, lease_id: bytes) -> tuple[Job, Lease] | None:
    """Return a lease and its open job, if the lease is or was `node`'s."""
    lease = state.leases.get(lease_id)
    if lease is None or lease.node != node.id or not lease.wanted:
        return None
    return state.jobs[lease.job], lease


def outcomes(state: State, node: Node, said: m.Outcomes, payload: list[bytes]) -> None:
    """Pass outcomes on, and mark them done."""
    found = _lease_on(state, node, said.lease)
    if found is None:
        return
    job, lease = found
    if not ascend(said.done):
        raise ValueError("its ranges do not ascend")
    is_serving = lease.state in SERVING
    if said.fragment is not None:
        lease.amid = None if said.done else said.fragment.index
    if said.tried:
        retries.note(state, job, lease, said.tried)
    if job.failed_calls:
        retries.forget(job, said.done)
    before = job.work.done.total
    for lo, hi in said.done:
        job.work.finish(lease if is_serving else None, lo, hi)
    if news := job.work.done.total - before:
        job.failed = job.failed or said.failed  # the first error stops the job
        record = state.records.open[job.id]
        size = sum(map(len, payload))
        records.outcomes(record, node.name, said, news, size, state.now_s)
    if is_serving:
        lease.call_s = said.call_s
        lease.had_nothing = False
        state.marks.leases[lease.id] = lease
    state.tell(
        job,
        m.JobOutcomes(
            job=job.id,
            lease=lease.id,
            seq=said.seq,
            node=node.name,
            runs=said.runs,
            output=said.output,
            call_s=said.call_s if job.spec.lazy else 0.0,
            seal=said.seal,
            fragment=said.fragment,
            tried=said.tried,
        ),
        payload,
    )
    jobs.retire_if_complete(state, job)


def refuse_outcomes(state: State, node: Node, said: m.Outcomes, bytes_max: int) -> None:
    """Fail the job of outcomes that have more bytes than are taken: they would never come."""
    found = _lease_on(state, node, said.lease)
    if found is None or found[0].failed:
        return
    lo = said.done[0][0] if said.done else None
    text = (
        f"what the function returned for input {lo} on node {node.name} has more than"
        f" {bytes_max:,} bytes, which is more than can be sent"
    )
    jobs.fail(state, found[0], "", text)


def output(state: State, node: Node, said: m.Output, payload: list[bytes]) -> None:
    """Publish what calls printed; a replay goes to the client alone."""
    found = _lease_on(state, node, said.lease)
    if found is None:
        return
    job, _ = found
    message = m.JobOutput(job.id, said.lease, said.number, said.streams)
    if said.replay:
        state.tell(job, message, payload)
        return
    state.effects.append(Publish(job.spec.topic, message, payload))
    outputs = state.records.outputs
    new = outputs.take(job.id, job.tenant, node.name, said, payload, state.now_s)
    if job.id in outputs.followers:
        following.publish(state, job.id, new)


def running(state: State, node: Node, said: m.Running) -> None:
    """Tell the client of a job which calls last; one that is away would not read it."""
    found = _lease_on(state, node, said.lease)
    if found is None or found[1].state not in SERVING:
        return
    job, lease = found
    lease.running = said if said.calls or said.loading_s else None
    if not job.is_away and not job.failed:
        message = m.JobRunning(job.id, lease.id, node.name, said.calls, said.loading_s)
        state.tell(job, message)


def retracted(state: State, node: Node, said: m.Retracted) -> None:
    """Queue again what a nodelet gave back."""
    found = _lease_on(state, node, said.lease)
    if found is None or found[1].state not in SERVING:
        return
    job, lease = found
    lease.is_retracting = False
    lease.had_nothing = not said.spans
    for span in sorted(said.spans, key=lambda span: span.lo):
        job.work.give_back(lease, span.lo, span.hi)
    state.marks.jobs[job.id] = None
    state.marks.leases[lease.id] = lease


def stopped(state: State, node: Node, lease_id: bytes) -> None:
    """Take note that the processes of a lease are gone."""
    lease = state.leases.get(lease_id)
    if lease is None or lease.node != node.id:
        return
    if lease.state in (LeaseState.STOPPING, LeaseState.WARM):
        leases.workers_are_gone(state, lease)


def pass_on(state: State, said: m.AckOutcomes | m.AckOutput | m.ReplayOutput) -> None:
    """Send what the client of a lease says of it to its nodelet."""
    lease = state.leases[said.lease]
    state.send(state.nodes[lease.node].peer, said)
