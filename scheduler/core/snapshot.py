"""The state as plain data, for operators and for whoever looks at a failing test. Pure.

Ids are hexadecimal, times are seconds before now (of what is due: seconds from now), ranges are
[lo, hi) of inputs. There is never a secret, a topic, an environment or a payload in it, and no
list of a job is longer than LISTED_MAX: its counts say the rest.
"""

from collections.abc import Iterable

from burla.protocol.ranges import Ranges

from .blob_table import Stored
from .job import Job
from .lease import Lease, LeaseState
from .node import Node
from .state import State

LISTED_MAX = 100  # ranges of one place

Plain = dict[str, object]


def snapshot(state: State, now_s: float) -> Plain:
    """Return what the scheduler knows at `now_s`: dicts, lists, numbers and text."""
    return {
        "scheduler": state.instance.hex(),
        "jobs": [_job(job, now_s) for job in state.jobs.values()],
        "leases": [_lease(lease, state, now_s) for lease in state.leases.values()],
        "gone": [
            {
                "id": gone.id.hex(),
                "node": gone.node,
                "job": gone.job.hex(),
                "transitions": _transitions(gone.history, now_s),
            }
            for gone in state.gone
        ],
        "nodes": [_node(node, now_s) for node in state.nodes.values()],
        "clients": [
            {
                "session": client.session.hex(),
                "connection": client.peer.hex(),
                "user": client.name,
                "python": client.python,
                "heard_s": _ago(client.heard_s, now_s),
                "unreachable_s": _ago(client.unreachable_s, now_s),
                "away_s": _ago(client.away_s, now_s),
                "jobs": [job.id.hex() for job in _jobs_of(client.session, state)],
            }
            for client in state.clients.values()
        ],
        "usages": {
            tenant: {
                "jobs": usage.jobs,
                "inputs": usage.inputs,
                "bytes_held": usage.bytes_held,
            }
            for tenant, usage in state.usages.items()
        },
        "blobs": [_blob(stored, now_s) for stored in state.blobs.by_name.values()],
        "free": [node.name for node in state.free.values()],
        "marked": {
            "jobs": _ids(state.marks.jobs),
            "leases": _ids(state.marks.leases),
            "nodes": _ids(state.marks.nodes),
        },
    }


def _blob(stored: Stored, now_s: float) -> Plain:
    arriving = stored.arriving
    return {
        "digest": arriving.digest.hex(),
        "bytes": arriving.size,
        "bytes_here": arriving.have,
        "jobs": _ids(stored.jobs),
        "asked_of": stored.source.hex(),
        "leases_that_wait": _ids(stored.readers),
        "used_s": None if stored.jobs else _ago(stored.used_s, now_s),
    }


def _job(job: Job, now_s: float) -> Plain:
    work = job.work
    return {
        "id": job.id.hex(),
        "function": job.spec.name,
        "session": job.owner.hex(),
        "user": job.user,
        "python": job.python,
        "func_cpu": job.spec.func_cpu,
        "func_ram": job.spec.func_ram,
        "max_parallelism": job.spec.max_parallelism,
        "grow": job.spec.grow,
        "opened_s": _ago(job.opened_s, now_s),
        "failed": job.failed,
        "has_room": job.has_room,
        "blobs_lacking": job.lacks,
        "is_away": job.is_away,
        "told": job.said,
        "held_for_s": max(0.0, job.hold_until_s - now_s),
        "to_be_reopened_in_s": None if job.reopen_by_s is None else job.reopen_by_s - now_s,
        "inputs": {
            "total": work.total,
            "entered": work.batches.entered,
            "pending": _places(work.pending),
            "assigned": work.held,
            "limbo": _places(work.limbo),
            "quarantine": _places(work.quarantine),
            "done": _places(work.done),
        },
        "losses": [
            {
                "node": loss.name,
                "lost_s": _ago(loss.at_s, now_s),
                "held": _places(loss.held),
                "alone": loss.alone,
                "orderly": loss.orderly,
            }
            for loss in work.suspects.losses
        ],
        "batches_kept": len(work.batches.kept),
        "bytes_kept": work.batches.size,
        "slots": work.slots,
        "leases": _ids(work.leases),
        "past_leases": _ids(job.past),
    }


def _lease(lease: Lease, state: State, now_s: float) -> Plain:
    return {
        "id": lease.id.hex(),
        "state": lease.state.value,
        "node": state.nodes[lease.node].name,
        "job": lease.job.hex(),
        "job_is_open": lease.wanted,
        "slots": lease.slots,
        "held": _places(lease.held),
        "bytes_held": round(lease.weight),
        "call_s": lease.call_s,
        "running": _running(lease),
        "is_retracting": lease.is_retracting,
        "is_alone": lease.is_alone,
        "blobs_lacking": len(lease.lacking),
        "transitions": _transitions(lease.history, now_s),
    }


def _running(lease: Lease) -> Plain | None:
    """Return which calls last, and for how long they had when it was last told."""
    said = lease.running
    if said is None:
        return None
    calls = [[call.lo, call.hi, call.seconds] for call in said.calls]
    return {"calls": calls, "loading_s": said.loading_s}


def _node(node: Node, now_s: float) -> Plain:
    return {
        "id": node.id.hex(),
        "name": node.name,
        "connection": node.peer.hex(),
        "python": node.python,
        "cpus": node.cpus,
        "ram": node.ram,
        "isolation": node.isolation,
        "heard_s": _ago(node.heard_s, now_s),
        "unreachable_s": _ago(node.unreachable_s, now_s),
        "leaving": node.leaving,
        "retiring": node.retiring,
        "is_free": node.is_free(),
        "lease": None if node.lease is None else node.lease.id.hex(),
        "warm": None if node.warm is None else node.warm.id.hex(),
        "stopping": _ids(node.stopping),
        "orphans": _ids(node.orphans),
        "untold": _ids(node.untold),
    }


def _jobs_of(session: bytes, state: State) -> list[Job]:
    return [job for job in state.jobs.values() if job.owner == session]


def _places(ranges: Ranges) -> Plain:
    """Return how many inputs are somewhere, and which."""
    listed = [list(each) for each, _ in zip(ranges, range(LISTED_MAX), strict=False)]
    return {"count": ranges.total, "ranges": listed}


def _transitions(history: Iterable[tuple[float, LeaseState]], now_s: float) -> list[list[object]]:
    """Return since when a lease was in which states, the last one last."""
    return [[_ago(at_s, now_s), to.value] for at_s, to in history]


def _ago(at_s: float | None, now_s: float) -> float | None:
    return None if at_s is None else round(now_s - at_s, 6)


def _ids(ids: Iterable[bytes]) -> list[str]:
    return [each.hex() for each in ids]
