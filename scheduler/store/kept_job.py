"""One detached job: what of it is on the disk, on its way there, and with the core. Pure data.

What is to be written waits in `pending` until the shell says that it is on the disk; only then it
counts. Inputs go to the core in batches, as far as its window has room, from memory if they have
just been written, else from the disk.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct, field
from msgspec.structs import replace

from burla.protocol import messages as m
from burla.protocol.arriving import Arriving
from burla.protocol.ranges import Range, Ranges
from burla.protocol.store_messages import ENDED, StoredJob, StoredState, StoreEnded, StoreOpened
from burla.protocol.stored_records import SEGMENT_BYTES, pack

from .effects import Append, Log, WriteBlob
from .leaves import Coming
from .progress import Progress
from .recovery import BatchAt, Found, Place

WINDOW_BYTES = 32 << 20  # that the core holds of batches that have not all their outcomes
WINDOW_SIZE = m.JOB_INPUT_WINDOW  # likewise with their big leaves, which it does not hold
WINDOW_INPUTS = m.JOB_INPUT_COUNT


class Pending(NamedTuple):
    """What is being written."""

    said: m.Message
    payload: Sequence[bytes]
    log: Log | None  # None: it is part of a blob
    segment: int
    at: int
    size: int  # of the record
    is_last: bool = False  # of a blob


class Feeding(Struct):
    """Which inputs the core has."""

    at: int = 0  # which of the batches is next
    left: dict[int, int] = field(default_factory=dict)  # by place in the list, without outcome
    size: int = 0  # bytes of those
    held: int = 0  # of these, bytes that the core holds
    inputs: int = 0
    is_loading: bool = False  # the next one is being read
    has_end: bool = False  # the core knows how many there are

    def has_room(self, batch: BatchAt) -> bool:
        """Return whether one more batch may go; one always may."""
        if not self.left:
            return True
        is_held = self.held + batch.held_bytes() <= WINDOW_BYTES
        return is_held and self.size < WINDOW_SIZE and self.inputs < WINDOW_INPUTS

    def count(self, batch: BatchAt, by: int) -> None:
        """Count the bytes of a batch that has gone, or of one whose outcomes are here."""
        self.size += by * batch.size
        self.held += by * batch.held_bytes()


class Opening(Struct):
    """What the core is told when it gets a job, besides what is known of it here."""

    function: list[bytes]
    at: tuple[int, int] = (0, 0)  # where it lies with the environment, in the first segment
    is_light: bool = False  # they are on the disk only
    is_awaited: bool = False  # they are being read
    was_before: bool = False  # it had the job already: nodes may hold something of it


class Came(Struct):
    """What has come of a lease, also what is still being written: all up to here, in order.

    What comes behind a gap is passed over: its node tells everything again when it has connected.
    If that does not come, it is gone: a disk has lost what was on it.
    """

    seq: int = 0  # of outcomes
    output: int = 0  # chunks
    gap_s: float | None = None  # since when what comes is behind a gap
    next_seq: int = 0  # of outcomes, the first behind it; 0: it is a gap of output
    next_output: int = 0


class Upload(Struct):
    """A job on its way in."""

    source: bytes = b""  # who sends its inputs
    unheard_s: float | None = None  # since when that is gone
    told: int = -1  # inputs that it knows to be on the disk
    before: int = 0  # of an adopted job: messages about its outcomes that have come
    blobs: dict[bytes, Arriving] = field(default_factory=dict)  # that are not whole on the disk
    coming: Coming = field(default_factory=Coming)  # of its big inputs
    waiting: deque[BatchAt] = field(default_factory=deque)  # batches behind what is not whole


class KeptJob:
    """One detached job."""

    def __init__(self, opened: StoreOpened, spec: m.OpenJob, function: Sequence[bytes]) -> None:
        """Begin a job of which nothing is on the disk yet."""
        self.id = opened.job
        self.opened, self.spec, self.opening = opened, spec, Opening(list(function))
        self.state = StoredState.WAITING
        self.is_kept = False  # all of it is on the disk, and its caller may go
        self.said = ""  # why it waits, or has failed
        self.notice = ""  # what else is said of it, by this life of the scheduler
        self.ended_s = 0.0
        self.upload = Upload()
        self.batches: list[BatchAt] = []
        self.end = 0  # index of the next input, also of those that are being written
        self.total: int | None = None
        self.end_said: StoreEnded | None = None  # is written, or being written
        self.progress = Progress()
        self.came: dict[bytes, Came] = {}  # by lease
        self.places = {log: Place() for log in Log}  # where the next record goes
        self.written = {log: (0, 0) for log in Log}  # what is on the disk ends here
        self.is_new = dict.fromkeys(Log, True)  # what lies behind that is to go
        self.pending: deque[Pending] = deque()
        self.blocked = ""  # why nothing can be written
        self.again_s = 0.0  # when that is tried again
        self.peer = b""  # as whom the core knows it; empty: it does not
        self.output_by_s: float | None = None  # output that is missing at the end is awaited
        self.feeding = Feeding()

    @classmethod
    def restored(cls, found: Found) -> "KeptJob":
        """Return a job as it was found on the disk."""
        assert found.opened is not None
        assert found.spec is not None
        job = cls(found.opened, found.spec, ())
        job.opening.at, job.opening.is_light = found.spec_at, True
        job.total, job.progress = found.total, found.progress
        job.batches = found.batches
        job.places = found.places
        job.written = {log: (place.segment, place.at) for log, place in found.places.items()}
        job.end = found.batches[-1].stop if found.batches else 0
        job.opening.was_before = True
        job.upload.blobs = {
            blob.digest: Arriving(blob.digest, blob.size)
            for blob in job.spec.blobs
            if blob.digest not in found.blobs
        }
        job.await_pieces()
        job.is_kept = job.is_whole() or job.progress.ended is not None
        job.forget_pending()
        return job

    def await_pieces(self) -> None:
        """Let batches wait of which pieces are missing, and what is behind them."""
        done = self.progress.done
        for at, batch in enumerate(self.batches):
            if not batch.is_whole() and not done.covers(batch.start, batch.stop):
                self.upload.waiting.extend(self.batches[at:])
                del self.batches[at:]
                break
        for batch in self.upload.waiting:
            self.upload.coming.add([leaf for leaf in batch.leaves if leaf.missing])

    # --- what it is ---

    def is_over(self) -> bool:
        """Return whether it has ended."""
        return self.state in ENDED

    @property
    def is_ended(self) -> bool:
        """Whether nothing more is called of it, or taken: that it is over is being written."""
        return self.end_said is not None

    def goes_on(self) -> bool:
        """Return whether a call that fails is no more than the outcome of its input."""
        return self.spec.policy is not None and self.spec.policy.goes_on

    def is_whole(self) -> bool:
        """Return whether all that it needs is on the disk: its caller may go."""
        return self.has_all_inputs() and not self.upload.blobs and not self.upload.waiting

    def has_all_inputs(self) -> bool:
        """Return whether all inputs are on the disk; of an adopted job those without outcome."""
        if self.spec.adopted:
            return self.total is not None and (self.is_kept or not self.missing())
        return self.total is not None and self.stored() == self.total

    def slim(self) -> None:
        """Let go of what is needed no more once it has ended: it is on the disk."""
        self.lighten()
        self.came = {}

    def lighten(self) -> None:
        """Let go of what only the core needs: it is read again when that gets the job."""
        if not self.opening.is_light:
            self.spec = replace(self.spec, environment=b"")
            self.opening.function, self.opening.is_light = [], True

    def is_written_down(self) -> bool:
        """Return whether its function is on the disk."""
        return self.written[Log.INPUTS] > (0, 0) and not any(
            isinstance(entry.said, m.OpenJob) for entry in self.pending
        )

    def stored(self) -> int:
        """Return up to which index all inputs are on the disk."""
        return self.batches[-1].stop if self.batches else 0

    def missing(self) -> list[Range]:
        """Return inputs that are gone from the disk and have no outcome."""
        there = Ranges((batch.start, batch.stop) for batch in self.batches)
        gaps = there.missing(0, self.total if self.total is not None else self.stored())
        return [part for lo, hi in gaps for part in self.progress.done.missing(lo, hi)]

    def size(self) -> int:
        """Return how many bytes it takes, with those that are written or were announced."""
        named = sum(blob.size for blob in self.spec.blobs) + self.upload.coming.size
        return named + sum(place.size for place in self.places.values())

    def facts(self, keep_s: float, damaged: int = 0) -> StoredJob:
        """Return how it is, for its user."""
        return StoredJob(
            job=self.id,
            name=self.spec.name,
            state=self.state if self.is_kept or self.is_over() else StoredState.SENT,
            made_s=self.opened.made_s,
            ended_s=self.ended_s,
            until_s=self.ended_s + keep_s if self.is_over() else 0.0,
            total=self.total,
            done=self.progress.done.total,
            failed=self.progress.failed,
            size=self.size(),
            said=self.blocked or self.said,
            key=self.opened.key,
            policy=self.spec.policy,
            note=self.spec.detached or b"",
            damaged=damaged,
            notice=self.notice,
        )

    # --- writing ---

    def append(self, log: Log, said: m.Message, payload: Sequence[bytes] = ()) -> Append:
        """Return what writes one more record."""
        frames = pack(said, payload)
        size = sum(map(len, frames))
        place = self.places[log]
        if place.at >= SEGMENT_BYTES:
            place.segment, place.at = place.segment + 1, 0
        is_first, self.is_new[log] = self.is_new[log], False
        write = Append(self.id, log, place.segment, place.at, frames, is_first)
        self.pending.append(Pending(said, payload, log, place.segment, place.at, size))
        place.at += size
        place.size += size
        return write

    def append_blob(
        self, said: m.BlobPiece, frames: Sequence[bytes], *, is_last: bool
    ) -> WriteBlob:
        """Return what writes a piece of a blob."""
        self.pending.append(Pending(said, (), None, 0, 0, 0, is_last))
        tenant = self.opened.tenant
        return WriteBlob(self.id, tenant, said.digest, said.start, frames, is_last)

    def take_written(self) -> Pending:
        """Return what is on the disk now."""
        entry = self.pending.popleft()
        if entry.log is not None:
            self.written[entry.log] = entry.segment, entry.at + entry.size
        return entry

    def rewind(self) -> None:
        """Forget what could not be written: what comes next is written where that was to go."""
        assert not self.pending
        for log, (segment, at) in self.written.items():
            place = self.places[log]
            place.size -= max(0, place.at - at) if place.segment == segment else 0
            place.segment, place.at = segment, at
            self.is_new[log] = True
        self.end = self.stored()
        self.forget_pending()

    def forget_pending(self) -> None:
        """Take only for come what is on the disk."""
        leases = self.progress.leases
        self.came = {lease: Came(seen.seq, seen.output) for lease, seen in leases.items()}

    # --- feeding the core ---

    def next_batch(self) -> BatchAt | None:
        """Return the batch that the core gets next, as far as it has room; skip what is done."""
        feeding = self.feeding
        while feeding.at < len(self.batches):
            batch = self.batches[feeding.at]
            if not self.progress.done.covers(batch.start, batch.stop):
                return batch if feeding.has_room(batch) else None
            feeding.at += 1
        return None

    def fed(self, batch: BatchAt) -> None:
        """Take note that the core gets the next batch."""
        done = sum(hi - lo for lo, hi in self.progress.done.common(batch.start, batch.stop))
        left = batch.stop - batch.start - done
        self.feeding.left[self.feeding.at] = left
        self.feeding.count(batch, 1)
        self.feeding.inputs += left
        self.feeding.at += 1

    def free(self, fresh: Sequence[Range]) -> None:
        """Take note of outcomes that are on the disk: what they are of need not be kept."""
        feeding = self.feeding
        for lo, hi in fresh:
            at = bisect_right(self.batches, lo, key=lambda batch: batch.start) - 1
            while lo < hi and 0 <= at < len(self.batches):
                stop = min(hi, self.batches[at].stop)
                if at in feeding.left and lo < stop:
                    feeding.left[at] -= stop - lo
                    feeding.inputs -= stop - lo
                    if feeding.left[at] <= 0:
                        feeding.count(self.batches[at], -1)
                        del feeding.left[at]
                lo, at = max(lo, stop), at + 1

    def check(self) -> None:
        """Assert what holds between any two calls. Costs O(state): for tests."""
        feeding, done = self.feeding, self.progress.done
        assert feeding.size == sum(self.batches[at].size for at in feeding.left)
        assert feeding.held == sum(self.batches[at].held_bytes() for at in feeding.left)
        assert feeding.inputs == sum(feeding.left.values())
        for at, left in feeding.left.items():
            batch = self.batches[at]
            common = sum(hi - lo for lo, hi in done.common(batch.start, batch.stop))
            assert left == batch.stop - batch.start - common > 0
        if not self.pending and not self.blocked:
            ends = {log: (place.segment, place.at) for log, place in self.places.items()}
            assert ends == self.written or not all(self.is_new.values())
        if self.state is StoredState.DONE:
            assert done.total == self.total
