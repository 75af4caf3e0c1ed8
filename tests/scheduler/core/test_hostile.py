"""Anything that peers with valid keys may say: the core stands, and others' jobs are done."""

from random import Random
from typing import Any

from hostile import Words, mutate
from hypothesis import given, settings, strategies as st
from opening import client_hello, node_hello, open_job

from burla.protocol import admin_messages as am, messages as m
from burla.protocol.codec import WireError, decode, encode
from burla.scheduler.core.effects import Effect, Note, Publish, Record, Send
from burla.scheduler.core.jobs import RESUME_S
from burla.scheduler.core.quotas import BYTES_MAX
from burla.scheduler.core.scheduler import Scheduler

IDS = [bytes([number]) * 16 for number in range(1, 7)]
SESSION, JOB, NODE = (bytes([number]) * 16 for number in (11, 12, 13))
DIRECTIONS: dict[bytes, Any] = {
    b"client": m.ClientToScheduler,
    b"other": m.ClientToScheduler,
    b"node": m.NodeletToScheduler,
    b"spare": m.NodeletToScheduler,
    b"admin": am.AdminToScheduler,
}
STEP_S = 0.3
GAPS = 60_000  # about what fits into a header


class Siege:
    """A core, five liars, and an honest client with an honest node."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.core = Scheduler(bytes(16), "0", "pub")
        self.words = Words(random, IDS)
        self.now_s = 0.0
        self.said: list[tuple[bytes, list[bytes]]] = []  # what liars have said, to be mutated

    def carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send | Publish):
                encode(effect.message)
                lease = getattr(effect.message, "lease", None)
                if isinstance(lease, bytes) and lease not in self.words.ids:
                    self.words.ids.append(lease)

    def lie(self) -> None:
        """Let somebody say something."""
        random = self.random
        if self.said and random.random() < 0.4:
            peer, frames = random.choice(self.said)
            frames = mutate(random, frames)
        else:
            peer = random.choice(list(DIRECTIONS))
            message = self.words.any_of(DIRECTIONS[peer])
            frames = encode(message, self.words.payload_of(message))
            self.said.append((peer, frames))
        try:
            message, payload = decode(frames, DIRECTIONS[peer])
        except WireError:
            return
        self.now_s += random.choice((0.0, 0.0, STEP_S))
        user = peer.decode()
        self.carry_out(self.core.receive(peer, message, payload, self.now_s, user))
        if random.random() < 0.1:
            self.carry_out(self.core.unreachable(peer, self.now_s))
        if self.now_s >= self.core.next_deadline_s():
            self.carry_out(self.core.expire(self.now_s))
        self.core.check()

    def honest_job_is_done(self) -> None:
        """Run one job of somebody else, on a node of its own."""
        core, now_s = self.core, self.now_s
        hello = client_hello(SESSION)
        core.receive(b"honest", hello, [], now_s, "honest")
        core.receive(b"honest", open_job(JOB), [b"f"], now_s, "honest")
        core.receive(b"honest", m.InputsEnd(JOB, 1), [], now_s, "honest")
        leaves = (m.Leaf(0, 0, 1, 1),)
        said = m.Inputs(job=JOB, batch=0, start=0, leaves=leaves)
        core.receive(b"honest", said, [b"leaf"], now_s, "honest")
        while JOB in core.state.jobs and not core.state.jobs[JOB].work.leases:
            # each on a new machine, until one is for us: liars wait for nodes, too
            fresh = self.random.randbytes(16)
            core.receive(fresh, node_hello(fresh), [], now_s, "honest")
        assert core.state.jobs[JOB].work.leases
        core.check()


def test_what_was_never_entered_comes_back_and_is_dealt_once() -> None:
    core = Scheduler(bytes(16), "0", "pub")
    welcome = m.Welcome(bytes(16), "0", "pub", BYTES_MAX)
    client, first, second = b"c", b"n" * 16, b"o" * 16
    joined = [Record("", "join as node n", None, "ok"), Note("node n joined: 1 CPUs")]

    def say(peer: bytes, message: m.Message, *payload: bytes) -> list[Effect]:
        effects = core.receive(peer, message, list(payload), 0.0)
        core.check()
        return effects

    assert say(client, client_hello(SESSION)) == [Send(client, welcome)]
    assert say(client, open_job(JOB, resumed=True), b"f") == [Record("", "open job", JOB, "ok")]
    span = m.Span(0, 0, 3)
    held = m.Held(IDS[0], JOB, 1, (span,), stopped=False)
    assert say(first, node_hello(first, cpus=1, held=(held,))) == [*joined, Send(first, welcome)]
    assert say(second, node_hello(second, cpus=1, held=(held,))) == [
        *joined,
        Send(second, welcome),
        Send(second, m.EndLease(IDS[0], discard=True)),  # it has no right to the other's
    ]
    assert say(second, m.Stopped(IDS[0])) == []
    assert say(first, m.Retracted(IDS[0], (span,))) == []
    leaf = m.Leaf(0, 0, 3, 1)
    assert say(client, m.Inputs(job=JOB, batch=0, start=0, leaves=(leaf,)), b"leaf") == []
    effects = core.expire(RESUME_S)  # all nodelets have had the time to say what they hold
    core.check()
    dealt = [
        span
        for effect in effects
        if isinstance(effect, Send) and isinstance(effect.message, m.Assign)
        for span in effect.message.spans
    ]
    assert dealt == [m.Span(0, 0, 1), m.Span(0, 1, 2)]  # the third when one of them is done
    assert core.state.jobs[JOB].work.pending.total == 1


def test_a_job_with_very_many_gaps_is_taken_up_again_in_time() -> None:
    core = Scheduler(bytes(16), "0", "pub")
    hello = client_hello(SESSION)
    core.receive(b"c", hello, [], 0.0)
    done = tuple((at, at + 1) for at in range(0, 2 * GAPS, 2))
    for _ in range(2):  # it once cost the square of their number: minutes
        core.receive(b"c", open_job(JOB, resumed=True, done=done), [b"f"], 0.0)
    assert core.state.jobs[JOB].work.done.total == GAPS


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_whatever_is_said_the_core_stands_and_others_are_served(random: Random) -> None:
    siege = Siege(random)
    for _ in range(40):
        siege.lie()
    siege.honest_job_is_done()
