"""What is told of calls besides their outcomes, for people: how long they took, which failed. Pure.

It is merged for a report, so that a short call costs nothing of its own.
"""

from collections.abc import Sequence

import msgspec

from burla.protocol.deaths import TIMEOUT, decode_death
from burla.protocol.job_messages import (
    FAULT_CHARS_MAX,
    FAULTS_TOLD_MAX,
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
        self._slow: LongCall | None = None
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
        if kind is Kind.ERROR or kind is Kind.DEATH:
            self._failed += 1
            if len(self._faults) < FAULTS_TOLD_MAX:
                self._faults.append(_fault(run, frames, report, tries))

    def told(self) -> Tally | None:
        """Return what is to be told now, once; None: nothing."""
        if not self._durations and not self._failed:
            return None
        durations = tuple(self._durations.items())
        tally = Tally(durations, self._failed, tuple(self._faults), self._slow, self._busy_s)
        self._durations = {}
        self._failed, self._faults, self._slow, self._busy_s = 0, [], None, 0.0
        return tally


def _fault(run: Run, frames: Sequence[bytes], report: CellReport | None, tries: int) -> ToldFault:
    """Return what is told of a call that failed."""
    type_, text = ("", "") if report is None else report.told
    if run.kind is Kind.DEATH:
        type_, text, tries = _of_death(frames[0])
    elif not type_:
        type_ = "error"  # of the function: it could not be loaded
    name = type_.encode("utf-8", "replace")[:NAME_BYTES_MAX]
    words = text[:FAULT_CHARS_MAX].encode("utf-8", "replace")
    return ToldFault(run.lo, name, words, max(1, tries))


def _of_death(frame: bytes) -> tuple[str, str, int]:
    """Return type, text and tries of a call whose worker died, as its caller sees them."""
    try:
        death = decode_death(frame)
    except msgspec.DecodeError:
        return "WorkerDied", "", 1
    tries = max(1, death.deaths)
    if death.killed_for == TIMEOUT:
        return "CallTimeout", "it was killed", tries
    if (memory := death.memory) is not None:
        return "OutOfMemory", f"it used {memory.used / (1 << 30):.3g} GB", tries
    last = f": {death.last_words}" if death.last_words else ""
    return "WorkerDied", f"{death.how} {death.code}{last}", tries
