"""The output of a job as a stream of lines: what is kept first, then what comes."""

import re
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from burla.commands.job_output import LeftOut, next_place, printed_in
from burla.commands.jobs_view import size
from burla.commands.output_lines import Line, Lines, safe, which
from burla.errors import BurlaError
from burla.protocol.output_messages import OUTPUT, KeptOutput, ReadOutput

from .places import Watched

EVERY_S = 1.0
LINE_CHARS_MAX = 4000  # of one line on the page
PLACE = re.compile("([0-9]{1,15})-([0-9]{1,15})")
LINES_MAX = 5000  # that are sent at once: as many as a page shows


class Shown(Struct, frozen=True):
    """One line."""

    time: str
    node: str
    input: str
    stream: str
    text: str


class More(Struct, frozen=True):
    """Lines that are new to the page; `why`: there will be none."""

    lines: list[Shown]
    over: bool = False
    why: str = ""


@dataclass
class Reader:
    """Reads on where it was."""

    watched: Watched
    job: str
    after: int = 0
    shown_to: int = 0  # lines that end in a chunk before are on the page
    _lines: Lines = field(default_factory=Lines)

    def read(self) -> More:
        """Return what is new. Whoever calls waits for the answer."""
        shown: deque[Shown] = deque(maxlen=LINES_MAX)
        try:
            is_over = self._read(shown)
        except BurlaError as error:
            return More(list(shown), why=str(error))
        if is_over:
            shown += [_shown(line) for line in self._lines.rest()]
        return More(list(shown), over=is_over)

    def _read(self, shown: deque[Shown]) -> bool:
        """Take all that there is; return whether nothing more comes."""
        while True:
            question = ReadOutput(self.job, self.after)
            answer, payload = self.watched.line.read(question, KeptOutput, OUTPUT)
            if not answer.job or answer.why:
                raise BurlaError(answer.why or "there is no such job")
            self.job = answer.job.hex()
            for printed in printed_in(answer, payload, self.after):
                if isinstance(printed, LeftOut):
                    text = f"{size(printed.bytes)} of output are not kept"
                    shown.append(Shown("", "", "", "notice", text))
                else:
                    ended = list(self._lines.feed(printed))
                    if printed.place >= self.shown_to:
                        shown += [_shown(line) for line in ended]
            self.after = next_place(answer, self.after)
            if self.after >= answer.stop or not answer.parts:
                return answer.is_over

    @property
    def place(self) -> str:
        """Where to go on: from the first line that has only begun, and what is shown already."""
        return f"{self._lines.begin(self.after)}-{self.after}"


def _shown(line: Line) -> Shown:
    first = line.first
    text = safe(line.text, color=False)
    if len(text) > LINE_CHARS_MAX:
        text = f"{text[:LINE_CHARS_MAX]} ... ({len(text):,} characters)"
    at = datetime.fromtimestamp(first.time_s, UTC)
    return Shown(f"{at:%H:%M:%S}", first.node, which(line.inputs), first.stream, text)


def reader(watched: Watched, job: str, place: str) -> Reader:
    """Return who reads on at a place that a page was told; at none: from the beginning."""
    found = PLACE.fullmatch(place)
    return Reader(watched, job, *(map(int, found.groups()) if found else ()))


def as_event(more: More, place: str) -> bytes:
    """Return lines as an event, which names the place at which to go on."""
    return b"id: %s\ndata: %s\n\n" % (place.encode(), msgspec.json.encode(more))


def is_news(more: More, is_first: bool) -> bool:
    """Return whether there is something to send."""
    return bool(more.lines or more.over or more.why or is_first)
