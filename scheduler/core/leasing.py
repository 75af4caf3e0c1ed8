"""Giving free nodes to jobs, and taking nodes back for others. Who gets one: assignment.py."""

from functools import lru_cache
from hashlib import blake2b

from msgspec.structs import replace

from burla.protocol import messages as m
from burla.protocol.store_messages import LeaseBegan

from . import allocation, assignment, leases, warm_leases
from .effects import Send
from .job import Job
from .lease import Lease
from .node import Node
from .state import State

JOB_WINDOW_ALL = 256 << 20  # unacknowledged outcomes of a job, over all its leases
OWNERS_KEPT = 1024  # names of tenants that are not made again each time
WINDOW_MIN = 2 << 20  # of one lease
KEPT_WINDOW_ALL = 64 << 20  # likewise, of a detached job: it is the scheduler that is to keep up


def hand_out(state: State) -> None:
    """Give the nodes that are free to the jobs that are entitled to them."""
    changed, state.marks.nodes = state.marks.nodes, {}
    for node_id in changed:
        if (node := state.nodes.get(node_id)) is not None:
            _look_at(state, node)
    if not state.free:
        return  # as mostly
    free = [node for node in state.free.values() if node.is_free()]
    jobs = state.jobs if changed else state.marks.jobs
    while free:
        candidates = [
            job
            for job_id in jobs
            if (job := state.jobs.get(job_id)) is not None and state.now_s >= job.hold_until_s
        ]
        entitled = assignment.in_turn(candidates, state.jobs.values())
        match = assignment.choose(entitled, free) if entitled else None
        if match is None:
            return
        start(state, *match)
        free.remove(match[1])


def _look_at(state: State, node: Node) -> None:
    """Note whether a node is free."""
    if node.leaving and node.is_vacant():
        state.send(node.peer, m.Drained())
    if node.is_free():
        state.free[node.id], node.idle_since_s = node, state.now_s
    else:
        state.free.pop(node.id, None)


def start(state: State, job: Job, node: Node) -> None:
    """Give a free node to a job."""
    cap = job.spec.max_parallelism
    slots = node.slots(job)
    if cap is not None:
        slots = min(slots, cap - job.work.slots)
    lease = Lease(_new_id(state), node.id, job.id, slots, state.now_s)
    leases.enter(state, lease)
    heritage = warm_leases.take_over(state, node, job, lease)
    nodes = assignment.likely_nodes(job.work, len(state.free))
    is_kept = job.spec.detached is not None
    windows = KEPT_WINDOW_ALL if is_kept else JOB_WINDOW_ALL
    message = m.StartLease(
        lease=lease.id,
        job=job.id,
        slots=slots,
        func_cpu=job.spec.func_cpu,
        func_ram=job.spec.func_ram,
        unpack=job.spec.unpack,
        environment=job.spec.environment,
        secret=job.spec.secret,
        outcome_window=max(WINDOW_MIN, min(m.LEASE_OUTCOME_WINDOW, windows // nodes)),
        report_s=allocation.report_s(nodes),
        keep=heritage.keep,
        hash_seed=job.spec.hash_seed,
        fragments=job.spec.fragments,
        blake3=job.spec.blake3,
        policy=job.spec.policy,
        packages=job.spec.packages if node.has_packages else b"",
        image=job.spec.image,
        over=leases.take_untold(state, node),
        follows=heritage.follows,
    )
    _send(state, job, node, message)
    if is_kept:
        state.tell(job, LeaseBegan(job.id, lease.id, node.name))
    state.journal.add(state.now_s, _leased, job, node, lease)
    if job.said:  # it was told why it waits
        job.said = ""
        state.tell(job, m.JobStatus(job.id, "", job.slots_said))
    state.marks.jobs[job.id] = None


def _send(state: State, job: Job, node: Node, message: m.StartLease) -> None:
    """Start a lease; a node that does not know blobs gets the function whole."""
    if not job.spec.blobs:
        state.send(node.peer, message, job.function)
    elif node.takes_blobs:
        named = replace(message, blobs=job.spec.blobs, owner=owner_of(job.tenant))
        state.send(node.peer, named, job.function)
    else:
        parts = [blob for blob in job.spec.blobs if blob.kind is not m.BlobKind.NAMED]
        stored = [state.blobs.of(job.tenant, blob) for blob in parts]
        numbers = tuple(each.number for each in stored if each is not None)
        state.effects.append(Send(node.peer, message, job.function, numbers))


@lru_cache(OWNERS_KEPT)
def owner_of(tenant: str) -> bytes:
    """Return what a tenant is called to nodes: the same by every life of the scheduler."""
    return blake2b(tenant.encode(), digest_size=16).digest()


def _leased(job: Job, node: Node, lease: Lease) -> str:
    text = f"job {job.id.hex()[:8]} is leased node {node.name}, {lease.slots} slots"
    return f"{text}: lease {lease.id.hex()}"


def _new_id(state: State) -> bytes:
    """Return an id for a lease; a nodelet may have made up some that look like ours."""
    while True:
        state.made.leases += 1
        lease_id = state.instance[:8] + state.made.leases.to_bytes(8, "big")
        if lease_id not in state.leases:
            return lease_id


def drain_for_waiting(state: State) -> None:
    """Begin to take nodes from those who have more than their share, if others want them."""
    for lease in assignment.to_drain(state.jobs.values(), state.nodes, state.now_s):
        leases.drain(state, lease)
