"""When which node served a job, and when which of its calls ran: bars on lines, one line a call.

A bar is measured in thousandths of the time that the job has taken.
"""

from collections.abc import Iterable, Iterator

from msgspec import Struct

from burla.commands.jobs_view import duration
from burla.commands.report_types import Details

NODES_MAX = 24  # those with the most to show
LINES_MAX = 12  # of one node: calls that overlap are drawn below each other
WIDTH = 1000
WIDTH_MIN = 2.0  # a bar that is shorter is not seen


class Span(Struct, frozen=True):
    """A bar."""

    x: float
    width: float
    line: int
    kind: str  # "lease", "call", "failed", "running"
    title: str


class Row(Struct, frozen=True):
    """What one node did."""

    node: str
    lines: int
    spans: list[Span]


class Timeline(Struct, frozen=True):
    """All of it, with the times that its beginning, middle and end stand for."""

    rows: list[Row]
    marks: list[str]
    more: int  # nodes that are not shown


class _Call(Struct, frozen=True):
    begin_s: float
    end_s: float
    kind: str
    title: str


def timeline(said: Details) -> Timeline:
    """Return the time line of a job."""
    took_s = max(said.took_s, 1e-3)
    leases: dict[str, list[Span]] = {}
    for lease in said.leases:
        title = f"{lease.node}: {duration(lease.seconds)}, {lease.slots} slots"
        span = _span(lease.after_s, lease.after_s + lease.seconds, took_s, 0, "lease", title)
        leases.setdefault(lease.node, []).append(span)
    calls: dict[str, list[_Call]] = {}
    for node, call in _calls(said):
        calls.setdefault(node, []).append(call)
    nodes = sorted({**leases, **calls}, key=lambda node: (-len(calls.get(node, ())), node))
    rows = []
    for node in nodes[:NODES_MAX]:
        drawn = list(_packed(calls.get(node, ()), took_s))
        lines = max((span.line for span in drawn), default=0) + 1
        rows.append(Row(node, lines, [*leases.get(node, ()), *drawn]))
    rows.sort(key=lambda row: row.node)
    marks = [duration(part * took_s) for part in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return Timeline(rows, marks, max(0, len(nodes) - NODES_MAX))


def _calls(said: Details) -> Iterator[tuple[str, _Call]]:
    for one in said.calls:
        end_s = one.after_s + one.seconds
        how = "failed after" if one.failed else "took"
        title = f"{_which(one.input, one.last)} {how} {duration(one.seconds)}"
        kind = "failed" if one.failed else "call"
        yield one.node, _Call(one.after_s, end_s, kind, title)
    for lasts in said.lasting:
        what = "the function is being loaded"
        if lasts.input is not None and lasts.last is not None:
            what = f"{_which(lasts.input, lasts.last)} runs"
        begin_s = max(0.0, said.took_s - lasts.seconds)
        title = f"{what}, for {duration(float(round(lasts.seconds)))}"
        yield lasts.node, _Call(begin_s, said.took_s, "running", title)


def _packed(calls: Iterable[_Call], took_s: float) -> Iterator[Span]:
    """Yield calls as bars on as few lines as they need; beyond the last line they overlap."""
    ends: list[float] = []
    for call in sorted(calls, key=lambda each: each.begin_s):
        free = (number for number, end_s in enumerate(ends) if end_s <= call.begin_s + 1e-6)
        line = next(free, len(ends))
        if line >= LINES_MAX:
            line = LINES_MAX - 1
        elif line == len(ends):
            ends.append(0.0)
        ends[line] = max(ends[line], call.end_s)
        yield _span(call.begin_s, call.end_s, took_s, line, call.kind, call.title)


def _span(begin_s: float, end_s: float, took_s: float, line: int, kind: str, title: str) -> Span:
    begin = min(max(0.0, WIDTH * begin_s / took_s), WIDTH - WIDTH_MIN)
    end = min(WIDTH, WIDTH * end_s / took_s)
    return Span(round(begin, 1), round(max(WIDTH_MIN, end - begin), 1), line, kind, title)


def _which(first: int, last: int) -> str:
    return f"input {first}" if last == first else f"one of the inputs {first} to {last}"
