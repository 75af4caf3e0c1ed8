"""All data of the keeper of detached jobs, and what each of its parts does with it. Pure."""

from collections.abc import Callable, Sequence

from msgspec import Struct

from burla.protocol import messages as m
from burla.protocol.store_messages import StoredJob
from burla.scheduler.core.store_limits import Limits

from .effects import Effect, Log, SaveFacts, ToCore
from .kept_job import KeptJob, Pending
from .leaves import Line

FREE_MIN = 256 << 20  # bytes that are left free on the disk
PENDING_MAX = 96 << 20  # bytes of outcomes that are being written, of all jobs
AGAIN_S = 5.0  # what could not be written is tried again after so long


class Ways(Struct, frozen=True):
    """What the shell knows and the keeper has to ask."""

    new_id: Callable[[], bytes]  # makes 16 random bytes
    tenant_of: Callable[[str], str]  # whose a public key is
    keys_of: Callable[[str], Sequence[str]]  # the keys of a tenant that count
    is_there: Callable[[bytes], bool]  # whether a client is connected, or may come back


class State:
    """Detached jobs, and what they take."""

    def __init__(self, limits: Limits, ways: Ways) -> None:
        """Start without jobs."""
        self.limits, self.ways = limits, ways
        self.jobs: dict[bytes, KeptJob] = {}
        self.live: dict[bytes, KeptJob] = {}  # those that are not over
        self.counts: dict[str, int] = {}  # by tenant: jobs
        self.with_core: dict[str, dict[bytes, KeptJob]] = {}  # by tenant: those that the core has
        self.blobs: dict[tuple[str, bytes], dict[bytes, KeptJob]] = {}  # jobs that name each
        self.now_s = self.wall_s = 0.0
        self.room = 1 << 62  # bytes that are free on the disk
        self.sizes: dict[str, int] = {}  # by tenant: bytes of its jobs
        self.pending_of = dict.fromkeys(Log, 0)  # bytes that are being written
        self.line = Line()  # whose big inputs are asked for
        self.damaged: dict[bytes, int] = {}  # by job: records that were lost
        self.users: dict[bytes, str] = {}  # as whom the core knows the keeper -> public key
        self.effects: list[Effect] = []

    def of(self, tenant: str, job_id: bytes) -> KeptJob | None:
        """Return a job of a tenant; of another's it learns no more than of one that never was."""
        job = self.jobs.get(job_id)
        return job if job is not None and self.is_of(tenant, job) else None

    def is_of(self, tenant: str, job: KeptJob) -> bool:
        """Return whether a job is a tenant's, also if its key had no user when it was detached."""
        return job.opened.tenant == tenant or self.ways.tenant_of(job.opened.key) == tenant

    # --- which jobs there are ---

    def enter(self, job: KeptJob) -> None:
        """Take a job."""
        tenant = job.opened.tenant
        self.jobs[job.id] = self.live[job.id] = job
        self.counts[tenant] = self.counts.get(tenant, 0) + 1
        self.count(tenant, job.size())
        self.line.size += job.upload.coming.size
        for blob in job.spec.blobs:
            self.blobs.setdefault((tenant, blob.digest), {})[job.id] = job

    def leave(self, job: KeptJob) -> list[bytes]:
        """Forget a job; return the blobs that no other one names."""
        tenant = job.opened.tenant
        del self.jobs[job.id]
        self.live.pop(job.id, None)
        self.damaged.pop(job.id, None)
        self.counts[tenant] -= 1
        if not self.counts[tenant]:
            del self.counts[tenant]
        self.count(tenant, -job.size())
        self.line.size -= job.upload.coming.size
        self.line.wanting.pop(job.id, None)
        self.line.note(job.id, 0)
        for entry in job.pending:
            self.settle(entry)
        unnamed = []
        for digest in dict.fromkeys(blob.digest for blob in job.spec.blobs):
            named = self.blobs[tenant, digest]
            del named[job.id]
            if not named:
                del self.blobs[tenant, digest]
                unnamed.append(digest)
        return unnamed

    def give_to_core(self, job: KeptJob, peer: bytes) -> None:
        """Take note as whom the core knows a job; empty: it does not."""
        job.peer = peer
        tenant = job.opened.tenant
        if peer:
            self.with_core.setdefault(tenant, {})[job.id] = job
        elif (mine := self.with_core.get(tenant)) is not None:
            mine.pop(job.id, None)
            if not mine:
                del self.with_core[tenant]

    def is_there(self, peer: bytes) -> bool:
        """Return whether a client is connected, or may come back."""
        return self.ways.is_there(peer)

    def facts(self, job: KeptJob) -> StoredJob:
        """Return how a job is."""
        return job.facts(self.limits.keep_s, self.damaged.get(job.id, 0))

    def save(self, job: KeptJob) -> None:
        """Write down how a job is, for who looks for it."""
        self.effects.append(SaveFacts(job.opened.tenant, self.facts(job)))

    def to_core(self, job: KeptJob, said: m.Message, payload: Sequence[bytes] = ()) -> None:
        """Say something of a job to the core, if that has it."""
        if job.peer:
            self.effects.append(ToCore(job.peer, self.users[job.peer], said, payload))

    # --- writing ---

    def write(self, job: KeptJob, log: Log, said: m.Message, payload: Sequence[bytes] = ()) -> bool:
        """Have a record written; return False if there is no room: then it comes again."""
        if not job.blocked and (why := self.why_full(job, sum(map(len, payload)))):
            self.block(job, why)
        if job.blocked:
            return False
        self.append(job, log, said, payload)
        return True

    def append(
        self, job: KeptJob, log: Log, said: m.Message, payload: Sequence[bytes] = ()
    ) -> None:
        """Have a record written, whatever room there is."""
        before = job.size()
        self.effects.append(job.append(log, said, payload))
        self.count(job.opened.tenant, job.size() - before)
        self.pending_of[log] += job.pending[-1].size

    def settle(self, entry: Pending) -> None:
        """Take note that something is being written no more."""
        if entry.log is not None:
            self.pending_of[entry.log] -= entry.size

    def block(self, job: KeptJob, why: str, for_s: float = AGAIN_S) -> None:
        """Take no outcomes of a job for a while: its nodes keep them, and tell them again."""
        job.blocked, job.again_s = why, self.now_s + for_s

    def why_full(self, job: KeptJob, size: int) -> str:
        """Return why nothing more of a job can be written now; empty: it can."""
        if not size:
            return ""
        if self.is_full(size):
            return "the disk of the scheduler's store is full"
        if self.sizes.get(job.opened.tenant, 0) + size > self.limits.bytes_max:
            return f"{self.over_quota(job.opened.tenant)}: delete others, and it goes on"
        pending = self.pending_of[Log.OUTCOMES]
        if pending + size > PENDING_MAX and pending:
            return "the disk of the scheduler's store is slower than the nodes"
        return ""

    def is_full(self, size: int) -> bool:
        """Return whether so much more would fill the disk."""
        awaited = sum(self.pending_of.values()) + self.line.size
        return self.room - awaited - size < FREE_MIN

    def over_quota(self, tenant: str) -> str:
        """Say that a user has too much in the store."""
        have, most = self.sizes.get(tenant, 0), self.limits.bytes_max
        return (
            f"over your quota of bytes of detached jobs on this cluster: {most:,}, of which yours"
            f" take {have:,}"
        )

    def count(self, tenant: str, size: int) -> None:
        """Count bytes of a tenant."""
        self.sizes[tenant] = self.sizes.get(tenant, 0) + size
        if not self.sizes[tenant]:
            del self.sizes[tenant]

    def count_coming(self, job: KeptJob, size: int) -> None:
        """Count bytes of big inputs that are to come, which a job counts already."""
        self.line.size += size
        self.count(job.opened.tenant, size)

    def await_no_more(self, job: KeptJob) -> None:
        """Take nothing more of the big inputs of a job that has ended."""
        self.count_coming(job, -job.upload.coming.size)
        job.upload.coming.clear()
        self.line.wanting.pop(job.id, None)
        self.line.note(job.id, job.upload.coming.under_way())

    def take_effects(self) -> list[Effect]:
        """Return what is to be done."""
        effects, self.effects = self.effects, []
        return effects

    def check(self) -> None:
        """Assert what holds between any two calls. Costs O(state): for tests."""
        sizes: dict[str, int] = {}
        for job in self.jobs.values():
            job.check()
            tenant = job.opened.tenant
            sizes[tenant] = sizes.get(tenant, 0) + job.size()
        assert {tenant: size for tenant, size in sizes.items() if size} == self.sizes
        for log, pending in self.pending_of.items():
            entries = [e for job in self.jobs.values() for e in job.pending if e.log is log]
            assert pending == sum(entry.size for entry in entries)
        coming = {job.id: job.upload.coming for job in self.jobs.values()}
        assert self.line.size == sum(one.size for one in coming.values())
        under_way = {job: one.under_way() for job, one in coming.items() if one.under_way()}
        assert (self.line.under_way, self.line.total) == (under_way, sum(under_way.values()))
        tenants = [job.opened.tenant for job in self.jobs.values()]
        assert self.counts == {tenant: tenants.count(tenant) for tenant in tenants}
        assert self.live == {job.id: job for job in self.jobs.values() if not job.is_over()}
        known = {job.id for mine in self.with_core.values() for job in mine.values()}
        assert known == {job.id for job in self.jobs.values() if job.peer}
        named = {(j.opened.tenant, b.digest) for j in self.jobs.values() for b in j.spec.blobs}
        assert named == self.blobs.keys()
