"""Jobs that are detached while they run, as their keeper sees them."""

from typing import Any

import pytest
from keepers import HELLO, JOB, LEASE, Stage, heard, opens, outcomes_of
from msgspec.structs import replace
from opening import open_job
from outcomes import payload_of, table_of

from burla.protocol import messages as m, store_messages as sm
from burla.protocol.codec import pack_runs
from burla.protocol.detach_messages import BeforeStored, GivenBefore, OutcomesBefore
from burla.protocol.mac import seal
from burla.protocol.store_messages import StoredState
from burla.scheduler.core.store_limits import Limits
from burla.scheduler.store.effects import Append, Delete, LoadBatch, Log
from burla.scheduler.store.recovery import Found
from burla.scheduler.store.state import FREE_MIN

MINE = b"M" * 16  # in the place of a lease


def begin(stage: Stage, **more: Any) -> list[Any]:
    return stage.say(open_job(JOB, detached=b"", adopted=True, **more), [b"function"])


def before(seq: int, lo: int, hi: int, kind: m.Kind = m.Kind.RESULTS, **more: Any) -> list[Any]:
    runs = table_of([m.Run(lo, hi, kind, 1)])
    said = OutcomesBefore(job=JOB, lease=MINE, seq=seq, node="n", runs=runs, **more)
    return [said, payload_of(runs)]


def inputs(batch: int, start: int, stop: int) -> list[Any]:
    leaf = m.Leaf(batch, start, stop - start, 1)
    return [m.Inputs(job=JOB, batch=batch, start=start, leaves=(leaf,)), [b"leaf"]]


def adopt(stage: Stage) -> None:
    """Detach a job of ten inputs: outcomes of [0, 3) and [5, 6) are there, [3, 4) was given."""
    begin(stage)
    stage.say(*before(1, 0, 3))
    stage.say(*before(2, 5, 6))
    stage.say(GivenBefore(JOB, 3, ((3, 4),)))
    stage.say(*inputs(0, 4, 6))
    stage.say(*inputs(1, 8, 10))
    stage.say(*before(4, 6, 8))


def test_outcomes_that_a_client_has_count_as_done_and_nothing_is_called_before_all_is_here() -> (
    None
):
    stage = Stage()
    adopt(stage)
    assert not opens(stage.done)
    assert stage.status().state is StoredState.SENT
    assert stage.say(m.InputsEnd(JOB, 10)) == [sm.InputsStored(JOB, 10, 10)]
    (opened,) = opens(stage.done)
    assert (opened.done, opened.resumed) == (((0, 4), (5, 8)), False)
    for number, start, stop in ((0, 4, 6), (1, 8, 10)):
        load = stage.done[-1]
        assert isinstance(load, LoadBatch)
        assert load.number == number
        told = heard(stage.do(stage.keeper.loaded(JOB, number, *inputs(number, start, stop))))
        assert told[0] == inputs(number, start, stop)[0]
    assert told[1:] == [m.InputsEnd(JOB, 10)]
    assert stage.core(*outcomes_of(1, 4, 5)) == [m.AckOutcomes(LEASE, 1)]
    assert stage.core(*outcomes_of(2, 8, 10)) == [m.AckOutcomes(LEASE, 2), m.CloseJob(JOB)]
    status = stage.status()
    assert (status.state, status.done, status.total) == (StoredState.DONE, 10, 10)


def test_each_message_is_acknowledged_and_written_down_as_outcomes_of_nodes_are() -> None:
    stage = Stage()
    begin(stage)
    assert stage.say(*before(1, 0, 3)) == [BeforeStored(JOB, 1)]
    assert stage.say(GivenBefore(JOB, 2, ((3, 4),))) == [BeforeStored(JOB, 2)]
    job = stage.keeper.state.jobs[JOB]
    assert job.progress.leases[MINE].seq == 1
    logs = [one.log for one in stage.done if isinstance(one, Append)]
    assert logs.count(Log.OUTCOMES) == 2


@pytest.mark.parametrize(
    "said",
    [
        before(2, 0, 3),  # the first one is missing
        before(1, 0, 3, kind=m.Kind.RESULT),  # one result of three inputs
        before(1, 3, 3),
        [OutcomesBefore(job=JOB, lease=MINE, seq=1, node="n", runs=b"no table"), [b""]],
        [before(1, 0, 3)[0], [b"more than that"]],
        [GivenBefore(JOB, 1, ((3, 2),)), []],
        [
            replace(before(1, 0, 1, kind=m.Kind.RESULT)[0], fragment=m.Fragment(7, 0, 1)),
            [b"r"],
        ],
    ],
)
def test_a_client_that_says_impossible_things_is_refused(said: list[Any]) -> None:
    stage = Stage()
    begin(stage)
    (failed,) = stage.say(*said)
    assert "its client says impossible things" in failed.text
    assert not stage.keeper.state.jobs
    assert Delete(JOB) in stage.done


def test_outcomes_without_the_seal_of_the_job_are_refused_at_once() -> None:
    stage = Stage()
    begin(stage, secret=b"secret")
    said, payload = before(1, 0, 3)
    record = m.JobOutcomes(job=JOB, lease=MINE, seq=1, node="n", runs=said.runs, output=0)
    sealed = replace(said, seal=seal(b"secret", record, payload))
    assert stage.say(sealed, payload) == [BeforeStored(JOB, 1)]
    (failed,) = stage.say(*before(2, 3, 4))
    assert "they do not bear its seal" in failed.text
    assert not stage.keeper.state.jobs


@pytest.mark.parametrize("total", [7, 9, 11])
def test_a_job_that_is_not_whole_or_has_more_than_its_inputs_is_refused(total: int) -> None:
    stage = Stage()
    adopt(stage)
    (failed,) = stage.say(m.InputsEnd(JOB, total))
    assert f"not those of {total} inputs" in failed.text
    assert not stage.keeper.state.jobs
    assert not opens(stage.done)


def test_a_job_whose_outcomes_are_all_here_is_over_at_once() -> None:
    stage = Stage()
    begin(stage)
    stage.say(*before(1, 0, 2))
    assert stage.say(m.InputsEnd(JOB, 2)) == [sm.InputsStored(JOB, 0, 2)]
    assert stage.status().state is StoredState.DONE
    assert not opens(stage.done)


def test_where_there_is_no_room_for_outcomes_the_job_is_refused_in_words() -> None:
    stage = Stage(Limits(bytes_max=1500))
    begin(stage)
    runs, payload = pack_runs([(m.Run(0, 1, m.Kind.RESULT, 1), [bytes(2000)])])
    said = OutcomesBefore(job=JOB, lease=MINE, seq=1, node="n", runs=runs)
    (failed,) = stage.say(said, payload)
    assert "over your quota of bytes" in failed.text
    stage = Stage()
    begin(stage)
    stage.at(1.0, room=FREE_MIN)
    (failed,) = stage.say(*before(1, 0, 2))
    assert "the disk of the scheduler's store is full" in failed.text


def test_a_disk_that_fails_under_outcomes_costs_the_stored_job_only() -> None:
    stage = Stage()
    begin(stage)
    stage.full = "Input/output error"
    (failed,) = stage.say(*before(1, 0, 2))
    assert failed.text == "the scheduler cannot keep the job: Input/output error"
    assert not stage.keeper.state.jobs


def again(stage: Stage) -> list[Any]:
    return stage.say(open_job(JOB, detached=b"", adopted=True, resumed=True), [b"function"])


def test_a_client_that_connects_again_hears_whether_the_job_was_whole() -> None:
    stage = Stage()
    adopt(stage)
    stage.say(m.InputsEnd(JOB, 10))
    assert again(stage) == [sm.InputsStored(JOB, 10, 10)]
    half = Stage()
    adopt(half)
    (failed,) = again(half)
    assert "was lost in the middle" in failed.text
    assert not half.keeper.state.jobs
    (failed,) = again(half)  # it has heard nothing, and asks once more
    assert "is gone" in failed.text
    assert not half.keeper.state.jobs


def found(stage: Stage) -> Found:
    """Return what a restart finds of the job, as it is."""
    job = stage.keeper.state.jobs[JOB]
    return Found(
        opened=job.opened,
        spec=job.spec,
        spec_at=job.opening.at,
        batches=list(job.batches),
        total=job.total,
        progress=job.progress,
        places=job.places,
    )


def test_after_a_restart_in_the_middle_nothing_is_called_and_it_is_given_up() -> None:
    stage = Stage()
    adopt(stage)
    other = Stage()
    other.do(other.keeper.restored(found(stage)))
    assert not opens(other.do(other.keeper.begin()))
    assert not opens(other.expire(1.0))
    (failed,) = again(other)
    assert "was lost in the middle" in failed.text


def test_after_a_restart_a_whole_job_goes_on_and_calls_only_what_has_no_outcome() -> None:
    stage = Stage()
    adopt(stage)
    stage.say(m.InputsEnd(JOB, 10))
    other = Stage()
    other.written = stage.written
    other.do(other.keeper.restored(found(stage)))
    (opened,) = opens(other.do(other.keeper.begin()))
    assert opened.done == ((0, 4), (5, 8))
    assert again(other) == [sm.InputsStored(JOB, 10, 10)]


def test_damage_to_outcomes_whose_inputs_are_not_here_fails_the_job_in_words() -> None:
    stage = Stage()
    adopt(stage)
    stage.say(m.InputsEnd(JOB, 10))
    lost = found(stage)
    lost.progress.done.remove(0, 3)
    other = Stage()
    other.do(other.keeper.restored(lost))
    assert "were lost to damage" in other.status().said


def test_nobody_else_adds_outcomes() -> None:
    stage = Stage()
    begin(stage)
    said, payload = before(1, 0, 3)
    assert stage.say(said, payload, key="key3") == []
    told = stage.do(stage.keeper.hear(b"q" * 16, "key1", HELLO, said, list(payload)))
    assert not told
    assert stage.keeper.state.jobs[JOB].progress.done.total == 0
