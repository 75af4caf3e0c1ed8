"""The board: jobs, nodes and the leases between them, and what happens to them. Pure.

The core (scheduler.py) knows who speaks and when; this file knows what follows for jobs and leases.
Policy is elsewhere: who gets a node in assignment.py, who gets how much work in allocation.py.
"""

from collections.abc import Sequence

from burla.protocol import messages as m

from . import allocation, assignment, dispatch, reconcile, warm_leases
from .batch import Batch
from .effects import Effect, Note, Publish, Send
from .job import Job, Lease, cost_of
from .node import Node
from .quotas import Quotas, Usage, excess

RESUME_S = 5.0  # nodelets say Hello within a second or two of the scheduler's return
JOB_BYTES_MAX = 2 * m.JOB_INPUT_WINDOW  # besides the last batch, whatever its size
JOB_WINDOW_ALL = 256 << 20  # unacknowledged outcomes of a job, over all its leases
WINDOW_MIN = 2 << 20  # of one lease


class Board:
    """Everything the scheduler knows about work."""

    def __init__(self, instance: bytes, quotas: Quotas | None = None) -> None:
        """Start empty; leases are named after `instance` (16 bytes), so that lives don't mix."""
        self.nodes: dict[bytes, Node] = {}  # by id
        self.jobs: dict[bytes, Job] = {}
        self.quotas = Quotas() if quotas is None else quotas
        self.usages: dict[str, Usage] = {}  # by tenant: those with open jobs
        self.lease_jobs: dict[bytes, Job] = {}  # of active and past leases
        self.peers: dict[bytes, bytes] = {}  # client session -> routing id
        self.effects: list[Effect] = []
        self.instance = instance
        self.settled_s = float("inf")  # when all nodelets have told what they hold of earlier times
        self._leases_made = 0
        self._turns = 0
        self._dirty: dict[bytes, None] = {}  # jobs that may have more to run, in order
        self._changed: dict[bytes, None] = {}  # nodes that may be free now, or are not any more
        self._free: dict[bytes, Node] = {}
        self._dirty_leases: dict[bytes, Lease] = {}

    # --- from the client ---

    def open_job(
        self,
        owner: bytes,
        python: str,
        user: str,
        spec: m.OpenJob,
        function: list[bytes],
        now_s: float,
        tenant: str = "",
    ) -> str:
        """Enter a job of client session `owner`, or take up again what it says it holds of it.

        Return which quota of `tenant` keeps it from being opened; empty: none does.
        """
        job = self.jobs.get(spec.job)
        if job is not None:
            if job.owner == owner:
                self._resume(job, spec, now_s)
            return ""
        usage = self.usages.get(tenant, Usage())
        if why := excess(self.quotas, usage, 1, 0, cost_of(spec, function)):
            return why
        job = self.jobs[spec.job] = Job(spec, function, owner, python, user, usage)
        self.usages[tenant] = usage
        job.tenant = tenant
        job.opened_s = now_s
        self.queue_up(job)
        if spec.resumed and now_s < self.settled_s:  # else its first OpenJob was lost on the way
            job.hold_until_s = now_s + RESUME_S
            for node in self.nodes.values():
                reconcile.adopt_orphans(self, node, job, now_s)
        self.touch(job)
        return ""

    def queue_up(self, job: Job) -> None:
        """Put a job behind all others that are as entitled to a node."""
        self._turns += 1
        job.turn = self._turns

    def _resume(self, job: Job, spec: m.OpenJob, now_s: float) -> None:
        """The client reconnected: what was sent to it may be lost; nodelets still have it."""
        job.reopen_by_s = None
        job.undo(spec.done)
        job.said = ""
        if not job.limbo:
            return
        if now_s >= job.hold_until_s:  # one at a time, or a flickering connection stops it
            job.hold_until_s = now_s + RESUME_S
        for node_id in [*(e.node for e in job.leases.values()), *job.past.values()]:
            if node := self.nodes.get(node_id):
                self.effects.append(Send(node.peer, m.HelloRequired()))  # it sends everything again

    def inputs(self, job: Job, message: m.Inputs, payload: list[bytes]) -> None:
        """Take a batch.

        Raises:
            ValueError: it contradicts itself or what came before.
        """
        batch = Batch.from_inputs(message, payload)
        why = excess(self.quotas, job.usage, 0, batch.stop - batch.start, batch.cost)
        if job.weight > JOB_BYTES_MAX:
            why = f"the job has {job.weight} bytes of inputs under way"
        if why:  # nothing more of it is kept
            if not job.failed:
                self.fail(job, "inputs", why)
            return
        job.enter(batch)
        self.touch(job)

    def inputs_end(self, job: Job, total: int) -> None:
        """Note that no more batches come."""
        job.total = total
        self.touch(job)

    def close(self, job: Job) -> None:
        """Forget a job, and stop all of it."""
        for lease in list(job.leases.values()):
            self.end_lease(job, lease, discard=True)
        for lease_id, node_id in job.past.items():
            self.lease_jobs.pop(lease_id, None)
            if node := self.nodes.get(node_id):
                warm_leases.close(self, node, lease_id)
        del self.jobs[job.id]
        job.discharge()
        if not job.usage.jobs:
            del self.usages[job.tenant]

    def end_session(self, session: bytes) -> None:
        """Stop all that a client has here, and send it nothing more."""
        self.peers.pop(session, None)
        for job in [job for job in self.jobs.values() if job.owner == session]:
            self.close(job)
        for node in self.nodes.values():
            if node.lingering is not None and node.lingering.owner == session:
                warm_leases.end(self, node)

    def fail(self, job: Job, argument: str, text: str) -> None:
        """Tell the client that its job never can be done."""
        job.failed = True
        self.tell(job, m.JobFailed(job.id, argument, text))

    def tell(self, job: Job, message: m.Message, payload: Sequence[bytes] = ()) -> None:
        """Send a message to the client of a job, if it is connected."""
        if peer := self.peers.get(job.owner):
            self.effects.append(Send(peer, message, payload))

    def pass_on(self, job: Job, said: m.AckOutcomes | m.AckOutput | m.ReplayOutput) -> None:
        """Send what the client says of a lease to its nodelet."""
        lease = job.leases.get(said.lease)
        node_id = lease.node if lease is not None else job.past.get(said.lease)
        if node_id is not None and (node := self.nodes.get(node_id)):
            self.effects.append(Send(node.peer, said))

    # --- from the nodelet ---

    def outcomes(self, node: Node, said: m.Outcomes, payload: list[bytes], now_s: float) -> None:
        """Pass outcomes on, and mark them done."""
        job = self._job_on(node, said.lease)
        if job is None:
            return
        lease = job.leases.get(said.lease)
        fresh = any(job.done.missing(lo, hi) for lo, hi in said.done)
        for lo, hi in said.done:
            job.finish(lease, lo, hi)
        job.failed = job.failed or (said.failed and fresh)  # the first error stops the job
        if lease is not None:
            lease.call_s = said.call_s
            lease.shed_empty = False
            self.touch_lease(lease)
        self.tell(
            job,
            m.JobOutcomes(
                job=job.id,
                lease=said.lease,
                seq=said.seq,
                node=node.name,
                runs=said.runs,
                output=said.output,
                seal=said.seal,
            ),
            payload,
        )
        if job.is_complete():  # the nodes need not wait for the client's last word
            for each in list(job.leases.values()):
                warm_leases.retire(self, job, each, now_s)

    def output(self, node: Node, said: m.Output, payload: list[bytes]) -> None:
        """Publish what calls printed; a replay goes to the client alone."""
        job = self._job_on(node, said.lease)
        if job is None:
            return
        message = m.JobOutput(job.id, said.lease, said.number, said.streams)
        if said.replay:
            self.tell(job, message, payload)
        else:
            self.effects.append(Publish(job.spec.topic, message, payload))

    def returned(self, node: Node, said: m.Retracted) -> None:
        """Queue again what a nodelet gave back."""
        job = self._job_on(node, said.lease)
        lease = job.leases.get(said.lease) if job is not None else None
        if job is None or lease is None:
            return
        lease.shedding = False
        lease.shed_empty = not said.spans
        for span in said.spans:
            job.give_back(lease, span.lo, span.hi)
        self.touch(job)
        self.touch_lease(lease)

    def stopped(self, node: Node, lease_id: bytes) -> None:
        """The processes of a lease are gone."""
        node.stopping.pop(lease_id, None)
        if node.lingering is not None and node.lingering.lease == lease_id:
            node.lingering = None
        self.look_at(node)

    def _job_on(self, node: Node, lease_id: bytes) -> Job | None:
        """Return the job of a lease, if the lease is or was `node`'s."""
        job = self.lease_jobs.get(lease_id)
        if job is None:
            return None
        lease = job.leases.get(lease_id)
        return job if node.id == (lease.node if lease else job.past.get(lease_id)) else None

    # --- leases ---

    def start_lease(self, job: Job, node: Node, now_s: float) -> None:
        """Give a free node to a job."""
        cap = job.spec.max_parallelism
        slots = node.slots(job)
        if cap is not None:
            slots = min(slots, cap - job.slots)
        self._leases_made += 1
        lease_id = self.instance[:8] + self._leases_made.to_bytes(8, "big")
        job.add_lease(Lease(lease_id, node.id, slots, now_s))
        self.lease_jobs[lease_id] = job
        node.lease = lease_id
        self._free.pop(node.id, None)
        keep = warm_leases.keep(self, node, job, slots)
        nodes = assignment.likely_nodes(job, len(self._free))
        start = m.StartLease(
            lease=lease_id,
            job=job.id,
            slots=slots,
            func_cpu=job.spec.func_cpu,
            func_ram=job.spec.func_ram,
            unpack=job.spec.unpack,
            environment=job.spec.environment,
            secret=job.spec.secret,
            outcome_window=max(WINDOW_MIN, min(m.LEASE_OUTCOME_WINDOW, JOB_WINDOW_ALL // nodes)),
            report_s=allocation.report_s(nodes),
            keep=keep,
            over=warm_leases.take_over(node),
        )
        self.effects.append(Send(node.peer, start, job.function))
        if job.said:  # it was told why it waits
            job.said = ""
            self.tell(job, m.JobStatus(job.id, "", len(job.leases), job.slots))
        self.touch(job)

    def end_lease(self, job: Job, lease: Lease, *, discard: bool) -> None:
        """Take a node back; it is free when its nodelet says Stopped."""
        self.forget_lease(job, lease)
        node = self.nodes[lease.node]
        node.stopping[lease.id] = None
        self.effects.append(Send(node.peer, m.EndLease(lease.id, discard)))
        if discard:
            del self.lease_jobs[lease.id]
        else:
            job.past[lease.id] = node.id

    def lose_lease(self, job: Job, lease: Lease) -> None:
        """Requeue what a lease held whose nodelet does not have it any more."""
        self.forget_lease(job, lease)
        del self.lease_jobs[lease.id]
        self.tell(job, m.LeaseLost(job.id, lease.id, self.nodes[lease.node].name))

    def forget_lease(self, job: Job, lease: Lease) -> None:
        """Take a lease from a job; its node may be free now."""
        job.drop_lease(lease)
        node = self.nodes[lease.node]
        node.lease = None
        self.look_at(node)
        self.touch(job)

    def lose_node(self, node: Node, why: str) -> None:
        """Give up a node: its spans are pending at once."""
        self.effects.append(Note(f"node {node.name} is lost: {why}"))
        if node.lease is not None:
            job = self.lease_jobs[node.lease]
            self.lose_lease(job, job.leases[node.lease])
        for job in self.jobs.values():
            for lease_id in [e for e, node_id in job.past.items() if node_id == node.id]:
                del job.past[lease_id], self.lease_jobs[lease_id]
                self.tell(job, m.LeaseLost(job.id, lease_id, node.name))
        del self.nodes[node.id]
        self._free.pop(node.id, None)

    # --- work ---

    def touch(self, job: Job) -> None:
        """Look at all of a job before the effects are handed over: it may have more to run."""
        self._dirty[job.id] = None

    def touch_lease(self, lease: Lease) -> None:
        """Look at one lease of a job before the effects are handed over: it may have room."""
        self._dirty_leases[lease.id] = lease

    def look_at(self, node: Node) -> None:
        """See before the effects are handed over whether a node is free."""
        self._changed[node.id] = None

    def settle(self, now_s: float) -> None:
        """Hand out free nodes, then work."""
        if self._changed or self._dirty:
            self._hand_out_nodes(now_s)
        dirty, self._dirty = self._dirty, {}
        touched, self._dirty_leases = self._dirty_leases, {}
        for job_id in dirty:
            if job := self.jobs.get(job_id):
                dispatch.hand_out(self, job, now_s)
        for lease in touched.values():
            job = self.lease_jobs.get(lease.id)
            if job is not None and lease.id in job.leases and now_s >= job.hold_until_s:
                dispatch.feed(self, job, lease)
                dispatch.balance(self, job, now_s)

    def _hand_out_nodes(self, now_s: float) -> None:
        for node_id in self._changed:
            node = self.nodes.get(node_id)
            if node is not None and node.leaving and node.serves_nobody():
                self.effects.append(Send(node.peer, m.Drained()))
            if node is not None and node.is_free():
                self._free[node_id], node.idle_since_s = node, now_s
            else:
                self._free.pop(node_id, None)
        jobs = self.jobs if self._changed else self._dirty
        self._changed.clear()
        free = [node for node in self._free.values() if node.is_free()]
        while free:
            wanting = [j for job in jobs if (j := self.jobs.get(job)) and now_s >= j.hold_until_s]
            match = assignment.choose(assignment.in_turn(wanting, self.jobs.values()), free)
            if match is None:
                return
            self.start_lease(*match, now_s)
            free.remove(match[1])

    # --- handing over ---

    def drain_for_waiting(self, now_s: float) -> None:
        """Begin to take nodes from those who have more than their share, if others want them."""
        for lease in assignment.to_drain(self.jobs.values(), self.nodes, now_s):
            self._drain(lease)

    def leave(self, node: Node) -> None:
        """Give a node no more work; it is released when it serves nobody."""
        node.leaving = True
        self.look_at(node)
        if node.lingering is not None:
            warm_leases.end(self, node)
        if node.lease is not None:
            self._drain(self.lease_jobs[node.lease].leases[node.lease])

    def _drain(self, lease: Lease) -> None:
        lease.draining = True
        lease.shed_empty = False
        self.touch_lease(lease)
