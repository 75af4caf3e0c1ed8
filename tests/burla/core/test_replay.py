"""A detached job, read from the store of the scheduler."""

from msgspec.structs import replace
from outcomes import payload_of, table_of

from burla.core.effects import Deliver, Fail, Finish, Write
from burla.core.replay import Replay
from burla.protocol import messages as m
from burla.protocol.mac import seal
from burla.protocol.store_messages import StoredJob, StoredState
from burla.protocol.stored_records import pack

JOB, LEASE = b"J" * 16, b"L" * 16


def record(message: m.Message, *payload: bytes) -> bytes:
    return b"".join(pack(message, payload))


def said(seq: int, lo: int, hi: int, kind: m.Kind = m.Kind.RESULTS, secret: bytes = b"") -> bytes:
    """Return a record of outcomes, as one node said them."""
    runs = table_of([m.Run(lo, hi, kind, 1)])
    told = m.JobOutcomes(job=JOB, lease=LEASE, seq=seq, node="n", runs=runs, output=0)
    payload = payload_of(runs)
    return record(replace(told, seal=seal(secret, told, payload)), *payload)


def facts(state: StoredState, total: int, why: str = "") -> StoredJob:
    return StoredJob(JOB, "f", state, 1.0, 2.0, 3.0, total, total, 0, 0, why, "", None)


def new(part: bytes, replay: Replay) -> list[tuple[int, int]]:
    delivered = [one for one in replay.take(part) if isinstance(one, Deliver)]
    return [fresh for one in delivered for part_ in one.parts for fresh in part_.fresh]


def test_outcomes_that_are_there_twice_are_handed_over_once() -> None:
    replay = Replay(JOB, b"", goes_on=False)
    assert new(said(1, 0, 3) + said(2, 5, 6), replay) == [(0, 3), (5, 6)]
    assert new(said(1, 0, 3) + said(3, 2, 6), replay) == [(3, 5)]
    assert replay.end(facts(StoredState.DONE, 6)) == [Finish(JOB)]


def test_what_bears_no_seal_of_the_job_is_never_opened() -> None:
    replay = Replay(JOB, b"s" * 32, goes_on=False)
    assert new(said(1, 0, 1, secret=b"s" * 32), replay) == [(0, 1)]
    (failed,) = replay.take(said(2, 1, 2, secret=b"t" * 32) + said(3, 2, 3, secret=b"s" * 32))
    assert isinstance(failed, Fail)
    assert "seal" in failed.text


def test_the_first_error_ends_it_unless_errors_are_outcomes() -> None:
    part = said(1, 0, 1) + said(2, 1, 2, m.Kind.ERROR) + said(3, 2, 3)
    told = Replay(JOB, b"", goes_on=False).take(part)
    assert [type(one) for one in told] == [Deliver, Deliver, Finish]
    assert new(part, Replay(JOB, b"", goes_on=True)) == [(0, 1), (1, 2), (2, 3)]


def test_output_that_is_there_twice_is_written_once_and_what_was_missing_later() -> None:
    replay = Replay(JOB, b"", goes_on=False)
    part = record(m.JobOutput(JOB, LEASE, 1, (1, 1)), b"a", b"b")
    part += record(m.JobOutput(JOB, LEASE, 4, (1,)), b"d")
    part += record(m.JobOutput(JOB, LEASE, 2, (1, 1, 1)), b"b", b"c", b"d")
    told = [one for one in replay.take(part) if isinstance(one, Write)]
    assert [list(one.chunks) for one in told] == [[b"a", b"b"], [b"d"], [b"c"]]


def test_a_job_that_was_cancelled_says_so() -> None:
    (failed,) = Replay(JOB, b"", goes_on=False).end(facts(StoredState.CANCELLED, 2, "stop"))
    assert isinstance(failed, Fail)
    assert failed.text == "the detached job has no further results: stop"
