"""Which calls hang, and when the user is to hear of it: rarer and rarer. Pure.

Nodes tell of calls that last. A line is due when one has run for `FIRST_S`, and for longer than
twice what the longest took that is over: where all calls take ten minutes, nobody wants to hear of
each. While what was told goes on, the next line comes after twice the time or more.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec import Struct

from burla.protocol.messages import LONG_CALLS_MAX, JobRunning
from burla.protocol.ranges import Ranges

FIRST_S = 30.0  # what lasts longer is told
STEPS = (1, 2, 4, 10, 20)  # times FIRST_S; then each twice the last
GAP_STEPS_MAX = 20  # times FIRST_S: the longest wait of what is new, while what was told goes on
USUAL = 2  # times what the longest call took is no reason to be told
STALE_S = 20.0  # what was not heard of again for so long is no longer believed; see nodelet TELL_S
SECONDS_MAX = 1e9  # believed of what a node says
NAMED_MAX = 3  # calls or nodes in one line

_LOADING = -1  # stands for an index


class Lasting(NamedTuple):
    """A call that lasts, of one of [lo, hi); or the loading of the function, if it has no index."""

    lease: bytes
    node: str
    lo: int
    hi: int
    since_s: float

    @property
    def is_call(self) -> bool:
        """Whether it is no loading."""
        return self.lo != _LOADING


class _Said(Struct):
    """What was last heard of one lease."""

    lasting: list[Lasting]
    heard_s: float


class Hanging:
    """What lasts of one job, and what the user was told."""

    def __init__(self) -> None:
        """Start without anything that lasts."""
        self.due_s = math.inf  # when `take_due` may have something; inf: it has nothing
        self.outcome_s = -math.inf  # when the last outcome came: kept by whoever takes those
        self._said: dict[bytes, _Said] = {}  # by lease: only of those of which something lasts
        self._told: dict[bytes, set[int]] = {}  # by lease: the first indices of what goes on
        self._step_s = FIRST_S  # what was told is told again when it has lasted for so long
        self._lines = 0  # since something that was told goes on
        self._line_s = -math.inf  # when the last was told
        self._longest_s = 0.0  # of a call that lasted and is over

    def hear(self, said: JobRunning, done: Ranges, end: int, now_s: float) -> None:
        """Take what a node says of its lease; `done` of the inputs before `end` have outcomes."""
        self._learn(said.lease, done, now_s)
        lasting = []
        for call in said.calls:
            if call.lo < call.hi <= end and not done.covers(call.lo, call.hi):
                since_s = now_s - min(call.seconds, SECONDS_MAX)
                lasting.append(Lasting(said.lease, said.node, call.lo, call.hi, since_s))
        if said.loading_s:
            since_s = now_s - min(said.loading_s, SECONDS_MAX)
            lasting.append(Lasting(said.lease, said.node, _LOADING, 0, since_s))
        self._forget_told(said.lease, {one.lo for one in lasting})
        if lasting:
            self._said[said.lease] = _Said(lasting, now_s)
            self.due_s = min(self.due_s, *map(self._due_s, lasting))
        else:
            self._said.pop(said.lease, None)

    def lose(self, lease: bytes) -> None:
        """Take note that a lease is no more."""
        self._said.pop(lease, None)
        self._forget_told(lease, set())

    def take_due(self, done: Ranges, total: int | None, now_s: float) -> str:
        """Return what to tell the user now; empty: nothing. `done` of `total` have outcomes."""
        if now_s < self.due_s:
            return ""
        self._look_again(done, now_s)
        due = [one for one in self._all() if self._due_s(one) <= now_s]
        if not due:
            return ""
        calls = any(one.is_call for one in due)
        shown = [one for one in self._all() if one.is_call == calls and self._is_late(one, now_s)]
        for one in shown:
            self._told.setdefault(one.lease, set()).add(one.lo)
        self._lines, self._line_s = self._lines + 1, now_s
        while any(self._due_s(one) <= now_s for one in shown):
            self._step_s = _after(self._step_s)
        self.due_s = min(map(self._due_s, self._all()))
        shown.sort(key=lambda one: one.since_s)
        if not calls:
            return _loading_line(shown, now_s)
        return _calls_line(shown, now_s) + _progress(done.total, total)

    # --- parts ---

    def _all(self) -> Iterator[Lasting]:
        return (one for said in self._said.values() for one in said.lasting)

    def _look_again(self, done: Ranges, now_s: float) -> None:
        """Forget what is over, and what nobody tells of any more."""
        for lease, said in list(self._said.items()):
            self._learn(lease, done, now_s)
            is_stale = now_s >= said.heard_s + STALE_S
            if is_stale or not said.lasting:
                del self._said[lease]
            self._forget_told(lease, set() if is_stale else {one.lo for one in said.lasting})
        self.due_s = min(map(self._due_s, self._all()), default=math.inf)

    def _learn(self, lease: bytes, done: Ranges, now_s: float) -> None:
        """Note how long calls of a lease took that are over."""
        if (said := self._said.get(lease)) is None:
            return
        for one in said.lasting[:]:
            if one.is_call and done.covers(one.lo, one.hi):
                said.lasting.remove(one)
                if one.hi == one.lo + 1:
                    self._longest_s = max(self._longest_s, now_s - one.since_s)

    def _forget_told(self, lease: bytes, still: set[int]) -> None:
        """Note what still goes on of a lease; when nothing does that was told, begin anew."""
        if (told := self._told.get(lease)) is None:
            return
        told &= still
        if not told:
            del self._told[lease]
        if not self._told:
            self._lines, self._step_s = 0, FIRST_S

    def _due_s(self, one: Lasting) -> float:
        """Return when the user is to hear of it."""
        if one.lo in self._told.get(one.lease, ()):
            return max(self._begun_s(one) + self._step_s, self._late_s(one))
        return max(self._late_s(one), self._line_s + min(self._lines, GAP_STEPS_MAX) * FIRST_S)

    def _is_late(self, one: Lasting, now_s: float) -> bool:
        return now_s >= self._late_s(one)

    def _late_s(self, one: Lasting) -> float:
        """Return from when on it is longer than is usual."""
        usual_s = USUAL * self._longest_s if one.is_call else 0.0
        return self._begun_s(one) + max(FIRST_S, usual_s)

    def _begun_s(self, one: Lasting) -> float:
        """Return since when it holds up something: a node that loads does not while others run."""
        return one.since_s if one.is_call else max(one.since_s, self.outcome_s)


def _after(step_s: float) -> float:
    return next((k * FIRST_S for k in STEPS if k * FIRST_S > step_s), 2 * step_s)


def _calls_line(calls: Sequence[Lasting], now_s: float) -> str:
    """Return which calls still run, for how long, and where; the oldest come first."""
    times = [_duration(now_s - call.since_s) for call in calls]
    if len(calls) == 1:
        return f"{_which(calls[0])} has run for {times[0]} on {calls[0].node}"
    named = [
        f"{_which(call)} ({time}, on {call.node})"
        for call, time in zip(calls[:NAMED_MAX], times, strict=False)
    ]
    is_cut = max(Counter(call.lease for call in calls).values()) == LONG_CALLS_MAX
    count = f"at least {len(calls)}" if is_cut else str(len(calls))
    return f"{count} calls have run for over {times[-1]}: {_listed(named, len(calls), '')}"


def _loading_line(loading: Sequence[Lasting], now_s: float) -> str:
    """Return where the function has been loading for how long; the oldest come first."""
    over = "over " if len(loading) > 1 else ""
    nodes = [one.node for one in loading[:NAMED_MAX]]
    time = _duration(now_s - loading[-1].since_s)
    where = _listed(nodes, len(loading), " nodes")
    return f"the function has been loading for {over}{time} on {where}"


def _progress(done: int, total: int | None) -> str:
    if total is None:
        return f"; {done} inputs are done"
    return f"; {done} of {total} inputs are done" if total > 1 else ""


def _which(call: Lasting) -> str:
    if call.hi == call.lo + 1:
        return f"input {call.lo}"
    return f"one of the inputs {call.lo} to {call.hi - 1}"


def _listed(named: Sequence[str], count: int, what: str) -> str:
    """Return the first of `count` things, and how many more there are."""
    if count > len(named):
        return f"{', '.join(named)} and {count - len(named)} more{what}"
    return " and ".join(part for part in (", ".join(named[:-1]), named[-1]) if part)


def _duration(seconds: float) -> str:
    """Return whole seconds, minutes or hours that have passed."""
    if seconds < 60:
        return f"{int(seconds)} s"
    minutes = int(seconds) // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
