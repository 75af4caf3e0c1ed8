"""The keeper of detached jobs, as a conversation; what disks and deaths do: tests/simulation."""

from typing import Any

import pytest
from keepers import HELLO, JOB, LEASE, PEER, USERS, Stage, heard, opens, outcomes_of
from opening import open_job
from outcomes import payload_of, table_of

from burla.protocol import messages as m, store_messages as sm
from burla.protocol.store_messages import StoredState
from burla.scheduler.core.store_limits import Limits
from burla.scheduler.store.effects import (
    Append,
    Delete,
    DropBlob,
    LoadBlob,
    ReadPart,
    Recheck,
    ToCore,
    ToPeer,
)
from burla.scheduler.store.members import IDLE_S
from burla.scheduler.store.state import AGAIN_S, FREE_MIN, PENDING_MAX
from burla.scheduler.store.uploads import UPLOAD_S


def test_a_job_is_acknowledged_when_all_of_it_is_on_the_disk_and_given_to_the_core() -> None:
    stage = Stage()
    assert stage.store() == [sm.InputsStored(JOB, 2, 2)]
    said = heard(stage.done)
    assert [type(one) for one in said] == [m.ClientHello, m.OpenJob, m.Inputs]
    assert not said[1].resumed
    assert stage.status().state is StoredState.WAITING


def test_outcomes_are_acknowledged_when_they_are_on_the_disk_and_the_last_one_ends_it() -> None:
    stage = Stage()
    stage.store()
    assert stage.core(*outcomes_of(1, 0, 1)) == [m.AckOutcomes(LEASE, 1)]
    assert stage.status().done == 1
    assert stage.core(*outcomes_of(2, 1, 2)) == [m.AckOutcomes(LEASE, 2), m.CloseJob(JOB)]
    assert stage.status().state is StoredState.DONE


def test_nobody_learns_of_the_job_of_another_user_and_all_keys_of_its_user_may_ask() -> None:
    stage = Stage()
    stage.store()
    assert stage.status("key2").key == "key1"
    assert stage.say(sm.AskStored(JOB), key="key3") == [sm.StoredJobs((), 0, JOB)]
    assert stage.say(sm.EndStored(JOB, True), key="key3") == [sm.StoredJobs((), 0, JOB)]
    (part,) = stage.say(sm.ReadStored(JOB, 0, 0), key="key3")
    assert part.facts is None
    (failed,) = stage.say(open_job(JOB, detached=b""), key="key3")
    assert failed == m.JobFailed(JOB, "", "not found")
    assert stage.status().state is StoredState.WAITING


def test_what_only_the_core_needs_of_a_job_that_waits_is_on_the_disk_alone() -> None:
    """Its function, and the environment of its caller: there may be ten thousand of a user."""
    stage = Stage()
    stage.keys = []  # none counts at present
    stage.store(environment=b"HOME=/")
    job = stage.keeper.state.jobs[JOB]
    stage.expire(2.0)
    assert (job.opening.function, job.spec.environment, job.peer) == ([], b"", b"")
    stage.keys = ["key1"]
    (opened,) = opens(stage.expire(2 * AGAIN_S))
    assert opened.environment == b"HOME=/"
    (said,) = [one for one in stage.done if isinstance(one, ToCore) and one.message == opened]
    assert list(said.payload) == [b"function"]
    assert stage.core(*outcomes_of(1, 0, 2)) == [m.AckOutcomes(LEASE, 1), m.CloseJob(JOB)]
    assert (job.opening.function, job.spec.environment) == ([], b"")


def test_a_function_that_is_damaged_on_the_disk_fails_its_job_in_words() -> None:
    stage = Stage()
    stage.keys = []
    stage.store()
    stage.expire(2.0)
    stage.keys, stage.is_damaged = ["key1"], True
    assert opens(stage.expire(2 * AGAIN_S)) == []
    assert stage.status().state is StoredState.FAILED
    assert stage.status().said == "its function is damaged on the scheduler's disk"


def test_where_the_disk_is_full_new_jobs_are_refused_in_words() -> None:
    stage = Stage()
    stage.at(0.0, room=FREE_MIN)
    (failed,) = stage.say(open_job(JOB, detached=b""), [b"function"])
    assert "the disk of the scheduler's store is full: 256 MiB are free" in failed.text
    assert "an administrator make room on the scheduler's machine" in failed.text
    assert not stage.keeper.state.jobs


def test_a_running_job_waits_while_the_disk_is_full_and_its_nodes_tell_all_again() -> None:
    stage = Stage()
    stage.store()
    stage.full = "no space left"
    assert stage.core(*outcomes_of(1, 0, 1)) == []
    assert stage.core(*outcomes_of(2, 1, 2)) == []
    assert "no space left" in stage.status().said
    stage.full = ""
    assert heard(stage.expire(AGAIN_S + 1, room=FREE_MIN)) == [m.Heartbeat()]
    said = heard(stage.expire(2 * AGAIN_S + 2))
    (again,) = [one for one in said if isinstance(one, m.OpenJob)]
    assert again.resumed
    assert again.done == ()
    assert stage.core(*outcomes_of(1, 0, 1)) == [m.AckOutcomes(LEASE, 1)]


def test_a_disk_that_fails_in_the_middle_of_an_upload_costs_the_job_and_it_is_told() -> None:
    stage = Stage()
    stage.full = "Input/output error"
    (failed,) = stage.say(open_job(JOB, detached=b""), [b"function"])
    assert failed.text == "the scheduler cannot keep the job: Input/output error"
    assert not stage.keeper.state.jobs
    assert Delete(JOB) in stage.done


def test_each_user_has_so_many_bytes_and_a_job_that_needs_more_waits() -> None:
    stage = Stage(Limits(bytes_max=1500))
    stage.store()
    assert stage.core(*outcomes_of(1, 0, 1)) == [m.AckOutcomes(LEASE, 1)]
    assert stage.core(outcomes_of(2, 1, 2)[0], [bytes(2000)]) == []
    assert "over your quota of bytes of detached jobs" in stage.status().said
    other = b"K" * 16
    (failed,) = stage.say(open_job(other, detached=b""), [bytes(2000)])
    assert "Delete some that you need no more" in failed.text


def test_what_is_behind_a_gap_comes_again_or_is_taken_for_lost() -> None:
    stage = Stage()
    stage.store()
    assert stage.core(*outcomes_of(2, 1, 2)) == []
    assert stage.core(*outcomes_of(1, 0, 1)) == [m.AckOutcomes(LEASE, 1)]
    stage.expire(1.0)
    assert stage.core(*outcomes_of(3, 1, 2)) == []
    assert not any(isinstance(one, m.OpenJob) for one in heard(stage.expire(5.0)))
    said = heard(stage.expire(7.0))
    assert any(isinstance(one, m.OpenJob) and one.done == ((0, 1),) for one in said)
    assert m.AckOutcomes(LEASE, 3) in stage.core(*outcomes_of(3, 1, 2))


def test_a_caller_that_ends_before_all_is_stored_leaves_nothing() -> None:
    stage = Stage()
    stage.say(open_job(JOB, detached=b""), [b"function"])
    assert stage.status().state is StoredState.SENT
    stage.is_there = False
    stage.expire(1.0)
    assert Delete(JOB) not in stage.expire(UPLOAD_S)
    assert Delete(JOB) in stage.expire(UPLOAD_S + 2)


def test_a_caller_that_breaks_off_leaves_nothing() -> None:
    stage = Stage()
    stage.store(blobs=(m.Blob(b"D" * 32, 5),))
    stage.say(m.CloseJob(JOB))
    assert not stage.keeper.state.jobs
    assert stage.done[-2:] == [Delete(JOB), DropBlob("ann", b"D" * 32)]


def test_blobs_are_asked_for_kept_and_given_to_the_core() -> None:
    from hashlib import sha256

    stage, data = Stage(), b"hello"
    digest = sha256(data).digest()
    stage.say(open_job(JOB, detached=b"", blobs=(m.Blob(digest, 5),)), [b"function"])
    assert ToPeer(PEER, m.BlobWanted(JOB, digest, 0, 5)) in stage.done
    leaf = m.Leaf(0, 0, 2, 1)
    inputs = m.Inputs(job=JOB, batch=0, start=0, leaves=(leaf,), total=2)
    assert stage.say(inputs, [b"leaf"]) == [sm.InputsStored(JOB, 2)]
    assert heard(stage.done) == []  # nothing runs without it
    assert stage.say(m.BlobPiece(JOB, digest, 0), [data]) == [sm.InputsStored(JOB, 2, 2)]
    job = stage.keeper.state.jobs[JOB]
    told = stage.keeper.hear_core(job.peer, m.BlobWanted(JOB, digest, 0, 5), [])
    assert told == [LoadBlob(JOB, "ann", digest, 0, 5)]


def test_a_job_goes_on_under_another_key_of_its_user_when_its_own_is_revoked() -> None:
    stage = Stage()
    stage.store()
    stage.keys = ["key2"]
    peer = stage.keeper.state.jobs[JOB].peer
    told = stage.do(stage.keeper.hear_core(peer, m.Refused("revoked", True), []))
    assert {one.user for one in told if isinstance(one, ToCore)} == {"key2"}
    stage.keys = []
    peer = stage.keeper.state.jobs[JOB].peer
    stage.do(stage.keeper.hear_core(peer, m.Refused("revoked", True), []))
    assert stage.status().state is StoredState.WAITING
    assert stage.status().said == "no key of its user counts at present: it goes on when one does"
    assert not opens(stage.expire(1.0))
    stage.keys = ["key1"]
    (again,) = opens(stage.expire(2 * AGAIN_S))
    assert again.resumed


def test_who_waits_for_news_is_answered_when_there_are_some_or_the_time_is_over() -> None:
    stage = Stage()
    stage.store()
    assert stage.say(sm.ReadStored(JOB, 0, 0, 10.0)) == []
    assert not [e for e in stage.expire(9.0) if isinstance(e, ToPeer)]
    (empty,) = [e.message for e in stage.expire(11.0) if isinstance(e, ToPeer)]
    assert isinstance(empty, sm.StoredPart)
    assert (empty.is_all, empty.next_at) == (True, 0)
    stage.say(sm.ReadStored(JOB, 0, 0, 10.0))
    stage.core(*outcomes_of(1, 0, 1))
    assert any(isinstance(effect, ReadPart) for effect in stage.done)


@pytest.mark.parametrize("delete", [False, True])
def test_a_job_is_stopped_and_stays_unless_it_is_deleted(delete: bool) -> None:
    stage = Stage()
    stage.store()
    stage.say(sm.EndStored(JOB, delete))
    assert m.CloseJob(JOB) in heard(stage.done)
    assert (Delete(JOB) in stage.done) is delete
    if not delete:
        assert stage.status().state is StoredState.CANCELLED


def test_a_job_is_kept_for_a_time_after_it_has_ended() -> None:
    stage = Stage(Limits(keep_s=100.0))
    stage.store()
    stage.core(*outcomes_of(1, 0, 2))
    assert stage.status().until_s == 1100.0
    assert Delete(JOB) not in stage.expire(99.0)
    assert Delete(JOB) in stage.expire(101.0)
    assert not stage.keeper.state.sizes


def test_a_quota_that_others_have_used_up_makes_a_job_wait_and_no_more() -> None:
    stage = Stage()
    stage.store()
    assert stage.core(m.JobFailed(JOB, "", "over your quota", momentary=True)) == [m.CloseJob(JOB)]
    assert (stage.status().state, stage.status().said) == (StoredState.WAITING, "over your quota")
    assert not opens(stage.expire(1.0))
    assert opens(stage.expire(AGAIN_S + 1))
    stage.core(m.JobFailed(JOB, "", "no such node"))
    assert stage.status().state is StoredState.FAILED


@pytest.mark.parametrize("how", ["raised", "cancelled", "deleted", "restarted"])
def test_who_still_sends_inputs_hears_that_the_job_has_ended(how: str) -> None:
    stage = Stage()
    stage.say(open_job(JOB, detached=b""), [b"function"])
    leaf = m.Leaf(0, 0, 2, 1)
    stage.say(m.Inputs(job=JOB, batch=0, start=0, leaves=(leaf,)), [b"leaf"])
    stage.done.clear()
    if how in ("cancelled", "deleted"):
        stage.say(sm.EndStored(JOB, how == "deleted"))
    else:
        runs = table_of([m.Run(0, 1, m.Kind.ERROR, 1)])
        said = m.JobOutcomes(job=JOB, lease=LEASE, seq=1, node="n", runs=runs, output=0)
        stage.core(said, payload_of(runs))
    sent = [effect.message for effect in stage.done if isinstance(effect, ToPeer)]
    (told,) = [said for said in sent if isinstance(said, m.JobFailed)]
    assert "it has ended before all its inputs were here" in told.text
    if how == "deleted":
        return
    stage.say(m.CloseJob(JOB))
    assert stage.status().state in sm.ENDED  # what there is of it stays
    if how == "restarted":
        stage.keeper.state.jobs[JOB].is_kept = True  # as it is restored
    (again,) = stage.say(open_job(JOB, detached=b"", resumed=True), [b"function"])
    assert again == told


@pytest.mark.parametrize("said", [m.HelloRequired(), m.ClusterEnded("ann")])
def test_jobs_go_on_that_the_core_has_forgotten_or_ended(said: m.Message) -> None:
    stage = Stage()
    stage.store()
    peer = stage.keeper.state.jobs[JOB].peer
    begun = opens(stage.do(stage.keeper.hear_core(peer, said, [])))
    if isinstance(said, m.ClusterEnded):
        assert not begun
        assert stage.status().said == "all jobs of the cluster were ended: ann"
        assert not opens(stage.expire(59.0))
        begun = opens(stage.expire(61.0))
    assert [one.resumed for one in begun] == [True]


def test_a_job_is_looked_at_again_once_at_a_time() -> None:
    stage = Stage()
    stage.store()
    stage.core(*outcomes_of(1, 0, 2))
    assert Recheck(JOB) in stage.do(stage.keeper.damaged(JOB, 1))
    assert Recheck(JOB) not in stage.do(stage.keeper.damaged(JOB, 1))
    stage.do(stage.keeper.rechecked(JOB, None))
    assert Recheck(JOB) in stage.do(stage.keeper.damaged(JOB, 1))


def test_a_job_that_was_cancelled_while_the_disk_was_full_does_not_run_again() -> None:
    stage = Stage()
    stage.store()
    stage.full = "no space left"
    stage.say(sm.EndStored(JOB))
    stage.full = ""
    assert not opens(stage.expire(AGAIN_S + 1))
    assert stage.status().state is StoredState.CANCELLED


def test_a_job_whose_inputs_cannot_be_read_for_a_moment_is_tried_again() -> None:
    stage = Stage()
    stage.store()
    stage.core(m.JobStatus(JOB, "waiting for a node"))
    assert heard(stage.do(stage.keeper.not_read(JOB))) == [m.CloseJob(JOB)]
    assert "cannot read" in stage.status().said
    assert opens(stage.expire(AGAIN_S + 1))


def stored(stage: Stage, number: int, key: str = "key1", **more: Any) -> bytes:
    """Detach one of many jobs of one input; return its id."""
    job = number.to_bytes(16, "big")
    stage.say(open_job(job, detached=b"", **more), [b"function"], key)
    leaf = m.Leaf(0, 0, 1, 1)
    stage.say(m.Inputs(job=job, batch=0, start=0, leaves=(leaf,), total=1), [b"leaf"], key)
    return job


def test_a_key_that_gets_a_user_keeps_its_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    job = stored(stage, 1, key="key9")
    monkeypatch.setitem(USERS, "key9", "cleo")
    monkeypatch.setitem(USERS, "key10", "cleo")
    for key, count in (("key9", 1), ("key10", 1), ("key1", 0)):
        (all_,) = stage.say(sm.AskStored(None), key=key)
        (one,) = stage.say(sm.AskStored(job), key=key)
        assert (len(all_.jobs), len(one.jobs)) == (count, count)
    stage.say(sm.EndStored(job, True), key="key10")
    assert Delete(job) in stage.done


def test_what_has_no_effect_is_told_whatever_becomes_of_the_job() -> None:
    stage = Stage()
    stage.store()
    stage.core(m.JobStatus(JOB, "", notice="without effect: region"))
    assert (stage.status().state, stage.status().notice) == ("running", "without effect: region")
    stage.core(m.JobStatus(JOB, "waiting for a node"))
    assert (stage.status().said, stage.status().notice) == (
        "waiting for a node",
        "without effect: region",
    )


def test_a_key_that_is_refused_is_tried_again_after_a_while_and_the_reason_is_told() -> None:
    stage = Stage()
    stage.keys = ["key1"]
    stage.store()
    peer = stage.keeper.state.jobs[JOB].peer
    told = stage.do(stage.keeper.hear_core(peer, m.Refused("too many connections"), []))
    assert heard(told) == []
    assert stage.status().said == "it is refused: too many connections"
    assert not opens(stage.expire(AGAIN_S - 1))
    assert opens(stage.expire(2 * AGAIN_S))


def test_where_the_core_takes_few_jobs_of_a_user_few_are_tried_in_vain() -> None:
    stage = Stage()
    jobs = [stored(stage, number) for number in range(40)]
    peer = stage.keeper.state.jobs[jobs[0]].peer

    def refuse(opened: list[bytes]) -> None:
        """Be a core that takes four jobs of a user."""
        for job in opened:
            if len(stage.keeper.state.with_core.get("ann", {})) > 4:
                said = m.JobFailed(job, "", "over your quota", momentary=True)
                stage.do(stage.keeper.hear_core(peer, said, []))

    refuse(jobs[::-1])
    assert len(stage.keeper.state.with_core["ann"]) == 4
    tried = 0
    for at in range(1, 121):
        begun = [one.job for one in opens(stage.expire(float(at)))]
        tried += len(begun)
        refuse(begun)
    assert 0 < tried <= 120 / AGAIN_S
    stage.say(sm.EndStored(jobs[0], True))
    (next_,) = opens(stage.expire(122.0))  # there is room again
    assert next_.job in jobs


def test_the_keeper_is_nobody_whose_jobs_are_over() -> None:
    stage = Stage()
    stage.store()
    assert len(stage.keeper.state.users) == 1
    stage.core(*outcomes_of(1, 0, 2))
    stage.expire(1.0)
    assert len(stage.keeper.state.users) == 1
    stage.expire(IDLE_S + 2)
    assert not stage.keeper.state.users
    assert m.Heartbeat() not in heard(stage.expire(IDLE_S + 20))
    stored(stage, 7)
    assert len(stage.keeper.state.users) == 1


def test_uploads_that_are_being_written_do_not_hold_up_outcomes() -> None:
    stage = Stage()
    stage.store()
    big = bytes(PENDING_MAX + 1)
    leaf = m.Leaf(0, 0, 1, 1)
    other = b"O" * 16
    stage.say(open_job(other, detached=b""), [b"function"])
    said = m.Inputs(job=other, batch=0, start=0, leaves=(leaf,), total=1)
    waits = stage.keeper.hear(PEER, "key1", HELLO, said, [big])
    outcome = stage.keeper.hear_core(stage.keeper.state.jobs[JOB].peer, *outcomes_of(1, 0, 1))
    assert any(isinstance(effect, Append) for effect in outcome)
    assert stage.status().said == ""
    stage.do([*waits, *outcome])


def test_a_blob_goes_with_the_last_job_that_names_it() -> None:
    stage = Stage()
    blob = m.Blob(b"d" * 32, 0, m.BlobKind.PART)
    first, second = (stored(stage, number, blobs=(blob,)) for number in (1, 2))
    drop = DropBlob("ann", blob.digest)
    stage.say(sm.EndStored(first, True))
    assert drop not in stage.done
    stage.say(sm.EndStored(second, True))
    assert drop in stage.done


def test_damage_that_is_found_while_a_job_goes_on_is_looked_at_when_it_has_ended() -> None:
    stage = Stage()
    stage.store()
    stage.core(*outcomes_of(1, 0, 1))
    assert Recheck(JOB) not in stage.do(stage.keeper.damaged(JOB, 1))
    stage.core(*outcomes_of(2, 1, 2))
    assert stage.done.count(Recheck(JOB)) == 1
