"""Big inputs of detached jobs: asked for piece by piece, written down, and read again. Pure.

No more of them is here than a window of pieces: each goes to the disk as it comes. How much is
under way is bounded for all jobs together, and each has its turn. What is on the disk when a caller
comes back, or the scheduler does, is not asked for again.
"""

from bisect import bisect_right

from burla.protocol import messages as m
from burla.protocol.arriving import STALLED_S as LOST_S

from . import leaves
from .effects import LoadPieces, LoadWhole, Log, ToPeer
from .kept_job import KeptJob, Pending
from .leaves import ALL_PIECES, ASKED_MIN, LeafAt
from .recovery import BatchAt
from .state import State

STALLED_S = 5.0  # a caller that sends nothing for so long holds up nobody else


# --- on their way in ---


def announced(state: State, job: KeptJob, said: m.Inputs) -> None:
    """Take the sizes of the big leaves of a batch."""
    if new := [LeafAt(said.batch, leaf) for leaf in said.leaves if leaf.size]:
        before = job.upload.coming.size
        job.upload.coming.add(new)
        state.count_coming(job, job.upload.coming.size - before)
        want(state, job)


def begin(state: State, job: KeptJob) -> None:
    """Ask the caller of a job, who has just connected, for all that is missing."""
    job.upload.coming.forget_asked()
    want(state, job)


def want(state: State, job: KeptJob) -> None:
    """Let a job have its turn, if something of it is missing."""
    upload = job.upload
    state.line.note(job.id, upload.coming.under_way())
    if upload.coming.todo and upload.source and not job.is_ended:
        state.line.wanting.setdefault(job.id)
    ask(state)


def ask(state: State) -> None:
    """Ask for pieces, of a job after another, as long as little enough is under way."""
    line = state.line
    while line.wanting and line.total < ALL_PIECES:
        job_id = next(iter(line.wanting))
        del line.wanting[job_id]
        if _ask_one(state, state.jobs[job_id]):
            line.wanting[job_id] = None  # its next turn is after all others'


def _ask_one(state: State, job: KeptJob) -> bool:
    """Ask for the next pieces of a job; return whether more may be asked for."""
    coming, line = job.upload.coming, state.line
    if coming.is_stalled and coming.asked:
        return False
    room = line.share() - len(coming.asked) - coming.writing
    while coming.todo and room >= ASKED_MIN:
        leaf = coming.todo[0]
        run = leaf.take_run(min(room, ASKED_MIN))
        if leaf.next == len(leaf.places):
            coming.todo.popleft()
        if not run:
            continue
        if not coming.asked:
            coming.heard_s, coming.is_stalled = state.now_s, False
        coming.asked += [(leaf, number) for number in run]
        line.note(job.id, coming.under_way())
        start = run.start * leaves.PIECE_BYTES
        stop = min(leaf.size, run.stop * leaves.PIECE_BYTES)
        wanted = m.InputWanted(job.id, job.id, leaf.batch, leaf.start, start, start, stop)
        state.effects.append(ToPeer(job.upload.source, wanted))
        return bool(coming.todo)
    return False


def take(state: State, job: KeptJob, said: m.InputPiece, payload: list[bytes]) -> bool:
    """Have a piece written down, if it is the one that is due; return whether it is."""
    coming = job.upload.coming
    if job.is_ended or not coming.asked:
        return False
    leaf, number = coming.asked[0]
    size = sum(map(len, payload))
    is_due = (said.leaf, said.start) == (leaf.start, number * leaves.PIECE_BYTES)
    if not is_due or size != leaf.size_of(number):
        return False
    coming.asked.popleft()
    coming.writing += 1
    coming.heard_s, coming.is_stalled = state.now_s, False
    coming.size -= size
    state.count_coming(job, -size)
    state.append(job, Log.INPUTS, said, payload)
    want(state, job)
    return True


def is_on_disk(state: State, job: KeptJob, said: m.InputPiece, entry: Pending) -> None:
    """Take note of a piece that is on the disk now."""
    coming = job.upload.coming
    coming.writing -= 1
    if (leaf := coming.leaves.get(said.leaf)) is not None:
        leaf.put(said.start // leaves.PIECE_BYTES, (entry.segment, entry.at))
        if not leaf.missing:
            del coming.leaves[leaf.start]
            settle(job)
    want(state, job)


def settle(job: KeptJob) -> None:
    """Let batches count that are whole, and those before them."""
    waiting = job.upload.waiting
    while waiting and waiting[0].is_whole():
        job.batches.append(waiting.popleft())


def expire(state: State, job: KeptJob, *, is_there: bool) -> None:
    """Go on where a caller is slow, or is gone."""
    coming, line = job.upload.coming, state.line
    silent_s = state.now_s - coming.heard_s
    if not is_there:
        coming.forget_asked()
        line.wanting.pop(job.id, None)
    elif coming.asked and silent_s >= LOST_S:
        coming.forget_asked()
        line.wanting.setdefault(job.id)
    elif coming.asked and silent_s >= STALLED_S:
        coming.is_stalled = True
    line.note(job.id, coming.under_way())


# --- on their way to nodes ---


def wanted(state: State, job: KeptJob, said: m.InputWanted) -> None:
    """Have a part of a leaf read that a node asks for."""
    leaf = next((e for e in _leaves_at(job, said.leaf) if e.start == said.leaf), None)
    if leaf is None or not said.start < said.stop <= leaf.size:
        return
    first, last = said.start // leaves.PIECE_BYTES, (said.stop - 1) // leaves.PIECE_BYTES
    places = tuple([place for place in leaf.places[first : last + 1] if place is not None])
    state.effects.append(LoadPieces(job.id, said, first, places))


def wanted_whole(state: State, job: KeptJob, said: m.BatchWanted) -> None:
    """Have a batch read whole that a node needs which cannot ask for a part of it."""
    at = bisect_right(job.batches, said.batch, key=lambda batch: batch.number) - 1
    if at < 0 or job.batches[at].number != said.batch:
        return
    batch = job.batches[at]
    place = (batch.segment, batch.at, batch.end)
    state.effects.append(LoadWhole(job.id, batch.number, *place, batch.leaves))


def _leaves_at(job: KeptJob, index: int) -> tuple[LeafAt, ...]:
    at = bisect_right(job.batches, index, key=lambda batch: batch.start) - 1
    return job.batches[at].leaves if at >= 0 else ()


def batch_at(job: KeptJob, said: m.Inputs, entry: Pending) -> BatchAt:
    """Return where a batch lies that is on the disk now."""
    known = job.upload.coming.leaves
    big = tuple([known[leaf.start] for leaf in said.leaves if leaf.size and leaf.start in known])
    end = entry.at + entry.size
    return BatchAt.of(said, entry.segment, entry.at, end, sum(map(len, entry.payload)), big)
