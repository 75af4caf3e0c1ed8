"""How jobs are shown to people: tables and lines. Pure."""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from unicodedata import category, combining, east_asian_width

from burla.values.records import readable

from .report_types import Call, Cluster, Details, Error, Errors, Job, Jobs, Lasting, Reason

DIGITS = 8  # of an id: as many as tell jobs apart
NAME_CHARS, USER_CHARS, WHY_CHARS = 32, 16, 80
ERRORS_SHOWN = 10  # by `show`; `errors` has all that are kept
BAR_CHARS = 30
WORDS_LINES = 10  # of what a call has printed last


def jobs_lines(said: Jobs) -> list[str]:
    """Return a table of jobs."""
    if not said.jobs:
        return ["no jobs"]
    heads = (
        "JOB",
        "USER",
        "FUNCTION",
        "STATE",
        "DONE",
        "FAILED",
        "NODES",
        "OPENED (UTC)",
        "TOOK",
        "WHY",
    )
    rows = [_row(job) for job in said.jobs]
    lines = table(heads, rows)
    if said.total > len(said.jobs):
        lines.append(f"and {said.total - len(said.jobs):,} more (--limit)")
    return lines


def _row(job: Job) -> tuple[str, ...]:
    done = f"{job.done:,}" if job.inputs in (None, job.done) else f"{job.done:,}/{job.inputs:,}"
    name = _cut(job.function, NAME_CHARS) + (f" x{job.maps:,}" if job.maps > 1 else "")
    return (
        job.job[:DIGITS],
        _cut(job.user, USER_CHARS),
        name,
        job.state,
        done,
        f"{job.failed:,}" if job.failed else "",
        str(job.nodes) if job.nodes else "",
        job.opened[:19].replace("T", " "),
        duration(job.took_s),
        _cut(" ".join(job.why.split()), WHY_CHARS),
    )


def cluster_lines(said: Cluster, at: str, rows: int) -> list[str]:
    """Return a cluster at one moment in so many lines at most; `at`: the time of day."""
    nodes = said.nodes
    states = [("free", nodes.free), ("leased", nodes.leased), ("leaving", nodes.leaving)]
    shown = [f"{count} {name}" for name, count in [*states, ("lost", nodes.lost)] if count]
    slots = sum(job.slots for job in said.jobs.jobs)
    head = f"{at}  nodes: {', '.join(shown) or 'none'}; {said.cpus:,} CPUs, {size(said.ram_bytes)}"
    jobs = jobs_lines(said.jobs)[: max(1, rows - 2)]
    return [f"{head}; up to {slots:,} calls at once", "", *jobs]


def details_lines(said: Details) -> list[str]:
    """Return all that is kept of a job."""
    done = f"{said.done:,}" + ("" if said.inputs is None else f" of {said.inputs:,}")
    facts = [
        ("job", said.job),
        ("function", said.function + (f", {said.maps:,} maps" if said.maps > 1 else "")),
        ("user", said.user),
        ("state", said.state + (f": {said.why}" if said.why else "")),
        ("opened", f"{said.opened[:19].replace('T', ' ')} UTC"),
        ("took", duration(said.took_s) + (" so far" if said.ended is None else "")),
        ("waited", duration(said.waited_s)),
        ("inputs", f"{done} done, {said.failed:,} failed, {said.called_again:,} called again"),
        ("calls", f"took {duration(said.busy_s)} together"),
        ("options", _options(said)),
        ("bytes", f"{size(said.bytes_in)} in, {size(said.bytes_out)} out"),
    ]
    if said.ended is None:
        facts.append(("now", f"{said.slots:,} slots on {said.nodes:,} nodes"))
    lines = [f"{name:10}{text}" for name, text in facts]
    if said.waits:
        rows = [(duration(w.after_s), duration(w.seconds), w.why) for w in said.waits]
        lines += ["", *table(("WAITED AFTER", "FOR", "WHY"), rows)]
    if said.by_node:
        lines += ["", *_nodes(said)]
    if said.durations:
        lines += ["", *_histogram(said)]
    if said.slow:
        lines += ["", *_slow(said.slow)]
        if words := _last_words(said.slow[0].last_words):
            lines += ["what the slowest has printed last:", *words]
    if said.lasting:
        lines += ["", *_lasting(said.lasting)]
    if said.errors:
        lines += [
            "",
            *(line for one in said.errors[:ERRORS_SHOWN] for line in _error(one, one.type)),
        ]
        if said.failed > ERRORS_SHOWN:
            lines.append(f"{said.failed:,} in all: `burla jobs errors {said.job[:DIGITS]}`")
    return lines


def _options(said: Details) -> str:
    options = said.options
    told = [f"func_cpu={options.func_cpu}"]
    if options.func_ram_bytes is not None:
        told.append(f"func_ram={options.func_ram_bytes / (1 << 30):.4g}")
    if options.func_gpu:
        told.append(f"func_gpu={options.func_gpu}")
    if options.max_parallelism is not None:
        told.append(f"max_parallelism={options.max_parallelism}")
    told += ["grow=True"] * options.grow + ["return_exceptions=True"] * options.return_exceptions
    if options.timeout_s:
        told.append(f"timeout={options.timeout_s:g}")
    if options.retries:
        told.append(f"retries={options.retries}")
    return f"{', '.join(told)} (Python {said.python})"


def _nodes(said: Details) -> list[str]:
    rows = [
        (
            one.node + (" (now)" if one.is_leased else ""),
            str(one.leases),
            str(one.slots),
            duration(one.leased_s),
            f"{one.calls:,}",
        )
        for one in said.by_node
    ]
    lines = table(("NODE", "LEASES", "SLOTS", "LEASED", "CALLS"), rows)
    return [*lines, f"and {said.more_nodes} more"] if said.more_nodes else lines


def _histogram(said: Details) -> list[str]:
    most = max(one.calls for one in said.durations)
    rows = [
        (
            f"< {duration(one.below_s)}",
            f"{one.calls:,}",
            "#" * max(1, round(one.calls / most * BAR_CHARS)) if one.calls else "",
        )
        for one in said.durations
    ]
    return table(("CALL TOOK", "CALLS", ""), rows)


def reason_lines(said: Reason) -> list[str]:
    """Return why a job stands as it does."""
    lines = [f"job {said.job[:DIGITS]} is {said.state}: {said.why}"]
    if said.remedy:
        lines.append(f"-> {said.remedy}")
    if said.lasting:
        lines += ["", *_lasting(said.lasting)]
    if said.waits:
        lines += ["", f"it has waited {duration(said.waited_s)} in all:"]
        lines += [f"  {duration(one.seconds)}: {one.why}" for one in said.waits]
    return lines


def errors_lines(said: Errors) -> list[str]:
    """Return the errors of a job by type, with how many there are of each, the most first."""
    if not said.failed:
        return [f"no call of job {said.job[:DIGITS]} has failed"]
    kinds = ", ".join(f"{one.calls:,} {one.type}" for one in said.types)
    more = "" if said.failed <= len(said.errors) else f"; {len(said.errors)} of them are kept"
    calls = "1 call has" if said.failed == 1 else f"{said.failed:,} calls have"
    lines = [f"{calls} failed{more}: {kinds}"]
    for kind in said.types:
        of_it = [one for one in said.errors if one.type == kind.type]
        if of_it:
            lines += ["", f"{kind.type} ({kind.calls:,} call{'s' * (kind.calls != 1)})"]
            lines += [f"  {line}" for one in of_it for line in _error(one)]
    return lines


def _error(one: Error, name: str = "") -> list[str]:
    """Return what is known of a call that failed; `name`: of its error, if that is to be said."""
    facts = [f"{one.tries} tries"] * (one.tries > 1)
    facts += [duration(one.seconds)] * (one.seconds > 0) + [size(one.memory_bytes)] * (
        one.memory_bytes > 0
    )
    known = f" ({', '.join(facts)})" if facts else ""
    where = f" on {one.node}" if one.node else ""
    first, *rest = one.text.splitlines() or [""]
    said = ": ".join(part for part in (name, first) if part)
    lines = [f"input {one.input}{where}{known}{': ' * bool(said)}{said}"]
    lines += [f"    {line}" for line in rest]
    return lines + _last_words(one.last_words)


def _last_words(words: str) -> list[str]:
    """Return what a call has printed last, as lines that are seen to be that."""
    return [f"    | {line}" for line in readable(words).splitlines()[-WORDS_LINES:]]


def _slow(calls: Iterable[Call]) -> list[str]:
    rows = [
        (
            _which(one.input, one.last),
            duration(one.seconds),
            one.node,
            size(one.memory_bytes) if one.memory_bytes else "",
        )
        for one in calls
    ]
    return table(("SLOWEST", "TOOK", "ON", "MEMORY"), rows)


def _lasting(lasting: Iterable[Lasting]) -> list[str]:
    rows = [
        (
            "loading the function" if one.input is None else _which(one.input, one.last),
            duration(one.seconds),
            one.node,
        )
        for one in lasting
    ]
    return table(("RUNS", "FOR", "ON"), rows)


def _which(first: int, last: int | None) -> str:
    return f"input {first}" if last in (None, first) else f"one of the inputs {first} to {last}"


# --- what tables are made of ---


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with aligned columns; columns that are empty are left out."""
    used = [n for n in range(len(heads)) if any(row[n] for row in rows)]
    shown = [[heads[n] for n in used], *([row[n] for n in used] for row in rows)]
    widths = [max(_width(row[n]) for row in shown) for n in range(len(used))]
    return [
        "  ".join(
            text + " " * (width - _width(text)) for text, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in shown
    ]


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(letter: str) -> int:
    if combining(letter) or category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if east_asian_width(letter) in "WF" else 1


def duration(seconds: float) -> str:
    """Return a duration for people."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us" if seconds else "0 s"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes = round(seconds) // 60
    if minutes < 60:
        return f"{minutes} min {round(seconds) % 60} s"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} days"


def size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def _cut(text: str, most: int) -> str:
    if _width(text) <= most:
        return text
    widths = accumulate(map(_columns, text))
    return f"{text[: sum(width < most for width in widths)]}…"
