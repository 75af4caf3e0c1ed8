"""What `burla jobs ... --json` prints: its types, from which `schema.json` is made.

Each is `{"schema": 1, "kind": KIND, "data": ...}`. Fields may be added; none goes or changes its
meaning while `schema` is the same number. Times are ISO 8601 in UTC, durations are seconds.
"""

import inspect
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from burla.protocol import job_messages as jm
from burla.protocol.node_messages import NodeState, NodeStatus
from burla.system.failure import SCHEMA as VERSION

if TYPE_CHECKING:
    from .job_output import LeftOut
    from .output_lines import Line


class Job(Struct, frozen=True, kw_only=True):
    """A job in a line; one that is over and was one of a loop of equal short ones is all these."""

    job: str
    user: str
    function: str
    state: str
    opened: str
    ended: str | None
    took_s: float
    inputs: int | None
    done: int
    failed: int
    called_again: int
    slots: int
    nodes: int
    why: str
    maps: int


class Options(Struct, frozen=True, kw_only=True):
    """What its caller has asked for; a timeout of 0 is none."""

    func_cpu: int
    func_ram_bytes: int | None
    max_parallelism: int | None
    grow: bool
    return_exceptions: bool
    timeout_s: float
    retries: int
    func_gpu: int


class Wait(Struct, frozen=True, kw_only=True):
    """A time in which nothing of the job ran, and why; `after_s` since the job was opened."""

    why: str
    after_s: float
    seconds: float


class Node(Struct, frozen=True, kw_only=True):
    """What a node has done for the job."""

    node: str
    leases: int
    slots: int
    leased_s: float
    calls: int
    is_leased: bool


class Error(Struct, frozen=True, kw_only=True):
    """A call that failed; `seconds` and `memory_bytes` are 0 where they are not known."""

    input: int
    type: str
    text: str
    node: str
    tries: int
    seconds: float
    memory_bytes: int
    last_words: str


class Call(Struct, frozen=True, kw_only=True):
    """A call that took long: of the input, or of one of the inputs from `input` to `last`.

    `memory_bytes` are what its worker had of its own at most, as far as that was looked at, or 0;
    `last_words` the last lines that it printed.
    """

    input: int
    last: int
    seconds: float
    node: str
    memory_bytes: int
    last_words: str


class Lasting(Struct, frozen=True, kw_only=True):
    """What lasts now on a node: a call as above, or (`input` is null) loading the function."""

    node: str
    input: int | None
    last: int | None
    seconds: float


class LeaseSpan(Struct, frozen=True, kw_only=True):
    """When a node served the job; `after_s` since the job was opened."""

    node: str
    after_s: float
    seconds: float
    slots: int
    is_leased: bool


class CallSpan(Struct, frozen=True, kw_only=True):
    """When a call ran that took a second or more, and has ended."""

    node: str
    input: int
    last: int
    after_s: float
    seconds: float
    failed: bool


class ErrorType(Struct, frozen=True, kw_only=True):
    """How many calls failed with errors of one type."""

    type: str
    calls: int


class Durations(Struct, frozen=True, kw_only=True):
    """How many calls took less than `below_s`, and not less than half of it."""

    below_s: float
    calls: int


class Details(Job, frozen=True, kw_only=True):
    """All that is kept of a job: `errors` are the first ones, `slow` the slowest calls.

    The time line are the last `leases` and `calls`, and what lasts now.
    """

    options: Options
    python: str
    waited_s: float
    waits: list[Wait]
    by_node: list[Node]
    more_nodes: int
    errors: list[Error]
    slow: list[Call]
    lasting: list[Lasting]
    durations: list[Durations]
    bytes_in: int
    bytes_out: int
    busy_s: float
    error_types: list[ErrorType]
    leases: list[LeaseSpan]
    calls: list[CallSpan]


class Jobs(Struct, frozen=True, kw_only=True):
    """Jobs, the open ones first, each part newest first; `total` there are."""

    jobs: list[Job]
    total: int


class NodeCounts(Struct, frozen=True, kw_only=True):
    """How many nodes there are, by state."""

    free: int
    leased: int
    leaving: int
    lost: int


class Cluster(Struct, frozen=True, kw_only=True):
    """A cluster at one moment: open jobs, the last that ended, and its nodes."""

    jobs: Jobs
    nodes: NodeCounts
    cpus: int
    ram_bytes: int


class Reason(Struct, frozen=True, kw_only=True):
    """Why a job stands as it does, and what can be done about it."""

    job: str
    state: str
    why: str
    remedy: str
    waited_s: float
    waits: list[Wait]
    lasting: list[Lasting]


class Errors(Struct, frozen=True, kw_only=True):
    """The calls of a job that failed: `failed` of them, of which the first are listed."""

    job: str
    failed: int
    types: list[ErrorType]
    errors: list[Error]


class LogLine(Struct, frozen=True, kw_only=True):
    """A line of output, of the input, or of one of those from `input` to `last`; null: not known.

    Of what is not kept there is how many bytes: `left_out_bytes`, and no text.
    """

    job: str
    place: int
    time: str
    node: str
    stream: str
    input: int | None
    last: int | None
    text: str
    left_out_bytes: int = 0


class Problem(Struct, frozen=True, kw_only=True):
    """Why a command failed; kinds are promised."""

    kind: str
    text: str
    remedy: str
    exit_code: int


# --- envelopes ---


class JobsListed(Struct, frozen=True, kw_only=True, tag_field="kind", tag="jobs.list"):
    """What `burla jobs list` says."""

    schema: Literal[1] = 1
    data: Jobs


class JobShown(Struct, frozen=True, kw_only=True, tag_field="kind", tag="jobs.show"):
    """What `burla jobs show` says."""

    schema: Literal[1] = 1
    data: Details


class JobExplained(Struct, frozen=True, kw_only=True, tag_field="kind", tag="jobs.why"):
    """What `burla jobs why` says."""

    schema: Literal[1] = 1
    data: Reason


class JobsCancelled(Struct, frozen=True, kw_only=True, tag_field="kind", tag="jobs.cancel"):
    """What `burla jobs cancel` says: the jobs as they stood then."""

    schema: Literal[1] = 1
    data: list[Job]


class JobHandedOver(Struct, frozen=True, kw_only=True):
    """A job that goes on without its script."""

    job: str  # its id
    detached: str  # the id under which it goes on


class JobDetached(Struct, frozen=True, kw_only=True, tag_field="kind", tag="jobs.detach"):
    """What `burla jobs detach` says."""

    schema: Literal[1] = 1
    data: JobHandedOver


class JobErrors(Struct, frozen=True, kw_only=True, tag_field="kind", tag="jobs.errors"):
    """What `burla jobs errors` says."""

    schema: Literal[1] = 1
    data: Errors


class JobLog(Struct, frozen=True, kw_only=True, tag_field="kind", tag="jobs.logs"):
    """What `burla jobs logs` says: one for each line of output."""

    schema: Literal[1] = 1
    data: LogLine


class Top(Struct, frozen=True, kw_only=True, tag_field="kind", tag="top"):
    """What `burla top` says, again and again: a line each time."""

    schema: Literal[1] = 1
    data: Cluster


class Failed(Struct, frozen=True, kw_only=True, tag_field="kind", tag="error"):
    """What any command of burla says that fails."""

    schema: Literal[1] = 1
    error: Problem


Report = (
    JobsListed
    | JobShown
    | JobExplained
    | JobsCancelled
    | JobDetached
    | JobErrors
    | JobLog
    | Top
    | Failed
)


def schema() -> dict[str, object]:
    """Return the JSON schema of all reports: what `schema.json` holds."""
    found = msgspec.json.schema(Report)
    for each in found["$defs"].values():
        if "description" in each:  # Python 3.13 takes the indentation away, others do not
            each["description"] = inspect.cleandoc(each["description"])
        each["required"] = list(each["properties"])  # `schema` has a default here, for brevity
    about = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"What burla prints with --json, version {VERSION}",
    }
    return {**about, **found}


# --- made from what a scheduler says ---


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
