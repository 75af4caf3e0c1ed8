"""Making what `burla jobs ... --json` prints from what a scheduler says of jobs."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from burla.protocol import job_messages as jm
from burla.protocol.node_messages import NodeState, NodeStatus

from .report_types import (
    Call,
    CallSpan,
    Cluster,
    Details,
    Durations,
    Error,
    Errors,
    ErrorType,
    Job,
    Jobs,
    Lasting,
    LeaseSpan,
    LogLine,
    Node,
    NodeCounts,
    Options,
    Reason,
    Wait,
)

if TYPE_CHECKING:
    from .job_output import LeftOut
    from .output_lines import Line


def job_of(said: jm.JobSummary, now_s: float) -> Job:
    """Return a job in a line; `now_s` is Unix time."""
    return Job(**_line(said, now_s))


def details_of(record: jm.JobRecord, now_s: float) -> Details:
    """Return all that is kept of a job."""
    options = record.options
    return Details(
        **_line(record.summary, now_s),
        options=Options(
            func_cpu=options.func_cpu,
            func_ram_bytes=options.func_ram,
            max_parallelism=options.max_parallelism,
            grow=options.grow,
            return_exceptions=options.goes_on,
            timeout_s=options.timeout_s,
            retries=options.retries,
            func_gpu=options.func_gpu,
        ),
        python=record.python,
        waited_s=_rounded(record.waited_s),
        waits=_waits(record),
        by_node=[
            Node(
                node=one.node,
                leases=one.leases,
                slots=one.slots,
                leased_s=_rounded(one.leased_s),
                calls=one.calls,
                is_leased=one.is_leased,
            )
            for one in record.nodes
        ],
        more_nodes=record.more_nodes,
        errors=_errors(record),
        slow=[
            Call(
                input=one.lo,
                last=one.hi - 1,
                seconds=_rounded(one.seconds),
                node=one.node,
                memory_bytes=one.memory,
                last_words=one.last_words,
            )
            for one in record.slowest or _slow(record)
        ],
        lasting=_lasting(record),
        durations=[
            Durations(below_s=jm.bucket_end_s(bucket), calls=calls)
            for bucket, calls in record.durations
        ],
        bytes_in=record.bytes_in,
        bytes_out=record.bytes_out,
        busy_s=_rounded(record.busy_s),
        error_types=_types(record),
        leases=[
            LeaseSpan(
                node=one.node,
                after_s=_rounded(one.after_s),
                seconds=_rounded(one.seconds),
                slots=one.slots,
                is_leased=one.is_leased,
            )
            for one in record.leases
        ],
        calls=[
            CallSpan(
                node=one.node,
                input=one.lo,
                last=one.hi - 1,
                after_s=_rounded(one.after_s),
                seconds=_rounded(one.seconds),
                failed=one.failed,
            )
            for one in record.calls
        ],
    )


def _slow(record: jm.JobRecord) -> list[jm.SlowCall]:
    """Return the slow calls as an earlier version of the scheduler tells them."""
    return [jm.SlowCall(one.lo, one.hi, one.seconds, "") for one in record.slow]


def _types(record: jm.JobRecord) -> list[ErrorType]:
    """Return how many calls failed with which error, the most first."""
    counts = Counter({one.type: one.calls for one in record.error_types})
    counts = counts or Counter(fault.type for fault in record.faults)
    return [ErrorType(type=name, calls=count) for name, count in counts.most_common()]


def cluster_of(said: jm.JobList, nodes: Sequence[NodeStatus], now_s: float) -> Cluster:
    """Return a cluster at one moment."""
    states = Counter(node.state.value for node in nodes)
    there = [node for node in nodes if node.state is not NodeState.LOST]
    return Cluster(
        jobs=Jobs(jobs=[job_of(one, now_s) for one in said.jobs], total=said.total),
        nodes=NodeCounts(**{state.value: states[state.value] for state in NodeState}),
        cpus=sum(node.cpus for node in there),
        ram_bytes=sum(node.ram for node in there),
    )


def reason_of(record: jm.JobRecord) -> Reason:
    """Return why a job stands as it does."""
    said = record.summary
    why, remedy = _explained(record)
    return Reason(
        job=said.job.hex(),
        state=said.state.value,
        why=why,
        remedy=remedy,
        waited_s=_rounded(record.waited_s),
        waits=_waits(record),
        lasting=_lasting(record),
    )


def errors_of(record: jm.JobRecord) -> Errors:
    """Return which calls of a job failed, and with what."""
    return Errors(
        job=record.summary.job.hex(),
        failed=record.summary.failed,
        types=_types(record),
        errors=_errors(record),
    )


def left_out_of(line: "LeftOut") -> LogLine:
    """Return what is said instead of output that is not kept."""
    return LogLine(
        job=line.job,
        place=0,
        time="",
        node="",
        stream="",
        input=None,
        last=None,
        text="",
        left_out_bytes=line.bytes,
    )


def log_line_of(line: "Line") -> LogLine:
    """Return a line of output."""
    first, inputs = line.first, line.inputs
    return LogLine(
        job=first.job,
        place=first.place,
        time=datetime.fromtimestamp(first.time_s, UTC).isoformat(timespec="milliseconds"),
        node=first.node,
        stream=first.stream,
        input=None if inputs is None else inputs[0],
        last=None if inputs is None else inputs[1] - 1,
        text=line.text,
    )


def _line(said: jm.JobSummary, now_s: float) -> dict[str, Any]:
    opened_s = now_s - said.opened_ago_s
    is_open = said.state in jm.OPEN_STATES
    return {
        "job": said.job.hex(),
        "user": said.user,
        "function": said.name,
        "state": said.state.value,
        "opened": _iso(opened_s),
        "ended": None if is_open else _iso(opened_s + said.took_s),
        "took_s": _rounded(said.took_s),
        "inputs": said.total,
        "done": said.done,
        "failed": said.failed,
        "called_again": said.retried,
        "slots": said.slots,
        "nodes": said.nodes,
        "why": said.why,
        "maps": said.maps,
    }


def _waits(record: jm.JobRecord) -> list[Wait]:
    return [
        Wait(why=one.why, after_s=_rounded(one.after_s), seconds=_rounded(one.seconds))
        for one in record.waits
    ]


def _errors(record: jm.JobRecord) -> list[Error]:
    return [
        Error(
            input=one.index,
            type=one.type,
            text=one.text,
            node=one.node,
            tries=one.tries,
            seconds=_rounded(one.seconds),
            memory_bytes=one.memory,
            last_words=one.last_words,
        )
        for one in record.faults
    ]


def _lasting(record: jm.JobRecord) -> list[Lasting]:
    return [
        Lasting(
            node=one.node,
            input=one.lo if one.lo < one.hi else None,
            last=one.hi - 1 if one.lo < one.hi else None,
            seconds=_rounded(one.seconds),
        )
        for one in record.running or record.lasting
    ]


REMEDIES = (  # by how a reason begins
    ("no node is connected", "`burla nodes list` shows which were lost; `burla up` repairs them"),
    ("no connected node fits", "ask for less (func_cpu, func_ram), or add a node that fits"),
    ("number ", "wait, or stop another job of yours: `burla jobs list`, `burla jobs cancel JOB`"),
    ("its caller is away", "let the process that called it go on, or cancel the job"),
)


def _explained(record: jm.JobRecord) -> tuple[str, str]:
    """Return why a job stands as it does, and what to do about it; empty: nothing."""
    said = record.summary
    done = f"{said.done:,}" if said.total is None else f"{said.done:,} of {said.total:,}"
    match said.state:
        case jm.JobState.WAITING:
            why = said.why or "it has only just been opened"
            return why, next((what for begun, what in REMEDIES if why.startswith(begun)), "")
        case jm.JobState.RUNNING:
            nodes = f"{said.nodes} node{'s' * (said.nodes != 1)}"
            why = f"it runs, up to {said.slots} calls at once on {nodes}: {done} inputs are done"
            return why, "look at the calls that last: are they stuck?" if record.lasting else ""
        case jm.JobState.COMPLETE:
            failed = f", {said.failed:,} of them with an error" if said.failed else ""
            return f"it is complete: {done} inputs{failed}", ""
        case _:
            what = f"`burla jobs errors {said.job.hex()[:8]}` has the errors" if said.failed else ""
            return said.why or said.state.value, what


def _iso(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")


def _rounded(seconds: float) -> float:
    return round(seconds, 6)
