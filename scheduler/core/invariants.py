"""What holds between any two calls of the scheduler's core. For tests."""

from itertools import pairwise

from . import big_inputs, blobs
from .client import Client
from .job import Job
from .lease import ENDED, OCCUPYING, SERVING, TRANSITIONS, LeaseState
from .node import Node
from .state import Marks, State


def check(state: State) -> None:
    """Assert that tables and indices agree. Costs O(state)."""
    assert not state.effects
    assert state.marks == Marks()
    _check_leases(state)
    for node in state.nodes.values():
        _check_node(state, node)
    for job in state.jobs.values():
        _check_job(state, job)
    _check_peers(state)
    _check_usages(state)
    blobs.check(state)
    big_inputs.check(state)
    state.records.check(state.jobs)


def _check_leases(state: State) -> None:
    """Each lease is one that its node has, and got where it is by transitions that are allowed."""
    for lease_id, lease in state.leases.items():
        assert lease.id == lease_id
        assert lease.node in state.nodes, lease
        assert lease.state is not LeaseState.GONE, lease
        assert lease.wanted <= (lease.job in state.jobs), lease
        if lease.state in SERVING:
            assert lease.wanted, lease
        else:
            assert not lease.held, lease
        assert (lease.claim is not None) == (lease.state is LeaseState.ORPHAN), lease
        states = [at for _, at in lease.history]
        assert states[-1] is lease.state, lease
        for before, after in pairwise(states):
            assert after in TRANSITIONS[before], lease


def _check_node(state: State, node: Node) -> None:
    """What a node points to is what the table says."""
    assert state.nodes[node.id] is node
    ours = [lease for lease in state.leases.values() if lease.node == node.id]

    def those(*states: LeaseState) -> list[bytes]:
        return [lease.id for lease in ours if lease.state in states]

    assert ([] if node.lease is None else [node.lease.id]) == those(*SERVING)
    assert ([] if node.warm is None else [node.warm.id]) == those(LeaseState.WARM)
    assert sorted(node.stopping) == sorted(those(LeaseState.STOPPING))
    assert sorted(node.orphans) == sorted(those(LeaseState.ORPHAN))
    untold = [lease for lease in ours if lease.id in node.untold]
    assert len(untold) == len(node.untold)
    assert all(not lease.wanted and lease.state in ENDED for lease in untold)
    for lease in ours:  # nothing is kept that nobody will ever ask for
        assert lease.wanted or lease.state is not LeaseState.PAST or lease.id in node.untold
    assert node.is_vacant() == (not those(*OCCUPYING))
    if node.is_free():
        assert node.id in state.free


def _check_job(state: State, job: Job) -> None:
    """What a job points to is what the table says; its inputs are each in one place."""
    assert state.jobs[job.id] is job
    assert job.owner in state.clients
    ours = [lease for lease in state.leases.values() if lease.wanted and lease.job == job.id]
    assert job.work.leases == {lease.id: lease for lease in ours if lease.state in SERVING}
    assert job.past == {lease.id: lease for lease in ours if lease.state in ENDED}
    assert len(job.work.leases) + len(job.past) == len(ours)
    cap = job.spec.max_parallelism
    assert cap is None or job.work.slots <= cap
    job.check()


def _check_peers(state: State) -> None:
    """A connection is one session or one node, which speaks on no other."""
    for peer, who in state.peers.items():
        assert who.peer == peer
        if isinstance(who, Client):
            assert state.clients[who.session] is who
        else:
            assert state.nodes[who.id] is who


def _check_usages(state: State) -> None:
    """Each tenant is charged for its open jobs and nothing else."""
    assert set(state.usages) == {job.tenant for job in state.jobs.values()}
    for tenant, usage in state.usages.items():
        jobs = [job for job in state.jobs.values() if job.tenant == tenant]
        assert usage.jobs == len(jobs)
        assert usage.inputs == sum(job.charge.inputs for job in jobs)
        assert usage.bytes_held == sum(job.charge.bytes_held for job in jobs)
