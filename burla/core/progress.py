"""How far a job is, and the line that says so: state and width in, text out. Pure.

What is left is told honestly: two estimates, by all that has ended and by what has ended lately; if
they differ the line says from when to when, and with too few outcomes, or when the last calls run,
which may be the long ones, it says nothing.
"""

from collections import deque
from dataclasses import dataclass
from typing import Literal

from burla.protocol.job_messages import JobRecord, JobState, Lasting

Phase = Literal["connecting", "waiting", "starting", "running", "ending", "over"]

SAMPLES = 240  # of what was done when; one each half second
SAMPLE_S = 0.5
FEW = 5  # outcomes, or
SOON_S = 2.0  # seconds after the first one: too little to say how long the rest will take
ALIKE = 1.3  # estimates that differ by less are one
STILL_S = 30.0  # a call that lasts for so long is named
WHY_CHARS = 120
NAME_CHARS = 40
SPINNER = "|/-\\"
RED, YELLOW, OFF = "\x1b[31m", "\x1b[33m", "\x1b[0m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is. This is what `progress=` is called with."""

    function: str
    phase: Phase
    done: int  # inputs with an outcome
    total: int | None  # None: more inputs may come
    failed: int  # of `done`, errors; counted about once a second
    called_again: int  # calls that failed and were called again
    running: int  # calls that run now, at most
    slots: int  # calls that may run at once
    nodes: int  # that serve the job
    elapsed_s: float
    rate: float  # outcomes a second, lately
    left_s: tuple[float, float] | None  # from so long to so long for the rest; None: not known
    waiting: str  # why nothing runs
    still: str  # which call has stood still for 30 s or more, and where
    speed_up: float  # over one CPU; 0: not known

    @property
    def is_over(self) -> bool:
        """Whether this is the last one."""
        return self.phase == "over"


class Meter:
    """Counts what comes of one job. Counting is for the threads that do the work."""

    def __init__(self, function: str, begun_s: float) -> None:
        """Begin with nothing."""
        self.function = function
        self.begun_s = begun_s
        self.sent = 0  # inputs
        self.has_all = False  # no more inputs come
        self.done = 0
        self.waiting = ""  # why nothing happens, as this end knows it
        self.record: JobRecord | None = None  # what the scheduler said last
        self._samples: deque[tuple[float, int]] = deque(maxlen=SAMPLES)
        self._first_s: float | None = None  # when the first outcome was there

    def look(self, now_s: float, *, is_over: bool = False) -> Progress:
        """Return how far it is."""
        done, record = self.done, self.record
        if done and self._first_s is None:
            self._first_s = now_s
        if not self._samples or now_s >= self._samples[-1][0] + SAMPLE_S:
            self._samples.append((now_s, done))
        said = None if record is None else record.summary
        total = self.sent if self.has_all else None
        slots = 0 if said is None else said.slots
        left = None if total is None else total - done
        waiting = self._why()
        return Progress(
            function=self.function,
            phase="over" if is_over else self._phase(left, waiting),
            done=done,
            total=total,
            failed=0 if said is None else said.failed,
            called_again=0 if said is None else said.retried,
            running=min(slots, self.sent - done),
            slots=slots,
            nodes=0 if said is None else said.nodes,
            elapsed_s=now_s - self.begun_s,
            rate=self._lately(now_s),
            left_s=None if left is None else self._left_s(left, slots, now_s),
            waiting=waiting,
            still="" if record is None else _still(record.lasting),
            speed_up=self._speed_up(),
        )

    def _why(self) -> str:
        said = None if self.record is None else self.record.summary
        if said is None:
            return self.waiting
        return said.why if said.state is JobState.WAITING else ""

    def _phase(self, left: int | None, waiting: str) -> Phase:
        if self.record is None and not self.done:
            return "waiting" if waiting else "connecting"
        if waiting:
            return "waiting"
        if not self.done:
            return "starting"
        return "ending" if left == 0 else "running"

    def _lately(self, now_s: float) -> float:
        """Return how many outcomes a second came in about the last third of the time."""
        if self._first_s is None:
            return 0.0
        since_s = min(now_s - 2 * SAMPLE_S, now_s - (now_s - self._first_s) / 3)
        before = self._samples[0]
        for sample in self._samples:
            if sample[0] > since_s:
                break
            before = sample
        took_s = now_s - before[0]
        return (self.done - before[1]) / took_s if took_s > 0 else 0.0

    def _left_s(self, left: int, slots: int, now_s: float) -> tuple[float, float] | None:
        if self._first_s is None or self.done < FEW or now_s < self._first_s + SOON_S:
            return None
        if left <= slots:  # these run: they may be the long ones
            return None
        rates = [self.done / max(1e-9, now_s - self.begun_s), self._lately(now_s)]
        if min(rates) <= 0:
            return None
        return left / max(rates), left / min(rates)

    def _speed_up(self) -> float:
        """Return how many CPUs' worth of calls ran at once, so far as the scheduler has said."""
        if self.record is None or not self.record.summary.took_s:
            return 0.0
        return self.record.busy_s / self.record.summary.took_s


def _still(lasting: tuple[Lasting, ...]) -> str:
    """Return which call stands still, and where; the one that has for longest."""
    for one in lasting:
        if one.seconds < STILL_S:
            break
        if one.lo == one.hi:
            what = "loading the function"
        elif one.hi == one.lo + 1:
            what = f"input {one.lo}"
        else:
            what = f"one of the inputs {one.lo} to {one.hi - 1}"
        return f"{what}: {duration(one.seconds)} on {one.node}"
    return ""


# --- lines ---


def live_line(said: Progress, columns: int, *, turn: int = 0, color: bool = False) -> str:
    """Return the line for a terminal, which is at most so many columns wide.

    What matters most comes first; what has no room is left out as a whole.
    """
    name = _cut(said.function, min(NAME_CHARS, columns // 2))
    shown = f"{SPINNER[turn % len(SPINNER)]} {name}:"
    room, between = columns - _width(shown), " "
    for part, tint in _parts(said):
        size = _width(between) + _width(part)
        if size > room:
            if tint == YELLOW and room > 12:  # why it waits: the beginning says something, too
                part = _cut(part, room - _width(between))
                size = room
            else:
                continue
        shown += between + (f"{tint}{part}{OFF}" if color and tint else part)
        room -= size
        between = ", "
    return shown


def plain_line(said: Progress) -> str:
    """Return the line for where nothing can be written over."""
    what = ", ".join(part for part, _ in _parts(said))
    return f"burla: {said.function}: {what} ({duration(said.elapsed_s)} so far)"


def summary_line(said: Progress) -> str:
    """Return the line at the end of a job that took long."""
    parts = [f"{said.done:,} call{'s' * (said.done != 1)} in {duration(said.elapsed_s)}"]
    if said.nodes:
        parts.append(_nodes(said.nodes))
    if said.speed_up >= 1.05:
        parts.append(f"{said.speed_up:.3g} times as fast as one CPU")
    if said.failed:
        parts.append(f"{said.failed:,} failed")
    if said.called_again:
        parts.append(f"{said.called_again:,} called again")
    return f"burla: {said.function}: {', '.join(parts)}"


def stopped_line(said: Progress) -> str:
    """Return the line about a job that was stopped, or failed."""
    done = f"{said.done:,} of {said.total:,}" if said.total is not None else f"{said.done:,}"
    return f"burla: {said.function}: stopped after {duration(said.elapsed_s)}, {done} done"


def html_of(said: Progress, line: str = "") -> str:
    """Return the display of a notebook; `line`: says how the job ended."""
    share = 0.0 if not said.total else said.done / said.total
    if line:
        return f"<pre>{_escaped(line)}</pre>"
    bar = f'<progress value="{share:.4f}" max="1"></progress> ' if said.total else ""
    text = ", ".join(part for part, _ in _parts(said))
    return f"<div><b>{_escaped(said.function)}</b> {bar}{_escaped(text)}</div>"


def _parts(said: Progress) -> list[tuple[str, str]]:
    """Return what is to be said, the most important first, each with its color."""
    parts: list[tuple[str, str]] = []
    if said.phase == "connecting":
        parts.append(("connecting", ""))
    elif said.phase == "waiting":
        parts.append((f"waits: {_cut(said.waiting, WHY_CHARS)}", YELLOW))
    elif said.phase == "starting":
        parts.append(("starting", ""))
    if said.done or said.phase not in ("connecting", "waiting"):
        parts.append((_done(said), ""))
    if said.failed:
        parts.append((f"{said.failed:,} failed", RED))
    if said.phase in ("running", "ending"):
        parts.append((_left(said), ""))
    if said.still:
        parts.append((said.still, YELLOW))
    if said.rate and said.phase == "running":
        parts.append((f"{_rate(said.rate)}/s", ""))
    if said.slots and said.phase in ("starting", "running"):
        parts.append((f"{said.running:,} of {said.slots:,} slots", ""))
    if said.nodes and said.phase in ("starting", "running"):
        parts.append((_nodes(said.nodes), ""))
    if said.called_again:
        parts.append((f"{said.called_again:,} called again", ""))
    return [part for part in parts if part[0]]


def _done(said: Progress) -> str:
    if said.total is None:
        return f"{said.done:,} done"
    if not said.total:
        return "0 done"
    share = 100 * said.done // said.total
    return f"{said.done:,}/{said.total:,} ({share}%)"


def _left(said: Progress) -> str:
    if said.left_s is None:
        left = None if said.total is None else said.total - said.done
        if left and said.slots and left <= said.slots:
            return f"the last {left:,} run" if left > 1 else "the last one runs"
        return ""
    first_s, last_s = said.left_s
    if last_s < first_s * ALIKE:
        return f"~{duration((first_s + last_s) / 2)} left"
    return f"{duration(first_s)} to {duration(last_s)} left"


def _nodes(count: int) -> str:
    return f"{count:,} node{'s' * (count != 1)}"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def duration(seconds: float) -> str:
    """Return a duration in few characters."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours = round(minutes / 60)
    return f"{hours} h" if hours < 72 else f"{round(hours / 24)} days"


def _width(text: str) -> int:
    """Return how many columns a text takes at most: what is not ASCII may take two."""
    return len(text) if text.isascii() else sum(1 if char.isascii() else 2 for char in text)


def _cut(text: str, columns: int) -> str:
    """Return as much of a text as has room, in one line."""
    text = " ".join(text.split())
    if _width(text) <= columns:
        return text
    while text and _width(text) > columns - 3:
        text = text[:-1]
    return f"{text}..."[: max(0, columns)]


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
