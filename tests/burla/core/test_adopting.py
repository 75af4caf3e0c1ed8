"""A job that is detached while it runs: the two sessions, and the connection that has both."""

from typing import Any

from msgspec.structs import replace
from opening import client_hello, open_job
from outcomes import table_of

from burla.core.adopting import ENDED, TOO_OLD, Adopting
from burla.core.commands import AddBatch, AddBefore, EndInputs, HandInputs, Hold, Release
from burla.core.connection import Connection
from burla.core.effects import Deliver, DetachWanted, Effect, Fail, Finish, Held, Send
from burla.core.session import Session
from burla.protocol import messages as m, store_messages as sm
from burla.protocol.codec import pack_runs
from burla.protocol.detach_messages import (
    ADOPT,
    BEFORE_WINDOW,
    BeforeStored,
    DetachAsked,
    OutcomesBefore,
)

JOB, KEPT, LEASE, MINE = b"j" * 16, b"k" * 16, b"1" * 16, b"m" * 16
SPEC = open_job(JOB)
STORED = open_job(KEPT, detached=b"", adopted=True)
WELCOME = m.Welcome(scheduler=bytes(16), version="0", publisher="p", features=(sm.STORE, ADOPT))


def begin(welcome: m.Welcome = WELCOME) -> Connection:
    """Return a connection with a job of three batches of two inputs each; [2, 4) is done."""
    made = Connection(client_hello(), 8.0, 0.0)
    made.receive(welcome, [], 0.0)
    made.open(Session(SPEC, [b"function"], prompt=True), 0.0)
    for number in range(3):
        made.handle(AddBatch(JOB, [(2, [b"%d" % number])], 1), 0.0)
    made.receive(*outcomes(1, 2, 4), 0.0)
    return made


def outcomes(seq: int, lo: int, hi: int) -> tuple[m.JobOutcomes, list[bytes]]:
    table, payload = pack_runs([(m.Run(lo, hi, m.Kind.RESULTS, 1), [b"r"])])
    said = m.JobOutcomes(job=JOB, lease=LEASE, seq=seq, node="n", runs=table, output=0)
    return said, payload


def before(seq: int, payload: bytes = b"r") -> AddBefore:
    runs = table_of([m.Run(2, 4, m.Kind.RESULTS, 1)])
    said = OutcomesBefore(job=KEPT, lease=MINE, seq=seq, node="n", runs=runs)
    return AddBefore(KEPT, said, [payload])


def sent(effects: list[Effect]) -> list[Any]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


def adopting() -> Session:
    return Adopting(STORED, [b"function"], {})


def test_the_stored_job_gets_the_inputs_without_outcome_and_all_that_there_is_of_outcomes() -> None:
    made = begin()
    assert sent(made.open(adopting(), 0.0)) == [STORED]
    handed = sent(made.handle(HandInputs(KEPT, JOB), 0.0))
    assert [(one.start, one.total, one.job) for one in handed] == [(0, None, KEPT), (4, None, KEPT)]
    assert sent(made.handle(before(1), 0.0)) == [before(1).message]
    assert made.handle(EndInputs(KEPT), 0.0) == []  # the outcomes are not safe yet
    said = made.receive(BeforeStored(KEPT, 1), [], 0.0)
    assert sent(said) == [m.InputsEnd(KEPT, 6)]
    told = made.receive(sm.InputsStored(KEPT, 6), [], 0.0)
    assert [one.inputs for one in told if isinstance(one, Deliver)] == [4]
    assert made.receive(sm.InputsStored(KEPT, 6, 6), [], 0.0) == [Finish(KEPT)]
    made.check()
    assert list(made.sessions) == [JOB]


def test_inputs_at_the_end_that_are_done_count_and_a_batch_that_was_the_last_is_not() -> None:
    made = begin()
    made.handle(AddBatch(JOB, [(2, [b"3"])], 1, coming=0), 0.0)
    made.receive(*outcomes(2, 6, 8), 0.0)
    made.open(adopting(), 0.0)
    made.handle(HandInputs(KEPT, JOB), 0.0)
    assert sent(made.handle(EndInputs(KEPT), 0.0)) == [m.InputsEnd(KEPT, 8)]


def test_so_many_bytes_of_outcomes_are_under_way() -> None:
    made = begin()
    made.open(adopting(), 0.0)
    half = bytes(BEFORE_WINDOW // 2)
    for seq in (1, 2):
        assert len(sent(made.handle(before(seq, half), 0.0))) == 1
    assert made.handle(before(3), 0.0) == []
    assert sent(made.receive(BeforeStored(KEPT, 1), [], 0.0)) == [before(3).message]


def test_a_held_job_takes_no_outcomes_until_it_is_released_and_told_them_again() -> None:
    made = begin()
    assert made.handle(Hold(JOB), 0.0) == [Held(JOB, ((2, 4),))]
    assert made.receive(*outcomes(2, 0, 2), 0.0) == []
    said = made.handle(Release(JOB), 0.0)
    opened = next(one for one in sent(said) if isinstance(one, m.OpenJob))
    assert (opened.resumed, opened.done) == (True, ((2, 4),))
    told = made.receive(*outcomes(2, 0, 2), 0.0)
    assert [one.inputs for one in told if isinstance(one, Deliver)] == [2]
    made.check()


def test_an_older_scheduler_or_one_without_store_refuses_and_nothing_is_said_to_it() -> None:
    for features in ((), (sm.STORE,), (ADOPT,)):
        made = begin(replace(WELCOME, features=features))
        assert made.open(adopting(), 0.0) == [Fail(KEPT, "", TOO_OLD), Send(m.CloseJob(KEPT))]


def test_a_job_that_has_just_ended_is_not_detached() -> None:
    made = begin()
    made.receive(m.JobFailed(JOB, "", "no"), [], 0.0)
    made.open(adopting(), 0.0)
    assert Fail(KEPT, "", ENDED) in made.handle(HandInputs(KEPT, JOB), 0.0)


def test_on_a_new_connection_it_is_asked_whether_the_job_was_whole() -> None:
    made = begin()
    made.open(adopting(), 0.0)
    made.handle(HandInputs(KEPT, JOB), 0.0)
    made.handle(EndInputs(KEPT), 0.0)
    made.receive(m.HelloRequired(), [], 10.0)
    said = [one for one in sent(made.receive(WELCOME, [], 10.0)) if getattr(one, "job", 0) == KEPT]
    assert said == [replace(STORED, resumed=True)]
    assert made.handle(before(1), 10.0) == []
    whole = made.receive(sm.InputsStored(KEPT, 6, 6), [], 10.0)
    assert Finish(KEPT) in whole


def test_who_wants_it_detached_is_told_to_the_caller_of_a_job_that_is_open() -> None:
    made = begin()
    assert made.receive(DetachAsked(JOB, "root"), [], 0.0) == [DetachWanted(JOB, "root")]
    assert made.receive(DetachAsked(KEPT, "root"), [], 0.0) == []
