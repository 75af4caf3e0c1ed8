"""What holds between any two calls of the scheduler's core. Pure; for tests."""

from collections.abc import Collection

from .board import Board


def check(board: Board, owners: Collection[bytes]) -> None:
    """Assert that jobs, leases, nodes and usages agree. Costs O(state)."""
    served = [node.lease for node in board.nodes.values() if node.lease is not None]
    assert len(served) == len(set(served))
    for job in board.jobs.values():
        job.check()
        assert job.owner in owners
        for lease in job.leases.values():
            assert board.nodes[lease.node].lease == lease.id
            assert board.lease_jobs[lease.id] is job
        cap = job.spec.max_parallelism
        assert cap is None or job.slots <= cap
    assert {e for job in board.jobs.values() for e in job.leases} == set(served)
    assert set(board.lease_jobs) == {
        e for job in board.jobs.values() for e in [*job.leases, *job.past]
    }
    _check_usages(board)
    assert not board.effects


def _check_usages(board: Board) -> None:
    for tenant, usage in board.usages.items():
        jobs = [job for job in board.jobs.values() if job.tenant == tenant]
        assert usage.jobs == len(jobs) > 0
        assert usage.inputs == sum(job.kept for job in jobs)
        assert usage.bytes_held == sum(job.cost for job in jobs)
