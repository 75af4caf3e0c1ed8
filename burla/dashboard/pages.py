"""What each page asks of a cluster, and which parts it has. Whoever calls waits for the answers."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from burla.commands.failures import failure_of
from burla.dashboard.core import cells as grid, job as one_job, node as one_node, overview
from burla.dashboard.core.difference import Shown, are_same_nodes
from burla.errors import BurlaError
from burla.protocol.job_messages import JOBS, OPEN_STATES, JobList, JobShown, ListJobs, ShowJob
from burla.protocol.overview_messages import (
    OVERVIEW,
    AskNode,
    AskOverview,
    NodeShown,
    Overview,
)

from .places import Watched
from .rendering import render_parts

OPEN_SHOWN, OVER_SHOWN = 200, 15
LISTED = 300  # on the page of all jobs
WORD_CHARS_MAX = 256

Facts = dict[str, Any]


class NoSuch(Exception):
    """There is nothing of this name; says what."""


@dataclass(frozen=True)
class Page:
    """A page of a cluster: its template, its parts, and what these show."""

    template: str
    parts: Sequence[str]
    look: Callable[[Watched, str], Facts]  # the second: which job or node
    every_s: float = 1.0  # how often it is brought up to date


def note_overview(watched: Watched) -> Overview:
    """Return how a cluster is, and keep what charts show of it."""
    watched.is_sampled = False
    said = watched.line.ask(AskOverview(), Overview, OVERVIEW)
    watched.is_sampled = True
    busy = sum(seen.busy for seen in said.nodes)
    watched.history.add(time.time(), said.calls, busy)
    return said


def sample(watched: Watched) -> None:
    """Keep what charts show of a cluster; one that does not answer waits for people to ask."""
    with suppress(BurlaError):
        note_overview(watched)


def _overview(watched: Watched, _: str) -> Facts:
    said = note_overview(watched)
    jobs = watched.line.ask(ListJobs(OPEN_SHOWN), JobList, JOBS).jobs
    colours = watched.colours
    tables = overview.job_tables(jobs, colours)
    return {
        "said": said,
        "figures": overview.figures(said, jobs, watched.history.rate()),
        "jobs": tables,
        "over": tables.over[:OVER_SHOWN],
        "cells": grid.cells(said.nodes, colours),
        "legend": grid.legend(said.nodes, colours),
        "capacity": overview.capacity(said.nodes),
        "points": watched.history.chart(),
    }


def _jobs(watched: Watched, _: str) -> Facts:
    said = watched.line.ask(ListJobs(LISTED), JobList, JOBS)
    lines = [overview.job_line(job, watched.colours) for job in said.jobs]
    return {"lines": lines, "total": said.total}


def _job(watched: Watched, job: str) -> Facts:
    said = watched.line.ask(ShowJob(job[:WORD_CHARS_MAX]), JobShown, JOBS)
    if said.record is None:
        raise NoSuch(said.why)
    now_s, line = time.time(), said.record.summary
    history = watched.history_of(line.job.hex())
    if line.state in OPEN_STATES:  # else nothing of it moves
        history.add(now_s, line.done, line.slots)
    view = one_job.job_view(said.record, watched.colours, history.rate(), now_s)
    return {"view": view, "points": history.chart()}


def _node(watched: Watched, name: str) -> Facts:
    said = watched.line.ask(AskNode(name[:WORD_CHARS_MAX]), NodeShown, OVERVIEW)
    view = one_node.node_view(said, name, watched.colours)
    if view is None:
        raise NoSuch(f"there is no node {name}: it has left, or was never here")
    return {"view": view}


def _users(watched: Watched, _: str) -> Facts:
    said = note_overview(watched)
    users = one_node.users_view(said.tenants, watched.colours)
    return {"said": said, "users": users}


PAGES: Mapping[str, Page] = {
    "overview": Page(
        "overview.html", ("figures", "grid", "legend", "running", "waiting", "over"), _overview
    ),
    "jobs": Page("jobs.html", ("list",), _jobs, 2.0),
    "job": Page(
        "job.html",
        (
            "job_head",
            "job_why",
            "job_calls",
            "job_timeline",
            "job_nodes",
            "job_errors",
            "job_facts",
        ),
        _job,
    ),
    "node": Page("node.html", ("node_head", "node_facts", "node_turns"), _node),
    "users": Page("users.html", ("users",), _users, 2.0),
}


def problem_of(error: BurlaError | NoSuch) -> Facts:
    """Return what is said of an error, and what can be done about it."""
    if isinstance(error, NoSuch):
        return {"text": str(error), "remedy": "look at what there is: the overview has it"}
    failure = failure_of(error)
    return {"text": str(error), "remedy": "" if failure is None else failure.remedy}


GRID = "grid"


def shown(
    page: Page, watched: Watched, what: str, more: Facts, before: Shown | None = None
) -> Shown:
    """Return a page as it is now; if a cluster cannot be asked, only what is wrong.

    The grid is left out if it has the same nodes as before.
    """
    try:
        facts = page.look(watched, what)
    except (BurlaError, NoSuch) as error:
        parts = render_parts(["problem"], more | {"problem": problem_of(error)})
        return Shown(parts, stale=True)
    facts = more | facts | {"problem": None}
    cells = facts.get("cells", ())
    has_grid = GRID in page.parts and are_same_nodes(before, cells)
    names = [name for name in page.parts if not (has_grid and name == GRID)]
    return Shown(render_parts(["problem", *names], facts), cells, facts.get("points", ()))
