"""`burla jobs logs`: what comes out of it, at a terminal and elsewhere."""

import io
import sys
from collections.abc import Iterator

import pytest

from burla import cli
from burla.commands.job_output import LeftOut, Printed

JOB = "00" * 16


def chunk(place: int, data: bytes, stream: str = "stdout") -> Printed:
    return Printed(JOB, place, b"l", "n1", stream, 50.0, (place, place + 1), data)


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> list[Printed | LeftOut | None]:
    """Return what is read of a job; None: nothing comes just then."""
    said: list[Printed | LeftOut | None] = []

    def output_of(address: str, job: str, *, follow: bool) -> Iterator[Printed | LeftOut | None]:
        yield from said if follow else [one for one in said if one is not None]

    monkeypatch.setattr("burla.commands.job_output.output_of", output_of)
    monkeypatch.setenv("BURLA_CLUSTER", "ipc:///s")
    return said


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def followed(monkeypatch: pytest.MonkeyPatch, *, at_terminal: bool) -> str:
    screen = Terminal() if at_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    assert cli.main(["jobs", "logs", "-f", JOB]) == 0
    return screen.getvalue()


def test_a_progress_bar_stays_in_its_line(
    output: list[Printed | LeftOut | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in range(3):
        output += [chunk(place, b"\r%d0%%" % (place + 1), "stderr"), None]
    output += [chunk(3, b" end\n", "stderr"), chunk(4, b"out\n")]
    over = "\r\x1b[K"
    assert followed(monkeypatch, at_terminal=True) == f"10%{over}20%{over}30% end\nout\n"
    assert followed(monkeypatch, at_terminal=False) == "10%\n20%\n30% end\nout\n"


def test_without_following_it_is_the_last_that_is_seen(
    output: list[Printed | LeftOut | None], capsys: pytest.CaptureFixture[str]
) -> None:
    output += [chunk(0, b"\r10%\r20%"), LeftOut(JOB, 5000), chunk(2, b"\xff\x1b[2J\r30%\nend")]
    assert cli.main(["jobs", "logs", JOB]) == 0
    said = capsys.readouterr()
    assert said.out == "30%\nend\n"
    assert said.err == "[burla: 5 kB of output are not kept]\n"


def test_colours_are_for_terminals_that_want_them(
    output: list[Printed | LeftOut | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    output += [chunk(0, b"\x1b[31mred\n")]
    assert followed(monkeypatch, at_terminal=True) == "\x1b[31mred\x1b[0m\n"
    assert followed(monkeypatch, at_terminal=False) == "red\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert followed(monkeypatch, at_terminal=True) == "red\n"
