"""What people are told of the jobs that are kept, and how that is taken up again. Pure."""

import itertools
from collections.abc import Callable, Iterable

from burla.protocol import job_messages as jm, messages as m
from burla.protocol.job_messages import JobState

from .job import Job
from .records import Counts, Lasted, Named, Recording, Share, Waits


def told(
    record: Recording, job: Job | None, now_s: float, node_name: Callable[[bytes], str]
) -> jm.JobRecord:
    """Return all that is kept of a job; `job`: the open one."""
    lasting = [] if job is None else _lasting(job, node_name)
    waits_now, waited_s = list(record.waits.over), record.waits.total_s
    if record.waits.since_s is not None:
        waited_s += max(0.0, now_s - record.waits.since_s)
    why, since_s = record.waits.reason
    if why:
        after_s = max(0.0, since_s - record.opened_s)
        waits_now.append(jm.Wait(why, after_s, max(0.0, now_s - since_s)))
    return jm.JobRecord(
        summary=summary(record, job, now_s),
        options=record.options,
        python=record.python,
        waited_s=waited_s,
        waits=tuple(waits_now[-jm.WAITS_MAX :]),
        nodes=tuple(_share_told(node, share, now_s) for node, share in record.nodes.items()),
        more_nodes=record.more_nodes,
        faults=tuple(sorted(record.named.faults.values(), key=lambda fault: fault.index)),
        slow=tuple(m.LongCall(one.lo, one.hi, one.seconds) for one in record.named.slow),
        durations=tuple(sorted(record.durations.items())),
        bytes_in=record.counts.bytes_in,
        bytes_out=record.counts.bytes_out,
        lasting=tuple(lasting[: jm.SLOW_MAX]),
        busy_s=record.counts.busy_s,
        slowest=tuple(record.named.slow),
        error_types=tuple(itertools.starmap(jm.ErrorCount, record.named.types.items())),
        leases=_lease_spans(record, now_s),
        calls=tuple(_call_span(record, call) for call in record.named.calls),
        running=tuple(lasting[: jm.RUNNING_MAX]),
    )


def _lease_spans(record: Recording, now_s: float) -> tuple[jm.LeaseSpan, ...]:
    """Return when which node served a job, those that do now last."""
    spans = [
        (one.node, max(0.0, one.begun_s - record.opened_s), max(0.0, one.seconds), one.slots)
        for one in record.named.leases
    ]
    told = [jm.LeaseSpan(span[0][: jm.LINE_NODE_CHARS], *span[1:]) for span in spans]
    for node, share in record.nodes.items():
        if share.since_s is not None:
            after_s = max(0.0, share.since_s - record.opened_s)
            seconds = max(0.0, now_s - share.since_s)
            name = node[: jm.LINE_NODE_CHARS]
            told.append(jm.LeaseSpan(name, after_s, seconds, share.slots, True))
    return tuple(told[-jm.LEASES_KEPT_MAX :])


def _call_span(record: Recording, call: Lasted) -> jm.CallSpan:
    after_s = max(0.0, call.begun_s - record.opened_s)
    name = call.node[: jm.LINE_NODE_CHARS]
    return jm.CallSpan(name, call.lo, call.hi, after_s, call.seconds, call.failed)


def told_briefly(
    record: Recording, job: Job | None, now_s: float, node_name: Callable[[bytes], str]
) -> jm.JobRecord:
    """Return what its caller is shown while it runs."""
    return jm.JobRecord(
        summary=summary(record, job, now_s),
        options=record.options,
        python=record.python,
        waited_s=record.waits.total_s,
        waits=(),
        nodes=(),
        more_nodes=0,
        faults=(),
        slow=(),
        durations=(),
        bytes_in=record.counts.bytes_in,
        bytes_out=record.counts.bytes_out,
        lasting=() if job is None else tuple(_lasting(job, node_name)[: jm.SLOW_MAX]),
        busy_s=record.counts.busy_s,
    )


def summary(record: Recording, job: Job | None, now_s: float) -> jm.JobSummary:
    """Return a job in a line."""
    state, why = record.state, record.why
    total, done, slots, nodes = record.total, record.done, 0, 0
    ended_s = now_s if record.ended_s is None else record.ended_s
    if job is not None:
        work = job.work
        total, done, slots, nodes = work.total, work.done.total, work.slots, len(work.leases)
        state = JobState.RUNNING if nodes else JobState.WAITING
        why = "" if nodes else (job.said or record.waits.reason[0])
        if job.failed:
            state = JobState.FAILING
            why = job.failure.text if job.failure is not None else "a call has failed"
        elif work.is_complete():  # its caller's last word is on its way
            state, why, ended_s = JobState.COMPLETE, "", min(ended_s, record.done_s)
        elif job.is_away:
            why = "its caller is away"
    return jm.JobSummary(
        job=record.id,
        user=record.user[:256],
        name=record.name,
        state=state,
        opened_ago_s=max(0.0, now_s - record.opened_s),
        took_s=max(0.0, ended_s - record.opened_s),
        total=total,
        done=done,
        failed=record.counts.failed,
        retried=record.counts.retried,
        slots=slots,
        nodes=nodes,
        why=why[: jm.WHY_CHARS_MAX],
        maps=record.maps,
    )


def _share_told(node: str, share: Share, now_s: float) -> jm.NodeShare:
    is_leased = share.since_s is not None
    leased_s = share.leased_s + (0.0 if share.since_s is None else max(0.0, now_s - share.since_s))
    leases = max(1, share.leases)
    return jm.NodeShare(node, leases, share.slots, leased_s, share.calls, is_leased)


def _lasting(job: Job, node_name: Callable[[bytes], str]) -> list[jm.Lasting]:
    """Return which calls last, as their nodes said."""
    found = []
    for lease in job.work.leases.values():
        if (said := lease.running) is not None:
            node = node_name(lease.node)
            done = job.work.done
            found += [
                jm.Lasting(node, call.lo, call.hi, call.seconds)
                for call in said.calls
                if not done.covers(call.lo, call.hi)  # since it was told
            ]
            if said.loading_s:
                found.append(jm.Lasting(node, 0, 0, said.loading_s))
    found.sort(key=lambda one: -one.seconds)
    return found


def taken_up(kept: Iterable[tuple[str, jm.JobRecord, float]], now_s: float) -> list[Recording]:
    """Return what an earlier scheduler filed.

    Each is a tenant, what was told of a job, and how many seconds ago that was.
    """
    return [_from_told(tenant, told, now_s - ago_s) for tenant, told, ago_s in kept]


def _from_told(tenant: str, told: jm.JobRecord, told_s: float) -> Recording:
    """Return the record of which was told at `told_s` what is here."""
    said = told.summary
    opened_s = told_s - said.opened_ago_s
    is_open = said.state in jm.OPEN_STATES
    record = Recording(
        *(said.job, tenant, said.user, said.name, told.python, told.options, opened_s),
        ended_s=None if is_open else opened_s + said.took_s,
        state=said.state,
        why=said.why,
        total=said.total,
        done=said.done,
        maps=said.maps,
        counts=Counts(
            said.failed, said.retried, told.bytes_in, told.bytes_out, told.busy_s, said.done
        ),
        waits=Waits(told.waited_s, over=list(told.waits)),
        more_nodes=told.more_nodes,
        named=Named(
            faults={fault.index: fault for fault in told.faults},
            types={one.type: one.calls for one in told.error_types},
            slow=list(told.slowest) or [_slow(call) for call in told.slow],
        ),
        durations=dict(told.durations),
    )
    record.named.leases.extend(
        Lasted(one.node, 0, 0, opened_s + one.after_s, one.seconds, slots=one.slots)
        for one in told.leases
    )
    record.named.calls.extend(
        Lasted(one.node, one.lo, one.hi, opened_s + one.after_s, one.seconds, one.failed)
        for one in told.calls
    )
    for share in told.nodes:
        record.nodes[share.node] = Share(share.leases, share.slots, share.leased_s, share.calls)
    return record


def _slow(call: m.LongCall) -> jm.SlowCall:
    """Return a slow call as an earlier version of the scheduler has filed it."""
    return jm.SlowCall(call.lo, call.hi, call.seconds, "")
