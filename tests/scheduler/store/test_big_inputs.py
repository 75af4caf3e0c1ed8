"""Big inputs of detached jobs, piece by piece; what deaths do: tests/simulation/test_stored.py."""

from collections.abc import Sequence
from typing import Any

import pytest
from keepers import HELLO, JOB, PEER, Stage, heard, outcomes_of
from opening import open_job

from burla.protocol import messages as m, store_messages as sm
from burla.protocol.store_messages import StoredState
from burla.scheduler.core.store_limits import Limits
from burla.scheduler.store import big_inputs, kept_job, leaves, recovery
from burla.scheduler.store.effects import (
    Append,
    Delete,
    Effect,
    LoadBatch,
    LoadPieces,
    LoadWhole,
    Log,
    ToPeer,
)
from burla.scheduler.store.recovery import Found, Segment
from burla.scheduler.store.state import FREE_MIN
from burla.scheduler.store.uploads import UPLOAD_S

MB = 1 << 20
OTHER, NODE = b"O" * 16, b"N" * 16


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pieces have four bytes."""
    monkeypatch.setattr(leaves, "PIECE_BYTES", 4)


def announce(stage: Stage, size: int, total: int | None = 1, **more: Any) -> list[Any]:
    """Detach a job of one big input; return what its caller is told."""
    stage.say(open_job(JOB, detached=b"", **more), [b"function"])
    return stage.say(inputs(0, 0, size, total=total))


def inputs(batch: int, start: int, size: int, total: int | None = None) -> m.Inputs:
    leaf = m.Leaf(batch, start, 1, 0, size)
    return m.Inputs(job=JOB, batch=batch, start=start, leaves=(leaf,), total=total)


def piece(number: int, data: bytes = b"data", leaf: int = 0) -> tuple[m.InputPiece, list[bytes]]:
    return m.InputPiece(JOB, JOB, leaf, 4 * number), [data]


def asked(told: Sequence[Any]) -> list[tuple[int, int, int]]:
    return [(e.leaf, e.start, e.stop) for e in told if isinstance(e, m.InputWanted)]


def to_peer(effects: Sequence[Effect]) -> list[Any]:
    return [effect.message for effect in effects if isinstance(effect, ToPeer)]


def found_in(stage: Stage, without: Sequence[int] = ()) -> Found:
    """Return what the next scheduler finds, without some of the records."""
    records = [data for (job, _), data in sorted(stage.written.items()) if job == JOB]
    data = b"".join(one for at, one in enumerate(records) if at not in without)
    segment = Segment(0, len(data), lambda at, size: data[at : at + size])
    return recovery.find([segment], [])


def restart(stage: Stage, without: Sequence[int] = ()) -> Stage:
    after = Stage()
    after.written = stage.written
    after.do(after.keeper.restored(found_in(stage, without)))
    return after


def test_a_big_input_is_asked_for_in_a_window_and_stored_when_its_last_piece_is() -> None:
    stage = Stage()
    told = announce(stage, 42)
    assert asked(told) == [(0, 0, 8), (0, 8, 16), (0, 16, 24), (0, 24, 32)]
    assert stage.status().state is StoredState.SENT
    for number in range(10):
        assert sm.InputsStored(JOB, 1, 1) not in stage.say(*piece(number))
    last = stage.say(*piece(10, b"la"))
    assert last == [sm.InputsStored(JOB, 1, 1)]
    stored = [e for e in stage.done if isinstance(e, Append)]
    assert max(sum(map(len, e.frames)) for e in stored[3:]) < 200, "a record has more than a piece"
    assert stage.status().state is StoredState.WAITING


def test_what_was_not_asked_for_or_has_another_size_changes_nothing() -> None:
    stage = Stage()
    announce(stage, 12)
    done = len(stage.done)
    for said, payload in (piece(1), piece(0, b"dat"), piece(0, b"data!"), piece(0, leaf=1)):
        assert stage.say(said, payload) == []
    stage.keeper.hear(b"q" * 16, "key1", HELLO, *piece(0))  # another connection
    stage.keeper.hear(PEER, "key3", HELLO, *piece(0))  # another user
    assert not any(isinstance(effect, Append) for effect in stage.done[done:])
    stage.say(*piece(0))
    assert any(isinstance(effect, Append) for effect in stage.done[done:])


@pytest.mark.parametrize(
    "leaf", [m.Leaf(0, 0, 1, 0, 0), m.Leaf(0, 0, 1, 0, 5 << 30), m.Leaf(1, 0, 1, 0, 9)]
)
def test_a_batch_that_makes_no_sense_is_not_taken(leaf: m.Leaf) -> None:
    stage = Stage()
    stage.say(open_job(JOB, detached=b""), [b"function"])
    assert stage.say(m.Inputs(job=JOB, batch=0, start=0, leaves=(leaf,), total=1)) == []
    assert stage.keeper.state.jobs[JOB].end == 0


def test_a_quota_and_a_full_disk_refuse_by_the_size_before_a_byte_is_sent() -> None:
    stage = Stage(Limits(bytes_max=1000))
    (failed,) = announce(stage, 2000)
    assert "over your quota of bytes of detached jobs on this cluster: 1,000" in failed.text
    assert Delete(JOB) in stage.done
    stage = Stage()
    stage.at(0.0, FREE_MIN + MB)
    (failed,) = announce(stage, 2 * MB)
    assert "the disk of the scheduler's store is full" in failed.text
    assert not stage.keeper.state.line.size


def test_what_is_announced_counts_until_it_is_here() -> None:
    stage = Stage(Limits(bytes_max=3000))
    announce(stage, 2000)
    assert stage.status().size > 2000
    leaf = m.Leaf(0, 0, 1, 0, 1500)
    stage.keeper.hear(PEER, "key1", HELLO, open_job(OTHER, detached=b""), [b"f"])
    batch = m.Inputs(job=OTHER, batch=0, start=0, leaves=(leaf,), total=1)
    told = stage.do(stage.keeper.hear(PEER, "key1", HELLO, batch, []))
    assert any("over your quota" in one.text for one in to_peer(told))
    stage.say(m.CloseJob(JOB))
    assert stage.keeper.state.line.size == 0


def test_calls_begin_in_order_and_batches_behind_a_big_input_wait_for_it() -> None:
    stage = Stage()
    announce(stage, 6, total=None)
    leaf = m.Leaf(1, 1, 1, 1)
    told = stage.say(m.Inputs(job=JOB, batch=1, start=1, leaves=(leaf,), total=2), [b"leaf"])
    assert told == []
    assert not [said for said in heard(stage.done) if isinstance(said, m.Inputs)]
    stage.say(*piece(0))
    assert stage.say(*piece(1, b"la")) == [sm.InputsStored(JOB, 2, 2)]
    (load,) = [effect for effect in stage.done if isinstance(effect, LoadBatch)]
    assert load.number == 0


def test_a_node_is_given_what_it_asks_for_from_where_its_pieces_lie() -> None:
    stage = Stage()
    announce(stage, 10)
    for number, data in enumerate((b"data", b"more", b"la")):
        stage.say(*piece(number, data))
    said = inputs(0, 0, 10, total=1)
    assert said in heard(stage.do(stage.keeper.loaded(JOB, 0, said, [])))
    wanted = m.InputWanted(NODE, JOB, 0, 0, 0, 3, 9)
    peer = stage.keeper.state.jobs[JOB].peer
    (load,) = stage.keeper.hear_core(peer, wanted, [])
    assert isinstance(load, LoadPieces)
    records = [stage.written[JOB, at] for _, at in load.places]
    assert [data[-4:] for data in records[:2]] == [b"data", b"more"]
    assert (load.first, len(load.places), load.wanted) == (0, 3, wanted)
    sent = (m.InputPiece(NODE, JOB, 0, 3), b"a")
    assert heard(stage.do(stage.keeper.pieces_loaded(JOB, sent))) == [sent[0]]
    for nothing in ((1, 0, 4), (0, 8, 11), (0, 4, 4)):
        leaf, start, stop = nothing
        no = m.InputWanted(NODE, JOB, 0, leaf, start, start, stop)
        assert stage.keeper.hear_core(peer, no, []) == []


def test_a_node_that_cannot_ask_is_given_the_batch_whole() -> None:
    stage = Stage()
    announce(stage, 6)
    stage.say(*piece(0))
    stage.say(*piece(1, b"la"))
    peer = stage.keeper.state.jobs[JOB].peer
    (load,) = stage.keeper.hear_core(peer, m.BatchWanted(JOB, 0), [])
    assert isinstance(load, LoadWhole)
    assert [leaf.size for leaf in load.leaves] == [6]
    assert stage.keeper.hear_core(peer, m.BatchWanted(JOB, 1), []) == []
    whole = m.Inputs(job=JOB, batch=0, start=0, leaves=(m.Leaf(0, 0, 1, 1),), total=1)
    assert heard(stage.do(stage.keeper.whole_loaded(JOB, whole, [b"whole"]))) == [whole]


@pytest.mark.parametrize("is_whole", [False, True])
def test_an_input_that_is_damaged_on_the_disk_fails_its_job_in_words(is_whole: bool) -> None:
    stage = Stage()
    announce(stage, 4)
    stage.say(*piece(0))
    keeper = stage.keeper
    stage.do(keeper.whole_loaded(JOB, None, []) if is_whole else keeper.pieces_loaded(JOB))
    assert stage.status().said == "some of its inputs were lost to damage of the scheduler's disk"
    assert stage.status().state is StoredState.FAILED


def test_after_a_restart_only_what_is_missing_is_sent_and_only_when_its_caller_is_back() -> None:
    stage = Stage()
    announce(stage, 20)
    for number in range(3):
        stage.say(*piece(number))
    stage = restart(stage)
    assert to_peer(stage.done) == []
    assert stage.status().state is StoredState.SENT
    told = stage.say(open_job(JOB, detached=b"", resumed=True), [b"function"])
    assert asked(told) == [(0, 12, 20)]
    assert stage.say(inputs(0, 0, 20, total=1)) == []  # it is told again, and known
    assert stage.keeper.state.line.size == 8
    stage.say(*piece(3))
    assert stage.say(*piece(4)) == [sm.InputsStored(JOB, 1, 1)]


def test_a_piece_that_was_damaged_in_the_middle_is_asked_for_alone() -> None:
    stage = Stage()
    announce(stage, 20)
    for number in range(4):
        stage.say(*piece(number))
    stage = restart(stage, without=[4])  # its second piece
    told = stage.say(open_job(JOB, detached=b"", resumed=True), [b"function"])
    assert asked(told) == [(0, 4, 8), (0, 16, 20)]
    stage.say(*piece(1))
    assert stage.say(*piece(4)) == [sm.InputsStored(JOB, 1, 1)]


def test_a_job_whose_caller_does_not_come_back_goes_unless_it_may_have_been_whole() -> None:
    stage = Stage()
    announce(stage, 20)
    stage.say(*piece(0))
    for damages in ([], [recovery.Damage(Log.INPUTS, 0, 9, False, 9)]):
        found = found_in(stage)
        found.damages = damages
        after = Stage()
        after.is_there = False
        after.written = stage.written
        after.do(after.keeper.restored(found))
        after.expire(UPLOAD_S + 1)
        is_deleted = Delete(JOB) in after.done
        assert is_deleted is not bool(damages)
        assert not damages or after.status().state is StoredState.FAILED


def test_a_caller_that_connects_again_is_asked_for_what_did_not_come() -> None:
    stage = Stage()
    announce(stage, 40)
    stage.say(*piece(0))
    again = stage.say(open_job(JOB, detached=b"", resumed=True), [b"function"])
    assert asked(again)[0] == (0, 4, 12)
    assert stage.keeper.state.line.total == 8


def test_what_does_not_come_is_asked_for_again() -> None:
    stage = Stage()
    announce(stage, 8)
    assert asked(to_peer(stage.expire(19.0))) == []
    assert asked(to_peer(stage.expire(20.0))) == [(0, 0, 8)]


def test_jobs_take_turns_within_a_bound_and_one_that_is_slow_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(big_inputs, "ALL_PIECES", 6)
    monkeypatch.setattr(leaves, "ALL_PIECES", 6)
    stage = Stage()
    line = stage.keeper.state.line
    jobs = [bytes([65 + number]) * 16 for number in range(4)]
    asked_of = dict.fromkeys(jobs, 0)
    for job in jobs:
        stage.do(stage.keeper.hear(PEER, "key1", HELLO, open_job(job, detached=b""), [b"f"]))
        leaf = m.Leaf(0, 0, 1, 0, 4000)
        batch = m.Inputs(job=job, batch=0, start=0, leaves=(leaf,), total=1)
        stage.do(stage.keeper.hear(PEER, "key1", HELLO, batch, []))
        assert line.total <= 6 + leaves.ASKED_MIN

    def count() -> None:
        for one in to_peer(stage.done):
            if isinstance(one, m.InputWanted):
                asked_of[one.job] += 1
        stage.done.clear()

    count()
    assert asked_of[jobs[3]] == 0, "there is no room for the last one"
    stage.expire(6.0)  # nothing has come
    count()
    assert asked_of[jobs[3]] > 0
    at = dict.fromkeys(jobs, 0)
    for turn in range(40):
        job = jobs[turn % 4]
        said = m.InputPiece(job, job, 0, 4 * at[job])
        coming = stage.keeper.state.jobs[job].upload.coming
        if coming.asked:
            at[job] += 1
        stage.do(stage.keeper.hear(PEER, "key1", HELLO, said, [b"data"]))
        assert line.total <= 6 + leaves.ASKED_MIN
    count()
    assert max(asked_of.values()) - min(asked_of.values()) <= 3, "they take turns"
    for job in jobs:
        stage.do(stage.keeper.hear(PEER, "key1", HELLO, m.CloseJob(job), []))
    assert (line.total, line.size, line.wanting, line.under_way) == (0, 0, {}, {})


def test_a_job_that_has_ended_while_it_came_in_is_not_asked_for_more() -> None:
    stage = Stage()
    stage.say(open_job(JOB, detached=b""), [b"function"])
    leaf = m.Leaf(0, 0, 1, 1)
    stage.say(m.Inputs(job=JOB, batch=0, start=0, leaves=(leaf,)), [b"leaf"])
    assert asked(stage.say(inputs(1, 1, 40, total=2)))
    failed = m.JobFailed(JOB, "", "no such function")
    stage.core(failed)
    assert stage.status().state is StoredState.FAILED
    assert stage.status().size < 1000
    assert stage.say(*piece(0, leaf=1)) == []
    assert (stage.keeper.state.line.total, stage.keeper.state.line.size) == (0, 0)


def test_an_adopted_job_is_whole_when_its_big_inputs_are_here() -> None:
    stage = Stage()
    announce(stage, 6, total=None, adopted=True)
    stage.say(m.InputsEnd(JOB, 1))
    assert JOB in stage.keeper.state.jobs, "it is not refused for what is still on its way"
    stage.say(*piece(0))
    assert heard(stage.done) == []
    assert stage.say(*piece(1, b"la")) == [sm.InputsStored(JOB, 1, 1)]
    assert [type(said) for said in heard(stage.done)][:2] == [m.ClientHello, m.OpenJob]


def test_big_inputs_do_not_count_as_held_when_more_is_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The core holds nothing of them: so several nodes may run one each."""
    monkeypatch.setattr(kept_job, "WINDOW_BYTES", 2)
    monkeypatch.setattr(kept_job, "WINDOW_SIZE", 10)
    stage = Stage()
    stage.say(open_job(JOB, detached=b""), [b"function"])
    for number in range(5):
        stage.say(inputs(number, number, 4, total=5 if number == 4 else None))
        stage.say(*piece(0, leaf=number))
    job, fed = stage.keeper.state.jobs[JOB], 0
    while job.feeding.is_loading:
        stage.do(stage.keeper.loaded(JOB, fed, inputs(fed, fed, 4), []))
        fed += 1
    assert fed == 3
    stage.core(*outcomes_of(1, 0, 1))
    assert job.feeding.is_loading
