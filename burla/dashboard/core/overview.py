"""A cluster on one page: figures, jobs that run, wait and are over."""

from collections.abc import Sequence

from msgspec import Struct

from burla.commands.jobs_view import duration
from burla.protocol.job_messages import OPEN_STATES, JobState, JobSummary
from burla.protocol.node_messages import NodeState
from burla.protocol.overview_messages import NodeSeen, Overview

from .colours import Colours

UNKNOWN = "-"
DIGITS = 8  # of an id, where it is shown


class Figure(Struct, frozen=True):
    """One number that says how it stands."""

    name: str
    value: str
    more: str = ""
    kind: str = ""  # "bad": something is to be done about it


class JobLine(Struct, frozen=True):
    """One job in a table."""

    id: str
    digits: str
    name: str
    user: str
    colour: str
    state: str
    done: int
    total: int | None
    failed: int
    part: float | None  # of it that is done, from 0 to 1
    slots: int
    nodes: int
    took: str
    ago: str  # since it was opened
    why: str


def job_line(said: JobSummary, colours: Colours) -> JobLine:
    """Return a job as a table shows it."""
    part = None
    if said.total is not None:
        part = said.done / said.total if said.total else 1.0
    return JobLine(
        id=said.job.hex(),
        digits=said.job.hex()[:DIGITS],
        name=said.name + (f" x{said.maps:,}" if said.maps > 1 else ""),
        user=said.user,
        colour=colours.of(said.user),
        state=said.state.value,
        done=said.done,
        total=said.total,
        failed=said.failed,
        part=part,
        slots=said.slots,
        nodes=said.nodes,
        took=duration(said.took_s),
        ago=duration(float(round(said.opened_ago_s))),
        why=said.why,
    )


class JobTables(Struct, frozen=True):
    """Jobs by how they stand."""

    running: list[JobLine]
    waiting: list[JobLine]
    over: list[JobLine]


def job_tables(jobs: Sequence[JobSummary], colours: Colours) -> JobTables:
    """Return jobs in three tables; those that wait are in line as the scheduler has them."""
    running = [job for job in jobs if job.state in (JobState.RUNNING, JobState.FAILING)]
    waiting = [job for job in jobs if job.state is JobState.WAITING]
    waiting.sort(key=lambda job: -job.opened_ago_s)
    over = [job for job in jobs if job.state not in OPEN_STATES]
    return JobTables(*([job_line(j, colours) for j in part] for part in (running, waiting, over)))


def figures(said: Overview, jobs: Sequence[JobSummary], rate: float | None) -> list[Figure]:
    """Return how a cluster stands."""
    nodes = said.nodes
    lost = sum(seen.status.state is NodeState.LOST for seen in nodes)
    there = [seen for seen in nodes if seen.status.state is not NodeState.LOST]
    free = sum(seen.status.state is NodeState.FREE for seen in there)
    waiting = [job for job in jobs if job.state is JobState.WAITING]
    running = sum(job.state is JobState.RUNNING for job in jobs)
    slots, busy = sum(seen.slots for seen in there), sum(seen.busy for seen in there)
    speed = UNKNOWN if rate is None else compact(rate)
    found = [
        Figure("nodes", f"{said.nodes_total - lost:,}", f"{free:,} free" if there else "none"),
        Figure("calls running", f"{busy:,}", f"of {slots:,} slots"),
        Figure(
            "calls a second",
            speed,
            f"{compact(said.calls)} in all",
        ),
        Figure("jobs running", f"{running:,}", ""),
        Figure("jobs waiting", f"{len(waiting):,}", _oldest(waiting)),
    ]
    if lost:
        found.append(Figure("nodes lost", f"{lost:,}", "", "bad"))
    return found


def _oldest(waiting: Sequence[JobSummary]) -> str:
    if not waiting:
        return ""
    return f"the first for {duration(float(round(max(job.opened_ago_s for job in waiting))))}"


def compact(count: float) -> str:
    """Return a number in few characters."""
    if count < 10:
        return f"{count:.3g}" if count else "0"
    if count < 10_000:
        return f"{count:,.0f}"
    for unit in ("k", "M", "G"):
        count /= 1000
        if count < 1000:
            return f"{count:.3g} {unit}"
    return f"{count:,.0f} G"


def capacity(nodes: Sequence[NodeSeen]) -> tuple[int, int, int]:
    """Return CPUs, bytes of memory and GPUs of the nodes that are there."""
    there = [seen.status for seen in nodes if seen.status.state is not NodeState.LOST]
    return (
        sum(node.cpus for node in there),
        sum(node.ram for node in there),
        sum(len(node.gpus) for node in there),
    )
