"""What each tenant may have at once: said in words, and others are not touched by it."""

import pytest
from opening import client_hello, node_hello, open_job
from outcomes import outcomes

from burla.protocol import messages as m
from burla.scheduler.config import ConfigError, SchedulerConfig
from burla.scheduler.core.effects import Effect, Forget, Note, Record, Send
from burla.scheduler.core.quotas import FRAME_COST, JOB_COST, LEAF_COST, Quotas, Tenants as Who
from burla.scheduler.core.scheduler import Scheduler

NODE = bytes(16)


class Tenants:
    """Clients of one core, a connection each, named by a byte."""

    def __init__(self, **quotas: int) -> None:
        self.core = Scheduler(bytes(16), "0", "pub", Quotas(**quotas))
        self.welcome = m.Welcome(bytes(16), "0", "pub", Quotas(**quotas).bytes_max)
        self.now_s = 0.0

    def say(self, who: bytes, message: m.Message, *payload: bytes) -> list[Effect]:
        """Return all that follows."""
        effects = self.core.receive(who, message, list(payload), self.now_s, key_of(who))
        self.core.check()
        return effects

    def join(self, who: bytes) -> None:
        assert self.say(who, client_hello(who.ljust(16))) == [Send(who, self.welcome)]

    def open(self, who: bytes, job: int) -> list[Effect]:
        return self.say(who, open_job(ident(job)), b"f")

    def send(self, who: bytes, job: int, start: int, count: int, leaf: bytes) -> list[Effect]:
        leaves = (m.Leaf(start, start, count, 1),)
        return self.say(
            who, m.Inputs(job=ident(job), batch=start, start=start, leaves=leaves), leaf
        )


def ident(number: int) -> bytes:
    return bytes([number]) * 16


def key_of(who: bytes) -> str:
    return f"key of {who[:1].hex()}"


def opened(who: bytes, job: int) -> list[Effect]:
    """Return what a job makes that is opened."""
    return [Record(key_of(who), "open job", ident(job), "ok")]


def closed(who: bytes, job: int) -> list[Effect]:
    """Return what a job makes that is closed and has no node."""
    return [Record(key_of(who), "close job", ident(job), "ok")]


def over(what: str, most: int, has: int, more: int) -> str:
    """Return what a tenant is told who asks for more than its quota."""
    return (
        f"over your quota of {what} on this cluster: {most} at once; your jobs have {has}, "
        f"and this would add {more}. Ask for less at once, or have an administrator raise it"
        " (`burla auth quota USER`)"
    )


def not_now(job: bytes, why: str) -> m.JobFailed:
    """Return what is told of a job for which others leave no room."""
    return m.JobFailed(job, "", why, momentary=True)


def not_opened(who: bytes, job: int, why: str) -> list[Effect]:
    """Return what a job makes that is over a quota."""
    return [
        Record(key_of(who), "open job", ident(job), why),
        Send(who, not_now(ident(job), why)),
    ]


def test_so_many_jobs_are_open_at_once_and_one_that_is_closed_makes_room() -> None:
    at = Tenants(jobs_max=2)
    for who in (b"a", b"a again", b"b"):
        at.join(who)
    assert at.open(b"a", 1) == opened(b"a", 1)
    assert at.open(b"a again", 2) == opened(b"a again", 2)  # one key, two connections
    assert at.open(b"a", 3) == not_opened(b"a", 3, over("open jobs", 2, 2, 1))
    assert at.open(b"b", 4) == opened(b"b", 4)  # another tenant
    assert at.say(b"a", m.CloseJob(ident(1))) == closed(b"a", 1)
    assert at.open(b"a", 3) == opened(b"a", 3)


def test_so_many_inputs_are_under_way_and_outcomes_make_room() -> None:
    at = Tenants(inputs_max=10)
    first = ord("a")
    for who in (b"a", b"b"):
        at.join(who)
        assert at.open(who, who[0]) == opened(who, who[0])
    assert at.send(b"a", first, 0, 10, b"leaf") == []
    assert at.open(b"a", 2) == opened(b"a", 2)
    text = over("inputs without an outcome", 10, 10, 1)
    failed = [Send(b"a", not_now(ident(2), text))]
    assert at.send(b"a", 2, 0, 1, b"leaf") == failed
    assert at.send(b"a", 2, 1, 1, b"leaf") == []  # said once, and nothing of it is kept
    assert at.send(b"b", ord("b"), 0, 10, b"leaf") == []
    effects = at.say(b"n", node_hello(NODE))
    starts = [x.message for x in effects if isinstance(x, Send)]
    assert [type(message) for message in starts] == [m.Welcome, m.StartLease, m.Assign]
    assert len(effects) == len(starts) + 2  # lines for the logs
    lease = bytes(15) + b"\x01"
    done = outcomes(lease, [m.Run(0, 10, m.Kind.RESULTS, 1)])
    passed_on = m.JobOutcomes(
        job=ident(first), lease=lease, seq=1, node="n", runs=done.runs, output=0
    )
    assert at.say(b"n", done, b"r") == [
        Send(b"a", passed_on, [b"r"]),
        Send(
            b"n",
            m.Assign(lease=lease, left=0, spans=(), leaves=(), forget=(0,), report_s=0.02),
            [],
        ),
    ]
    assert at.open(b"a", 3) == opened(b"a", 3)
    assert at.send(b"a", 3, 0, 10, b"leaf") == []


def test_so_many_bytes_are_held_whatever_they_are_bytes_of() -> None:
    most = 10_000 + JOB_COST
    at = Tenants(bytes_max=most)
    at.join(b"a")
    assert at.open(b"a", 1) == opened(b"a", 1)
    assert at.send(b"a", 1, 0, 1, b"x" * 9000) == []
    what = "bytes of functions and inputs"
    function, leaf = 1 + FRAME_COST + JOB_COST, FRAME_COST + LEAF_COST
    held = function + 9000 + leaf
    text = over(what, most, held, 1000 + leaf)
    failed = [Send(b"a", not_now(ident(1), text))]
    assert at.send(b"a", 1, 1, 1, b"x" * 1000) == failed
    # its function counts, too
    assert at.open(b"a", 2) == not_opened(b"a", 2, over(what, most, held, function))
    assert at.say(b"a", m.CloseJob(ident(1))) == closed(b"a", 1)
    assert at.open(b"a", 3) == opened(b"a", 3)
    fitting = (most - function) // leaf
    said = [at.send(b"a", 3, start, 1, b"") for start in range(100)]  # nothing but empty frames
    text = over(what, most, function + fitting * leaf, leaf)
    failed = [Send(b"a", not_now(ident(3), text))]
    assert said == [[]] * fitting + [failed] + [[]] * (99 - fitting)


def test_who_leaves_leaves_room() -> None:
    at = Tenants(jobs_max=1)
    at.join(b"a")
    assert at.open(b"a", 1) == opened(b"a", 1)
    assert at.core.unreachable(b"a", 0.0) == []
    away = Note(f"client key {key_of(b'a')[:8]} is away: its jobs wait for it")
    assert at.core.expire(6.0) == [Send(b"a", m.Heartbeat()), away]
    at.join(b"a")
    assert at.open(b"a", 2) == opened(b"a", 2)
    (sent,) = at.say(b"a", open_job(ident(1), resumed=True), b"f")
    assert isinstance(sent, Send)
    assert isinstance(sent.message, m.JobFailed)
    assert "earlier when others of yours need their room in your quotas" in sent.message.text


def test_a_connection_is_one_session_and_one_node() -> None:
    at = Tenants()
    at.join(b"c")
    before: list[Effect] = []
    for number in range(100):
        hello = client_hello(ident(number))
        assert at.say(b"c", hello) == [Forget(b"c"), Send(b"c", at.welcome)]
        assert at.say(b"n", node_hello(ident(number))) == [
            *before,
            Record(key_of(b"n"), "join as node n", None, "ok"),
            Note("node n joined: 2 CPUs"),
            Send(b"n", at.welcome),
        ]
        before = [Forget(b"n"), Note("node n is lost: its connection is another node's now")]
    assert len(at.core.state.clients) == len(at.core.state.nodes) == 1


def test_all_keys_of_a_user_are_one_tenant_with_quotas_of_their_own() -> None:
    core = Tenants(jobs_max=1)
    users = {key_of(b"a"): "anna", key_of(b"b"): "anna", key_of(b"c"): "carl"}
    core.core.set_tenants(Who(Quotas(jobs_max=1), {"anna": Quotas(jobs_max=2)}, users))
    for who in (b"a", b"b", b"c"):
        core.join(who)
    assert core.open(b"a", 1) == opened(b"a", 1)
    assert core.open(b"b", 2) == opened(b"b", 2)
    assert not_now(ident(3), over("open jobs", 2, 2, 1)) in sent(core.open(b"b", 3))
    assert core.open(b"c", 4) == opened(b"c", 4)
    assert not_now(ident(5), over("open jobs", 1, 1, 1)) in sent(core.open(b"c", 5))
    assert set(core.core.state.usages) == {"anna", "carl"}


def test_quotas_that_change_count_for_what_comes_and_jobs_go_on() -> None:
    core = Tenants(jobs_max=2)
    core.join(b"a")
    core.open(b"a", 1)
    core.open(b"a", 2)
    core.core.set_tenants(Who(Quotas(jobs_max=1), {}, {key_of(b"a"): "anna"}))  # named meanwhile
    core.core.check()
    assert core.open(b"a", 3) == opened(b"a", 3)  # its first under that name
    assert not_now(ident(4), over("open jobs", 1, 1, 1)) in sent(core.open(b"a", 4))
    core.say(b"a", m.CloseJob(ident(1)))
    core.say(b"a", m.CloseJob(ident(3)))
    assert core.open(b"a", 4) == opened(b"a", 4)


def test_jobs_are_opened_so_often_on_average_and_others_are_not_touched_by_it() -> None:
    at = Tenants(opens_per_s=2)
    for who in (b"a", b"b"):
        at.join(who)

    def opens(who: bytes, job: int) -> bool:
        failed = [x for x in sent(at.open(who, job)) if isinstance(x, m.JobFailed)]
        if failed:
            assert "2 a second on average, 20 at once" in failed[0].text
        at.say(who, m.CloseJob(ident(job)))
        return not failed

    assert [opens(b"a", job) for job in range(25)] == [True] * 20 + [False] * 5
    assert opens(b"b", 100)
    at.now_s += 1.0
    assert [opens(b"a", job) for job in range(30, 33)] == [True, True, False]
    at.core.set_tenants(Who(Quotas(opens_per_s=1000)))
    at.now_s += 1.0
    assert opens(b"a", 50)


def sent(effects: list[Effect]) -> list[m.Message]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


@pytest.mark.parametrize("quotas", [Quotas(0), Quotas(1, 0), Quotas(1, 1, -1), Quotas(1, 1, 1, 0)])
def test_a_quota_leaves_something(quotas: Quotas) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        SchedulerConfig("ipc:///tmp/x", quotas=quotas)
