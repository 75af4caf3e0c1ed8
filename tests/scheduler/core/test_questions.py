"""What people ask about jobs: everybody of their own, administrators of all."""

from typing import Any

import pytest
from opening import client_hello, node_hello, open_job

from burla.protocol import job_messages as jm, messages as m
from burla.protocol.codec import encode
from burla.protocol.detach_messages import ADOPT, DetachAsked
from burla.protocol.job_messages import JobState
from burla.scheduler.core.effects import Effect, Record, Send
from burla.scheduler.core.quotas import Quotas, Tenants
from burla.scheduler.core.scheduler import Scheduler

ANNA, BERT, ROOT = "key of anna", "key of bert", "key of root"
JOBS = {ANNA: b"a" * 16, BERT: b"b" * 16}


def scheduler(*, node: bool = False) -> Scheduler:
    """Return one at which two people have a job each."""
    core = Scheduler(bytes(16), "0", "inproc://pub")
    core.set_tenants(Tenants(Quotas(), {}, {ANNA: "anna", BERT: "bert", ROOT: "root"}))
    if node:
        core.receive(b"n", node_hello(b"n" * 16), [], 0.0, "key of n")
    for number, key in enumerate((ANNA, BERT, ROOT)):
        peer = key.encode()
        core.receive(peer, client_hello(bytes([number]) * 16), [], 0.0, key)
        if key in JOBS:
            core.receive(peer, open_job(JOBS[key], name=f"f{number}"), [b"f"], 0.0, key)
    return core


def asked(core: Scheduler, key: str, question: m.Message, **more: Any) -> list[Effect]:
    more.setdefault("sees_all", key == ROOT)
    return core.receive(key.encode(), question, [], 1.0, key, **more)


def answer(core: Scheduler, key: str, question: m.Message) -> Any:
    """Return what somebody hears first."""
    heard = [e for e in asked(core, key, question) if isinstance(e, Send)]
    (first,) = [e.message for e in heard if e.peer == key.encode() and _is_answer(e.message)]
    return first


def _is_answer(message: m.Message) -> bool:
    return isinstance(message, jm.JobList | jm.JobShown)


def names(said: jm.JobList) -> list[str]:
    return [job.user for job in said.jobs]


def test_everybody_sees_their_own_jobs_and_administrators_all() -> None:
    core = scheduler()
    assert names(answer(core, ANNA, jm.ListJobs(10))) == ["anna"]
    assert names(answer(core, ROOT, jm.ListJobs(10))) == ["bert", "anna"]
    core.receive(ANNA.encode(), m.CloseJob(JOBS[ANNA]), [], 1.0, ANNA)
    assert names(answer(core, ROOT, jm.ListJobs(10))) == ["bert", "anna"]
    assert names(answer(core, ROOT, jm.ListJobs(10, only_open=True))) == ["bert"]
    said = answer(core, ROOT, jm.ListJobs(1))
    assert (names(said), said.total) == (["bert"], 2)


@pytest.mark.parametrize("question", [jm.ShowJob, jm.CancelJob, jm.DetachJob])
def test_of_anothers_job_nobody_learns_whether_it_is_there(question: Any) -> None:
    core = scheduler()
    for job in (JOBS[BERT].hex(), JOBS[BERT].hex()[:8], "ffff"):
        assert answer(core, ANNA, question(job)) == jm.JobShown(None, f"there is no job {job}")
    assert set(core.state.jobs) == set(JOBS.values())
    assert core.state.jobs[JOBS[BERT]].failure is None


def test_a_job_is_named_by_its_first_digits_or_is_the_last_one() -> None:
    core = scheduler()
    for digits in ("61", "6161", JOBS[ANNA].hex().upper()):
        assert answer(core, ROOT, jm.ShowJob(digits)).record.summary.job == JOBS[ANNA]
    assert answer(core, ROOT, jm.ShowJob("")).record.summary.job == JOBS[BERT]
    said = answer(core, ROOT, jm.ShowJob("6"))
    assert said.record is None
    assert said.why == f"several jobs begin with 6: {JOBS[BERT].hex()}, {JOBS[ANNA].hex()}"


def test_who_has_no_job_is_told_so() -> None:
    core = Scheduler(bytes(16), "0", "inproc://pub")
    core.receive(b"c", client_hello(), [], 0.0)
    (sent,) = core.receive(b"c", jm.ShowJob(""), [], 0.0)
    assert sent == Send(b"c", jm.JobShown(None, "there is no job"))


def test_a_job_is_cancelled_by_name_and_its_caller_is_told_who_did_it() -> None:
    core = scheduler(node=True)
    anna = JOBS[ANNA]
    leaves = (m.Leaf(0, 0, 1, 1),)
    core.receive(
        ANNA.encode(), m.Inputs(job=anna, batch=0, start=0, leaves=leaves), [b"x"], 0.5, ANNA
    )
    (lease,) = core.state.jobs[anna].work.leases
    heard = asked(core, ROOT, jm.CancelJob(anna.hex()[:6]))
    core.check()
    assert Record(ROOT, "cancel job", anna, "ok") in heard
    failed = [e.message for e in heard if isinstance(e, Send) and e.peer == ANNA.encode()]
    text = "the job was cancelled by root (`burla jobs cancel`)"
    assert failed == [m.JobFailed(anna, "", text)]
    assert Send(b"n", m.EndLease(lease, discard=True)) in heard
    core.receive(ANNA.encode(), m.CloseJob(anna), [], 1.0, ANNA)
    summary = answer(core, ANNA, jm.ShowJob("")).record.summary
    assert (summary.state, summary.why) == (JobState.CANCELLED, "cancelled by root")
    again = answer(core, ANNA, jm.CancelJob(anna.hex()))
    assert again.why == f"job {anna.hex()} is over already"


def test_an_empty_name_cancels_nothing() -> None:
    core = scheduler()
    assert answer(core, ROOT, jm.CancelJob("")).why == "say which job"
    assert len(core.state.jobs) == 2


def test_a_cancelled_job_gets_no_node_any_more() -> None:
    core = scheduler()
    asked(core, ANNA, jm.CancelJob("61"))
    leaves = (m.Leaf(0, 0, 1, 1),)
    inputs = m.Inputs(job=JOBS[ANNA], batch=0, start=0, leaves=leaves)
    core.receive(ANNA.encode(), inputs, [b"x"], 1.5, ANNA)
    heard = core.receive(b"n", node_hello(b"n" * 16), [], 2.0, "key of n")
    core.check()
    sent = [e.message for e in heard if isinstance(e, Send)]
    leased = [said.job for said in sent if isinstance(said, m.StartLease)]
    assert leased == [JOBS[BERT]]


def test_a_job_of_a_key_is_that_of_its_user_as_soon_as_that_is_known() -> None:
    core = scheduler()
    users = core.state.tenants.users
    core.set_tenants(Tenants(Quotas(), {}, {ROOT: "root"}))
    new = b"n" * 16
    core.receive(ANNA.encode(), open_job(new), [b"f"], 0.5, ANNA)
    core.set_tenants(Tenants(Quotas(), {}, users))
    assert names(answer(core, ANNA, jm.ListJobs(10))) == ["anna", "anna"]
    assert answer(core, ANNA, jm.ShowJob("")).record.summary.user == "anna"
    assert names(answer(core, BERT, jm.ListJobs(10))) == ["bert"]


def test_a_list_fits_into_a_message_whatever_callers_call_their_functions() -> None:
    core = Scheduler(bytes(16), "0", "inproc://pub")
    core.receive(b"c", client_hello(), [], 0.0)
    for number in range(jm.LISTED_MAX):
        job = open_job(number.to_bytes(16, "big"), name="\U0001f600" * 256)
        core.receive(b"c", job, [b"f"], 0.0)
        core.state.jobs[job.job].said = "\U0001f600" * 5000
    (sent,) = core.receive(b"c", jm.ListJobs(jm.LISTED_MAX), [], 0.0)
    assert isinstance(sent, Send)
    assert isinstance(sent.message, jm.JobList)
    assert len(encode(sent.message)[0]) < m.HEADER_BYTES_MAX
    assert 100 < len(sent.message.jobs) < sent.message.total == jm.LISTED_MAX


def test_the_client_of_a_job_is_asked_to_detach_it_by_its_user_or_an_administrator() -> None:
    core = scheduler()
    anna = JOBS[ANNA]
    assert "older burla" in answer(core, ANNA, jm.DetachJob(anna.hex())).why
    hello = client_hello(bytes(16), features=(ADOPT,))
    core.receive(ANNA.encode(), hello, [], 0.0, ANNA)
    for key, who in ((ANNA, "anna"), (ROOT, "root")):
        heard = asked(core, key, jm.DetachJob(anna.hex()[:6]))
        told = [e.message for e in heard if isinstance(e, Send) and e.peer == ANNA.encode()]
        assert DetachAsked(anna, who) in told
    assert answer(core, BERT, jm.DetachJob(anna.hex())).record is None
    core.receive(ANNA.encode(), m.CloseJob(anna), [], 1.0, ANNA)
    assert "is over already" in answer(core, ANNA, jm.DetachJob(anna.hex())).why
