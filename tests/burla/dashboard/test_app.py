"""Pages: all is escaped, what is wrong with a cluster is said with a remedy, changes are sent."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from dashboards import ORIGIN, Shown, shown
from msgspec.structs import replace
from overviews import JOB, overview, record, seen, status, summary, use

from burla.dashboard import logs, pages
from burla.dashboard.places import Place
from burla.protocol import job_messages as jm, messages as m, overview_messages as ov
from burla.protocol.job_messages import JobState

EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>"
PAGES = ["", "jobs", f"jobs/{JOB.hex()}", "nodes/n1", "users"]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Shown]:
    gone = Place(
        "gone", "gone", f"ipc://{tmp_path}/nobody", why_gone=lambda: "its process has ended"
    )
    with shown(tmp_path, gone) as made:
        yield made


def html(lab: Shown, path: str, code: int = 200) -> str:
    said = lab.browser.get(path)
    assert said.status_code == code, said.text
    return str(said.text).replace(lab.guard.home, "")  # the path of all pages, which is random


@pytest.mark.parametrize("page", PAGES)
def test_what_others_say_is_text_wherever_it_stands(lab: Shown, page: str) -> None:
    evil = {"name": EVIL, "user": EVIL, "why": EVIL}
    shown_node = ov.NodeSeen(status(EVIL[:60], m.NodeState.LEASED, job=EVIL, gpus=(EVIL,)), EVIL)
    turn = ov.NodeTurn(JOB, EVIL, EVIL, JobState.FAILED, 1.0, 1, 1, 1.0, 1, True)
    told = replace(
        record(JobState.WAITING, **evil),
        faults=(jm.Fault(1, EVIL, EVIL, EVIL, 2),),
        lasting=(jm.Lasting(EVIL, 1, 2, 3.0),),
        nodes=(jm.NodeShare(EVIL, 1, 1, 1.0, 1, True),),
        waits=(jm.Wait(EVIL, 1.0, 2.0),),
    )
    lab.answers |= {
        ov.AskOverview: overview(shown_node, seen("n2", EVIL)),
        ov.AskNode: ov.NodeShown(shown_node, EVIL, 1.0, (turn,), 1),
        jm.ListJobs: jm.JobList(tuple(summary(state, **evil) for state in JobState), 9),
        jm.ShowJob: jm.JobShown(told),
    }
    text = html(lab, f"/c/lab/{page}")
    assert "alert(1)" in text or page == "users"
    assert "<script>alert" not in text
    assert "<img" not in text
    # what stands in attributes cannot leave them
    assert not re.search(r'="[^"]*<', text)
    assert all(" onerror=" not in tag for tag in re.findall(r"<[a-z][^>]*>", _unquoted(text)))


def _unquoted(text: str) -> str:
    return re.sub(r'"[^"]*"', '""', text)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_needs_no_script_and_no_style_in_it(lab: Shown, page: str) -> None:
    text = html(lab, f"/c/lab/{page}")
    assert not re.search(r"<script(?![^>]* src=\"/static/)", text)
    assert not re.search(r"\sstyle=|<style|\son[a-z]+=|javascript:", text)
    assert "https://" not in text
    assert text.count("<h1") == 1
    assert 'lang="en"' in text


def test_the_one_that_is_meant_is_shown_first_and_all_are_listed(lab: Shown) -> None:
    assert lab.browser.get("/").headers["location"] == f"{lab.guard.home}/c/lab/"
    text = html(lab, "/?all")
    assert '"/c/lab/"' in text
    assert '"/c/gone/"' in text


def test_a_cluster_that_is_gone_says_why_and_what_to_do(lab: Shown) -> None:
    text = html(lab, "/c/gone/")
    assert "its process has ended" in text
    assert "What to do: `burla doctor` finds out what is wrong" in text
    assert 'class="stale nothing"' in text  # its cards, which would be empty, are not seen


def test_a_key_that_is_not_known_is_told_with_what_to_do(lab: Shown) -> None:
    lab.answers[m.ClientHello] = m.Refused("this key is not known", not_authorised=True)
    text = html(lab, "/c/lab/")
    assert "this key is not known" in text
    assert "What to do: run `burla login ADDRESS`" in text


def test_an_older_scheduler_is_told_to_be_upgraded(lab: Shown) -> None:
    lab.answers[m.ClientHello] = m.Welcome(b"s" * 16, "0.0.9", "ipc://p", features=(jm.JOBS,))
    text = html(lab, "/c/lab/")
    assert "burla 0.0.9, which cannot do that yet" in text
    assert "`burla up` of a newer one" in text


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/c/lab/jobs/ffff", "there is no job ffff"),
        ("/c/lab/nodes/n9", "there is no node n9"),
        ("/c/nowhere/", "there is no cluster nowhere"),
        ("/nowhere", "there is no such page"),
    ],
)
def test_what_is_not_there_is_said(lab: Shown, path: str, text: str) -> None:
    lab.answers[jm.ShowJob] = jm.JobShown(None, "there is no job ffff")
    lab.answers[ov.AskNode] = ov.NodeShown(None)
    said = lab.browser.get(path)
    assert text in said.text
    assert said.status_code == (200 if "lab" in path else 404)


def test_what_cannot_be_cancelled_says_why(lab: Shown) -> None:
    lab.answers[jm.CancelJob] = jm.JobShown(None, "there is no job 77")
    key = {"key": lab.guard.form_key}
    said = lab.browser.post("/c/lab/jobs/77/cancel", headers={"origin": ORIGIN}, data=key)
    assert said.status_code == 409
    assert "there is no job 77" in said.text


def test_what_cannot_be_detached_says_why(lab: Shown) -> None:
    lab.answers[jm.DetachJob] = jm.JobShown(record(), "job 77 is detached already")
    key = {"key": lab.guard.form_key}
    said = lab.browser.post("/c/lab/jobs/77/detach", headers={"origin": ORIGIN}, data=key)
    assert said.status_code == 409
    assert "is detached already" in said.text


def test_everybody_but_an_administrator_sees_their_own_quotas(lab: Shown) -> None:
    lab.answers[ov.AskOverview] = overview(sees_all=False)
    assert "An administrator sees all users" in html(lab, "/c/lab/users")


def test_changes_are_sent_as_they_come(lab: Shown) -> None:
    watched = lab.dashboard._places.watch("lab")
    assert watched is not None
    page = pages.Page("overview.html", pages.PAGES["overview"].parts, pages._overview, 0.01)
    facts = lab.dashboard._facts(watched, "overview", "")

    async def two() -> list[Any]:
        stream = lab.dashboard._changes(page, watched, "", facts)
        first = await anext(stream)
        lab.answers[ov.AskOverview] = overview(
            seen("n1", busy=1), seen("n2", "bert", busy=2), ov.NodeSeen(status("n3"))
        )
        second = await anext(stream)
        await stream.aclose()
        return [json.loads(each.removeprefix(b"data: ")) for each in (first, second)]

    first, second = asyncio.run(two())
    assert first["first"] is True
    assert set(first["parts"]) == {"problem", *page.parts}
    assert second["cells"] == [[0, "leased user-0 load-1", "n1: 1 of 8 calls of parse for anna"]]
    assert "grid" not in second["parts"]
    assert "figures" in second["parts"]


@pytest.mark.parametrize("name", ["n 1", "n?x=1", "n#1", "100%", "a/b"])
def test_a_node_of_any_name_has_a_page_and_a_stream(lab: Shown, name: str) -> None:
    lab.answers[ov.AskOverview] = overview(ov.NodeSeen(status(name)))
    link = re.search(r'href="(/c/lab/nodes/[^"]+)"', html(lab, "/c/lab/"))
    assert link is not None
    text = html(lab, link[1])
    assert lab.asked[-1] == ov.AskNode(name)
    events = re.search(r'data-events="(/c/lab/events/[^"]+)"', text)
    assert events is not None
    assert unquote(events[1]) == f"/c/lab/events/node/{name}"
    assert not {"?", "#", " "} & set(events[1])


def test_many_pages_ask_once(lab: Shown) -> None:
    for _ in range(5):
        html(lab, "/c/lab/jobs")
    assert sum(isinstance(said, jm.ListJobs) for said in lab.asked) == 1


def test_of_many_users_each_is_there(lab: Shown) -> None:
    users = tuple(use(f"user{number}") for number in range(300))
    lab.answers[ov.AskOverview] = ov.Overview("root", True, (), 0, 0, users, 500)
    text = html(lab, "/c/lab/users")
    assert "user299" in text
    assert "The first 300 of 500" in text


def test_of_a_job_that_is_over_nothing_is_counted(lab: Shown) -> None:
    """Its chart would be a line of zeros, of a time in which it did not run."""
    watched = lab.dashboard._places.watch("lab")
    assert watched is not None
    for state, points in ((JobState.RUNNING, 1), (JobState.COMPLETE, 0)):
        watched.jobs.clear()
        lab.answers[jm.ShowJob] = jm.JobShown(record(state))
        watched.line._known.clear()
        pages._job(watched, JOB.hex())
        assert len(watched.history_of(JOB.hex())._points) == points


def test_streams_end_at_once_though_a_cluster_does_not_answer(
    lab: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C waits for nobody: neither for a thread that asks nor for those behind it."""
    watched = lab.dashboard._places.watch("lab")
    assert watched is not None
    asked, goes_on = threading.Event(), threading.Event()

    def look(_: Any, what: str) -> Any:
        asked.set()
        goes_on.wait(20)
        raise pages.NoSuch("too late")

    page = pages.Page("overview.html", ("grid",), look)

    async def both() -> list[list[bytes]]:
        facts = lab.dashboard._facts(watched, "overview", "")
        streams = [lab.dashboard._changes(page, watched, "", facts)]
        monkeypatch.setattr(logs.Reader, "read", lambda reader: look(reader, ""))
        streams.append(lab.dashboard._lines(logs.Reader(watched, "")))

        async def all_of(stream: Any) -> list[bytes]:
            return [event async for event in stream]

        tasks = [asyncio.create_task(all_of(stream)) for stream in streams]
        assert await asyncio.to_thread(asked.wait, 20)
        lab.dashboard.end()
        return await asyncio.gather(*tasks)

    try:
        assert asyncio.run(both()) == [[], []]
        assert not goes_on.is_set()
    finally:
        goes_on.set()
