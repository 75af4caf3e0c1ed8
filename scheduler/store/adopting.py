"""Jobs that are detached while they run: what their clients have of outcomes. Pure.

It is written down as what comes from nodes, and counts as that. Nothing of such a job is called
before all is on the disk: until then it is attached elsewhere, and goes on there. What its client
says is looked at, for a job must be whole once it is kept.
"""

from collections.abc import Sequence

from burla.protocol import messages as m
from burla.protocol.codec import WireError, read_runs, unpack_runs
from burla.protocol.detach_messages import BeforeStored, GivenBefore, OutcomesBefore
from burla.protocol.mac import is_sealed

from .effects import Log, ToPeer
from .kept_job import KeptJob
from .progress import OutcomeRecord
from .state import State
from .uploads import refuse, why_no_more

WRONG = "its client says impossible things of its outcomes: {}"


def hear(
    state: State, job: KeptJob, said: OutcomesBefore | GivenBefore, payload: list[bytes]
) -> None:
    """Take outcomes that the client of a job has, or had."""
    if not job.spec.adopted or job.is_kept or job.is_ended:
        return
    record = _record_of(said)
    wrong = _what_is_wrong(job, record, said.seq, payload)
    why = WRONG.format(wrong) if wrong else why_no_more(state, job, sum(map(len, payload)))
    if why:
        refuse(state, job, why)
        return
    job.upload.before = said.seq
    state.append(job, Log.OUTCOMES, record, payload)


def _record_of(said: OutcomesBefore | GivenBefore) -> m.JobOutcomes | GivenBefore:
    if isinstance(said, GivenBefore):
        return said
    return m.JobOutcomes(
        job=said.job,
        lease=said.lease,
        seq=said.seq,
        node=said.node,
        runs=said.runs,
        output=0,
        seal=said.seal,
        fragment=said.fragment,
    )


def _what_is_wrong(
    job: KeptJob, said: m.JobOutcomes | GivenBefore, seq: int, payload: Sequence[bytes]
) -> str:
    if seq != job.upload.before + 1:
        return f"message {seq} follows {job.upload.before}"
    if isinstance(said, GivenBefore):
        parts = said.ranges
    elif not is_sealed(job.spec.secret, said, payload):
        return "they do not bear its seal"
    else:
        try:
            parts = _parts_of(said, payload)
        except WireError as error:
            return str(error)
    if job.total is not None or any(lo >= hi for lo, hi in parts):
        return "no outcomes of its inputs"
    return ""


def _parts_of(said: m.JobOutcomes, payload: Sequence[bytes]) -> tuple[tuple[int, int], ...]:
    """Return the indices of outcomes.

    Raises:
        WireError: they are none.
    """
    fragment = said.fragment
    if fragment is None:
        runs = [run for run, _ in unpack_runs(said.runs, payload)]
    else:
        runs = [run for run, _, _ in read_runs(said.runs)] if said.runs else []
        if any(run.lo != fragment.index for run in runs):
            raise WireError("a fragment of another outcome")
    if any(run.kind != m.Kind.RESULTS and run.hi != run.lo + 1 for run in runs):
        raise WireError("one outcome of several inputs")
    return tuple((run.lo, run.hi) for run in runs)


def is_on_disk(state: State, job: KeptJob, said: OutcomeRecord) -> None:
    """Tell the client of a job that outcomes of it are on the disk."""
    if not job.spec.adopted or job.is_kept or not job.upload.source:
        return
    if isinstance(said, m.JobOutcomes | GivenBefore):
        state.effects.append(ToPeer(job.upload.source, BeforeStored(job.id, said.seq)))


def look(state: State, job: KeptJob) -> None:
    """Give up a job that is no whole one though all has come that its client has."""
    if not job.spec.adopted or job.is_kept or job.is_ended or job.total is None:
        return
    if job.pending or job.upload.waiting:
        return
    beyond = any(hi > job.total for _, hi in job.progress.done)
    if beyond or job.stored() > job.total or job.missing():
        refuse(state, job, WRONG.format(f"they are not those of {job.total:,} inputs"))
