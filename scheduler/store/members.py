"""The keeper as a client of the core: who it is there, which jobs it opens, what it sends. Pure.

For each kind of caller (its key, Python, name) it is one client. The jobs of one user are opened in
the order in which they came; so many at once as the core has room for their inputs.
"""

from collections import Counter
from collections.abc import Sequence

from msgspec.structs import replace

from burla.protocol import VERSION, messages as m

from .effects import LoadBatch, LoadBlob, LoadSpec, Log, ToCore
from .ending import close, fail
from .kept_job import Came, Feeding, KeptJob
from .recovery import BatchAt
from .state import AGAIN_S, State

CORE_BYTES_MAX = 128 << 20  # of inputs of one user that the core has; then no further job begins
CORE_JOBS_MAX = 256  # likewise jobs
GAP_S = 5.0  # what does not come in this time after what follows it is lost
IDLE_S = 60.0  # that the keeper is somebody who has no jobs
REST_S = 60.0  # after all jobs of a cluster were ended
NO_KEY = "no key of its user counts at present: it goes on when one does"
PEER_BYTES = 256  # of the name of a connection inside the scheduler: no routing id is so long


class Members:
    """As whom the core knows the keeper."""

    def __init__(self) -> None:
        """Be nobody yet."""
        self._peers: dict[tuple[str, str, str, str], bytes] = {}
        self._idle_s: dict[bytes, float] = {}  # by peer: since when it has no job
        self._held: dict[str, tuple[int, float]] = {}  # by tenant: see `hold`
        self._refused: dict[str, tuple[float, str]] = {}  # by key: until when, and why

    def begin_next(self, state: State) -> None:
        """Let the core have further jobs, as far as it has room."""
        if not (waiting := [job for job in state.live.values() if may_begin(job)]):
            return
        awaited = (job for job in state.live.values() if job.opening.is_awaited)
        opening = Counter(job.opened.tenant for job in awaited)
        room: dict[str, list[int]] = {}  # by tenant: of jobs, of bytes
        for job in waiting:
            tenant = job.opened.tenant
            if (left := room.get(tenant)) is None:
                mine = state.with_core.get(tenant, {}).values()
                used = sum(one.feeding.size for one in mine)
                jobs = self._most(state, tenant) - len(mine) - opening[tenant]
                left = room[tenant] = [jobs, CORE_BYTES_MAX - used]
            if left[0] > 0 and left[1] > 0:
                self.open(state, job)
                left[0] -= 1
                left[1] -= job.feeding.size

    def hold(self, state: State, tenant: str) -> None:
        """Take note that the core has no room for more jobs of a tenant than it has now.

        After a while a few more are tried: nobody tells when there is room again.
        """
        self._held[tenant] = len(state.with_core.get(tenant, {})), state.now_s + AGAIN_S

    def _most(self, state: State, tenant: str) -> int:
        """Return how many jobs of a tenant the core may have."""
        most, until_s = self._held.get(tenant, (CORE_JOBS_MAX, 0.0))
        if most < CORE_JOBS_MAX and state.now_s >= until_s:
            most = min(CORE_JOBS_MAX, most + max(1, most // 4))
            self._held[tenant] = most, state.now_s + AGAIN_S
        if most >= CORE_JOBS_MAX:
            self._held.pop(tenant, None)
        return most

    def forget_idle(self, state: State) -> None:
        """Be nobody whose jobs are over: the core forgets who is silent."""
        busy = {job.peer for mine in state.with_core.values() for job in mine.values()}
        for who, peer in list(self._peers.items()):
            if peer in busy:
                self._idle_s.pop(peer, None)
            elif state.now_s >= self._idle_s.setdefault(peer, state.now_s) + IDLE_S:
                del self._peers[who], self._idle_s[peer]
                state.users.pop(peer, None)

    def open(self, state: State, job: KeptJob) -> None:
        """Let the core have a job; if it has it, it is to know what is on the disk."""
        if job.opening.is_light:
            job.opening.is_awaited = True
            state.effects.append(LoadSpec(job.id, *job.opening.at))
            return
        peer = self._peer_of(state, job)
        if not peer:
            close(state, job)
            state.block(job, self._why_nobody(state, job))
            return
        done = sorted(job.progress.done, key=lambda part: part[0] - part[1])[: m.RANGES_MAX]
        spec = replace(
            job.spec,
            resumed=job.opening.was_before,
            done=tuple(sorted(done)),
            tried=tuple(job.progress.tried.values())[: m.TRIED_MAX],
            digest=b"",  # its workers do not wait for another job: nobody is in a loop
            lazy=False,
        )
        state.give_to_core(job, peer)
        job.opening.was_before, job.feeding = True, Feeding()
        state.to_core(job, spec, job.opening.function)
        feed(state, job)

    def spec_loaded(
        self, state: State, job: KeptJob, spec: m.OpenJob | None, function: Sequence[bytes]
    ) -> None:
        """Take what the core is to have of a job; None: it is not there any more."""
        if not job.opening.is_awaited:
            return
        job.opening.is_awaited = False
        if spec is None:
            fail(state, job, "its function is damaged on the scheduler's disk")
        elif may_begin(job):
            job.spec, job.opening.function, job.opening.is_light = spec, list(function), False
            self.open(state, job)

    def _peer_of(self, state: State, job: KeptJob) -> bytes:
        opened = job.opened
        keys = self._keys(state, job)
        key = opened.key if opened.key in keys else next(iter(keys), None)
        if key is None:
            return b""
        who = (key, opened.python, opened.user, opened.host)
        if (peer := self._peers.get(who)) is None:
            session = state.ways.new_id()
            peer = self._peers[who] = (b"kept" + session).ljust(PEER_BYTES)
            state.users[peer] = key
            hello = m.ClientHello(
                protocol=m.PROTOCOL,
                version=VERSION,
                python=opened.python,
                session=session,
                user=opened.user,
                host=opened.host,
            )
            state.effects.append(ToCore(peer, key, hello))
        return peer

    def _keys(self, state: State, job: KeptJob) -> list[str]:
        """Return the keys under which a job may be opened now."""
        keys = state.ways.keys_of(job.opened.tenant)
        return [key for key in keys if self._refused.get(key, (0.0, ""))[0] <= state.now_s]

    def _why_nobody(self, state: State, job: KeptJob) -> str:
        whys = [self._refused.get(key) for key in state.ways.keys_of(job.opened.tenant)]
        return next((f"it is refused: {one[1]}" for one in whys if one is not None), NO_KEY)

    def lose(self, state: State, peer: bytes, why: str = "") -> None:
        """Go on under another key of the same user, if there is one.

        `why`: the key was refused, and is not tried again for a while.
        """
        self._peers = {who: one for who, one in self._peers.items() if one != peer}
        self._idle_s.pop(peer, None)
        key = state.users.pop(peer, None)
        if why and key is not None:
            self._refused[key] = state.now_s + AGAIN_S, why
        for mine in list(state.with_core.values()):
            for job in [job for job in mine.values() if job.peer == peer]:
                state.give_to_core(job, b"")
        self.begin_next(state)


def may_begin(job: KeptJob) -> bool:
    """Return whether the core could have a job that it has not."""
    if job.peer or job.opening.is_awaited or job.is_ended or job.blocked or job.upload.blobs:
        return False
    if job.spec.adopted and not job.is_kept:
        return False
    return job.is_written_down() and job.total != 0


def rest(state: State, peer: bytes, why: str) -> None:
    """Begin no job of one of us for a while."""
    for job in state.live.values():
        if job.peer == peer and not job.is_ended:
            job.said = ""
            state.block(job, why, REST_S)


def feed(state: State, job: KeptJob) -> None:
    """Give the core the next inputs, as far as there is room."""
    if not job.peer or job.is_ended or job.feeding.is_loading:
        return
    if (batch := job.next_batch()) is not None:
        job.feeding.is_loading = True
        place = (batch.number, batch.segment, batch.at, batch.end)
        state.effects.append(LoadBatch(job.id, *place))
    elif job.feeding.at == len(job.batches) and not job.feeding.has_end and job.has_all_inputs():
        job.feeding.has_end = True
        state.to_core(job, m.InputsEnd(job.id, job.total or 0))


def feed_now(state: State, job: KeptJob, said: m.Inputs, payload: Sequence[bytes]) -> None:
    """Give the core a batch that has just been written, if it is the next one."""
    if job.peer and not job.is_ended and not job.feeding.is_loading:
        batch = job.next_batch()
        if batch is not None and batch.number == said.batch:
            _feed_one(state, job, batch, said, payload)


def loaded(
    state: State, job: KeptJob, number: int, said: m.Inputs | None, payload: Sequence[bytes]
) -> None:
    """Take a batch that was read; None: it is not there any more."""
    if job.is_ended or not job.peer or not job.feeding.is_loading:
        return
    job.feeding.is_loading = False
    batch = job.next_batch()
    if said is None:
        fail(state, job, f"batch {number} of its inputs is damaged on the scheduler's disk")
    elif batch is not None and batch.number == number:
        _feed_one(state, job, batch, said, payload)
    feed(state, job)


def _feed_one(
    state: State, job: KeptJob, batch: BatchAt, said: m.Inputs, payload: Sequence[bytes]
) -> None:
    job.fed(batch)
    job.feeding.has_end |= said.total is not None
    state.to_core(job, said, payload)


def take(
    state: State, job: KeptJob, said: m.JobOutcomes | m.JobOutput, payload: Sequence[bytes]
) -> None:
    """Write down what has come of a lease, if it is new; what is on the disk is acknowledged."""
    came = job.came.setdefault(said.lease, Came())
    if isinstance(said, m.JobOutcomes):
        _take_outcomes(state, job, came, said, payload)
    else:
        _take_output(state, job, came, said, payload)


def _take_outcomes(
    state: State, job: KeptJob, came: Came, said: m.JobOutcomes, payload: Sequence[bytes]
) -> None:
    seen = job.progress.leases.get(said.lease)
    if seen is not None and said.seq <= seen.seq:
        state.to_core(job, m.AckOutcomes(said.lease, seen.seq))
    elif said.seq == came.seq + 1:
        if state.write(job, Log.OUTCOMES, said, payload):
            came.seq, came.gap_s = said.seq, None
    elif said.seq > came.seq and not job.blocked and came.gap_s is None:
        came.gap_s, came.next_seq, came.next_output = state.now_s, said.seq, 0


def _take_output(
    state: State, job: KeptJob, came: Came, said: m.JobOutput, payload: Sequence[bytes]
) -> None:
    seen = job.progress.leases.get(said.lease)
    last = said.number + len(said.streams) - 1
    if len(payload) != len(said.streams):
        return
    if seen is not None and last <= seen.output:
        state.to_core(job, m.AckOutput(said.lease, seen.output))
    elif said.number <= came.output + 1 <= last:
        skip = came.output + 1 - said.number
        new = replace(said, number=said.number + skip, streams=said.streams[skip:])
        if state.write(job, Log.OUTCOMES, new, payload[skip:]):
            came.output, came.gap_s = last, None
    elif last > came.output and not job.blocked and came.gap_s is None:
        came.gap_s, came.next_seq, came.next_output = state.now_s, 0, said.number


def look_for_gaps(state: State, job: KeptJob) -> bool:
    """Give up what does not come; return whether the core must know what is missing."""
    has_skipped = False
    for lease, came in job.came.items():
        if came.gap_s is None:
            continue
        if came.next_output:
            state.to_core(job, m.ReplayOutput(job.id, lease, came.output))
        if state.now_s < came.gap_s + GAP_S:
            continue
        seen = job.progress.lease(lease)
        if came.next_output:
            came.output = seen.output = came.next_output - 1
        else:
            came.seq = seen.seq = came.next_seq - 1
        came.gap_s, has_skipped = None, True
    return has_skipped


def want_blob(state: State, job: KeptJob, wanted: m.BlobWanted) -> None:
    """Have a part of a blob read that the core asks for."""
    if any(blob.digest == wanted.digest for blob in job.spec.blobs):
        part = (wanted.digest, wanted.start, wanted.stop)
        state.effects.append(LoadBlob(job.id, job.opened.tenant, *part))
