"""What people ask about jobs: which there are, what became of them, to stop one. Pure.

Who asks sees the jobs of the same tenant; an administrator all. Of another's job nobody learns
whether it is there.
"""

from collections.abc import Iterator
from itertools import chain, islice

from msgspec.structs import replace

from burla.protocol import job_messages as jm, output_messages as om
from burla.protocol.detach_messages import DetachAsked
from burla.protocol.messages import HEADER_BYTES_MAX

from . import following, leases, telling
from .client import Client
from .effects import KeepOutput, KeepRecords
from .failing import fail
from .outputs import Filed
from .records import Recording
from .state import State

NAMED_MAX = 3  # jobs that begin with the same digits
ID_DIGITS = 32  # of a whole id
LISTED_WHY_CHARS = 200  # of why a job waits or has ended; the whole is told of one
# A list must fit into a header: rather fewer jobs than none, for names are what callers say.
LIST_BYTES_MAX = HEADER_BYTES_MAX // 2
LINE_BYTES, CHAR_BYTES = 200, 4  # of one job besides its texts; of a character at most


def answer(
    state: State, client: Client, said: jm.JobQuestion, *, sees_all: bool
) -> jm.JobList | jm.JobShown:
    """Return the answer to a question about jobs, and do what it asks for."""
    tenant = None if sees_all else state.tenants.of(client.user)
    match said:
        case jm.ListJobs():
            return _list(state, said, tenant)
        case jm.ShowJob():
            found = _find(state, said.job, tenant)
            if isinstance(found, str):
                return jm.JobShown(None, found)
            found.is_watched = found.is_watched or not said.brief  # else its caller asks
            return _shown(state, found, brief=said.brief)
        case jm.CancelJob():
            return _cancel(state, client, said.job, tenant)
        case jm.DetachJob():
            return _detach(state, client, said.job, tenant)


def read_output(state: State, client: Client, said: om.ReadOutput, *, sees_all: bool) -> None:
    """Answer who asks what a job has printed."""
    tenant = None if sees_all else state.tenants.of(client.user)
    found = _find(state, said.job, tenant)
    if isinstance(found, str):
        state.send(client.peer, om.KeptOutput(b"", why=found))
    else:
        found.is_watched = True
        is_open = state.records.open.get(found.id) is found
        following.read(state, client, said, found, is_open=is_open)


def _of(state: State, tenant: str | None) -> tuple[Iterator[Recording], Iterator[Recording]]:
    """Return the open and the other jobs that somebody sees, each the newest first."""
    kept = state.records
    is_open = reversed(kept.open.values())
    over = chain(reversed(kept.former.values()), reversed(kept.over.values()))
    of = state.tenants.of  # of whose key no user was known when it was opened is that user's now
    return (
        (one for one in is_open if tenant is None or of(one.tenant) == tenant),
        (one for one in over if tenant is None or of(one.tenant) == tenant),
    )


def _list(state: State, said: jm.ListJobs, tenant: str | None) -> jm.JobList:
    is_open, over = _of(state, tenant)
    seen = is_open if said.only_open else chain(is_open, over)
    told: list[jm.JobSummary] = []
    size = 0
    for one in islice(seen, said.limit):
        line = telling.summary(_named(state, one), state.jobs.get(one.id), state.now_s)
        told.append(replace(line, why=line.why[:LISTED_WHY_CHARS]))
        size += LINE_BYTES + CHAR_BYTES * (len(told[-1].why) + len(line.name) + len(line.user))
        if size > LIST_BYTES_MAX:
            break
    return jm.JobList(tuple(told), len(told) + sum(1 for _ in seen))


def _find(state: State, digits: str, tenant: str | None) -> Recording | str:
    """Return the job whose id begins with these digits, or why it is not told which."""
    is_open, over = _of(state, tenant)
    if not digits:
        return next(chain(is_open, over), "there is no job")
    wanted = digits.lower()
    if len(wanted) == ID_DIGITS and (exact := _exact(state, wanted, tenant)) is not None:
        return exact
    matching = (one for one in chain(is_open, over) if one.id.hex().startswith(wanted))
    found = list(islice(matching, NAMED_MAX + 1))
    if not found:
        return f"there is no job {digits}"
    if len(found) > 1:
        names = ", ".join(one.id.hex() for one in found[:NAMED_MAX])
        more = ", ..." if len(found) > NAMED_MAX else ""
        return f"several jobs begin with {digits}: {names}{more}"
    return found[0]


def _exact(state: State, digits: str, tenant: str | None) -> Recording | None:
    """Return an open job by its whole id: its caller asks each second."""
    try:
        found = state.records.open.get(bytes.fromhex(digits))
    except ValueError:
        return None
    is_theirs = found is not None and tenant in (None, state.tenants.of(found.tenant))
    return found if is_theirs else None


def _shown(state: State, record: Recording, why: str = "", *, brief: bool = False) -> jm.JobShown:
    return jm.JobShown(_told(state, record, brief=brief), why)


def _told(state: State, record: Recording, *, brief: bool = False) -> jm.JobRecord:
    job = state.jobs.get(record.id)
    tell = telling.told_briefly if brief else telling.told
    return tell(_named(state, record), job, state.now_s, lambda node: state.nodes[node].name)


def _cancel(state: State, client: Client, digits: str, tenant: str | None) -> jm.JobShown:
    """Stop a job: its caller is told, and its nodes are free as soon as its calls have ended."""
    found = _find(state, digits, tenant) if digits else "say which job"
    if isinstance(found, str):
        state.record(client.user, "cancel job", None, found)
        return jm.JobShown(None, found)
    job = state.jobs.get(found.id)
    if job is None or (job.work.is_complete() and not job.failed):
        return _shown(state, found, f"job {found.id.hex()} is over already")
    who = state.tenants.users.get(client.user, client.name)
    state.record(client.user, "cancel job", job.id, "ok")
    found.cancelled_by = who[:256]
    if not job.failed:
        fail(state, job, "", f"the job was cancelled by {who} (`burla jobs cancel`)")
    for lease in list(job.work.leases.values()):
        leases.end(state, lease, discard=True)
    return _shown(state, found)


def _detach(state: State, client: Client, digits: str, tenant: str | None) -> jm.JobShown:
    """Ask the client of a job to detach it: what it has of outcomes only it can give."""
    found = _find(state, digits, tenant) if digits else "say which job"
    if isinstance(found, str):
        state.record(client.user, "detach job", None, found)
        return jm.JobShown(None, found)
    job = state.jobs.get(found.id)
    if job is None or job.failed or job.work.is_complete():
        return _shown(state, found, f"job {found.id.hex()} is over already")
    owner = state.clients.get(job.owner)
    if job.spec.detached is not None:
        why = f"job {found.id.hex()} is detached already"
    elif owner is None or not owner.peer:
        why = f"the client of job {found.id.hex()} is not connected at present"
    elif not owner.can_detach:
        why = f"the client of job {found.id.hex()} runs an older burla, which cannot detach it"
    else:
        why = ""
        who = state.tenants.users.get(client.user, client.name)
        state.send(owner.peer, DetachAsked(found.id, who[:256]))
    state.record(client.user, "detach job", job.id, why or "ok")
    return _shown(state, found, why)


def file(state: State) -> None:
    """Have what has changed put into the file, now and then."""
    if rows := unfiled(state):
        state.effects.append(KeepRecords(rows))
    if filed := unfiled_output(state):
        state.effects.append(KeepOutput(filed))


def _named(state: State, record: Recording) -> Recording:
    """Return a record, with the name of its user if that has become known."""
    record.user = state.tenants.users.get(record.tenant, record.user)
    return record


def unfiled(state: State, *, at_once: bool = False) -> tuple[tuple[str, jm.JobRecord], ...]:
    """Return what is to be filed now; `at_once`, at the end of this life: all of it."""
    taken = state.records.take_unfiled(state.now_s, at_once=at_once)
    return tuple((one.tenant, _told(state, one)) for one in taken)


def unfiled_output(state: State, *, at_once: bool = False) -> tuple[Filed, ...]:
    """Return what of the output of jobs is to be filed now; `at_once`: all of it."""
    return tuple(state.records.outputs.take_unfiled(state.now_s, at_once=at_once))
