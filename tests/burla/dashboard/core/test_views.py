"""What pages show of clusters, jobs, nodes and users, made from what a scheduler says."""

import pytest
from overviews import overview, record, seen, status, summary, use

from burla.dashboard.core.colours import Colours
from burla.dashboard.core.job import Bar, job_view
from burla.dashboard.core.node import node_view, users_view
from burla.dashboard.core.overview import compact, figures, job_tables
from burla.protocol.job_messages import JobState
from burla.protocol.messages import NodeState
from burla.protocol.overview_messages import NodeSeen, NodeShown, NodeTurn


def test_figures_say_how_a_cluster_stands() -> None:
    jobs = [summary(), summary(JobState.WAITING, opened_ago_s=75.0), summary(JobState.COMPLETE)]
    lost = NodeSeen(status("n4", NodeState.LOST))
    said = overview(seen("n1"), seen("n2", "bert", busy=2), NodeSeen(status("n3")), lost)
    told = {each.name: (each.value, each.more) for each in figures(said, jobs, 12.34)}
    assert told == {
        "nodes": ("3", "1 free"),
        "calls running": ("10", "of 16 slots"),
        "calls a second": ("12", "400 in all"),
        "jobs running": ("1", ""),
        "jobs waiting": ("1", "the first for 1 min 15 s"),
        "nodes lost": ("1", ""),
    }
    assert {each.value for each in figures(said, [], None)} >= {"-", "0"}


def test_jobs_are_in_three_tables_and_the_queue_in_its_order() -> None:
    waiting = [summary(JobState.WAITING, name=f"w{n}", opened_ago_s=float(n)) for n in (1, 2)]
    jobs = [*waiting, summary(), summary(JobState.FAILING), summary(JobState.LOST, maps=3)]
    tables = job_tables(jobs, Colours())
    assert [line.state for line in tables.running] == ["running", "failing"]
    assert [line.name for line in tables.waiting] == ["w2", "w1"]
    assert [(line.state, line.name) for line in tables.over] == [("lost", "parse x3")]


@pytest.mark.parametrize(
    ("total", "done", "part"), [(None, 5, None), (0, 0, 1.0), (1000, 250, 0.25)]
)
def test_how_far_a_job_is_is_known_if_its_inputs_are(
    total: int | None, done: int, part: float | None
) -> None:
    ((line,), _, _) = (
        (tables := job_tables([summary(total=total, done=done)], Colours())).running,
        tables.waiting,
        tables.over,
    )
    assert line.part == part


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (0.25, "0.25"), (9.876, "9.88"), (9999, "9,999"), (12_345, "12.3 k"), (5e9, "5 G")],
)
def test_numbers_are_short(count: float, text: str) -> None:
    assert compact(count) == text


def test_a_job_shows_its_errors_by_type_and_its_durations_without_gaps() -> None:
    view = job_view(record(), Colours(), 20.0, 1e9)
    assert [(kind.type, len(kind.errors)) for kind in view.failures] == [
        ("ValueError", 2),
        ("KeyError", 1),
    ]
    assert view.durations == [
        Bar("512 us to 1.02 ms", 300, 100.0),
        Bar("1.02 ms to 2.05 ms", 0, 0.0),
        Bar("2.05 ms to 4.1 ms", 100, 33.3),
    ]
    assert [(one.node, one.is_leased, one.percent) for one in view.nodes] == [
        ("n1", True, 100.0),
        ("n2", False, 0.3),
    ]
    assert [one.what for one in view.lasting] == ["input 17", "loading the function"]
    told = {each.name: (each.value, each.more) for each in view.figures}
    assert told["calls a second"] == ("20", "30 s left at this rate")
    assert told["failed"] == ("3", "2 called again")
    assert ("each call has", "2 CPUs, 3.22 GB of memory") in view.facts


@pytest.mark.parametrize("state", JobState)
def test_a_job_in_any_state_can_be_shown(state: JobState) -> None:
    view = job_view(record(state, total=None, took_s=0.0, why="so"), Colours(), None, 1e9)
    assert view.is_open == (state in (JobState.WAITING, JobState.RUNNING, JobState.FAILING))
    assert view.line.state == state.value


def test_a_node_shows_what_it_is_and_what_it_has_run() -> None:
    turn = NodeTurn(b"j" * 16, "anna", "parse", JobState.COMPLETE, 60.0, 1, 4, 10.0, 99, False)
    said = NodeShown(seen("n1", busy=6), "1.2", 3600.0, (turn,), 5)
    view = node_view(said, "n1", Colours())
    assert view is not None
    assert (view.state, view.user, view.function, view.percent) == ("leased", "anna", "parse", 75.0)
    assert ("burla", "1.2") in view.facts
    assert [(one.name, one.calls, one.ago) for one in view.turns] == [("parse", 99, "1 min 0 s")]
    assert node_view(NodeShown(None), "n1", Colours()) is None
    lost = NodeSeen(status("n1", NodeState.LOST, lost_s=61.0, why="no word"))
    gone = node_view(NodeShown(lost), "n1", Colours())
    assert gone is not None
    assert (gone.words, gone.figures[0].more) == ("lost: no word", "for 1 min 1 s")


def test_users_are_shown_with_how_much_of_their_quotas_they_use() -> None:
    users = users_view((use("anna", inputs=800), use("bert", jobs=10, slots=99)), Colours())
    assert [user.user for user in users] == ["bert", "anna"]
    assert [(meter.name, meter.percent, meter.kind) for meter in users[0].meters] == [
        ("open jobs", 100.0, "full"),
        ("inputs", 1.0, ""),
        ("memory", 0.1, ""),
    ]
    assert users[1].meters[1].kind == "high"
