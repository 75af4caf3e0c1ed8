"""All data of the keeper of detached jobs, and what each of its parts does with it. Pure."""

from collections.abc import Callable, Sequence

from msgspec import Struct

from burla.protocol import messages as m
from burla.protocol.store_messages import StoredJob
from burla.scheduler.core.store_limits import Limits

from .effects import Effect, Log, SaveFacts, ToCore
from .kept_job import KeptJob

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
        self.now_s = self.wall_s = 0.0
        self.room = 1 << 62  # bytes that are free on the disk
        self.sizes: dict[str, int] = {}  # by tenant: bytes of its jobs
        self.pending = 0  # bytes that are being written
        self.damaged: dict[bytes, int] = {}  # by job: records that were lost
        self.users: dict[bytes, str] = {}  # as whom the core knows the keeper -> public key
        self.effects: list[Effect] = []

    def of(self, tenant: str, job_id: bytes) -> KeptJob | None:
        """Return a job of a tenant; of another's it learns no more than of one that never was."""
        job = self.jobs.get(job_id)
        return job if job is not None and job.opened.tenant == tenant else None

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
        self.pending += job.pending[-1].size

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
        if self.pending + size > PENDING_MAX and self.pending:
            return "the disk of the scheduler's store is slower than the nodes"
        return ""

    def is_full(self, size: int) -> bool:
        """Return whether so much more would fill the disk."""
        return self.room - self.pending - size < FREE_MIN

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
        assert self.pending == sum(e.size for job in self.jobs.values() for e in job.pending)
