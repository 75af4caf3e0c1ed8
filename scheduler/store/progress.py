"""How far a detached job is: all that follows from the records of its outcomes. Pure.

Whatever is on the disk is noted here, in its order: as it is written, and again after a restart. So
both know the same.
"""

from collections.abc import Iterable

from msgspec import Struct, field

from burla.protocol import messages as m
from burla.protocol.codec import WireError, read_runs
from burla.protocol.detach_messages import GivenBefore
from burla.protocol.ranges import Range, Ranges
from burla.protocol.store_messages import StoreEnded

OutcomeRecord = (
    m.JobOutcomes | m.JobOutput | m.CallLost | m.JobFailed | m.LeaseLost | GivenBefore | StoreEnded
)


class LeaseSeen(Struct):
    """What has come from one lease, and is on the disk.

    What is behind a gap does not count: the node may still have what is missing, as after a crash
    that has damaged what was being written, and tells all of it again.
    """

    seq: int = 0  # of its outcomes, all up to here
    output: int = 0  # chunks of its output, all up to here
    output_due: int = 0  # chunks that went ahead of outcomes that are here
    is_lost: bool = False  # nothing more comes
    gathering: m.Fragment | None = None  # the next fragment that is due: its index, `at` and size


class Progress(Struct):
    """All outcomes of one job."""

    done: Ranges = field(default_factory=Ranges)
    failed: int = 0  # inputs whose outcome is an exception or a death
    leases: dict[bytes, LeaseSeen] = field(default_factory=dict)
    tried: dict[int, m.Try] = field(default_factory=dict)  # calls that have failed, without outcome
    failure: m.JobFailed | None = None
    ended: StoreEnded | None = None

    def lease(self, lease_id: bytes) -> LeaseSeen:
        """Return what is known of a lease."""
        return self.leases.setdefault(lease_id, LeaseSeen())

    def note(self, said: OutcomeRecord, size: int = 0) -> list[Range]:
        """Take note of a record; return the indices whose outcomes are new.

        `size` is that of its payload.
        """
        match said:
            case m.JobOutcomes():
                return self._note_outcomes(said, size)
            case m.JobOutput():
                lease = self.lease(said.lease)
                if said.number <= lease.output + 1:
                    lease.output = max(lease.output, said.number + len(said.streams) - 1)
            case m.CallLost():
                return self._finish(said.index, said.index + 1, is_failure=True)
            case GivenBefore():
                return [
                    new for part in said.ranges for new in self._finish(*part, is_failure=False)
                ]
            case m.JobFailed():
                self.failure = said
            case m.LeaseLost():
                self.lease(said.lease).is_lost = True
            case StoreEnded():
                self.ended = said
        return []

    def _note_outcomes(self, said: m.JobOutcomes, size: int) -> list[Range]:
        lease = self.lease(said.lease)
        if said.seq == lease.seq + 1:
            lease.seq = said.seq
        lease.output_due = max(lease.output_due, said.output)
        for one in said.tried:
            known = self.tried.get(one.index)
            if one.index not in self.done and (known is None or known.tries < one.tries):
                self.tried[one.index] = one
        if said.fragment is not None and not self._gather(lease, said.fragment, size):
            return []
        fresh: list[Range] = []
        for lo, hi, is_failure in runs_of(said):
            fresh += self._finish(lo, hi, is_failure=is_failure)
        return fresh

    def _gather(self, lease: LeaseSeen, fragment: m.Fragment, size: int) -> bool:
        """Take note of a fragment; return whether it is the last one, and none is missing."""
        due = lease.gathering
        lease.gathering = None
        if fragment.at and due != fragment:
            return False
        if fragment.at + size >= fragment.size:
            return fragment.at + size == fragment.size
        lease.gathering = m.Fragment(fragment.index, fragment.at + size, fragment.size)
        return False

    def _finish(self, lo: int, hi: int, *, is_failure: bool) -> list[Range]:
        fresh = self.done.missing(lo, hi)
        for start, stop in fresh:
            self.done.add(start, stop)
            if is_failure:
                self.failed += stop - start
        if self.tried:
            for index in [index for index in self.tried if lo <= index < hi]:
                del self.tried[index]
        return fresh

    def lacks_output(self) -> Iterable[tuple[bytes, LeaseSeen]]:
        """Return the leases of which output is missing that went ahead of outcomes."""
        return [
            (lease, seen)
            for lease, seen in self.leases.items()
            if seen.output < seen.output_due and not seen.is_lost
        ]


def runs_of(said: m.JobOutcomes) -> list[tuple[int, int, bool]]:
    """Return the ranges of outcomes, and whether each is a failure; nothing if they are no such."""
    if not said.runs:
        return []
    try:
        rows = read_runs(said.runs)
    except WireError:
        return []
    return [
        (run.lo, run.hi, run.kind in (m.Kind.ERROR, m.Kind.DEATH))
        for run, _, _ in rows
        if run.lo < run.hi
    ]
