"""How far a job is, in words: honest about what is left, and never wider than the terminal."""

from typing import Any

import pytest

from burla.core.progress import (
    OFF,
    RED,
    YELLOW,
    Meter,
    Progress,
    html_of,
    live_line,
    plain_line,
    summary_line,
)
from burla.protocol import job_messages as jm
from burla.protocol.job_messages import JobState

OPTIONS = jm.JobOptions(1, None, None, False, False, 0.0, 0)


def said(**more: Any) -> Progress:
    usual: dict[str, Any] = {"function": "parse", "phase": "running", "done": 340, "total": 2000}
    usual |= {"failed": 3, "called_again": 2, "running": 8, "slots": 8, "nodes": 2}
    usual |= {"elapsed_s": 10.0, "rate": 34.0, "left_s": (45.0, 60.0), "waiting": "", "still": ""}
    return Progress(**(usual | {"speed_up": 7.5} | more))


def record(state: JobState = JobState.RUNNING, **more: Any) -> jm.JobRecord:
    usual: dict[str, Any] = {"job": bytes(16), "user": "u", "name": "f", "state": state}
    usual |= {"opened_ago_s": 4.0, "took_s": 4.0, "total": None, "done": 0, "failed": 3}
    usual |= {"retried": 2, "slots": 8, "nodes": 2, "why": ""}
    lasting = more.pop("lasting", ())
    summary = jm.JobSummary(**(usual | more))
    facts = (summary, OPTIONS, "3.11", 0.0, (), (), 0, (), (), (), 0, 0)
    return jm.JobRecord(*facts, lasting, busy_s=30.0)


# --- what is known ---


def test_a_job_goes_through_its_phases() -> None:
    meter = Meter("f", 0.0)
    meter.sent, meter.has_all = 10, True
    assert meter.look(0.5).phase == "connecting"
    meter.waiting = "the cluster has not answered yet"
    assert meter.look(1.0).phase == "waiting"
    meter.waiting, meter.record = "", record(JobState.WAITING, why="all are busy", nodes=0, slots=0)
    look = meter.look(1.5)
    assert (look.phase, look.waiting) == ("waiting", "all are busy")
    meter.record = record()
    assert meter.look(2.0).phase == "starting"
    meter.done = 5
    look = meter.look(2.5)
    assert (look.phase, look.running, look.slots, look.nodes) == ("running", 5, 8, 2)
    assert (look.failed, look.called_again, look.speed_up) == (3, 2, 7.5)
    meter.done = 10
    assert meter.look(3.0).phase == "ending"
    assert meter.look(3.0, is_over=True).is_over


def steady(rate: float, seconds: float, total: int) -> Meter:
    """Return the meter of a job that has gone on so for a while."""
    meter = Meter("f", 0.0)
    meter.sent, meter.has_all, meter.record = total, True, record()
    for half in range(round(seconds * 2) + 1):
        meter.done = round(rate * half / 2)
        meter.look(half / 2)
    return meter


def test_what_is_left_of_even_calls_is_one_figure() -> None:
    left = steady(10.0, 20.0, 1000).look(20.0).left_s
    assert left is not None
    assert left == pytest.approx((80.0, 80.0), rel=0.1)
    assert "~80 s left" in live_line(said(left_s=left), 80)


def test_where_calls_have_become_slower_both_are_said() -> None:
    meter = steady(10.0, 20.0, 1000)
    for half in range(41, 121):
        meter.done += half % 2  # one a second, for forty seconds
        meter.look(half / 2)
    left = meter.look(60.0).left_s
    assert left is not None
    assert left[0] < 250 < 700 < left[1]


def test_too_few_outcomes_and_the_last_calls_say_nothing_of_the_rest() -> None:
    assert steady(0.5, 8.0, 100).look(8.0).left_s is None  # four
    assert steady(10.0, 1.0, 100).look(1.0).left_s is None
    meter = steady(10.0, 20.0, 208)
    assert meter.look(20.0).left_s is None
    assert "the last 8 run" in live_line(meter.look(20.0), 80)


def test_inputs_without_an_end_have_no_time_left() -> None:
    meter = steady(10.0, 20.0, 1000)
    meter.has_all = False
    look = meter.look(20.0)
    assert (look.total, look.left_s) == (None, None)
    assert live_line(look, 80).startswith("| f: 200 done")


def test_a_call_that_stands_still_is_named() -> None:
    meter = Meter("f", 0.0)
    meter.record = record(lasting=(jm.Lasting("n1", 7, 8, 31.0), jm.Lasting("n2", 3, 4, 30.0)))
    assert meter.look(40.0).still == "input 7: 31 s on n1"
    meter.record = record(lasting=(jm.Lasting("n1", 7, 9, 200.0),))
    assert meter.look(40.0).still == "one of the inputs 7 to 8: 3 min on n1"
    meter.record = record(lasting=(jm.Lasting("n1", 0, 0, 90.0),))
    assert meter.look(40.0).still == "loading the function: 90 s on n1"
    meter.record = record(lasting=(jm.Lasting("n1", 7, 8, 29.0),))
    assert meter.look(40.0).still == ""


# --- lines ---

FULL = "| parse: 340/2,000 (17%), 3 failed, 45 s to 60 s left, 34/s, 8 of 8 slots, 2 nodes"


def test_a_line_has_what_has_room_the_most_important_first() -> None:
    assert live_line(said(), 120) == f"{FULL}, 2 called again"
    assert live_line(said(), 40) == "| parse: 340/2,000 (17%), 3 failed, 34/s"
    assert live_line(said(), 20) == "| parse: 3 failed"


@pytest.mark.parametrize("columns", [20, 33, 40, 79, 80, 200])
@pytest.mark.parametrize(
    "one",
    [
        said(),
        said(phase="waiting", waiting="number 12 in line, all 5 nodes that fit are busy" * 5),
        said(function="f" * 300, still="input 1234567: 30 min on some-node-with-a-name"),
        said(function="函数" * 50, phase="waiting", waiting="日本" * 100),
        said(total=None, done=10**12, left_s=None),
        said(phase="connecting", done=0),
        said(function="two\nlines", waiting="a\nb", phase="waiting"),
    ],
)
def test_no_line_is_wider_than_the_terminal(columns: int, one: Progress) -> None:
    line = live_line(one, columns)
    assert sum(1 if char.isascii() else 2 for char in line) <= columns
    assert line.isprintable()


def test_colors_take_no_room() -> None:
    colored = live_line(said(), 60, color=True)
    assert f"{RED}3 failed{OFF}" in colored
    assert colored.replace(RED, "").replace(OFF, "") == live_line(said(), 60)
    waits = said(phase="waiting", waiting="no node", done=0, failed=0, called_again=0)
    assert live_line(waits, 60, color=True) == f"| parse: {YELLOW}waits: no node{OFF}"


def test_elsewhere_a_line_says_all() -> None:
    assert plain_line(said()) == f"burla: {FULL[2:]}, 2 called again (10 s so far)"


def test_a_summary_says_how_it_went() -> None:
    line = "burla: parse: 2,000 calls in 10 s, 2 nodes, 7.5 times as fast as one CPU"
    over = said(phase="over", done=2000)
    assert summary_line(over) == f"{line}, 3 failed, 2 called again"
    short = said(phase="over", done=1, failed=0, called_again=0, nodes=0, speed_up=0.0)
    assert summary_line(short) == "burla: parse: 1 call in 10 s"


def test_a_notebook_shows_no_markup_of_others() -> None:
    shown = html_of(said(function="<script>", still="<b>"))
    assert "<script>" not in shown
    assert '<progress value="0.1700" max="1">' in shown
    assert html_of(said(), "<line>") == "<pre>&lt;line&gt;</pre>"
