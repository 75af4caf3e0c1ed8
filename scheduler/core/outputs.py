"""What is kept of the output of jobs, for who reads it later. Pure, and bounded.

Of a job there are its first part and its last one, in chunks as nodelets sent them, and numbered:
their places. Nothing here is looked into. What has been put into the file stays here as well, as
long as there is room: an open job is always here.
"""

from collections import deque
from collections.abc import Iterator, Sequence

from msgspec import Struct, field

from burla.protocol.messages import Output

FIRST_BYTES, LAST_BYTES = 128 << 10, 384 << 10  # of one job, if there are few
BYTES_MAX = 32 << 20  # of all jobs in memory; with many open ones each has less
FIRST_SHARE = 4  # one of so many bytes of a job are of its beginning
PART_BYTES = 32 << 10  # what is printed at once is cut into parts of so many
PART_COST, CHUNK_COST = 300, 60  # bytes that they take besides what was printed
LEASES_MAX = 4096  # of one job, whose chunks are known when they come again: the last ones
UNFILED_MAX = 4 << 20  # bytes of one job, before what is left out anyway is looked for
WRITE_S = 0.2  # between two looks at what is to be filed: so much a scheduler that is killed loses
# Places that are left out then: who follows may have got some that the file has not.
PLACES_APART = 1 << 30


class Part(Struct, frozen=True):
    """Chunks of one lease."""

    place: int  # of the first one, in the output of the job
    lease: bytes
    number: int  # of the last chunk, as its nodelet counts them
    node: str
    at_s: float
    streams: tuple[int, ...]
    inputs: tuple[tuple[int, int], ...]  # per chunk, or none
    chunks: tuple[bytes, ...]
    bytes: int  # of all chunks

    @property
    def stop(self) -> int:
        """The place behind its last chunk."""
        return self.place + len(self.chunks)

    @property
    def cost(self) -> int:
        """How many bytes it takes here."""
        return PART_COST + CHUNK_COST * len(self.chunks) + self.bytes


class Kept(Struct, eq=False):
    """The output of one job."""

    job: bytes
    tenant: str
    first: list[Part] = field(default_factory=list)
    last: deque[Part] = field(default_factory=deque)
    first_cost: int = 0
    last_cost: int = 0
    stop: int = 0  # the place of the next chunk
    lost_bytes: int = 0  # that are left out between the two
    numbers: dict[bytes, int] = field(default_factory=dict)  # by lease: the last chunk that is here
    unfiled: list[Part] = field(default_factory=list)
    unfiled_cost: int = 0
    is_new: bool = True  # the file may have something else of this name

    @property
    def cost(self) -> int:
        """How many bytes it takes here."""
        return self.first_cost + self.last_cost

    @property
    def gap(self) -> tuple[int, int]:
        """The places that are left out."""
        begin = self.first[-1].stop if self.first else 0
        return begin, self.last[0].place if self.last else self.stop

    @property
    def parts(self) -> list[Part]:
        """All that is here, in order."""
        return [*self.first, *self.last]

    def add(self, part: Part, first_max: int) -> None:
        """Put a part behind the others."""
        follows = not self.last and part.place == self.stop
        self.stop = part.stop
        if follows and (not self.first or self.first_cost + part.cost <= first_max):
            self.first.append(part)
            self.first_cost += part.cost
        else:
            self.last.append(part)
            self.last_cost += part.cost

    def trim(self, bytes_max: int) -> None:
        """Let go of what is in the middle until it takes so much, or has but two parts."""
        first_max = bytes_max // FIRST_SHARE
        while self.first_cost > first_max and len(self.first) > 1 and self.last:
            part = self.first.pop()
            self.first_cost -= part.cost
            self.lost_bytes += part.bytes
        while self.cost > bytes_max and len(self.last) > 1:
            part = self.last.popleft()
            self.last_cost -= part.cost
            self.lost_bytes += part.bytes

    def note_unfiled(self, part: Part) -> None:
        """Note that the file has not got this one."""
        self.unfiled.append(part)
        self.unfiled_cost += part.cost
        if self.unfiled_cost > UNFILED_MAX:
            self.unfiled = self.to_file()
            self.unfiled_cost = sum(part.cost for part in self.unfiled)

    def to_file(self) -> list[Part]:
        """Return what is to be filed: what is left out meanwhile is not."""
        begin, end = self.gap
        return [part for part in self.unfiled if part.stop <= begin or part.place >= end]


class Filed(Struct, frozen=True):
    """What is to be put into the file of one job's output."""

    job: bytes
    tenant: str
    parts: tuple[Part, ...]
    gap: tuple[int, int]  # what has places in it is not kept any more
    lost_bytes: int  # in the gap
    is_new: bool  # what the file has of it goes first


class Follower(Struct):
    """Somebody who follows a job."""

    user: str  # its key
    until_s: float


class Reading(Struct, frozen=True):
    """What somebody wants to read of a job that is not here: it is in the file."""

    peer: bytes
    job: bytes
    tenant: str
    after: int
    is_over: bool


class Outputs(Struct, eq=False):
    """The output of all jobs."""

    open: dict[bytes, Kept] = field(default_factory=dict)  # that have printed something
    over: dict[bytes, Kept] = field(default_factory=dict)  # those that are still here, oldest first
    is_filed: bool = False  # somebody keeps what `take_unfiled` yields
    cost: int = 0
    # by job and topic
    followers: dict[bytes, dict[bytes, Follower]] = field(default_factory=dict)
    _unfiled: dict[bytes, Kept] = field(default_factory=dict)
    _look_s: float = 0.0

    def take(
        self,
        job: bytes,
        tenant: str,
        node: str,
        said: Output,
        payload: Sequence[bytes],
        now_s: float,
    ) -> list[Part]:
        """Keep what a nodelet says; return what of it is news."""
        kept = self.open.get(job)
        if kept is None:
            kept = self.open[job] = Kept(job, tenant)
        seen = kept.numbers.get(said.lease, 0) + 1 - said.number
        if seen >= len(payload):
            return []  # it was sent again
        streams, inputs = said.streams, said.inputs
        if seen > 0:
            streams, inputs, payload = streams[seen:], inputs[seen:], payload[seen:]
        number = said.number + max(0, seen) + len(payload) - 1
        if said.lease not in kept.numbers and len(kept.numbers) >= LEASES_MAX:
            del kept.numbers[next(iter(kept.numbers))]
        kept.numbers[said.lease] = number
        if len(inputs) != len(payload):
            inputs = ()
        parts = []
        for some in _cut(streams, inputs, payload):
            part = Part(kept.stop, said.lease, number, node, now_s, *some)
            self._add(kept, part)
            parts.append(part)
        return parts

    def _add(self, kept: Kept, part: Part) -> None:
        share = self._share()
        self.cost -= kept.cost
        kept.add(part, share // FIRST_SHARE)
        kept.trim(share)
        self.cost += kept.cost
        if self.is_filed:
            kept.note_unfiled(part)
            self._unfiled[kept.job] = kept
        if self.cost > BYTES_MAX:
            self._make_room()

    def _share(self) -> int:
        """Return how many bytes one job may take."""
        return min(FIRST_BYTES + LAST_BYTES, BYTES_MAX // max(1, len(self.open)))

    def _make_room(self) -> None:
        """Let go of jobs that are over, then of what open ones have too much of by now."""
        while self.over and self.cost > BYTES_MAX:
            self.forget(next(iter(self.over)))
        for _ in range(2):  # at a time: each part that comes brings this about
            if self.cost > BYTES_MAX and self.open:
                job = next(iter(self.open))
                kept = self.open[job] = self.open.pop(job)
                self.cost -= kept.cost
                kept.trim(self._share())
                self.cost += kept.cost

    # --- the life of a job ---

    def opened(self, job: bytes, tenant: str) -> None:
        """Note that a job is open; one that was before, of the same tenant, goes on."""
        kept = self.over.get(job)
        if kept is not None and kept.tenant == tenant:
            self.open[job] = self.over.pop(job)

    def ended(self, job: bytes, into: bytes | None) -> None:
        """Note that a job is over, and told as one with `into`; None: it is not kept."""
        kept = self.open.pop(job, None)
        if kept is None:
            return
        self.cost -= kept.cost
        if into == job:
            self.forget(job)
            self.over[job] = kept
            self.cost += kept.cost
            return
        if self._unfiled.get(job) is kept:
            del self._unfiled[job]
        if into is not None:
            self._fold(kept, into)

    def _fold(self, kept: Kept, into: bytes) -> None:
        """Put what a job has printed behind what equal ones had before it."""
        for part in kept.parts:
            known = self.over.get(into)  # unless there was no room for it
            if known is None:
                known = self.over[into] = Kept(into, kept.tenant)
            self._add(known, _moved(part, known.stop))

    def forget(self, job: bytes) -> None:
        """Let go of what is here of a job that is over; the file still gets it."""
        if (kept := self.over.pop(job, None)) is not None:
            self.cost -= kept.cost

    # --- the file ---

    def take_unfiled(self, now_s: float, *, at_once: bool = False) -> Iterator[Filed]:
        """Yield, now and then, what the file has not got yet; `at_once`: now."""
        if not self._unfiled or (now_s < self._look_s and not at_once):
            return
        self._look_s = now_s + WRITE_S
        unfiled, self._unfiled = self._unfiled, {}
        for kept in unfiled.values():
            known = (kept.job, kept.tenant, tuple(kept.to_file()), kept.gap, kept.lost_bytes)
            yield Filed(*known, kept.is_new)
            kept.unfiled, kept.unfiled_cost, kept.is_new = [], 0, False

    def restore(self, job: bytes, tenant: str, parts: Sequence[Part], lost_bytes: int) -> None:
        """Take up what an earlier scheduler filed of a job that was open."""
        if not parts or self.cost > BYTES_MAX // 2:
            return
        kept = self.over[job] = Kept(job, tenant, lost_bytes=lost_bytes, is_new=False)
        for part in parts:
            kept.add(part, FIRST_BYTES)
            kept.numbers[part.lease] = part.number
        kept.stop += PLACES_APART
        self.cost += kept.cost

    def check(self) -> None:
        """Assert that the sums are right. Costs O(state): for tests."""
        both = (*self.open.values(), *self.over.values())
        assert self.cost == sum(kept.cost for kept in both)
        for kept in both:
            assert kept.first_cost == sum(part.cost for part in kept.first)
            assert kept.last_cost == sum(part.cost for part in kept.last)
            places = [at for part in kept.parts for at in (part.place, part.stop)]
            assert places == sorted(places), kept.job
            assert kept.gap[0] <= kept.gap[1] <= kept.stop
            assert sum(part.cost for part in kept.unfiled) == kept.unfiled_cost


Cut = tuple[tuple[int, ...], tuple[tuple[int, int], ...], tuple[bytes, ...], int]


def _cut(
    streams: tuple[int, ...], inputs: tuple[tuple[int, int], ...], payload: Sequence[bytes]
) -> Iterator[Cut]:
    """Yield chunks in parts that are not big: streams, inputs, chunks, bytes."""
    size = sum(map(len, payload))
    if size <= PART_BYTES:  # as nearly always
        yield streams, inputs, tuple(payload), size
        return
    chunks: list[tuple[int, bytes]] = []
    room = PART_BYTES
    for at, chunk in enumerate(payload):
        begin = 0
        while begin < len(chunk):
            piece = chunk[begin : begin + room]
            begin += len(piece)
            chunks.append((at, piece))
            room -= len(piece)
            if not room:
                yield _joined(chunks, streams, inputs)
                chunks, room = [], PART_BYTES
    if chunks:
        yield _joined(chunks, streams, inputs)


def _joined(
    chunks: list[tuple[int, bytes]],
    streams: tuple[int, ...],
    inputs: tuple[tuple[int, int], ...],
) -> Cut:
    whose = tuple(inputs[at] for at, _ in chunks) if inputs else ()
    pieces = tuple(piece for _, piece in chunks)
    return tuple(streams[at] for at, _ in chunks), whose, pieces, sum(map(len, pieces))


def _moved(part: Part, place: int) -> Part:
    """Return the same part at another place."""
    known = (part.lease, part.number, part.node, part.at_s, part.streams, part.inputs)
    return Part(place, *known, part.chunks, part.bytes)
