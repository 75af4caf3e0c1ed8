"""Jobs that were given up while their callers were away: what these are told. See absence.py."""

from burla.protocol import messages as m

from .client import Client
from .job import Job
from .state import GivenUp, State

KEPT = 1000  # jobs of which it is remembered


def remember(state: State, job: Job, *, for_room: bool = False) -> None:
    """Keep in mind that a job is given up; the oldest ones are forgotten."""
    client = state.clients[job.owner]
    given_up = GivenUp(client.session, client.user, client.heard_s, for_room)
    state.given_up[job.id] = given_up
    while len(state.given_up) > KEPT:
        del state.given_up[next(iter(state.given_up))]


def what_became_of(state: State, client: Client, job: bytes) -> m.JobFailed | None:
    """Return what a client is told of a job that was given up; None: that one was not."""
    found = state.given_up.get(job)
    if found is None or (found.session, found.user) != (client.session, client.user):
        return None
    away_s = state.now_s - found.heard_s
    limit = f"after {in_words(state.away_limit_s)} (burla-scheduler --away-limit)"
    why = "earlier when others of yours need their room in your quotas" if found.for_room else limit
    text = (
        f"this process was away for {in_words(away_s)} (stopped, asleep, or cut off from the"
        f" cluster), which gives up the jobs of a caller that is away {why}. It has stopped the"
        " calls of this job, and dropped the results that were not here yet. Call it again"
    )
    return m.JobFailed(job, "", text, away_s=away_s, limit_s=state.away_limit_s)


def in_words(seconds: float) -> str:
    """Return a duration for people: "42 s", "14 min", "3 h 5 min"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
