"""What monitoring is told of the scheduler: figures of all jobs and nodes together. Pure.

No figure belongs to one job, user or node, so that their number is the same on the hundredth day.
"""

from collections import Counter
from collections.abc import Mapping

from msgspec import Struct

from burla.protocol.job_messages import JobState
from burla.protocol.messages import NodeState

from .records import Counts
from .state import State

ENDS = (
    JobState.COMPLETE,
    JobState.FAILED,
    JobState.CANCELLED,
    JobState.ENDED,
    JobState.LOST,
)


class Figures(Struct, frozen=True):
    """How all stands, at one moment; what is counted is so since the scheduler began."""

    jobs: Mapping[str, int]  # open ones, by state
    jobs_opened: int
    jobs_ended: Mapping[str, int]  # by how
    calls_completed: int
    calls_failed: int
    calls_retried: int
    calls_running: int
    calls_pending: int  # inputs that are here and that nobody runs
    call_durations: Mapping[int, int]  # by bucket
    calls_busy_s: float
    bytes_in: int
    bytes_out: int
    slots: int  # of all leases
    nodes: Mapping[str, int]  # by state
    cpus: int
    ram: int
    clients: int
    clients_away: int
    queue_oldest_s: float
    blob_bytes: int
    quota_used: Mapping[str, float]  # of the user that has used up most of it


def figures(state: State) -> Figures:
    """Return how all stands. Costs O(state)."""
    jobs: Counter[str] = Counter()
    running = pending = slots = 0
    oldest_s = 0.0
    for job in state.jobs.values():
        work = job.work
        if job.failed:
            jobs[JobState.FAILING] += 1
        elif work.leases:
            jobs[JobState.RUNNING] += 1
        elif not work.is_complete():
            jobs[JobState.WAITING] += 1
            since_s = state.records.open[job.id].waits.since_s
            oldest_s = max(oldest_s, 0.0 if since_s is None else state.now_s - since_s)
        running += work.held - work.unstarted
        pending += work.waiting()
        slots += work.slots
    nodes = Counter(node.status("", state.now_s).state.value for node in state.nodes.values())
    nodes[NodeState.LOST] += len(state.lost)
    totals = state.records.totals
    counts, durations = Counts(), dict(totals.durations)
    counts.add(totals.counts)
    for record in state.records.open.values():
        counts.add(record.counts)
        for bucket, count in record.durations.items():
            durations[bucket] = durations.get(bucket, 0) + count
    return Figures(
        jobs={each.value: jobs[each] for each in _OPEN},
        jobs_opened=totals.opened,
        jobs_ended={each.value: totals.ended.get(each, 0) for each in ENDS},
        calls_completed=counts.calls,
        calls_failed=counts.failed,
        calls_retried=counts.retried,
        calls_running=running,
        calls_pending=pending,
        call_durations=durations,
        calls_busy_s=counts.busy_s,
        bytes_in=counts.bytes_in,
        bytes_out=counts.bytes_out,
        slots=slots,
        nodes={each.value: nodes[each] for each in NodeState},
        cpus=sum(node.cpus for node in state.nodes.values()),
        ram=sum(node.ram for node in state.nodes.values()),
        clients=len(state.clients),
        clients_away=sum(client.away_s is not None for client in state.clients.values()),
        queue_oldest_s=oldest_s,
        blob_bytes=sum(stored.arriving.have for stored in state.blobs.by_name.values()),
        quota_used=_quota_used(state),
    )


_OPEN = (JobState.WAITING, JobState.RUNNING, JobState.FAILING)


def _quota_used(state: State) -> dict[str, float]:
    most = {"jobs": 0.0, "inputs": 0.0, "bytes": 0.0}
    for tenant, usage in state.usages.items():
        quotas = state.tenants.quotas_of(tenant)
        for name, has, limit in (
            ("jobs", usage.jobs, quotas.jobs_max),
            ("inputs", usage.inputs, quotas.inputs_max),
            ("bytes", usage.bytes_held, quotas.bytes_max),
        ):
            most[name] = max(most[name], has / limit)
    return most
