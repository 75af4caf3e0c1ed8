"""Who reads the output of jobs, and who follows it while it comes. Pure.

The caller of a job hears its output by a topic of the job's; who follows has one of its own. So
nobody has to know the secret of another, and who follows, or does not, makes no difference to it.
"""

from collections.abc import Sequence
from itertools import pairwise

from burla.protocol import output_messages as om

from .client import Client
from .effects import FetchOutput, Follow, Send
from .outputs import Follower, Part, Reading
from .records import Recording
from .state import State

FOLLOWERS_MAX = 32  # of one job
TOPIC_BYTES = 16


def read(
    state: State, client: Client, said: om.ReadOutput, found: Recording, *, is_open: bool
) -> None:
    """Answer who asks for the output of a job; `is_open`: here, and not in an earlier life."""
    job, is_over = found.id, found.ended_s is not None
    follows = not is_over and len(said.topic) == TOPIC_BYTES
    if follows and (why := _follow(state, client, job, said.topic)):
        state.send(client.peer, om.KeptOutput(b"", why=why))
        return
    outputs = state.records.outputs
    kept = (outputs.open if is_open else outputs.over).get(job)
    if kept is not None and kept.tenant == found.tenant:
        known = (said.after, kept.lost_bytes, state.now_s)
        answer, payload = told(job, kept.parts, *known, is_over=is_over)
        state.send(client.peer, answer, payload)
    elif is_open or not outputs.is_filed:
        state.send(client.peer, om.KeptOutput(job, is_over=is_over))
    else:
        reading = Reading(client.peer, job, found.tenant, said.after, is_over)
        state.effects.append(FetchOutput(reading))


def fetched(reading: Reading, parts: Sequence[Part], lost_bytes: int, now_s: float) -> Send:
    """Return the answer to who has waited for the file."""
    known = (reading.after, lost_bytes, now_s)
    answer, payload = told(reading.job, parts, *known, is_over=reading.is_over)
    return Send(reading.peer, answer, payload)


def put_off(reading: Reading) -> Send:
    """Return the answer to who cannot wait for the file, because too many do."""
    why = "too many read the output of jobs that are over just now: ask again in a while"
    return Send(reading.peer, om.KeptOutput(b"", why=why))


def told(
    job: bytes,
    parts: Sequence[Part],
    after: int,
    lost_bytes: int,
    now_s: float,
    *,
    is_over: bool,
) -> tuple[om.KeptOutput, list[bytes]]:
    """Return as much of the output from a place on as one answer has, and its payload."""
    found: list[om.OutputPart] = []
    payload: list[bytes] = []
    size, due, lost = 0, after, 0
    for before, part in pairwise((None, *parts)):
        assert part is not None
        begin = 0 if before is None else before.stop
        if part.stop <= after:
            continue
        if found and (size + part.bytes > om.READ_BYTES or len(found) >= om.PARTS_MAX):
            break
        if not lost and begin < part.place and due < part.place:  # what is left out lies between
            lost = lost_bytes * (part.place - max(begin, due)) // (part.place - begin)
        skip = max(0, after - part.place)
        found.append(_told(part, skip, now_s))
        payload += part.chunks[skip:]
        size += part.bytes
        due = part.stop
    stop = parts[-1].stop if parts else 0
    return om.KeptOutput(job, tuple(found), stop, lost, is_over), payload


def _told(part: Part, skip: int, now_s: float) -> om.OutputPart:
    ago_s = max(0.0, now_s - part.at_s)
    place, streams, inputs = part.place + skip, part.streams[skip:], part.inputs[skip:]
    return om.OutputPart(place, part.lease, part.node, ago_s, streams, inputs)


# --- who follows ---


def _follow(state: State, client: Client, job: bytes, topic: bytes) -> str:
    """Let somebody follow a job for a while; return why not."""
    followers = state.records.outputs.followers.setdefault(job, {})
    known = followers.get(topic)
    if known is not None and known.user != client.user:
        return "another follows with this topic"
    for other in [each for each, who in followers.items() if who.until_s < state.now_s]:
        del followers[other]
    if known is None and len(followers) >= FOLLOWERS_MAX:
        return f"{FOLLOWERS_MAX} follow the job already"
    followers[topic] = Follower(client.user, state.now_s + om.FOLLOW_S)
    return ""


def publish(state: State, job: bytes, parts: Sequence[Part]) -> None:
    """Tell those who follow a job what is new."""
    for topic, who in list(state.records.outputs.followers[job].items()):
        if who.until_s < state.now_s:
            del state.records.outputs.followers[job][topic]
            continue
        for part in parts:
            said = om.KeptOutput(job, (_told(part, 0, state.now_s),), part.stop)
            state.effects.append(Follow(topic, who.user, said, part.chunks))
    if not state.records.outputs.followers[job]:
        del state.records.outputs.followers[job]


def end(state: State, job: bytes) -> None:
    """Tell those who follow a job that it is over."""
    for topic, who in state.records.outputs.followers.pop(job, {}).items():
        said = om.KeptOutput(job, is_over=True)
        state.effects.append(Follow(topic, who.user, said, ()))
