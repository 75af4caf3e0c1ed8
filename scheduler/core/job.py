"""A job: what its client asked for and was told. Pure data; where its inputs are is in work.py."""

from msgspec import Struct

from burla.protocol.messages import CallLost, JobFailed, OpenJob

from .lease import Lease, ReuseKey
from .quotas import FRAME_COST, JOB_COST, Charge, Usage
from .work import Work


def cost_of(spec: OpenJob, function: list[bytes]) -> int:
    """Return how many bytes a job takes here before it has inputs, for quotas."""
    frames = sum(map(len, function)) + FRAME_COST * len(function)
    return JOB_COST + len(spec.environment) + frames + sum([blob.size for blob in spec.blobs])


class FailedCall(Struct, frozen=True):
    """A call that has failed, and is to be called again."""

    tries: int  # that failed
    due_s: float  # when it may be called again
    since_s: float  # when the last one was told
    nodes: tuple[bytes, ...]  # where it failed


class Job:
    """One remote_parallel_map call."""

    def __init__(
        self,
        spec: OpenJob,
        function: list[bytes],
        owner: bytes,
        python: str,
        user: str,
        usage: Usage | None = None,
        *,
        tenant: str = "",
        opened_s: float = 0.0,
        cost: int | None = None,
    ) -> None:
        """Open a job; count it in `usage`.

        Args:
            spec: what the client said of it.
            function: payload frames.
            owner: the client session.
            python: minor version, "3.11".
            user: for people, and for shares.
            usage: of its tenant.
            tenant: whose quotas it is counted for.
            opened_s: when it came.
            cost: what `cost_of` says, if that is known.
        """
        self.spec = spec
        self.id = spec.job
        self.function = function
        self.owner, self.python = owner, python
        self.user, self.tenant = user, tenant
        self.charge = Charge(Usage() if usage is None else usage)
        self.charge.usage.jobs += 1
        self.charge.add(0, cost_of(spec, function) if cost is None else cost)
        self.work = Work(self.charge, spec.done, resumed=spec.resumed)
        self.past: dict[bytes, Lease] = {}  # ended ones, whose outcomes the client may not have yet
        self.failed = False  # an error went to the client: nothing more is assigned
        self.failure: JobFailed | None = None  # why it failed, if not by an error of a call
        self.failed_calls: dict[int, FailedCall] = {}  # without outcome, by index
        self.lost: dict[int, CallLost] = {}  # inputs that nodes died of, of a job that goes on
        self.is_away = False  # its client is: it gets no more nodes, and gives way to others
        self.opened_s = opened_s
        self.turn = 0  # among equals the lowest is next; who gave up a node goes to the end
        self.hold_until_s = 0.0  # no work is assigned before: nodelets may say what they hold
        self.reopen_by_s: float | None = None  # said Hello anew: then what it still has, it opens
        self.said = ""  # the last waiting reason told
        self.slots_said = 0  # the last number of slots told, if it is lazy
        self.scanned_s = 0.0  # when all leases were last looked at, of very many
        self.has_room = True  # for its blobs; else it gets no node
        self.lacks = 0  # blobs that are not whole here

    def reuse_key(self) -> ReuseKey:
        """Return what is equal for jobs that may follow each other in the same processes.

        Those are of one session, and have the same function (to the byte: its digest says so) and
        the same options. A session that names another function by a digest gets its own processes
        and nobody else's. Empty: no job may follow this one.
        """
        spec = self.spec
        if not spec.digest:
            return ()
        options = (spec.func_cpu, spec.func_ram, spec.max_parallelism, spec.unpack)
        parts = (self.owner, spec.digest, *options, spec.hash_seed, spec.policy, spec.image)
        return (*parts, spec.environment, spec.packages)

    @property
    def func_gpu(self) -> int:
        """How many devices each call has to itself."""
        return 0 if self.spec.policy is None else self.spec.policy.func_gpu

    @property
    def goes_on(self) -> bool:
        """Whether a call that fails is no more than the outcome of its input."""
        return self.spec.policy is not None and self.spec.policy.goes_on

    @property
    def moves_failed(self) -> bool:
        """Whether a call that failed is called again on another node."""
        return self.spec.policy is not None and self.spec.policy.other_node

    def check(self) -> None:
        """Assert that its parts agree. Costs O(state): for tests."""
        self.work.check()
        batches = self.work.batches.kept.values()
        costs = cost_of(self.spec, self.function) + sum(batch.cost for batch in batches)
        assert self.charge.bytes_held == costs
        assert self.charge.inputs == sum(batch.stop - batch.start for batch in batches)
