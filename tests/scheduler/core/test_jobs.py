"""Jobs as clients open, fill and close them: what is sent and kept for each word."""

from typing import Any

from opening import node_hello, open_job

from burla.protocol import messages as m
from burla.protocol.digest import digest_of
from burla.scheduler.core import jobs
from burla.scheduler.core.client import Client
from burla.scheduler.core.effects import Record, Send
from burla.scheduler.core.job import Job
from burla.scheduler.core.node import Node
from burla.scheduler.core.quotas import Quotas, Tenants
from burla.scheduler.core.settling import settle
from burla.scheduler.core.state import State

SESSION, OTHER, JOB, NODE = (bytes([number]) * 16 for number in range(1, 5))


def state_of(quotas: Quotas | None = None, *, node: bool = False) -> tuple[State, Client]:
    """Return a state with one client and, if wanted, a free node."""
    state = State(bytes(16), Tenants(quotas or Quotas()))
    client = Client(SESSION, b"c", "3.11", "anna", 0.0, user="key")
    state.clients[SESSION] = state.peers[b"c"] = client
    if node:
        hello = node_hello(NODE, cpus=1)
        state.nodes[NODE] = state.peers[b"n"] = Node.from_hello(b"n", hello, 0.0)
        state.marks.nodes[NODE] = None
    return state, client


def opened(state: State, client: Client, *, resumed: bool = False) -> Job:
    jobs.open_(state, client, open_job(JOB, resumed=resumed), [b"f"])
    return state.jobs[JOB]


def one_input(total: int | None = None) -> m.Inputs:
    return m.Inputs(job=JOB, batch=0, start=0, leaves=(m.Leaf(0, 0, 1, 1),), total=total)


def test_a_job_is_opened_once_however_often_it_is_said() -> None:
    state, client = state_of()
    first = opened(state, client)
    assert opened(state, client) is first
    assert state.effects == [Record("key", "open job", JOB, "ok")]
    assert state.usages["key"].jobs == 1


def test_another_session_can_not_have_its_id() -> None:
    state, client = state_of()
    opened(state, client)
    state.effects.clear()
    thief = Client(OTHER, b"o", "3.11", "bert", 0.0, user="other")
    jobs.open_(state, thief, open_job(JOB), [b"f"])
    assert state.effects == [
        Record("other", "open job", JOB, "not found"),
        Send(b"o", m.JobFailed(JOB, "", "not found")),
    ]
    assert state.jobs[JOB].owner == SESSION


def test_a_job_over_its_quota_leaves_nothing_behind() -> None:
    state, client = state_of(Quotas(jobs_max=1, bytes_max=1))
    jobs.open_(state, client, open_job(JOB), [b"f"])
    record, sent = state.effects
    assert isinstance(record, Record)
    assert isinstance(sent, Send)
    assert isinstance(sent.message, m.JobFailed)
    assert record.result == sent.message.text
    assert record.result.startswith("over your quota of bytes")
    assert (state.jobs, state.usages) == ({}, {})


def test_a_resumed_job_waits_for_what_nodelets_hold() -> None:
    state, client = state_of()
    job = opened(state, client, resumed=True)
    assert job.hold_until_s == jobs.RESUME_S
    state.former.settled_s = -1.0  # all of them have said it
    jobs.close(state, job)
    assert opened(state, client, resumed=True).hold_until_s == 0.0


def test_a_job_that_is_closed_ends_its_lease_and_gives_back_its_quota() -> None:
    state, client = state_of(node=True)
    job = opened(state, client)
    jobs.inputs(state, job, one_input(), [b"x"])
    settle(state)
    (lease,) = state.leases.values()
    state.effects.clear()
    jobs.close(state, job)
    assert state.effects == [Send(b"n", m.EndLease(lease.id, discard=True))]
    assert (state.jobs, state.usages) == ({}, {})
    assert (lease.wanted, list(state.nodes[NODE].stopping)) == (False, [lease.id])


def test_the_last_batch_may_say_so() -> None:
    state, client = state_of()
    job = opened(state, client)
    jobs.inputs(state, job, one_input(total=1), [b"x"])
    assert (job.work.total, job.work.pending.total) == (1, 1)


def test_inputs_over_the_quota_fail_the_job_once() -> None:
    state, client = state_of(Quotas(inputs_max=1))
    job = opened(state, client)
    state.effects.clear()
    leaf = m.Leaf(0, 0, 2, 1)
    for _ in range(2):
        jobs.inputs(state, job, m.Inputs(job=JOB, batch=0, start=0, leaves=(leaf,)), [b"x"])
    (sent,) = state.effects
    assert isinstance(sent, Send)
    assert isinstance(sent.message, m.JobFailed)
    assert (sent.peer, sent.message.argument) == (b"c", "")
    assert not job.work.pending


def test_a_session_that_ends_takes_its_jobs_along_and_no_others() -> None:
    state, client = state_of()
    other = Client(OTHER, b"o", "3.11", "bert", 0.0, user="other")
    state.clients[OTHER] = other
    opened(state, client)
    jobs.open_(state, other, open_job(b"j" * 16), [b"f"])
    jobs.end_session(state, SESSION)
    assert list(state.jobs) == [b"j" * 16]
    assert list(state.usages) == ["other"]


def test_a_client_that_says_hello_anew_and_forgets_a_job_has_it_closed() -> None:
    state, client = state_of()
    job = opened(state, client)
    job.reopen_by_s = 10.0
    state.now_s = 9.9
    jobs.expire(state, job)
    assert JOB in state.jobs
    state.now_s = 10.0
    jobs.expire(state, job)
    assert state.jobs == {}


def job_of(function: list[bytes], owner: bytes = SESSION, **more: Any) -> Job:
    spec = open_job(JOB, **({"digest": digest_of(function)} | more))
    return Job(spec, function, owner, "3.11", "anna")


def test_jobs_may_follow_each_other_if_function_and_session_are_the_same() -> None:
    key = job_of([b"f"]).reuse_key()
    assert key == job_of([b"f"]).reuse_key()
    assert key not in (job_of([b"g"]).reuse_key(), job_of([b"f"], OTHER).reuse_key())
    assert job_of([b"a", b"b"]).reuse_key() != job_of([b"ab"]).reuse_key()
    assert job_of([b"f"], hash_seed=0).reuse_key() not in (key, ())
    assert job_of([b"f"], func_cpu=2).reuse_key() not in (key, ())
    assert job_of([b"f"], digest=b"").reuse_key() == ()


def test_a_big_function_is_compared_as_a_small_one_is() -> None:
    one = [bytes(64 << 20)]
    digest = digest_of(one)
    assert job_of(one, digest=digest).reuse_key() == job_of(one, digest=digest).reuse_key() != ()


def test_a_quota_that_other_jobs_have_used_up_is_told_as_momentary() -> None:
    state, client = state_of(Quotas(jobs_max=1, inputs_max=3))
    job = opened(state, client)
    batch = [
        m.Inputs(job=JOB, batch=n, start=2 * n, leaves=(m.Leaf(n, 2 * n, 2, 1),)) for n in (0, 1)
    ]
    jobs.inputs(state, job, batch[0], [b"x"])
    state.effects.clear()
    jobs.inputs(state, job, batch[1], [b"x"])
    jobs.open_(state, client, open_job(b"k" * 16), [b"f"])
    jobs.close(state, job)
    jobs.inputs(
        state,
        opened(state, client),
        m.Inputs(job=JOB, batch=0, start=0, leaves=(m.Leaf(0, 0, 4, 1),)),
        [b"x"],
    )
    said = [e.message for e in state.effects if isinstance(e, Send)]
    failed = [one.momentary for one in said if isinstance(one, m.JobFailed)]
    assert failed == [True, True, False]


def test_how_many_inputs_are_to_come_is_what_the_newest_batch_says() -> None:
    state, client = state_of()
    job = opened(state, client)
    leaves = [(m.Leaf(number, number, 1, 1),) for number in (0, 1)]
    first, second = (
        m.Inputs(job=JOB, batch=number, start=number, leaves=leaves[number], coming=9 - number)
        for number in (0, 1)
    )
    for message in (first, second, first):  # it is sent again after a reconnect
        jobs.inputs(state, job, message, [b"x"])
    assert job.work.coming == 8
    jobs.inputs_end(state, job, 2)
    assert job.work.coming == 0
