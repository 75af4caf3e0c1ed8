"""Output of a job on its page: what is kept, then what comes, as text and as lines."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboards import Shown, shown
from overviews import JOB

from burla.dashboard import logs
from burla.protocol import job_messages as jm, messages as m, output_messages as om

LEASE = b"L" * 16


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Shown]:
    with shown(tmp_path) as made:
        made.answers[m.ClientHello] = m.Welcome(
            b"s" * 16, "0", "ipc://p", features=(jm.JOBS, om.OUTPUT)
        )
        yield made


def says(lab: Shown, *chunks: bytes, is_over: bool = False, lost: int = 0) -> None:
    """Have a job with this output; the first `lost` chunks are not kept."""

    def answer(said: om.ReadOutput) -> tuple[m.Message, list[bytes]]:
        first = max(said.after, lost)
        rest = list(chunks[first:])
        inputs = tuple((first + n, first + n + 1) for n in range(len(rest)))
        parts = (om.OutputPart(first, LEASE, "n1", 1.0, (1,) * len(rest), inputs),) if rest else ()
        size = sum(map(len, chunks[:lost])) if said.after < lost else 0
        return om.KeptOutput(JOB, parts, len(chunks), size, is_over), rest

    lab.answers[om.ReadOutput] = answer


def reader(lab: Shown, after: int = 0) -> logs.Reader:
    watched = lab.dashboard._places.watch("lab")
    assert watched is not None
    return logs.Reader(watched, JOB.hex(), after)


def texts(more: logs.More) -> list[str]:
    return [line.text for line in more.lines]


def test_lines_come_whole_and_once(lab: Shown) -> None:
    reads = reader(lab)
    says(lab, b"one\ntw")
    assert texts(reads.read()) == ["one"]
    assert texts(reads.read()) == []
    says(lab, b"one\ntw", b"o\nthree", is_over=True)
    more = reads.read()
    assert (texts(more), more.over) == (["two", "three"], True)
    assert [(line.node, line.input) for line in more.lines] == [("n1", "0-1"), ("n1", "1")]


def test_who_comes_back_goes_on_where_it_was(lab: Shown) -> None:
    says(lab, b"one\n", b"two\n", b"three\n")
    reads = reader(lab, 2)
    assert texts(reads.read()) == ["three"]
    assert reads.after == 3


def test_who_comes_back_in_the_middle_of_a_line_gets_it_whole_and_no_other_again(
    lab: Shown,
) -> None:
    watched = lab.dashboard._places.watch("lab")
    assert watched is not None
    first = logs.reader(watched, JOB.hex(), "")
    says(lab, b"one\ntw", b"o")
    assert texts(first.read()) == ["one"]
    assert first.place == "0-2"
    says(lab, b"one\ntw", b"o", b" and\nthree\n")
    assert texts(logs.reader(watched, JOB.hex(), first.place).read()) == ["two and", "three"]


def test_of_very_many_lines_a_page_gets_the_last(
    lab: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LINES_MAX", 3)
    says(lab, b"".join(b"%d\n" % number for number in range(10)))
    assert texts(reader(lab).read()) == ["7", "8", "9"]


def test_what_is_not_kept_is_told(lab: Shown) -> None:
    says(lab, b"gone\n", b"here\n", lost=1)
    assert texts(reader(lab).read()) == ["5 B of output are not kept", "here"]


def test_nothing_that_moves_a_cursor_is_sent_and_long_lines_are_cut(lab: Shown) -> None:
    says(lab, b"\x1b[2J\x1b[31mred\x1b[0m <b>\n" + b"x" * 9000 + b"\n")
    red, long = texts(reader(lab).read())
    assert red == "red <b>"
    assert long.endswith("... (9,000 characters)")
    assert len(long) < 4100


def test_a_job_that_is_not_there_says_so(lab: Shown) -> None:
    lab.answers[om.ReadOutput] = om.KeptOutput(b"", why="there is no job 77")
    assert reader(lab).read() == logs.More([], why="there is no job 77")


def test_the_stream_ends_with_the_job(lab: Shown) -> None:
    says(lab, b"<script>alert(1)</script>\n", is_over=True)

    async def all_of_it() -> list[bytes]:
        return [each async for each in lab.dashboard._lines(reader(lab))]

    (event,) = asyncio.run(all_of_it())
    head, data = event.split(b"\n")[:2]
    assert head == b"id: 1-1"
    said: dict[str, Any] = json.loads(data.removeprefix(b"data: "))
    assert said["lines"][0]["text"] == "<script>alert(1)</script>"  # the page puts it in as text
    assert said["over"] is True


@pytest.mark.parametrize("after", ["", "x", "-1", "9" * 99, "\u0663", "x-y", "9" * 99 + "-0"])
def test_a_place_that_is_none_is_the_beginning(lab: Shown, after: str) -> None:
    says(lab, b"one\n", is_over=True)
    said = lab.browser.get(f"/c/lab/logs/{JOB.hex()}", params={"after": after})
    assert "one" in said.text
    assert said.headers["content-type"].startswith("text/event-stream")
