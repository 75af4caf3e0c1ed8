"""Calls that have failed and are called again: how often they have, when, and where not.

Nodelets decide whether a call is called again. The counts are kept here as well, and go with the
inputs to whoever gets them next, so that they count on whatever dies.
"""

from collections.abc import Iterable

from burla.protocol import messages as m
from burla.protocol.fields import TRIED_MAX, Try
from burla.protocol.ranges import Range

from .job import FailedCall, Job
from .lease import SERVING, Lease
from .state import State

ELSEWHERE_S = 10.0  # so long a call that failed on one node waits for another


def note(state: State, job: Job, lease: Lease | None, tried: Iterable[Try]) -> None:
    """Take note of calls that have failed on a lease; None: told by the client.

    What is known already changes nothing: it may be told twice.
    """
    for one in tried:
        known = job.failed_calls.get(one.index)
        if one.index in job.work.done or (known is not None and one.tries <= known.tries):
            continue
        nodes = () if known is None else known.nodes
        if lease is not None:
            nodes = (*nodes, lease.node)
        due_s = state.now_s + one.wait_s
        before = 0 if known is None else known.tries
        state.records.open[job.id].counts.retried += one.tries - before
        job.failed_calls[one.index] = FailedCall(one.tries, due_s, state.now_s, nodes)
        if job.moves_failed and lease is not None and lease.state in SERVING:
            if one.index in lease.held:
                job.work.give_back(lease, one.index, one.index + 1)
            state.marks.jobs[job.id] = None


def forget(job: Job, done: Iterable[Range]) -> None:
    """Forget calls that have their outcomes."""
    failed = job.failed_calls
    for lo, hi in done if failed else ():
        few = len(failed) < hi - lo
        for index in [i for i in failed if lo <= i < hi] if few else range(lo, hi):
            failed.pop(index, None)


def send(state: State, job: Job, lease: Lease, assigned: tuple[m.Assign, list[bytes]]) -> None:
    """Send an Assign, after what is known of its calls that have failed before."""
    message, payload = assigned
    peer = state.nodes[lease.node].peer
    for tried in _among(state, job, message) if job.failed_calls else ():
        ahead = m.Assign(
            lease=lease.id, left=message.left, spans=(), leaves=(), forget=(), tried=tried
        )
        state.send(peer, ahead)
    state.send(peer, message, payload)


def _among(state: State, job: Job, message: m.Assign) -> Iterable[tuple[Try, ...]]:
    """Yield what is known of the calls of an Assign, in parts that fit into a message."""
    failed = job.failed_calls
    found: list[Try] = []
    for span in message.spans:
        few = len(failed) < span.hi - span.lo
        indices = [i for i in failed if span.lo <= i < span.hi] if few else range(span.lo, span.hi)
        for index in indices:
            if (one := failed.get(index)) is not None:
                found.append(Try(index, one.tries, max(0.0, one.due_s - state.now_s)))
    for at in range(0, len(found), TRIED_MAX):
        yield tuple(found[at : at + TRIED_MAX])


def take_out(state: State, job: Job, lease: Lease) -> list[int]:
    """Take pending calls out that are not for this lease: they failed on its node.

    That is so for a moment, and only if another node could be had.
    """
    if not (job.moves_failed and job.failed_calls):
        return []
    fitting = {node.id for node in state.nodes.values() if not node.leaving and node.slots(job)}
    cap = job.spec.max_parallelism
    if cap is not None and job.work.slots >= cap:  # it gets no further node
        fitting &= {one.node for one in job.work.leases.values()}
    found = [
        index
        for index, one in job.failed_calls.items()
        if lease.node in one.nodes
        and state.now_s < one.since_s + ELSEWHERE_S
        and fitting.difference(one.nodes)
        and index in job.work.pending
    ]
    for index in found:
        job.work.pending.remove(index, index + 1)
    return found


def put_back(job: Job, indices: Iterable[int]) -> None:
    """Make pending again what was taken out."""
    for index in indices:
        job.work.pending.add(index, index + 1)
