"""What each tenant may have at once: said in words, and others are not touched by it."""

import pytest
from opening import client_hello, node_hello, open_job
from outcomes import outcomes

from burla.protocol import messages as m
from burla.scheduler.config import ConfigError, SchedulerConfig
from burla.scheduler.core.effects import Effect, Send
from burla.scheduler.core.quotas import FRAME_COST, JOB_COST, LEAF_COST, Quotas
from burla.scheduler.core.scheduler import Scheduler

NODE = bytes(16)


class Tenants:
    """Clients of one core, a connection each, named by a byte."""

    def __init__(self, **quotas: int) -> None:
        self.core = Scheduler(bytes(16), "0", "pub", Quotas(**quotas))

    def say(self, who: bytes, message: m.Message, *payload: bytes) -> list[m.Message]:
        """Return what is answered."""
        effects = self.core.receive(who, message, list(payload), 0.0, f"key of {who[:1].hex()}")
        self.core.check()
        return heard(who, effects)

    def join(self, who: bytes) -> None:
        self.say(who, client_hello(who.ljust(16)))

    def open(self, who: bytes, job: int) -> list[m.Message]:
        return self.say(who, open_job(ident(job)), b"f")

    def send(self, who: bytes, job: int, start: int, count: int, leaf: bytes) -> list[m.Message]:
        leaves = (m.Leaf(start, start, count, 1),)
        return self.say(
            who, m.Inputs(job=ident(job), batch=start, start=start, leaves=leaves), leaf
        )


def ident(number: int) -> bytes:
    return bytes([number]) * 16


def heard(who: bytes, effects: list[Effect]) -> list[m.Message]:
    return [e.message for e in effects if isinstance(e, Send) and e.peer == who]


def failure(said: list[m.Message]) -> str:
    (message,) = said
    assert isinstance(message, m.JobFailed)
    return message.text


def test_so_many_jobs_are_open_at_once_and_one_that_is_closed_makes_room() -> None:
    at = Tenants(jobs_max=2)
    for who in (b"a", b"a again", b"b"):
        at.join(who)
    assert at.open(b"a", 1) == at.open(b"a again", 2) == []  # one key, two connections
    text = failure(at.open(b"a", 3))
    assert "quota of open jobs" in text
    assert "cluster: 2 at once" in text
    assert at.open(b"b", 4) == []  # another tenant
    at.say(b"a", m.CloseJob(ident(1)))
    assert at.open(b"a", 3) == []


def test_so_many_inputs_are_under_way_and_outcomes_make_room() -> None:
    at = Tenants(inputs_max=10)
    for who in (b"a", b"b"):
        at.join(who)
        at.open(who, who[0])
    assert at.send(b"a", ord("a"), 0, 10, b"leaf") == []
    at.open(b"a", 2)
    text = failure(at.send(b"a", 2, 0, 1, b"leaf"))
    assert "quota of inputs" in text
    assert at.send(b"a", 2, 1, 1, b"leaf") == []  # said once, and nothing of it is kept
    assert not at.core.state.jobs[ident(2)].work.batches.kept
    assert at.send(b"b", ord("b"), 0, 10, b"leaf") == []
    hello = node_hello(NODE)
    effects = at.core.receive(b"n", hello, [], 0.0, "node")
    (start,) = [x for x in heard(b"n", effects) if isinstance(x, m.StartLease)]
    done = outcomes(start.lease, [m.Run(0, 10, m.Kind.RESULTS, 1)])
    at.core.receive(b"n", done, [b"r"], 0.0, "node")
    at.open(b"a", 3)
    assert at.send(b"a", 3, 0, 10, b"leaf") == []


def test_so_many_bytes_are_held_whatever_they_are_bytes_of() -> None:
    at = Tenants(bytes_max=10_000 + JOB_COST)
    at.join(b"a")
    assert at.open(b"a", 1) == []
    assert at.send(b"a", 1, 0, 1, b"x" * 9000) == []
    assert "quota of bytes" in failure(at.send(b"a", 1, 1, 1, b"x" * 1000))
    assert "quota of bytes" in failure(at.open(b"a", 2))  # its function counts, too
    at.say(b"a", m.CloseJob(ident(1)))
    assert at.core.state.usages == {}
    at.open(b"a", 3)
    job = at.core.state.jobs[ident(3)]
    for start in range(100):  # nothing but empty frames
        at.send(b"a", 3, start, 1, b"")
    assert job.failed
    assert job.charge.bytes_held <= 10_000 + JOB_COST
    assert len(job.work.batches.kept) == (10_000 - 1 - FRAME_COST) // (FRAME_COST + LEAF_COST)


def test_who_leaves_leaves_room() -> None:
    at = Tenants(jobs_max=1)
    at.join(b"a")
    at.open(b"a", 1)
    at.core.unreachable(b"a", 0.0)
    at.core.expire(6.0)
    assert at.core.state.usages == {}


def test_a_connection_is_one_session_and_one_node() -> None:
    at = Tenants()
    for number in range(100):
        at.join(bytes([7]))
        hello = client_hello(ident(number))
        at.say(bytes([7]), hello)
        at.say(b"n", node_hello(ident(number)))
    assert len(at.core.state.clients) == len(at.core.state.nodes) == 1


@pytest.mark.parametrize("quotas", [Quotas(0), Quotas(1, 0), Quotas(1, 1, -1)])
def test_a_quota_leaves_something(quotas: Quotas) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        SchedulerConfig("ipc:///tmp/x", quotas=quotas)
