"""The time line of a job: which node had it when, and which calls ran there beside each other."""

from msgspec.structs import replace
from overviews import record

from burla.commands.job_reports import details_of
from burla.dashboard.core.timeline import LINES_MAX, NODES_MAX, WIDTH_MIN, timeline
from burla.protocol import job_messages as jm

LEASES = (jm.LeaseSpan("n1", 0.0, 50.0, 4, True), jm.LeaseSpan("n2", 25.0, 10.0, 4))


def of(**more: object) -> jm.JobRecord:
    return replace(record(took_s=100.0), lasting=(), **more)


def test_leases_and_calls_are_bars_in_thousandths_of_the_whole_time() -> None:
    calls = (jm.CallSpan("n1", 3, 4, 10.0, 20.0), jm.CallSpan("n1", 4, 6, 30.0, 5.0, True))
    running = (jm.Lasting("n2", 7, 8, 25.0), jm.Lasting("n2", 0, 0, 5.0))
    made = timeline(details_of(of(leases=LEASES, calls=calls, running=running), 1e9))
    assert made.marks == ["0 s", "25 s", "50 s", "1 min 15 s", "1 min 40 s"]
    n1, n2 = made.rows
    assert [(s.kind, s.x, s.width, s.line) for s in n1.spans] == [
        ("lease", 0.0, 500.0, 0),
        ("call", 100.0, 200.0, 0),
        ("failed", 300.0, 50.0, 0),  # it begins where the one before ends
    ]
    assert n1.lines == 1
    assert n1.spans[2].title == "one of the inputs 4 to 5 failed after 5 s"
    assert [(s.kind, s.x, s.width, s.line) for s in n2.spans] == [
        ("lease", 250.0, 100.0, 0),
        ("running", 750.0, 250.0, 0),
        ("running", 950.0, 50.0, 1),
    ]
    assert n2.spans[2].title == "the function is being loaded, for 5 s"


def test_calls_that_overlap_are_below_each_other_up_to_a_bound() -> None:
    calls = tuple(jm.CallSpan("n1", n, n + 1, 0.0, 10.0 + n) for n in range(40))
    (row,) = timeline(details_of(of(calls=calls), 1e9)).rows
    assert row.lines == LINES_MAX
    assert {span.line for span in row.spans} == set(range(LINES_MAX))


def test_what_is_short_is_seen_and_what_is_late_does_not_leave_the_line() -> None:
    calls = (jm.CallSpan("n1", 1, 2, 99.9999, 0.0), jm.CallSpan("n1", 2, 3, 150.0, 9.0))
    (row,) = timeline(details_of(of(calls=calls), 1e9)).rows
    assert all(span.x + span.width <= 1000.0 for span in row.spans)
    assert {span.width for span in row.spans} == {WIDTH_MIN}


def test_of_many_nodes_those_with_most_to_show_are_shown_by_name() -> None:
    calls = [jm.CallSpan(f"n{n:02}", 1, 2, 0.0, 1.0) for n in range(60)]
    calls += [jm.CallSpan("n59", 1, 2, 2.0, 1.0)]
    made = timeline(details_of(of(calls=tuple(calls)), 1e9))
    assert len(made.rows) == NODES_MAX
    assert made.more == 60 - NODES_MAX
    assert made.rows[-1].node == "n59"
    assert [row.node for row in made.rows] == sorted(row.node for row in made.rows)


def test_a_job_of_no_time_has_an_empty_line() -> None:
    made = timeline(details_of(replace(record(took_s=0.0), lasting=()), 1e9))
    assert made.rows == []
