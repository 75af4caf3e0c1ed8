"""Progress among prints: a terminal stays whole, whatever is printed."""

import io
import os
import pty
import threading
import time
from collections.abc import Callable
from typing import Any

import pyte
import pytest

from burla.core.effects import Write
from burla.core.progress import Meter, Progress
from burla.protocol.messages import STDERR, STDOUT
from burla.shell import printer as printer_module, progress
from burla.shell.printer import Printer
from burla.shell.progress import JobProgress, Lines, Notebook, Terminal, place_for

LEASE = b"L" * 16


class Screen:
    """A terminal, and the stream that writes to it."""

    encoding = "utf-8"

    def __init__(self, columns: int = 40) -> None:
        self.columns = columns
        self.screen = pyte.HistoryScreen(columns, 10, history=10_000)
        self.screen.set_mode(pyte.modes.LNM)  # as a terminal makes of "\n"
        self.stream = pyte.Stream(self.screen)
        self.live = 0  # how often a line was drawn

    def write(self, text: str) -> int:
        self.live += text.endswith("\r")
        self.stream.feed(text)
        return len(text)

    def flush(self) -> None:
        pass

    def fileno(self) -> int:
        raise io.UnsupportedOperation  # as of a stream that is only here

    def resize(self, columns: int) -> None:
        self.screen.resize(columns=columns)
        self.columns = columns

    def lines(self) -> list[str]:
        """Return all that is there, also what has gone out at the top."""
        above = [
            "".join(line[at].data for at in range(self.columns)).rstrip()
            for line in self.screen.history.top
        ]
        return [*above, *(line.rstrip() for line in self.screen.display if line.strip())]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    made = Screen()
    monkeypatch.setattr(progress, "_columns", lambda file: made.columns)
    monkeypatch.setattr(progress, "LIVE_S", 0.001)
    monkeypatch.setattr(Terminal, "every_s", 0.001)
    monkeypatch.setattr(progress, "REDRAW_S", 0.001)
    return made


def printer_on(screen: Any, failed: Callable[[BaseException], None] | None = None) -> Printer:
    return Printer(screen, screen, lambda lease, number: None, failed or _raise)


def _raise(error: BaseException) -> None:
    raise error


def shown_on(printer: Printer, screen: Any, **more: Any) -> Meter:
    """Show a job; return its meter."""
    meter = Meter("crunch", time.monotonic())
    meter.sent, meter.has_all = 1000, True
    place = Terminal(screen, {"NO_COLOR": "1"})
    printer.show(JobProgress(meter, lambda: None, place, more.get("callback")))
    return meter


def put(printer: Printer, number: int, text: str, stream: int = STDOUT) -> None:
    printer.put(Write(b"J", LEASE, number, (stream,), [text.encode()]))


def wait(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.001)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_what_is_printed_is_there_as_it_was_printed(columns: int, screen: Screen) -> None:
    screen.resize(columns)
    printer = printer_on(screen)
    meter = shown_on(printer, screen)
    texts = ["one\n", "two", " three\n", "wide 日本語\n", "\x1b[31mred\x1b[0m\n", "50%\r100%\n"]
    for number, text in enumerate(texts * 5, 1):
        before, meter.done = screen.live, meter.done + 10
        put(printer, number, text, STDOUT if number % 2 else STDERR)
        if text.endswith("\n"):
            wait(lambda before=before: screen.live > before)  # type: ignore[misc]
    printer.wait_written(went_well=True)
    wanted = ["one", "two three", "wide 日 本 語", "red", "100%"] * 5
    seen = [" ".join(line.split()) for line in screen.lines()]
    assert [line.replace("日 本 語", "日本語") for line in seen] == [
        line.replace("日 本 語", "日本語") for line in wanted
    ]


def test_no_line_is_drawn_into_one_that_has_not_ended(screen: Screen) -> None:
    printer = printer_on(screen)
    shown_on(printer, screen)
    wait(lambda: screen.live > 0)
    put(printer, 1, "Password: ")
    wait(lambda: screen.lines() == ["Password:"])
    before = screen.live
    time.sleep(0.05)
    assert screen.live == before
    put(printer, 2, "\n")
    wait(lambda: screen.live > before)
    printer.wait_written()
    assert screen.lines() == ["Password:"]


def test_a_resize_leaves_nothing_behind(screen: Screen) -> None:
    screen.resize(120)
    printer = printer_on(screen)
    meter = shown_on(printer, screen)
    meter.done = 500
    for columns in (120, 40, 200, 41):
        with printer._drawing:
            screen.resize(columns)
        before = screen.live
        wait(lambda before=before: screen.live > before + 1)  # type: ignore[misc]
        assert len(screen.lines()) == 1
    printer.abandon()
    assert screen.lines() == []


def test_a_line_that_was_made_before_a_resize_does_not_wrap(screen: Screen) -> None:
    """Nobody can help that: the size is asked for, the terminal shrinks, the line is written."""
    screen.resize(120)
    place = Terminal(screen, {"NO_COLOR": "1"})  # type: ignore[arg-type]
    said = Meter("function_with_a_long_name", 0.0).look(1.0)
    screen.screen.resize(columns=20)
    place.show(said)
    assert len(screen.lines()) == 1
    place.clear()
    assert screen.lines() == []
    screen.write("wrapped " * 4)
    assert len(screen.lines()) == 2, "whatever else is written wraps as ever"


def test_output_does_not_get_into_a_print_that_is_written_in_pieces(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(printer_module, "HOLD_S", 20.0)
    printer = printer_on(screen)
    printer.pause()
    screen.write("mine")
    put(printer, 1, "of a call\n")
    wait(printer._queue.empty)
    assert screen.lines() == ["mine"]
    screen.write(" 0\n")
    printer.resume()
    printer.wait_written()
    assert screen.lines() == ["mine 0", "of a call"]


def test_output_does_not_wait_for_code_that_takes_long(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    class Impatient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.extend([timeout or 0.0] * (not self.is_set()))
            return self.is_set()

    printer = printer_on(screen)
    printer.pause()
    printer._may_write = Impatient()
    for number in range(1, 4):
        put(printer, number, f"{number}\n")
        wait(lambda number=number: len(screen.lines()) == number)  # type: ignore[misc]
    printer.abandon()
    assert waits == [printer_module.HOLD_S], "once, until the caller is back"


def test_who_hangs_in_a_full_pipe_does_not_hold_up_the_caller(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(printer_module, "HOLD_S", 0.001)
    printer = printer_on(screen)
    with printer._drawing:
        assert printer.pause()
    printer.abandon()


def test_the_callers_own_prints_are_not_written_over(screen: Screen) -> None:
    printer = printer_on(screen)
    shown_on(printer, screen)
    wait(lambda: screen.live > 0)
    for number in range(5):
        printer.pause()
        screen.write(f"mine {number}\n")
        time.sleep(0.005)
        assert screen.lines() == [f"mine {n}" for n in range(number + 1)]
        printer.resume()
        before = screen.live
        wait(lambda before=before: screen.live > before)  # type: ignore[misc]
    printer.abandon()
    assert screen.lines() == [f"mine {n}" for n in range(5)]


def test_a_job_that_took_long_has_a_summary_if_it_went_well(screen: Screen) -> None:
    for went_well, lines in ((True, ["burla: crunch: 7 calls in 60 s"]), (False, [])):
        printer = printer_on(screen)
        meter = shown_on(printer, screen)
        meter.begun_s -= 60.0
        meter.done = 7
        wait(lambda: screen.live > 0)
        printer.wait_written(went_well=went_well)
        assert screen.lines() == lines
        screen.screen.reset()
        screen.screen.set_mode(pyte.modes.LNM)


def test_the_callback_may_wait_for_who_draws_and_print(screen: Screen) -> None:
    seen: list[object] = []

    def callback(said: Progress) -> None:
        seen.append(printer._drawing.acquire(timeout=20))
        printer._drawing.release()
        screen.write("mine\n")

    printer = printer_on(screen)
    shown_on(printer, screen, callback=callback)
    wait(lambda: bool(seen))
    printer.wait_written()
    assert set(seen) == {True}
    assert set(screen.lines()) == {"mine"}


def test_what_the_callback_raises_ends_the_job(screen: Screen) -> None:
    errors: list[BaseException] = []

    def callback(said: Progress) -> None:
        raise ZeroDivisionError(said.function)

    printer = printer_on(screen, errors.append)
    shown_on(printer, screen, callback=callback)
    printer.wait_written()
    assert [str(error) for error in errors] == ["crunch"]


def test_much_output_is_not_held_up_by_the_line(screen: Screen, monkeypatch: Any) -> None:
    monkeypatch.setattr(progress, "REDRAW_S", 3600.0)
    printer = printer_on(screen)
    shown_on(printer, screen)
    wait(lambda: screen.live > 0)
    before = screen.live
    for number in range(1, 2001):
        put(printer, number, f"{number}\n")
    printer.wait_written()
    assert screen.live <= before + 1
    assert screen.lines() == [str(number) for number in range(1, 2001)]


# --- where it is shown ---


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_without_a_terminal_there_is_a_line_every_ten_seconds() -> None:
    clock, file, asked = Clock(), io.StringIO(), []
    meter = Meter("f", 0.0)
    meter.sent = 100
    shown = JobProgress(meter, lambda: asked.append(clock.now_s), Lines(file), None, clock)
    for half in range(70):
        clock.now_s = half / 2
        meter.done = half
        shown.tick(may_draw=True)
    assert len(file.getvalue().splitlines()) == 3
    assert file.getvalue().startswith("burla: f: 20 done, ")
    assert len(asked) == 35
    shown.end(went_well=True)
    assert file.getvalue().splitlines()[-1] == "burla: f: 69 calls in 34 s"


def test_a_notebook_has_one_display_that_changes() -> None:
    said: list[tuple[str, dict[str, str]]] = []

    class Handle:
        def update(self, shown: dict[str, str], **more: Any) -> None:
            said.append(("update", shown))

    def display(shown: dict[str, str], **more: Any) -> Handle:
        said.append(("display", shown))
        return Handle()

    clock = Clock()
    shown = JobProgress(Meter("f", 0.0), lambda: None, Notebook(display), None, clock)
    for _ in range(3):
        clock.now_s += 3.0
        shown.tick(may_draw=True)
    assert [what for what, _ in said] == ["display", "update", "update"]
    assert set(said[0][1]) == {"text/plain", "text/html"}
    shown.end(went_well=True)
    line = "burla: f: 0 calls in 9.0 s"
    assert said[-1] == ("update", {"text/plain": line, "text/html": f"<pre>{line}</pre>"})


@pytest.mark.parametrize("went_well", [True, False])
def test_a_display_that_was_shown_says_how_the_job_ended_however_soon(went_well: bool) -> None:
    said: list[str] = []

    class Handle:
        def update(self, shown: dict[str, str], **more: Any) -> None:
            said.append(shown["text/plain"])

    clock, meter = Clock(), Meter("f", 0.0)
    clock.now_s, meter.sent, meter.has_all, meter.done = 1.0, 3, True, 2
    notebook = Notebook(lambda shown, **more: Handle())
    shown = JobProgress(meter, lambda: None, notebook, None, clock)
    shown.tick(may_draw=True)
    meter.done += went_well
    shown.end(went_well=went_well)
    ends = {True: "3 calls in 1.0 s", False: "stopped after 1.0 s, 2 of 3 done"}
    assert said == [f"burla: f: {ends[went_well]}"]


def test_a_job_that_was_short_leaves_no_display() -> None:
    shown = JobProgress(Meter("f", 0.0), lambda: None, Notebook(pytest.fail), None, Clock())
    shown.end(went_well=True)


def test_where_it_is_shown_is_seen_from_the_stream_and_the_variable() -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, open(os.devnull, "w") as file:
        told = io.StringIO()
        assert isinstance(place_for(file, {"TERM": "xterm"}), Lines)
        assert isinstance(place_for(told, {"TERM": "xterm"}), Lines)
        # it is not the terminal of this process, which is then in its background
        assert isinstance(place_for(terminal, {"TERM": "xterm"}), Lines)
        assert isinstance(place_for(file, {"BURLA_PROGRESS": "live"}), Terminal)
        assert isinstance(place_for(terminal, {"BURLA_PROGRESS": "lines"}), Lines)
        assert place_for(terminal, {"BURLA_PROGRESS": "OFF"}) is None
        assert place_for(None, {}) is None
        told.close()
        assert place_for(told, {}) is None
    os.close(ours)


def test_a_terminal_that_is_too_narrow_shows_nothing(screen: Screen) -> None:
    screen.columns = 15
    place = Terminal(screen, {})  # type: ignore[arg-type]
    place.show(Meter("f", 0.0).look(1.0))
    assert screen.live == 0


def test_colors_are_left_out_where_they_are_not_wanted() -> None:
    for environment, has_colors in (({"TERM": "xterm"}, True), ({"NO_COLOR": "1"}, False)):
        file = io.StringIO()
        meter = Meter("f", 0.0)
        meter.waiting = "no node"
        Terminal(file, environment).show(meter.look(1.0))
        assert ("\x1b[33m" in file.getvalue()) is has_colors


def test_threads_end(screen: Screen) -> None:
    printer = printer_on(screen)
    shown_on(printer, screen)
    printer.abandon()
    assert not [thread for thread in threading.enumerate() if thread.name == "burla-print"]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ValueError("closed")])
def test_a_terminal_that_is_gone_does_not_end_the_job(error: Exception) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise error

    meter = Meter("f", 0.0)
    shown = JobProgress(meter, lambda: None, Terminal(Gone(), {}), None, Clock())
    shown.tick(may_draw=True)
    shown.clear()
    shown.end(went_well=True)


def test_inputs_that_print_while_they_are_made_have_the_terminal(screen: Screen) -> None:
    printer = printer_on(screen)
    shown_on(printer, screen)
    assert printer.pause()
    assert not printer.pause(), "whoever was first ends it"
    printer.resume()
    printer.abandon()


def test_in_the_background_nothing_is_drawn(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_is_in_background", lambda file: True)
    Terminal(screen, {}).show(Meter("f", 0.0).look(1.0))  # type: ignore[arg-type]
    assert screen.live == 0
