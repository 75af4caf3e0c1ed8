"""Big inputs on their way from their client to the node that is to run them, piece by piece.

Nothing of them is kept here: the node asks, its client sends, and what comes goes on at once. How
much is under way is bounded for all together, and each job has its turn and its share: so a slow
client holds up nobody else. What is lost with anybody the node asks for again. To nodes that do not
know how to ask a batch goes whole, as ever: its client is asked to send all of it.
"""

from msgspec.structs import replace

from burla.protocol import messages as m
from burla.protocol.input_messages import INPUT_WINDOW, LEAF_BYTES_MAX

from .batch import Batch
from .input_table import EARLY_MAX, LOST_S, Asked, Key
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
    key, table, batches = (said.lease, said.leaf), state.inputs, job.work.batches
    batch = batches.kept.get(said.batch)
    leaf = None if batch is None else batch.leaf_at(said.leaf)
    if job.id != said.job or leaf is None:
        table.drop(key, job.id)
        # its client has come back after its node, and says soon what it has; else it is done
        is_early = job.id == said.job and said.leaf >= batches.entered
        if is_early and said.start < said.stop and len(table.early) < EARLY_MAX:
            table.early[key] = said
        return
    size = leaf.size or LEAF_BYTES_MAX  # it is here as a whole, for others
    if not said.have <= said.start <= said.stop <= size or said.stop - said.have > INPUT_WINDOW:
        raise ValueError("it asks for what is not there, or for too much")
    if said.start == said.stop:
        table.drop(key, job.id)
    else:
        _note(state, key, said)


def _note(state: State, key: Key, said: m.InputWanted) -> None:
    """Take note of what is wanted of a leaf; of what is on its way already, that it is missed."""
    table = state.inputs
    asked, before = table.asked.get(key), table.waiting(key, said.job)
    last = before or asked
    end = 0 if last is None else last.stop
    if asked is None:
        is_more = before is not None and said.start in (before.start, before.stop)
        start = before.start if before is not None and is_more else said.start
    else:
        is_known = asked.have <= said.have <= asked.at
        is_again = said.stop == end and table.silent_s(asked, state.now_s) < LOST_S
        is_more, start = is_known and (said.start == end or is_again), asked.stop
    if not is_more:
        table.drop(key, said.job)  # it begins anew
        start = said.start
    elif asked is not None:
        table.change(asked, have=said.have)
    if start < said.stop:
        table.wait(key, replace(said, start=start))


def entered(state: State, job: Job, batch: Batch) -> None:
    """Answer what nodes have asked about a batch before it came."""
    early = state.inputs.early
    for key, said in list(early.items()):
        if (said.job, said.batch) == (job.id, batch.number):
            del early[key]
            node = state.nodes[state.leases[said.lease].node]
            try:
                wanted(state, node, said)
            except ValueError as error:  # no fault of the client, who speaks now
                state.note(f"ignored a question of node {node.name}: {error}")


def admit(state: State) -> None:
    """Pass questions on, a job's after another's, as long as little enough is under way."""
    table = state.inputs
    jobs = [job for job, line in table.lines.items() if line.waiting]
    while jobs:
        rest = []
        for job in jobs:
            first = next(iter(table.lines[job].waiting.values()))
            if not table.is_share(job, first.stop - first.start):
                continue
            if not table.fits(first.stop - first.start):
                return  # it is its turn
            _pass_on(state, *table.take(job))
            if table.lines[job].waiting:
                rest.append(job)
        jobs = rest


def _pass_on(state: State, key: Key, said: m.InputWanted) -> None:
    table = state.inputs
    asked = table.asked.get(key)
    if asked is None:
        table.put(key, Asked(said, said.have, said.start, said.stop, state.now_s))
    else:
        if asked.at == asked.stop:
            asked.heard_s = state.now_s
        asked.said = said
        table.change(asked, stop=said.stop)
    state.tell(state.jobs[said.job], said)


# --- from clients ---


def piece(state: State, job: Job, said: m.InputPiece, payload: list[bytes]) -> None:
    """Pass on a piece, if it is what the client of its job was asked for."""
    state.clients[job.owner].sent_s = state.now_s
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
    table = state.inputs
    waiting = [key for line in table.lines.values() for key in line.waiting]
    for key in (*table.asked, *table.early, *waiting):
        _check(state, key)


def _check(state: State, key: Key) -> None:
    lease = state.leases[key[0]]
    assert lease.state in SERVING, lease
    assert lease.job in state.jobs, lease
