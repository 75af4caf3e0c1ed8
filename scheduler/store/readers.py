"""What clients are told of detached jobs, and parts of outcomes as they ask for them. Pure."""

from msgspec import Struct

from burla.protocol import store_messages as sm
from burla.protocol.store_messages import StoredJob

from .effects import Log, ReadPart, ToPeer
from .kept_job import KeptJob
from .state import State

READERS_MAX = 10_000  # that wait; others are answered at once


class Reader(Struct):
    """Who waits for more of a job."""

    asked: sm.ReadStored
    until_s: float


class Readers:
    """Those who wait."""

    def __init__(self) -> None:
        """Start with nobody."""
        self._waiting: dict[tuple[bytes, bytes], Reader] = {}  # by peer and job

    def ask(self, state: State, peer: bytes, job: KeptJob | None, asked: sm.ReadStored) -> None:
        """Answer a question, or let it wait until there is something to tell."""
        if job is None:
            state.effects.append(ToPeer(peer, _empty(asked, None)))
        elif asked.wait_s and not _has_news(job, asked) and len(self._waiting) < READERS_MAX:
            self._waiting[peer, job.id] = Reader(asked, state.now_s + asked.wait_s)
        else:
            _answer(state, peer, job, asked)

    def wake(self, state: State, job: KeptJob) -> None:
        """Answer those who wait for news of a job."""
        for (peer, job_id), reader in list(self._waiting.items()):
            if job_id == job.id and _has_news(job, reader.asked):
                del self._waiting[peer, job_id]
                _answer(state, peer, job, reader.asked)

    def forget(self, state: State, job_id: bytes) -> None:
        """Answer those who wait for news of a job that is deleted."""
        for key in [key for key in self._waiting if key[1] == job_id]:
            asked = self._waiting.pop(key).asked
            state.effects.append(ToPeer(key[0], _empty(asked, None)))

    def expire(self, state: State) -> None:
        """Answer those who have waited for long enough."""
        for (peer, job_id), reader in list(self._waiting.items()):
            if state.now_s >= reader.until_s:
                del self._waiting[peer, job_id]
                if (job := state.jobs.get(job_id)) is not None and state.is_there(peer):
                    _answer(state, peer, job, reader.asked)


def tell(state: State, peer: bytes, jobs: list[KeptJob], about: bytes | None = None) -> None:
    """Tell a client of jobs, the newest first."""
    newest = sorted(jobs, key=lambda job: -job.opened.made_s)[: sm.STORED_TOLD_MAX]
    told = tuple(state.facts(job) for job in newest)
    state.effects.append(ToPeer(peer, sm.StoredJobs(told, len(jobs), about)))


def _has_news(job: KeptJob, asked: sm.ReadStored) -> bool:
    return job.is_over() or (asked.segment, asked.at) < job.written[Log.OUTCOMES]


def _answer(state: State, peer: bytes, job: KeptJob, asked: sm.ReadStored) -> None:
    facts, stop = state.facts(job), job.written[Log.OUTCOMES]
    if (asked.segment, asked.at) < stop:
        state.effects.append(ReadPart(peer, asked, stop, facts))
    else:
        state.effects.append(ToPeer(peer, _empty(asked, facts)))


def _empty(asked: sm.ReadStored, facts: StoredJob | None) -> sm.StoredPart:
    return sm.StoredPart(
        job=asked.job,
        segment=asked.segment,
        at=asked.at,
        next_segment=asked.segment,
        next_at=asked.at,
        is_all=True,
        facts=facts,
    )
