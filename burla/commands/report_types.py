"""What `burla jobs ... --json` prints: its types, from which `schema.json` is made.

Each is `{"schema": 1, "kind": KIND, "data": ...}`. Fields may be added; none goes or changes its
meaning while `schema` is the same number. Times are ISO 8601 in UTC, durations are seconds.
"""

import inspect
from typing import Literal

import msgspec
from msgspec import Struct

from burla.system.failure import SCHEMA as VERSION


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
