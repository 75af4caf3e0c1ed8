"""Big inputs on their way from their client to the node that is to run them, piece by piece.

Nothing of them is kept here: the node asks, its client sends, and what comes goes on at once. How
much is under way is bounded for all together, and each lease has its turn. What is lost with
anybody the node asks for again. To nodes that do not know how to ask a batch goes whole, as ever:
its client is asked to send all of it.
"""

from msgspec.structs import replace

from burla.protocol import messages as m
from burla.protocol.input_messages import INPUT_WINDOW

from .batch import LEAF_BYTES_MAX, Batch
from .input_table import Asked, Key
from .job import Job
from .lease import SERVING, Lease
from .node import Node
from .state import State

WHOLE_AGAIN_S = 10.0  # after which a batch that did not come whole is asked for again


# --- from nodes ---


def wanted(state: State, node: Node, said: m.InputWanted) -> None:
    """Take the question of a node for a part of a leaf.

    Raises:
        ValueError: it asks for what no such leaf has, or for too much.
    """
    lease = state.leases.get(said.lease)
    job = state.job_of(lease)
    if lease is None or job is None or lease.node != node.id or lease.state not in SERVING:
        return
    key, table = (said.lease, said.leaf), state.inputs
    batch = job.work.batches.kept.get(said.batch)
    leaf = None if batch is None else batch.leaf_at(said.leaf)
    if job.id != said.job or leaf is None:  # it is done meanwhile
        table.drop(key)
        return
    size = leaf.size or LEAF_BYTES_MAX  # it is here as a whole, for others
    if not said.have <= said.start <= said.stop <= size or said.stop - said.have > INPUT_WINDOW:
        raise ValueError("it asks for what is not there, or for too much")
    asked, before = table.asked.get(key), table.waiting.get(key)
    if before is not None and before.stop == said.start:
        said = replace(said, start=before.start)
    if said.start == said.stop:
        table.drop(key)
    elif asked is None or said.start != asked.stop or not asked.have <= said.have <= asked.at:
        table.drop(key)  # it begins anew
        table.waiting[key] = said
    else:
        table.change(asked, have=said.have)
        table.waiting[key] = said


def admit(state: State) -> None:
    """Pass questions on, in turn, as long as little enough is under way."""
    table = state.inputs
    for key, said in list(table.waiting.items()):
        if not table.fits(said.stop - said.start):
            return
        del table.waiting[key]
        asked = table.asked.get(key)
        if asked is None:
            asked = Asked(said, said.have, said.start, said.stop, state.now_s)
            table.put(key, asked)
        else:
            asked.said = said
            table.change(asked, stop=said.stop)
        state.tell(state.jobs[said.job], said)


# --- from clients ---


def piece(state: State, job: Job, said: m.InputPiece, payload: list[bytes]) -> None:
    """Pass on a piece, if it is what the client of its job was asked for."""
    lease, asked = state.leases.get(said.lease), state.inputs.asked.get((said.lease, said.leaf))
    if lease is None or asked is None or lease.job != job.id or said.start != asked.at:
        return
    size = sum(map(len, payload))
    if 0 < size <= min(m.BLOB_PIECE_BYTES, asked.stop - asked.at):
        state.inputs.pass_on(asked, size, state.now_s)
        state.send(state.nodes[lease.node].peer, said, payload)


def resume(state: State, job: Job) -> None:
    """Ask a client again that has reconnected: what was asked, or sent, may be lost."""
    for (lease_id, _), asked in state.inputs.asked.items():
        lease = state.leases.get(lease_id)
        if lease is not None and lease.job == job.id and asked.at < asked.stop:
            state.tell(job, replace(asked.said, start=asked.at, stop=asked.stop))


# --- nodes that cannot ask ---


def whole_ahead(state: State, job: Job, lease: Lease, count: int) -> int:
    """Return how many of the next `count` pending inputs a lease can take now."""
    if state.nodes[lease.node].asks_for_inputs:
        return count
    ahead = 0
    batches = job.work.batches
    for lo, hi in job.work.pending:
        for span in batches.spans(lo, min(hi, lo + count - ahead)):
            if not is_whole(state, job, batches.kept[span.batch]):
                return ahead
            ahead += span.hi - span.lo
        if ahead >= count:
            break
    return ahead


def can_take(state: State, job: Job, lease: Lease, index: int) -> bool:
    """Return whether a lease can take one input now."""
    if state.nodes[lease.node].asks_for_inputs:
        return True
    spans = job.work.batches.spans(index, index + 1)
    return all(is_whole(state, job, job.work.batches.kept[span.batch]) for span in spans)


def is_whole(state: State, job: Job, batch: Batch) -> bool:
    """Return whether a batch is here; else ask for it."""
    if batch.is_whole():
        return True
    if state.now_s >= batch.wanted_s + WHOLE_AGAIN_S:
        batch.wanted_s = state.now_s
        state.tell(job, m.BatchWanted(job.id, batch.number))
    return False


# --- time ---


def expire(state: State) -> None:
    """Go on where clients are slow or have not heard."""
    state.inputs.stall(state.now_s)
    for job in state.jobs.values():
        if job.work.batches.announced and not job.failed:
            leases = job.work.leases.values()
            if any(not state.nodes[lease.node].asks_for_inputs for lease in leases):
                state.marks.jobs[job.id] = None
                state.marks.leases |= {lease.id: lease for lease in leases}


def check(state: State) -> None:
    """Assert that the table and the leases agree. Costs O(state): for tests."""
    state.inputs.check()
    for key in (*state.inputs.asked, *state.inputs.waiting):
        _check(state, key)


def _check(state: State, key: Key) -> None:
    lease = state.leases[key[0]]
    assert lease.state in SERVING, lease
    assert lease.job in state.jobs, lease
