"""What is told of calls besides their outcomes, for people: how long they took, which failed. Pure.

It is merged for a report, so that a short call costs nothing of its own.
"""

from collections.abc import Sequence

import msgspec

from burla.protocol.deaths import TIMEOUT, decode_death
from burla.protocol.job_messages import (
    FAULT_CHARS_MAX,
    FAULTS_TOLD_MAX,
    LAST_WORDS_MAX,
    LASTED_S,
    LASTED_TOLD_MAX,
    TYPES_TOLD_MAX,
    EndedCall,
    Tally,
    ToldFault,
    bucket_of,
)
from burla.protocol.messages import Kind, LongCall, Run

from .events import CellReport

SLOW_S = 0.1  # a call that took less has no name
NAME_BYTES_MAX = 256


class Tallying:
    """What has come since the last report."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._durations: dict[int, int] = {}
        self._failed = 0
        self._faults: list[ToldFault] = []
        self._types: dict[bytes, int] = {}
        self._ended: list[EndedCall] = []
        self._slow: LongCall | None = None
        self._slow_facts = (0, b"")  # memory, last words
        self._busy_s = 0.0

    def take(
        self, run: Run, frames: Sequence[bytes], report: CellReport | None, tries: int
    ) -> None:
        """Take outcomes; `report`: what their worker said, `tries`: of one that is an error."""
        kind = run.kind
        if report is not None:
            lo, hi, seconds = run.lo, run.hi, report.seconds
            calls = hi - lo
            self._busy_s += seconds
            bucket = bucket_of(seconds if calls == 1 else seconds / calls)
            durations = self._durations
            durations[bucket] = durations.get(bucket, 0) + calls
            if seconds >= SLOW_S and calls == 1:
                slow = self._slow
                if slow is None or seconds > slow.seconds:
                    self._slow = LongCall(lo, hi, seconds)
                    self._slow_facts = report.peak, _cut(report.words)
                if seconds >= LASTED_S and len(self._ended) < LASTED_TOLD_MAX:
                    self._ended.append(EndedCall(lo, hi, seconds, kind is Kind.ERROR))
        if kind is Kind.ERROR or kind is Kind.DEATH:
            self._note_fault(_fault(run, frames, report, tries))

    def _note_fault(self, fault: ToldFault) -> None:
        self._failed += 1
        types = self._types
        is_new = fault.type not in types
        if not is_new or len(types) < TYPES_TOLD_MAX:
            types[fault.type] = types.get(fault.type, 0) + 1
        if len(self._faults) < FAULTS_TOLD_MAX:
            self._faults.append(fault)
        elif is_new:  # rather one of each type than the first ones
            self._faults[-1] = fault

    def told(self) -> Tally | None:
        """Return what is to be told now, once; None: nothing."""
        if not self._durations and not self._failed:
            return None
        durations = tuple(self._durations.items())
        tally = Tally(
            durations,
            self._failed,
            tuple(self._faults),
            self._slow,
            self._busy_s,
            *self._slow_facts,
            tuple(self._ended),
            tuple(self._types.items()),
        )
        self._durations = {}
        self._failed, self._faults, self._slow, self._busy_s = 0, [], None, 0.0
        self._types, self._ended, self._slow_facts = {}, [], (0, b"")
        return tally


def _fault(run: Run, frames: Sequence[bytes], report: CellReport | None, tries: int) -> ToldFault:
    """Return what is told of a call that failed."""
    type_, text = ("", "") if report is None else report.told
    seconds, memory, last = 0.0, 0, b""
    if report is not None:
        seconds, memory, last = report.seconds, report.peak, report.words
    if run.kind is Kind.DEATH:
        type_, text, tries, memory, last = _of_death(frames[0])
    elif not type_:
        type_ = "error"  # of the function: it could not be loaded
    name = type_.encode("utf-8", "replace")[:NAME_BYTES_MAX]
    words = text[:FAULT_CHARS_MAX].encode("utf-8", "replace")
    return ToldFault(run.lo, name, words, max(1, tries), seconds, memory, _cut(last))


def _cut(words: bytes) -> bytes:
    """Return the end of what was printed, as far as it is told."""
    return words[-LAST_WORDS_MAX:]


def _of_death(frame: bytes) -> tuple[str, str, int, int, bytes]:
    """Return what is told of a call whose worker died, as its caller sees it.

    Type, text, tries, memory, and what it has printed last.
    """
    try:
        death = decode_death(frame)
    except msgspec.DecodeError:
        return "WorkerDied", "", 1, 0, b""
    tries = max(1, death.deaths)
    words = death.last_words.encode("utf-8", "replace")
    figures = death.memory or death.seen
    used = 0 if figures is None else figures.used
    if death.killed_for == TIMEOUT:
        return "CallTimeout", "it was killed", tries, used, words
    if (memory := death.memory) is not None:
        return "OutOfMemory", f"it used {memory.used / (1 << 30):.3g} GB", tries, used, words
    return "WorkerDied", f"{death.how} {death.code}", tries, used, words
