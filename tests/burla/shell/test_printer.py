"""What calls print, and what is said about a job, reaches the caller's streams."""

import io
import sys
import threading
from collections.abc import Callable

import pytest
from fake_scheduler import FakeScheduler

from burla import remote_parallel_map as rpm
from burla.protocol import messages as m


def double(x: int) -> int:
    return x * 2


def test_prints_are_shown_before_the_call_returns(
    fake: FakeScheduler, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.prints = lambda index: [(1, f"ä{index}\n".encode()), (2, b"!%d\n" % index)]
    rpm(double, range(3))
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("ä0\nä1\nä2\n", "!0\n!1\n!2\n")


def test_a_notice_is_shown_once_a_job_whoever_has_it(
    fake: FakeScheduler, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.prints = lambda index: [(2, b"x"), (m.NOTICE, b"file %d is lost\nand more\n" % index)]
    rpm(double, range(3))
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "x\nfile 0 is lost\nxx")
    rpm(double, range(1))
    assert capsys.readouterr().err == "x\nfile 0 is lost\n"


def test_output_that_the_channel_lost_is_replayed(
    fake: FakeScheduler, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.prints = lambda index: [(1, b"%d\n" % index)]
    fake.publishes = False
    rpm(double, range(3))
    assert capsys.readouterr().out == "0\n1\n2\n"
    assert fake.count(m.ReplayOutput) == 1


def test_a_character_in_two_chunks_is_not_torn(
    fake: FakeScheduler, capsys: pytest.CaptureFixture[str]
) -> None:
    halves = ["ä".encode()[:1], "ä".encode()[1:]]
    fake.prints = lambda index: [(1, halves[index])]
    rpm(double, range(2))
    assert capsys.readouterr().out == "ä"


def test_missing_and_closed_streams_do_no_harm(
    fake: FakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.prints = lambda index: [(1, b"x\n"), (2, b"y\n")]
    closed = io.StringIO()
    closed.close()
    for out, err in ((None, None), (closed, closed)):
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        assert rpm(double, [1]) == [2]


def test_a_terminal_that_cannot_show_it_gets_escapes(
    fake: FakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    fake.prints = lambda index: [(1, "ä\n".encode())]
    assert rpm(double, [1]) == [2]
    assert written.getvalue() == b"\\xe4\n"


class BrokenPipe(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_stdout_that_broke_is_an_error_as_for_print(
    fake: FakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.prints = lambda index: [(1, b"x\n")]
    monkeypatch.setattr(sys, "stdout", BrokenPipe())
    with pytest.raises(BrokenPipeError):
        rpm(double, [1])


def test_a_job_that_waits_says_why_once(
    fake: FakeScheduler, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting: list[Callable[[], None]] = []

    def script(fake: FakeScheduler, peer: bytes, message: m.Message, payload: list[bytes]) -> bool:
        if isinstance(message, m.Inputs):
            for why in ("no node", "no node"):
                fake.send(peer, m.JobStatus(message.job, why))
            waiting.append(lambda: fake.run_inputs(peer, message, payload))
        return isinstance(message, m.Inputs)

    fake.script = script
    timer = threading.Timer(1.4, lambda: fake.do(waiting[0]))
    timer.start()
    assert rpm(double, [1]) == [2]
    timer.join()
    assert capsys.readouterr().err == "burla: double waits: no node\n"


def test_a_hundred_thousand_lines_arrive_once_each(
    fake: FakeScheduler, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.prints = lambda index: [(1, b"%d\n" % index)]
    rpm(double, range(100_000))
    assert capsys.readouterr().out == "".join(f"{index}\n" for index in range(100_000))
