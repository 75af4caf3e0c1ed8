"""The board: jobs, nodes and the leases between them, and what happens to them. Pure.

The core (core.py) knows who speaks and when; this file knows what follows for jobs and leases.
Policy is elsewhere: who gets a node in leases.py, who gets how much work in dealing.py.
"""

from collections.abc import Sequence

from burla.wire import messages as m
from burla.wire.ranges import Ranges

from . import dealing, leases
from .effects import Effect, Note, Publish, Send
from .jobs import Batch, Job, Lease
from .nodes import ORPHAN_S, Node, Orphan

RESUME_S = 5.0  # nodelets say Hello within a second or two of the scheduler's return
JOB_BYTES_MAX = 2 * m.JOB_INPUT_WINDOW  # besides the last batch, whatever its size
JOB_WINDOW_ALL = 256 << 20  # unacknowledged outcomes of a job, over all its leases
WINDOW_MIN = 2 << 20  # of one lease


class Board:
    """Everything the scheduler knows about work."""

    def __init__(self, instance: bytes) -> None:
        """Start empty; leases are named after `instance` (16 bytes), so that lives don't mix."""
        self.nodes: dict[bytes, Node] = {}  # by id
        self.jobs: dict[bytes, Job] = {}
        self.lease_jobs: dict[bytes, Job] = {}  # of active and past leases
        self.peers: dict[bytes, bytes] = {}  # client session -> routing id
        self.effects: list[Effect] = []
        self._instance = instance
        self._leases_made = 0
        self._dirty: dict[bytes, None] = {}  # jobs whose work must be looked at, in order
        self._nodes_changed = False  # a node may be free, or a job may want one

    # --- from the client ---

    def open_job(
        self, owner: bytes, python: str, spec: m.OpenJob, function: list[bytes], now_s: float
    ) -> None:
        """Enter a job of client session `owner`, or take up again what it says it holds of it."""
        job = self.jobs.get(spec.job)
        if job is not None:
            if job.owner == owner:
                self._resume(job, spec, now_s)
            return
        job = self.jobs[spec.job] = Job(spec, function, owner, python)
        job.opened_s = now_s
        if spec.resumed:
            job.hold_until_s = now_s + RESUME_S
            for node in self.nodes.values():
                self._adopt_orphans(node, job)
        self.touch(job)
        self._nodes_changed = True

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
                self.effects.append(Send(node.peer, m.Introduce()))  # it sends everything again

    def inputs(self, job: Job, message: m.Inputs, payload: list[bytes]) -> None:
        """Take a batch.

        Raises:
            ValueError: it contradicts itself or what came before.
        """
        batch = Batch.from_inputs(message, payload)
        job.enter(batch)
        if job.weight - batch.size > JOB_BYTES_MAX:
            self.fail(job, "inputs", f"the job has {job.weight} bytes of inputs under way")
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
                self.effects.append(Send(node.peer, m.EndLease(lease_id, discard=True)))
        del self.jobs[job.id]
        self._nodes_changed = True

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

    def outcomes(self, node: Node, said: m.Outcomes, payload: list[bytes]) -> None:
        """Pass outcomes on, and mark them done."""
        job = self._job_on(node, said.lease)
        if job is None:
            return
        lease = job.leases.get(said.lease)
        for run in said.runs:
            job.finish(lease, run.lo, run.hi)
            if run.kind in (m.Kind.ERROR, m.Kind.DEATH):
                job.failed = True  # the first error stops the job
        if lease is not None:
            lease.call_s = said.call_s
            lease.shed_empty = False
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
                self.end_lease(job, each, discard=False)
        self.touch(job)

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

    def returned(self, node: Node, said: m.Returned) -> None:
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

    def stopped(self, node: Node, lease_id: bytes) -> None:
        """The processes of a lease are gone."""
        node.stopping.pop(lease_id, None)
        self._nodes_changed = True

    def _job_on(self, node: Node, lease_id: bytes) -> Job | None:
        """Return the job of a lease, if the lease is or was `node`'s."""
        job = self.lease_jobs.get(lease_id)
        if job is None:
            return None
        lease = job.leases.get(lease_id)
        return job if node.id == (lease.node if lease else job.past.get(lease_id)) else None

    # --- leases ---

    def start_lease(self, job: Job, node: Node) -> None:
        """Give a free node to a job."""
        cap = job.spec.max_parallelism
        slots = node.slots(job)
        if cap is not None:
            slots = min(slots, cap - job.slots())
        self._leases_made += 1
        lease_id = self._instance[:8] + self._leases_made.to_bytes(8, "big")
        job.leases[lease_id] = Lease(lease_id, node.id, slots)
        self.lease_jobs[lease_id] = job
        node.lease = lease_id
        start = m.StartLease(
            lease=lease_id,
            job=job.id,
            slots=slots,
            func_cpu=job.spec.func_cpu,
            unpack=job.spec.unpack,
            environment=job.spec.environment,
            secret=job.spec.secret,
            outcome_window=max(
                WINDOW_MIN, min(m.LEASE_OUTCOME_WINDOW, JOB_WINDOW_ALL // len(job.leases))
            ),
            report_s=dealing.report_s(len(job.leases)),
        )
        self.effects.append(Send(node.peer, start, job.function))
        job.said = ""
        self.tell(job, m.JobStatus(job.id, "", len(job.leases), job.slots()))
        self.touch(job)

    def end_lease(self, job: Job, lease: Lease, *, discard: bool) -> None:
        """Take a node back; it is free when its nodelet says Stopped."""
        self._forget_lease(job, lease)
        node = self.nodes[lease.node]
        node.stopping[lease.id] = None
        self.effects.append(Send(node.peer, m.EndLease(lease.id, discard)))
        if discard:
            del self.lease_jobs[lease.id]
        else:
            job.past[lease.id] = node.id

    def lose_lease(self, job: Job, lease: Lease) -> None:
        """Requeue what a lease held whose nodelet does not have it any more."""
        self._forget_lease(job, lease)
        del self.lease_jobs[lease.id]
        self.tell(job, m.LeaseLost(job.id, lease.id, self.nodes[lease.node].name))

    def _forget_lease(self, job: Job, lease: Lease) -> None:
        for lo, hi in list(lease.held):
            job.give_back(lease, lo, hi)
        del job.leases[lease.id]
        self.nodes[lease.node].lease = None
        self._nodes_changed = True
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

    # --- what a nodelet says that it holds ---

    def compare_with_held(self, node: Node, held: Sequence[m.Held], now_s: float) -> None:
        """Bring the board and a nodelet that (re)connected to agree."""
        by_lease = {h.lease: h for h in held}
        for lease_id in [e for e in node.stopping if e not in by_lease]:
            del node.stopping[lease_id]
        if node.lease is not None:
            job = self.lease_jobs[node.lease]
            self._compare_lease(job, job.leases[node.lease], by_lease.get(node.lease))
        orphans, node.orphans = node.orphans, {}
        for h in held:
            if h.lease != node.lease:
                known = orphans.get(h.lease)  # its time does not begin anew with each connection
                self._take_held(node, h, known.until_s if known else now_s + ORPHAN_S)
        self._nodes_changed = True

    def _compare_lease(self, job: Job, lease: Lease, held: m.Held | None) -> None:
        if held is None or held.stopped:
            self.lose_lease(job, lease)
            return
        has = Ranges((span.lo, span.hi) for span in held.spans)
        for lo, hi in list(lease.held):
            for gap in has.missing(lo, hi):  # dealt, but it never arrived
                job.give_back(lease, *gap)
        lease.sent = Ranges()  # nor did leaves, perhaps
        lease.shedding = False
        self.touch(job)

    def _take_held(self, node: Node, held: m.Held, until_s: float) -> None:
        """Decide about a lease that is not the one the node serves for us."""
        job = self.jobs.get(held.job)
        ours = held.lease.startswith(self._instance[:8])  # then its job is closed, not unknown
        if job is None and not ours and held.lease not in node.stopping:
            node.orphans[held.lease] = Orphan(held, until_s)
        elif job is not None and held.lease in job.past:
            self.effects.append(Send(node.peer, m.EndLease(held.lease, discard=False)))
        elif job is not None and held.lease not in node.stopping and node.lease is None:
            self._adopt(node, job, held)
        else:
            node.stopping[held.lease] = None
            self.effects.append(Send(node.peer, m.EndLease(held.lease, discard=True)))

    def _adopt_orphans(self, node: Node, job: Job) -> None:
        for lease_id, orphan in list(node.orphans.items()):
            if orphan.held.job == job.id and node.lease is None:
                del node.orphans[lease_id]
                self._adopt(node, job, orphan.held)
                # what it has said since its Hello came before the job, and went nowhere
                self.effects.append(Send(node.peer, m.Introduce()))

    def _adopt(self, node: Node, job: Job, held: m.Held) -> None:
        """Go on with a lease that an earlier scheduler gave, or that we thought lost."""
        self.lease_jobs[held.lease] = job
        cap = job.spec.max_parallelism
        if held.stopped or (cap is not None and job.slots() + held.slots > cap):
            job.past[held.lease] = node.id  # what it has run is welcome
            if not held.stopped:
                node.stopping[held.lease] = None
                self.effects.append(Send(node.peer, m.EndLease(held.lease, discard=False)))
            return
        lease = job.leases[held.lease] = Lease(held.lease, node.id, held.slots)
        node.lease = held.lease
        for span in held.spans:
            for lo, hi in job.done.missing(span.lo, span.hi):
                for other in job.leases.values():
                    for part in other.held.common(lo, hi):
                        job.give_back(other, *part)
                job.pending.remove(lo, hi)
                job.limbo.remove(lo, hi)
                lease.held.add(lo, hi)
        self.touch(job)

    def end_orphans(self, node: Node, now_s: float) -> None:
        """End the leases whose client did not come back in time."""
        for lease_id, orphan in list(node.orphans.items()):
            if now_s >= orphan.until_s:
                del node.orphans[lease_id]
                node.stopping[lease_id] = None
                self.effects.append(Send(node.peer, m.EndLease(lease_id, discard=True)))

    # --- work ---

    def touch(self, job: Job) -> None:
        """Look at the work of a job before the effects are handed over."""
        self._dirty[job.id] = None

    def settle(self, now_s: float) -> None:
        """Hand out free nodes, then work."""
        if self._nodes_changed or self._dirty:
            self._hand_out_nodes(now_s)
        dirty, self._dirty = self._dirty, {}
        for job_id in dirty:
            if job := self.jobs.get(job_id):
                self._hand_out_work(job, now_s)

    def _hand_out_nodes(self, now_s: float) -> None:
        free = [node for node in self.nodes.values() if node.is_free()]
        jobs = (
            self.jobs.values()
            if self._nodes_changed
            else [self.jobs[j] for j in self._dirty if j in self.jobs]
        )
        self._nodes_changed = False
        while free:
            wanting = [job for job in jobs if now_s >= job.hold_until_s]
            match = leases.choose(leases.in_turn(wanting, self.jobs.values()), free)
            if match is None:
                return
            self.start_lease(*match)
            free.remove(match[1])

    def _hand_out_work(self, job: Job, now_s: float) -> None:
        if job.failed or now_s < job.hold_until_s:
            return
        # idle slots first: what comes back from one node must not return to it
        for lease in sorted(job.leases.values(), key=lambda e: e.held.total / e.slots):
            count = 0 if lease.draining else dealing.portion(job, lease)
            if count or lease.forget:
                self.effects.append(Send(self.nodes[lease.node].peer, *job.deal(lease, count)))
            if lease.draining and not lease.held:
                self.end_lease(job, lease, discard=False)
        if not job.pending and (shed := dealing.shed_from(job)):
            self._shed(*shed)

    def _shed(self, lease: Lease, count: int) -> None:
        lease.shedding = True
        self.effects.append(Send(self.nodes[lease.node].peer, m.Shed(lease.id, count)))

    def drain_for_waiting(self) -> None:
        """Take a node from the job with the most if another has none."""
        lease = leases.to_drain(self.jobs.values(), self.nodes)
        if lease is not None:
            lease.draining = True
            if lease.held.total > lease.slots and not lease.shedding:
                self._shed(lease, lease.held.total)
            self.touch(self.lease_jobs[lease.id])
