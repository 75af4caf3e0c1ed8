"""Blobs of jobs: asked of a client once, kept for a while, passed on to every node that lacks them.

A job names its blobs when it is opened. There is room for all of them, or the job waits; so no two
jobs can wait for each other. Nodes are leased meanwhile: what comes is passed on as it comes, and a
lease that lacks something is known by what it asked for. A client is asked for a bounded part of
what it has to send, so that none is held up by its own windows.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

from burla.protocol import messages as m
from burla.protocol.arriving import STALLED_S, WRONG_MAX, Arriving, pieces_of

from . import leases
from .blob_table import TENANT_SHARE, Name, Needed, Reader, Stored
from .client import Client
from .effects import DropBlob, KeepBlob, SendBlob
from .failing import fail
from .job import Job
from .lease import SERVING, Lease
from .node import Node
from .state import State

KEPT_S = 600.0  # that no job has needed: a blob goes then, or when its room is needed
ASKED_MAX = 4  # blobs of which one client is asked for a part at a time
LACKING_REMEDY = (
    "A detached job has nobody to send files of packages later. Call the function on one input"
    " without detach=True first, in the same script: from then on they go along. Or have the nodes"
    " given them (burla up --package), or say by packages= which it does need"
)

# --- jobs come and go ---


def why_never(state: State, blobs: Iterable[m.Blob]) -> str:
    """Return why there never is room for so much; empty: there may be."""
    sizes, table = [size for _, size in {(e.digest, e.size) for e in blobs}], state.blobs
    if table.is_share(len(sizes), sum(sizes)):
        return ""
    have, most = f"{sum(sizes):,} bytes", f"{table.bytes_max // TENANT_SHARE:,} bytes of that"
    if table.is_share(len(sizes), 0):
        remedy = "Pass big data as inputs, or let the function read it where it runs"
    else:
        have = f"{len(sizes):,} big objects or files"
        most = f"{table.number_max // TENANT_SHARE:,} of them"
        remedy = "Put them together into fewer, or raise its limit of open files (ulimit -n)"
    return (
        f"the function refers to {have}, and this cluster keeps at most {most} for a user. {remedy}"
    )


def enter(state: State, job: Job) -> None:
    """Begin to get what a new job needs, or let it wait until there is room for that."""
    job.has_room = not _is_over_share(state, job) and _take_room(state, job)
    if not job.has_room:
        state.blobs.waiting[job.id] = None


def _names_of(job: Job) -> list[Name]:
    """Return the names of the blobs of a job, each once."""
    names = [(job.tenant, blob.digest, blob.size) for blob in job.spec.blobs]
    return list(dict.fromkeys(names))


def _is_over_share(state: State, job: Job) -> bool:
    """Return whether the jobs of a tenant would need more than it may have at once."""
    table = state.blobs
    needed = table.needed.get(job.tenant, Needed())
    new = [name for name in _names_of(job) if not _is_needed(state, name)]
    size = sum(size for _, _, size in new)
    return not table.is_share(needed.number + len(new), needed.size + size)


def _is_needed(state: State, name: Name) -> bool:
    stored = state.blobs.by_name.get(name)
    return stored is not None and bool(stored.jobs)


def _count(state: State, stored: Stored, by: int) -> None:
    """Take note that a blob begins (1) or ceases (-1) to be needed by jobs."""
    needed = state.blobs.needed.setdefault(stored.tenant, Needed())
    needed.number += by
    needed.size += by * stored.arriving.size
    if not needed.number:
        del state.blobs.needed[stored.tenant]


def _take_room(state: State, job: Job) -> bool:
    table, names = state.blobs, _names_of(job)
    new = [name for name in names if name not in table.by_name]
    if not _make_room(state, set(names), len(new), sum(size for _, _, size in new)):
        return False
    for name in new:
        table.made += 1
        table.size += name[2]
        table.by_name[name] = Stored(table.made, job.tenant, Arriving(name[1], name[2]))
    for stored in [table.by_name[name] for name in names]:
        if not stored.jobs:
            _count(state, stored, 1)
        stored.jobs[job.id] = None
        job.lacks += not stored.arriving.is_whole()
        if not job.spec.resumed:  # else its nodes have got it, most likely: they say if not
            stored.is_wanted = True
    _ask_for_more(state, of_job(state, job))
    return True


def _make_room(state: State, names: set[Name], number: int, size: int) -> bool:
    """Make room for new blobs by dropping what neither jobs nor `names` need, oldest first."""
    table = state.blobs
    if table.fits(number, size):
        return True
    for old in [e for e in table.by_name.values() if not e.jobs and e.name not in names]:
        _drop(state, old)
        if table.fits(number, size):
            return True
    return False


def leave(state: State, job: Job) -> None:
    """Take note that a job is closed; what it needed is kept for a while."""
    state.blobs.waiting.pop(job.id, None)
    _let_go(state, job)
    for waiting in [state.jobs[each] for each in state.blobs.waiting]:
        if _is_over_share(state, waiting):
            continue
        if not _take_room(state, waiting):
            break  # in turn: else a big one might wait for ever
        waiting.has_room = True
        del state.blobs.waiting[waiting.id]
        state.marks.jobs[waiting.id] = None
    _ask_for_more(state, state.blobs.by_name.values())


def _let_go(state: State, job: Job) -> None:
    table = state.blobs
    for stored in list(of_job(state, job)):
        del stored.jobs[job.id]
        if not stored.jobs:
            _count(state, stored, -1)
        stored.used_s = state.now_s
        if stored.source == job.id:
            _set_source(state, stored, b"")
            stored.arriving.forget_asked()
        if stored.jobs or stored.arriving.is_whole():
            del table.by_name[stored.name]
            table.by_name[stored.name] = stored  # the last to go
        else:
            _drop(state, stored)
    if len(table.by_name) > table.idle_max:
        idle = [each for each in table.by_name.values() if not each.jobs]
        for old in idle[: max(0, len(idle) - table.idle_max)]:
            _drop(state, old)


def resume(state: State, job: Job) -> None:
    """Ask a client again that has reconnected: what was asked, or sent, may be lost."""
    for stored in of_job(state, job):
        if stored.source == job.id:
            stored.arriving.forget_asked()
    _ask_for_more(state, of_job(state, job))


def of_job(state: State, job: Job) -> Iterator[Stored]:
    """Yield the blobs that are kept for a job, each once."""
    for name in _names_of(job):
        stored = state.blobs.by_name.get(name)
        if stored is not None and job.id in stored.jobs:
            yield stored


def _of_job_named(state: State, job: Job, digest: bytes) -> Stored | None:
    return next((e for e in of_job(state, job) if e.arriving.digest == digest), None)


# --- from clients ---


def piece(state: State, job: Job, said: m.BlobPiece, payload: list[bytes]) -> None:
    """Take a piece of a blob, if it is what its job's client was asked for."""
    state.clients[job.owner].sent_s = state.now_s
    stored = _of_job_named(state, job, said.digest)
    if stored is None or stored.source != job.id:
        return
    arriving = stored.arriving
    wrong = arriving.wrong
    if not arriving.take(said.start, payload, state.now_s):
        return
    if arriving.wrong > wrong:
        _is_wrong(state, stored)
        return
    state.effects.append(KeepBlob(stored.number, said.start, payload))
    if arriving.is_whole():
        _set_source(state, stored, b"")
        for each in stored.jobs:
            state.jobs[each].lacks -= 1
            state.marks.jobs[each] = None  # nodes that take functions whole may serve it now
        _ask_for_next(state, job)
    else:
        _ask_for_more(state, (stored,))
    _feed(state, stored)


def _is_wrong(state: State, stored: Stored) -> None:
    """Begin a blob anew that is not what its name says, or give its jobs up."""
    state.effects.append(DropBlob(stored.number))
    if stored.arriving.wrong >= WRONG_MAX:
        _fail_jobs(
            state,
            stored,
            "what the function refers to has arrived as other bytes again and"
            " again: they were changed in transit",
        )
        return
    _ask_for_more(state, (stored,))


def lost(state: State, number: int, why: str) -> None:
    """Take note that the bytes of a blob cannot be kept, or are not there any more."""
    found = next((e for e in state.blobs.by_name.values() if e.number == number), None)
    if found is None:
        return
    state.note(f"a blob of {found.arriving.size} bytes is lost: {why}")
    _fail_jobs(state, found, f"the scheduler cannot keep what the function refers to: {why}")
    for job in [state.jobs[each] for each in found.jobs]:
        _let_go(state, job)
        job.has_room = False
    if found.name in state.blobs.by_name:
        _drop(state, found)


def _fail_jobs(state: State, stored: Stored, text: str) -> None:
    stored.is_wanted = False
    for job in [state.jobs[each] for each in stored.jobs]:
        if not job.failed:
            fail(state, job, "", text)


def _ask_for_more(state: State, blobs: Iterable[Stored]) -> None:
    """Ask for what is missing of `blobs`, as far as their clients have not enough to send."""
    for stored in list(blobs):
        if stored.is_wanted and not stored.arriving.is_whole():
            _ask(state, stored)


def _ask_for_next(state: State, job: Job) -> None:
    """Ask the client of a job for something else, first for what the same job lacks."""
    _ask_for_more(state, of_job(state, job))
    client = state.clients.get(job.owner)
    if client is not None and _may_ask(state, client):
        _ask_for_more(state, state.blobs.by_name.values())


def _ask(state: State, stored: Stored) -> None:
    client = _client_of(state, stored.source)
    if client is None:
        stored.arriving.forget_asked()
        for job_id in stored.jobs:
            client = _client_of(state, job_id)
            if client is not None and _may_ask(state, client):
                _set_source(state, stored, job_id)
                break
        else:
            _set_source(state, stored, b"")
            return
    while (part := stored.arriving.ask(state.now_s)) is not None:
        said = m.BlobWanted(stored.source, stored.arriving.digest, *part)
        state.send(client.peer, said)


def _client_of(state: State, job_id: bytes) -> Client | None:
    """Return the client of a job, if it can be asked."""
    job = state.jobs.get(job_id)
    client = None if job is None or job.failed else state.clients.get(job.owner)
    is_there = client is not None and client.peer and client.unreachable_s is None
    return client if is_there else None


def _set_source(state: State, stored: Stored, job_id: bytes) -> None:
    """Take note whose client is asked for a blob; empty: nobody's is."""
    table, stored.source = state.blobs, job_id
    if (session := table.asked.pop(stored.name, None)) is not None:
        table.asked_of[session] -= 1
        if not table.asked_of[session]:
            del table.asked_of[session]
    if job_id:
        session = table.asked[stored.name] = state.jobs[job_id].owner
        table.asked_of[session] += 1


def _may_ask(state: State, client: Client) -> bool:
    """Return whether a client has little enough to send."""
    return state.blobs.asked_of[client.session] < ASKED_MAX


# --- to nodes ---


def wanted(state: State, node: Node, said: m.BlobWanted) -> None:
    """Send what a node lacks for its lease, as soon as it is here.

    Raises:
        ValueError: it asks for what no such blob has, or for too much.
    """
    lease = state.leases.get(said.about)
    job = state.job_of(lease)
    if lease is None or job is None or lease.node != node.id or lease.state not in SERVING:
        return
    stored = _of_job_named(state, job, said.digest)
    if stored is None:
        return
    size = said.stop - said.start
    if not 0 < size <= m.BLOB_WINDOW or said.stop > stored.arriving.size:
        raise ValueError("it asks for what is not there, or for too much")
    reader = stored.readers.get(lease.id)
    if reader is not None and reader.stop == said.start:  # what it waits for is not here yet
        reader.stop = said.stop
    else:
        stored.readers[lease.id] = Reader(said.start, said.stop)
    lease.lacking[said.digest] = None
    if not stored.arriving.is_whole():
        stored.is_wanted = True
        _ask_for_more(state, (stored,))
    _feed(state, stored)


def _feed(state: State, stored: Stored) -> None:
    """Send what is here to those who asked for it."""
    for lease_id, reader in list(stored.readers.items()):
        lease = state.leases.get(lease_id)
        if lease is None or lease.state not in SERVING:
            del stored.readers[lease_id]
            continue
        stop = min(reader.stop, stored.arriving.have)
        peer = state.nodes[lease.node].peer
        for start, end in pieces_of(reader.start, stop):
            said = m.BlobPiece(lease_id, stored.arriving.digest, start)
            state.effects.append(SendBlob(peer, said, stored.number, end))
        reader.start = max(reader.start, stop)
        if reader.start == reader.stop:
            del stored.readers[lease_id]
            if reader.stop == stored.arriving.size:
                _has_all(state, lease, stored.arriving.digest)


def _has_all(state: State, lease: Lease, digest: bytes) -> None:
    lease.lacking.pop(digest, None)
    job = state.job_of(lease)
    if job is not None and job.said and not lease.lacking:
        job.said = ""
        state.tell(job, m.JobStatus(job.id, "", job.slots_said))


def refused(state: State, node: Node, said: m.LeaseRefused) -> None:
    """Fail a job that its node cannot serve."""
    lease = state.leases.get(said.lease)
    job = state.job_of(lease)
    if lease is None or job is None or lease.node != node.id or job.failed:
        return
    others = job.work.leases.keys() - {lease.id} - job.work.preparing.keys()
    may_do_without = bool(said.packages or job.spec.image)
    if may_do_without and others:  # which have begun: calls that run are not to be run again
        job.work.unfit[node.id] = said.why.partition("\n")[0]
        leases.end(state, lease, discard=True)
    else:
        text = f"node {node.name} cannot serve this job: {said.why}"
        if said.packages and job.spec.detached is not None:  # else its client sends files
            text = f"{text}\n{LACKING_REMEDY}"
        fail(state, job, "", text, packages=said.packages)


# --- time ---


def expire(state: State) -> None:
    """Let go of what is old, ask again for what does not come, say why jobs wait."""
    for stored in list(state.blobs.by_name.values()):
        if stored.jobs:
            if stored.source and _is_stalled(state, stored):
                _set_source(state, stored, b"")
                stored.arriving.forget_asked()
        elif state.now_s >= stored.used_s + KEPT_S:
            _drop(state, stored)
    with_blobs = [job for job in state.jobs.values() if job.spec.blobs]
    for job in with_blobs:
        _want_whole(state, job)
    _ask_for_more(state, state.blobs.by_name.values())
    for job in with_blobs:
        _tell(state, job)


def _is_stalled(state: State, stored: Stored) -> bool:
    """Return whether what a client was asked for does not come, nor anything before it."""
    client = state.clients.get(state.jobs[stored.source].owner)
    sends = client is not None and state.now_s < client.sent_s + STALLED_S
    return not sends and stored.arriving.is_stalled(state.now_s)


def _want_whole(state: State, job: Job) -> None:
    """Get what a resumed job lacks if no node will ask for it, as older ones do not."""
    if not job.lacks or job.failed or job.work.leases or state.now_s < job.hold_until_s:
        return
    if is_awaited_whole(state, job):
        for stored in of_job(state, job):
            stored.is_wanted = True


def _tell(state: State, job: Job) -> None:
    """Say why a job has not begun whose nodes lack something, if none has all."""
    waiting = [lease for lease in job.work.leases.values() if lease.lacking]
    if job.failed or not waiting or len(waiting) < len(job.work.leases):
        return
    why = f"{why_lacking(job)} on the way to node {state.nodes[waiting[0].node].name}"
    if len(waiting) > 1:
        why = f"{why} and {len(waiting) - 1} more"
    if why != job.said:
        job.said = why
        state.tell(job, m.JobStatus(job.id, why, job.slots_said))


def is_awaited_whole(state: State, job: Job) -> bool:
    """Return whether a node would serve a job if all that it needs were here."""
    return any(not node.slots(job) and not node.misfit(job)[1] for node in state.nodes.values())


def why_lacking(job: Job) -> str:
    """Return what is missing of a job, the beginning of a sentence."""
    size = sum(blob.size for blob in job.spec.blobs)
    return f"the {size / 1e6:,.1f} MB that its function refers to are"


def _drop(state: State, stored: Stored) -> None:
    _set_source(state, stored, b"")
    del state.blobs.by_name[stored.name]
    state.blobs.size -= stored.arriving.size
    state.effects.append(DropBlob(stored.number))


def check(state: State) -> None:
    """Assert that the table and the jobs agree. Costs O(state): for tests."""
    table = state.blobs
    assert table.size == sum(e.arriving.size for e in table.by_name.values()) <= table.bytes_max
    assert len(table.by_name) <= table.number_max
    assert sum(not e.jobs for e in table.by_name.values()) <= table.idle_max
    sources = {name: e.source for name, e in table.by_name.items() if e.source}
    assert table.asked == {name: state.jobs[job].owner for name, job in sources.items()}
    assert table.asked_of == Counter(table.asked.values())
    needed: dict[str, Needed] = {}
    for name, stored in table.by_name.items():
        assert stored.name == name
        if stored.jobs:
            count = needed.setdefault(stored.tenant, Needed())
            count.number, count.size = count.number + 1, count.size + stored.arriving.size
        assert stored.jobs or stored.arriving.is_whole(), "nobody needs it, and it is not whole"
        assert not stored.source or stored.source in stored.jobs
        for job_id in stored.jobs:
            job = state.jobs[job_id]
            assert job.tenant == stored.tenant
    assert table.needed == needed
    for job in state.jobs.values():
        assert job.has_room != (job.id in table.waiting) or job.failed
        if job.has_room:
            lacks = sum(not e.arriving.is_whole() for e in of_job(state, job))
            assert job.lacks == lacks, (job.lacks, lacks)
