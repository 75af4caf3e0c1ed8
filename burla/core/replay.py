"""A detached job as it is read from the store of the scheduler: its outcomes, as they came. Pure.

What was written down comes again in its order: so outcomes and output are handed over as if they
came from the nodes now. Some may be there twice, and some of what was damaged is missing.
"""

from collections.abc import Sequence

from burla.protocol import messages as m, store_messages as sm
from burla.protocol.codec import WireError, unpack_runs
from burla.protocol.detach_messages import GivenBefore
from burla.protocol.mac import NOT_SEALED, is_sealed
from burla.protocol.ranges import Ranges
from burla.protocol.stored_records import scan

from .effects import Deliver, Fail, Finish, Part, Write
from .gathering import Gathering, Room, plain_room
from .session import loss_of

Said = Deliver | Write | Fail | Finish
_Records = m.JobOutcomes | m.JobOutput | m.CallLost | m.JobFailed | GivenBefore


class Replay:
    """One job, read from the beginning."""

    def __init__(self, job: bytes, secret: bytes, goes_on: bool, room: Room = plain_room) -> None:
        """Have nothing of it.

        Args:
            job: its id.
            secret: seals its outcomes; empty: they have no seals.
            goes_on: errors of calls are outcomes.
            room: makes the memory in which a big outcome is gathered.
        """
        self.done = Ranges()
        self.given = Ranges()  # of these, results that were given away before it was detached
        self._job, self._secret, self._goes_on, self._room = job, secret, goes_on, room
        self._gathering: dict[bytes, Gathering] = {}
        self._written: dict[bytes, Ranges] = {}  # by lease: chunks of output
        self._has_failed = False

    def take(self, part: bytes) -> list[Said]:
        """Return what to do about records, which are whole."""
        said: list[Said] = []
        for record in scan(lambda at, size: part[at : at + size]):
            message = record.message(_Records)
            if record.is_whole and message is not None and not self._has_failed:
                payload = record.frames(part[record.body_at : record.end])
                said += self._take(message, payload)
        return said

    def end(self, facts: sm.StoredJob) -> list[Said]:
        """Return what is to be done when all has been read of a job that has ended."""
        if self._has_failed:
            return []
        if facts.state is sm.StoredState.DONE and self.done.total == facts.total:
            return [Finish(self._job)]
        why = facts.said or f"its state is {facts.state}"
        return [Fail(self._job, "", f"the detached job has no further results: {why}")]

    def _take(self, message: m.Message, payload: list[bytes]) -> list[Said]:
        match message:
            case m.JobOutcomes():
                if self._secret and not is_sealed(self._secret, message, payload):
                    self._has_failed = True
                    return [Fail(self._job, "", NOT_SEALED.format(message.node or "?"))]
                return self._outcomes(message, payload)
            case m.JobOutput():
                return self._output(message, payload)
            case GivenBefore():
                for lo, hi in message.ranges:
                    for start, stop in self.done.missing(lo, hi):
                        self.done.add(start, stop)
                        self.given.add(start, stop)
                return []
            case m.CallLost():
                if message.index in self.done:
                    return []
                self.done.add(message.index, message.index + 1)
                part = Part(*loss_of(message, [(message.index, message.index + 1)]))
                return [Deliver(self._job, b"", 0, "", (part,), 1, 0)]
            case m.JobFailed():
                self._has_failed = True
                return [
                    Fail(self._job, message.argument, message.text, message.index, message.nodes)
                ]
            case _:
                return []

    def _outcomes(self, said: m.JobOutcomes, payload: list[bytes]) -> list[Said]:
        if said.fragment is not None:
            whole = self._gather(said, said.fragment, payload)
            if whole is None:
                return []
            payload = whole
        if not said.runs:
            return []
        try:
            runs = unpack_runs(said.runs, payload)
        except WireError:
            return []
        parts, inputs = [], 0
        for run, frames in runs:
            if not run.lo < run.hi or (run.kind != m.Kind.RESULTS and run.hi != run.lo + 1):
                continue
            fresh = self.done.missing(run.lo, run.hi)
            for lo, hi in fresh:
                self.done.add(lo, hi)
                inputs += hi - lo
            if fresh:
                parts.append(Part(run, tuple(fresh), frames))
            if fresh and not self._goes_on and run.kind in (m.Kind.ERROR, m.Kind.DEATH):
                self._has_failed = True
                break
        if not parts:
            return []
        told: list[Said] = [
            Deliver(self._job, said.lease, said.seq, said.node, tuple(parts), inputs, 0)
        ]
        return [*told, Finish(self._job)] if self._has_failed else told

    def _gather(
        self, said: m.JobOutcomes, fragment: m.Fragment, payload: Sequence[bytes]
    ) -> list[bytes] | None:
        """Return a big outcome if this is the last part of it, and none is missing."""
        size = sum(map(len, payload))
        if fragment.at == 0 and 0 < size < fragment.size:
            is_wanted = fragment.index not in self.done
            room = self._room(fragment.size) if is_wanted else None
            self._gathering[said.lease] = Gathering(fragment, room)
        gathering = self._gathering.get(said.lease)
        if gathering is None or not gathering.fits(fragment, size):
            self._gathering.pop(said.lease, None)
            return None
        gathering.add(payload)
        if not gathering.is_whole():
            return None
        del self._gathering[said.lease]
        return gathering.frames()

    def _output(self, said: m.JobOutput, chunks: list[bytes]) -> list[Said]:
        written = self._written.setdefault(said.lease, Ranges())
        told: list[Said] = []
        for lo, hi in written.missing(said.number, said.number + len(chunks)):
            written.add(lo, hi)
            new = slice(lo - said.number, hi - said.number)
            told.append(Write(self._job, said.lease, hi - 1, said.streams[new], chunks[new]))
        return told
