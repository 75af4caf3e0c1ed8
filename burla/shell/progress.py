"""What the user is told about a job that runs, beside what its calls print.

How it is shown depends on where: on a terminal one line under the prints, which is written over; in
a notebook a display that changes; elsewhere a line on stderr now and then. All of it is done by the
thread that prints, so the two cannot get into each other's way.
"""

import io
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TextIO

from burla.core.progress import (
    Meter,
    Progress,
    html_of,
    live_line,
    plain_line,
    stopped_line,
    summary_line,
)

from .cells import notebook_shell

SHOW_S = 0.5  # a job that takes longer is shown
ASK_S = 1.0  # the scheduler is asked so often how the job stands
LIVE_S = 0.2  # between two lines on a terminal
REDRAW_S = 0.05  # after other output: where much is printed the line must not cost more
LINES_S = 10.0  # elsewhere
NOTEBOOK_S = 0.5
CALL_S = 0.5  # between two calls of `progress=`
SUMMARY_S = 5.0  # what took longer has a line at its end
COLUMNS = 80  # of a terminal that does not say
COLUMNS_MIN = 20  # with less there is no room for anything
VARIABLE = "BURLA_PROGRESS"
WAYS = ("live", "lines", "off")
CLEAR = "\r\x1b[J"  # the cursor stays at the beginning of the line, wherever a resize puts that
# A line that was made for a wider terminal is cut: what wraps would not be cleared as a whole.
WRAP_OFF, WRAP_ON = "\x1b[?7l", "\x1b[?7h"


def waiting_line(name: str, why: str) -> str:
    """Return the line that says why nothing of a job runs.

    Args:
        name: of the function.
        why: as the scheduler or the session said it.
    """
    return f"burla: {name} waits: {why}"


def line_about(name: str, what: str) -> str:
    """Return the line that says that output is missing, or which calls hang."""
    return f"burla: {name}: {what}"


class Place(Protocol):
    """Where progress is shown."""

    every_s: float  # it wants to be shown so often

    def show(self, said: Progress) -> None:
        """Show how far the job is."""

    def clear(self) -> None:
        """Take away what stands in the way of other output."""

    def end(self, said: Progress, *, went_well: bool) -> None:
        """Show how it ended."""


class Terminal:
    """A line at the bottom."""

    every_s = LIVE_S

    def __init__(self, file: TextIO, environment: Mapping[str, str]) -> None:
        """Write to `file`, in color unless the environment says otherwise."""
        self._file, self._turn, self._is_shown = file, 0, False
        self._color = not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"

    def show(self, said: Progress) -> None:
        """Write the line over itself."""
        columns = _columns(self._file) - 1  # a line that is full wraps on some
        if columns < COLUMNS_MIN:
            return
        self._turn += 1
        line = live_line(said, columns, turn=self._turn, color=self._color)
        self._is_shown = True
        self._write(f"{CLEAR}{WRAP_OFF}{line}{WRAP_ON}\r")

    def clear(self) -> None:
        """Wipe the line."""
        if self._is_shown:
            self._is_shown = False
            self._write(CLEAR)

    def end(self, said: Progress, *, went_well: bool) -> None:
        """Leave nothing but the summary of what took long."""
        self.clear()
        if went_well and said.elapsed_s >= SUMMARY_S:
            self._write(f"{summary_line(said)}\n")

    def _write(self, text: str) -> None:
        if _is_in_background(self._file):  # who has sent us there writes here now
            return
        try:
            self._file.write(text)
        except UnicodeEncodeError:
            name = self._file.encoding or "ascii"
            self._file.write(text.encode(name, "replace").decode(name))
        self._file.flush()


class Lines:
    """A line now and then."""

    every_s = LINES_S

    def __init__(self, file: TextIO) -> None:
        """Write to `file`."""
        self._file = file

    def show(self, said: Progress) -> None:
        """Write a line."""
        if said.elapsed_s >= LINES_S:
            self._write(plain_line(said))

    def clear(self) -> None:
        """Leave what was written."""

    def end(self, said: Progress, *, went_well: bool) -> None:
        """Write the summary of what took long."""
        if went_well and said.elapsed_s >= SUMMARY_S:
            self._write(summary_line(said))

    def _write(self, line: str) -> None:
        self._file.write(f"{line}\n")
        self._file.flush()


class Notebook:
    """A display that changes."""

    every_s = NOTEBOOK_S

    def __init__(self, display: Callable[..., Any]) -> None:
        """Show by IPython's `display`."""
        self._display, self._handle = display, None

    def show(self, said: Progress) -> None:
        """Change the display, or make it."""
        self._show(plain_line(said), html_of(said))

    def clear(self) -> None:
        """Leave it: other output has its own place."""

    def end(self, said: Progress, *, went_well: bool) -> None:
        """Let the display say how it ended: what it says stays in the notebook."""
        if self._handle is not None or (went_well and said.elapsed_s >= SUMMARY_S):
            line = summary_line(said) if went_well else stopped_line(said)
            self._show(line, html_of(said, line))

    def _show(self, text: str, html: str) -> None:
        shown = {"text/plain": text, "text/html": html}
        if self._handle is None:
            self._handle = self._display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)


def place_for(stderr: TextIO | None, environment: Mapping[str, str]) -> Place | None:
    """Return where to show progress; None: nowhere."""
    way = environment.get(VARIABLE, "").strip().lower()
    if way == "off" or stderr is None or getattr(stderr, "closed", False):
        return None
    if way not in WAYS and (display := _notebook()) is not None:
        return Notebook(display)
    if way == "live" or (way != "lines" and _is_terminal(stderr, environment)):
        return Terminal(stderr, environment)
    return Lines(stderr)


def _is_terminal(file: TextIO, environment: Mapping[str, str]) -> bool:
    # any other class may do with escapes as it likes, whatever its `isatty` says
    if type(file) is not io.TextIOWrapper or environment.get("TERM", "dumb") in ("", "dumb"):
        return False
    try:
        return (
            file.isatty()
            and sys.platform != "win32"
            and os.getpgrp() == os.tcgetpgrp(file.fileno())
        )
    except (OSError, ValueError):  # it is not the terminal of this process
        return False


def _is_in_background(file: TextIO) -> bool:
    """Return whether a terminal is somebody else's now."""
    if sys.platform == "win32":
        return False
    try:
        return os.getpgrp() != os.tcgetpgrp(file.fileno())
    except (OSError, ValueError):
        return False


def _columns(file: TextIO) -> int:
    try:
        return os.get_terminal_size(file.fileno()).columns or COLUMNS
    except (OSError, ValueError):
        return COLUMNS


def _notebook() -> Callable[..., Any] | None:
    """Return what shows things in a notebook, if this is one."""
    if notebook_shell() is None:
        return None
    from importlib import import_module

    display: Callable[..., Any] = import_module("IPython.display").display
    return display


class JobProgress:
    """Shows one job, in the thread that prints. Until it is begun it only counts."""

    def __init__(
        self,
        meter: Meter,
        ask: Callable[[], None],
        place: Place | None,
        callback: Callable[[Progress], object] | None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Show what `meter` counts.

        Args:
            meter: of the job.
            ask: asks the scheduler how the job stands.
            place: where to show it; None: nowhere.
            callback: is called with it, too.
            clock_s: the time.
        """
        self.meter = meter
        self._ask, self._place, self._callback, self._clock_s = ask, place, callback, clock_s
        self._asked_s = self._shown_s = self._called_s = float("-inf")
        self._is_cleared = False  # its line was wiped for other output

    @property
    def is_live(self) -> bool:
        """Whether it is shown where other output must not be written over it."""
        return isinstance(self._place, Terminal)

    @property
    def says_why(self) -> bool:
        """Whether it says there why nothing runs, so that no line of its own needs to."""
        return isinstance(self._place, Terminal | Notebook)

    def tick_s(self) -> float:
        """Return for how long nothing needs to be done."""
        if self._is_cleared:
            return REDRAW_S
        return CALL_S if self._place is None else min(CALL_S, self._place.every_s)

    def tick(self, *, may_draw: bool) -> None:
        """Do what is due; `may_draw`: the last line of other output has ended."""
        now_s = self._clock_s()
        if now_s >= self._asked_s + ASK_S:
            self._asked_s = now_s
            self._ask()
        said = self.meter.look(now_s)
        place = self._place
        every_s = 0.0 if place is None else REDRAW_S if self._is_cleared else place.every_s
        if place is not None and may_draw and now_s >= self._shown_s + every_s:
            self._shown_s, self._is_cleared = now_s, False
            self._on(lambda place: place.show(said))

    @property
    def is_told(self) -> bool:
        """Whether the callback is due."""
        return self._callback is not None and self._clock_s() >= self._called_s + CALL_S

    def tell(self) -> None:
        """Call the callback, which may print: its line is cleared, and drawn soon after."""
        if self._callback is not None:
            self._called_s = now_s = self._clock_s()
            self._callback(self.meter.look(now_s))
            self._shown_s = float("-inf")

    def clear(self) -> None:
        """Make room for other output."""
        if self._place is not None:
            self._on(lambda place: place.clear())
            self._is_cleared = self.is_live

    def end(self, *, went_well: bool) -> None:
        """Show how it ended, once."""
        callback, self._callback = self._callback, None
        said = self.meter.look(self._clock_s(), is_over=True)
        self._on(lambda place: place.end(said, went_well=went_well))
        self._place = None
        if callback is not None and went_well:
            callback(said)

    def _on(self, show: Callable[[Place], None]) -> None:
        """Show something; a place that is gone is no reason to end a job."""
        if self._place is not None:
            try:
                show(self._place)
            except (OSError, ValueError):  # a terminal that was hung up, a stream that is closed
                self._place = None
