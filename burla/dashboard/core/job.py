"""One job on a page: how far it is, what it takes, which of its calls failed or last."""

from msgspec import Struct

from burla.commands.job_reports import details_of, reason_of
from burla.commands.jobs_view import duration, size
from burla.commands.report_types import Details, Error, Reason
from burla.protocol.job_messages import OPEN_STATES, JobRecord

from .colours import Colours
from .overview import UNKNOWN, Figure, JobLine, compact, job_line
from .timeline import Timeline, timeline


class Bar(Struct, frozen=True):
    """A line of a histogram: what it counts, how many there are, how that is to the most."""

    label: str
    calls: int
    percent: float


class NodeBar(Struct, frozen=True):
    """What one node has done for the job."""

    node: str
    is_leased: bool
    slots: int
    leased: str
    calls: int
    percent: float


class Failure(Struct, frozen=True):
    """A call that failed."""

    input: int
    node: str
    about: str
    text: str
    last_words: str


class Failures(Struct, frozen=True):
    """Calls that failed with errors of one type."""

    type: str
    calls: int
    errors: list[Failure]


class Lasting(Struct, frozen=True):
    """A call that took long, or lasts."""

    what: str
    took: str
    node: str
    memory: str = ""
    last_words: str = ""


class Waited(Struct, frozen=True):
    """A time in which nothing of it ran."""

    after: str
    took: str
    why: str


class JobView(Struct, frozen=True):
    """All that the page of a job shows."""

    line: JobLine
    is_open: bool
    reason: Reason
    figures: list[Figure]
    facts: list[tuple[str, str]]
    durations: list[Bar]
    nodes: list[NodeBar]
    more_nodes: int
    failures: list[Failures]
    timeline: Timeline
    failed: int
    kept: int  # of the failed ones, those that are listed
    slow: list[Lasting]
    lasting: list[Lasting]
    waits: list[Waited]


def job_view(record: JobRecord, colours: Colours, rate: float | None, now_s: float) -> JobView:
    """Return what the page of a job shows; `rate`: calls a second lately, if that is known."""
    said, is_open = details_of(record, now_s), record.summary.state in OPEN_STATES
    return JobView(
        line=job_line(record.summary, colours),
        is_open=is_open,
        reason=reason_of(record),
        figures=_figures(said, is_open, rate),
        facts=_facts(said),
        durations=_histogram(said),
        nodes=_nodes(said),
        more_nodes=said.more_nodes,
        failures=_failures(said),
        timeline=timeline(said),
        failed=said.failed,
        kept=len(said.errors),
        slow=[
            Lasting(
                *(_which(c.input, c.last), duration(c.seconds), c.node),
                *(size(c.memory_bytes) if c.memory_bytes else "", c.last_words),
            )
            for c in said.slow
        ],
        lasting=[
            Lasting(_which(c.input, c.last), duration(float(round(c.seconds))), c.node)
            for c in said.lasting
        ],
        waits=[Waited(duration(w.after_s), duration(w.seconds), w.why) for w in said.waits],
    )


def _figures(said: Details, is_open: bool, rate: float | None) -> list[Figure]:
    done = "" if said.inputs is None else f"of {said.inputs:,}"
    found = [Figure("inputs done", f"{said.done:,}", done)]
    kind = "bad" if said.failed else ""
    again = f"{said.called_again:,} called again" if said.called_again else ""
    found.append(Figure("failed", f"{said.failed:,}", again, kind))
    if is_open:
        left = _left(said, rate)
        found.append(Figure("calls a second", UNKNOWN if rate is None else compact(rate), left))
        nodes = f"on {said.nodes:,} node{'s' * (said.nodes != 1)}"
        found.append(Figure("slots", f"{said.slots:,}", nodes))
        found.append(
            Figure("runs for" if said.nodes else "open for", duration(float(round(said.took_s))))
        )
    else:
        mean = compact(said.done / said.took_s) if said.took_s else UNKNOWN
        found.append(Figure("calls a second", mean))
        found.append(Figure("took", duration(said.took_s)))
    return found


def _left(said: Details, rate: float | None) -> str:
    """Return how long the rest takes if all goes on so."""
    if not rate or said.inputs is None or said.done >= said.inputs:
        return ""
    return f"{duration(float(max(1, round((said.inputs - said.done) / rate))))} left at this rate"


def _facts(said: Details) -> list[tuple[str, str]]:
    options = said.options
    asked = [f"{options.func_cpu} CPU{'s' * (options.func_cpu != 1)}"]
    if options.func_ram_bytes is not None:
        asked.append(f"{size(options.func_ram_bytes)} of memory")
    if options.func_gpu:
        asked.append(f"{options.func_gpu} GPU{'s' * (options.func_gpu != 1)}")
    facts = [
        ("opened", f"{said.opened[:19].replace('T', ' ')} UTC"),
        ("waited", duration(said.waited_s)),
        ("calls took", f"{duration(said.busy_s)} together"),
        ("each call has", ", ".join(asked)),
        ("sent", f"{size(said.bytes_in)} of inputs"),
        ("came back", f"{size(said.bytes_out)} of results"),
        ("Python", said.python),
    ]
    if said.ended is not None:
        facts.insert(1, ("ended", f"{said.ended[:19].replace('T', ' ')} UTC"))
    if options.max_parallelism is not None:
        facts.append(("at most", f"{options.max_parallelism:,} calls at once"))
    if options.timeout_s:
        facts.append(("timeout", duration(options.timeout_s)))
    if options.retries:
        facts.append(("called again", f"up to {options.retries} times"))
    if options.return_exceptions:
        facts.append(("errors", "are results (return_exceptions=True)"))
    if options.grow:
        facts.append(("machines", "may be made for it (grow=True)"))
    return facts


def _histogram(said: Details) -> list[Bar]:
    """Return how many calls took how long; durations between others are there with none."""
    counts = {bar.below_s: bar.calls for bar in said.durations}
    if not counts:
        return []
    most, below_s, bars = max(counts.values()), min(counts), []
    while below_s <= max(counts):
        calls = counts.get(below_s, 0)
        label = f"{duration(below_s / 2)} to {duration(below_s)}"
        bars.append(Bar(label, calls, round(100 * calls / most, 1)))
        below_s *= 2
    return bars


def _nodes(said: Details) -> list[NodeBar]:
    most = max((one.calls for one in said.by_node), default=0) or 1
    order = sorted(said.by_node, key=lambda one: (not one.is_leased, -one.calls))
    return [
        NodeBar(
            one.node,
            one.is_leased,
            one.slots,
            duration(one.leased_s if not one.is_leased else float(round(one.leased_s))),
            one.calls,
            round(100 * one.calls / most, 1),
        )
        for one in order
    ]


def _failures(said: Details) -> list[Failures]:
    """Return what failed, by the type of the error: what failed most first."""
    kept: dict[str, list[Failure]] = {}
    for error in said.errors:
        kept.setdefault(error.type, []).append(_failure(error))
    counts = {one.type: one.calls for one in said.error_types}
    found = [
        Failures(name, max(counts.get(name, 0), len(kept.get(name, ()))), kept.get(name, []))
        for name in {**counts, **kept}
    ]
    return sorted(found, key=lambda each: -each.calls)


def _failure(error: Error) -> Failure:
    about = []
    if error.tries > 1:
        about.append(f"{error.tries} tries")
    if error.seconds:
        about.append(f"after {duration(error.seconds)}")
    if error.memory_bytes:
        about.append(f"with {size(error.memory_bytes)} of memory")
    return Failure(error.input, error.node, ", ".join(about), error.text, error.last_words)


def _which(first: int | None, last: int | None) -> str:
    if first is None:
        return "loading the function"
    return f"input {first}" if last in (None, first) else f"one of the inputs {first} to {last}"
