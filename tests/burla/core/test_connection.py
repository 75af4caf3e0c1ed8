"""The conversation with a scheduler that comes, goes, and falls silent."""

import msgspec
from opening import client_hello, open_job
from outcomes import payload_of, table_of

from burla.core.commands import AddBatch, AskStatus, Close
from burla.core.connection import LATE_MAX, LATE_S, SILENCE_REPORT_S, SILENCE_S, Connection
from burla.core.effects import (
    Broken,
    Deliver,
    Effect,
    Finish,
    Forget,
    Part,
    Rejected,
    ReportWaiting,
    Send,
    Status,
    Subscribe,
)
from burla.core.session import Session
from burla.protocol import messages as m
from burla.protocol.blob_messages import BLOBS
from burla.protocol.job_messages import (
    JOBS,
    JobOptions,
    JobRecord,
    JobShown,
    JobState,
    JobSummary,
    ShowJob,
)

JOB, OTHER = b"j" * 16, b"o" * 16
LEASE = b"l" * 16
HELLO = client_hello(b"c" * 16)
WELCOME = m.Welcome(b"s" * 16, "0", "tcp://127.0.0.1:1")
ANSWER_S = 8.0


def spec(job: bytes = JOB) -> m.OpenJob:
    return open_job(job, b"t" * 16)


def session(job: bytes = JOB) -> Session:
    return Session(spec(job), [], prompt=True)


OPEN, CLOSE, BEAT = Send(spec(), []), Send(m.CloseJob(JOB)), Send(m.Heartbeat())


def begun() -> Connection:
    """Return a connection that was welcomed at 0 and has one open job."""
    connection = Connection(HELLO, ANSWER_S, now_s=0)
    assert connection.start() == [Send(HELLO)]
    assert connection.receive(WELCOME, [], now_s=0) == [Subscribe(WELCOME.publisher)]
    assert connection.open(session(), now_s=0) == [OPEN]
    return connection


def one_input(job: bytes = JOB, *, last: bool = False) -> AddBatch:
    return AddBatch(job, [(1, [b"a"])], 1, 0 if last else None)


def inputs(job: bytes = JOB, *, last: bool = False) -> Send:
    """Return what sends `one_input`."""
    total = 1 if last else None
    leaves = (m.Leaf(0, 0, 1, 1),)
    return Send(m.Inputs(job=job, batch=0, start=0, leaves=leaves, total=total), [b"a"])


def run_until(connection: Connection, until_s: float) -> list[Effect]:
    effects: list[Effect] = []
    while (due_s := connection.next_deadline_s()) <= until_s:
        effects += connection.expire(due_s)
        connection.check()
    return effects


def test_it_says_hello_first_and_opens_jobs_when_welcome() -> None:
    connection = Connection(HELLO, ANSWER_S, now_s=0)
    assert connection.start() == [Send(HELLO)]
    assert connection.open(session(), now_s=0) == []
    assert connection.handle(one_input(), 0) == []
    welcomed = connection.receive(WELCOME, [], now_s=0.1)
    assert welcomed == [Subscribe("tcp://127.0.0.1:1"), OPEN, inputs()]


def test_it_beats() -> None:
    assert run_until(begun(), 3 * m.BEAT_S) == [BEAT] * 3


def complete(connection: Connection, job: bytes, now_s: float) -> list[Effect]:
    """Have the one input of `job` run; return what is sent beside it and its outcome."""
    assert connection.handle(one_input(job, last=True), now_s) == [inputs(job, last=True)]
    run = m.Run(0, 1, m.Kind.RESULT, 1)
    table = table_of([run])
    said = m.JobOutcomes(job=job, lease=LEASE, seq=1, node="n", runs=table, output=0)
    part = Part(run, ((0, 1),), payload_of(table))
    effects = connection.receive(said, payload_of(table), now_s)
    assert effects[:2] == [Deliver(job, LEASE, 1, "n", (part,), 1, 1), Finish(job)]
    return effects[2:]


def test_that_a_job_went_well_is_said_with_the_next_one() -> None:
    connection = begun()
    assert complete(connection, JOB, 0) == []
    assert connection.open(session(job=OTHER), now_s=0.01) == [Send(spec(OTHER), [])]
    assert run_until(connection, 0.01) == [CLOSE]
    assert complete(connection, OTHER, 0.02) == []
    assert run_until(connection, 0.02 + LATE_S) == [Send(m.CloseJob(OTHER))]  # there is no next


def test_only_so_much_is_said_late() -> None:
    connection = begun()
    jobs = [bytes([number]) * 16 for number in range(LATE_MAX + 1)]
    for job in jobs:
        connection.open(session(job=job), now_s=0)
    said = [complete(connection, job, 0) for job in jobs]
    assert said == [[]] * LATE_MAX + [[Send(m.CloseJob(job)) for job in jobs]]


def test_what_is_to_be_said_late_is_said_at_the_end() -> None:
    connection = begun()
    complete(connection, JOB, 0)
    assert connection.close_all() == [CLOSE]


def test_no_answer_at_all_ends_a_job() -> None:
    connection = Connection(HELLO, ANSWER_S, now_s=0)
    connection.open(session(), now_s=0)
    waits = ReportWaiting(JOB, "the cluster has not answered yet")
    assert run_until(connection, 1) == [waits, BEAT]
    assert run_until(connection, ANSWER_S - 1) == [BEAT] * 6
    assert run_until(connection, ANSWER_S) == [
        BEAT,
        Broken(JOB, "unreachable", "no answer for 8 s"),
    ]


def test_a_job_on_a_connection_that_died_long_ago_ends_as_soon() -> None:
    connection = begun()
    assert connection.handle(Close(JOB), 1) == [CLOSE]
    run_until(connection, 100)
    connection.open(session(), now_s=100)
    broken = Broken(JOB, "unreachable", "no answer for 8 s")
    assert run_until(connection, 108) == [BEAT] * 8 + [broken]


def test_a_scheduler_that_falls_silent_is_waited_for_and_then_named() -> None:
    connection = begun()
    connection.receive(m.Heartbeat(), [], now_s=10)
    effects = run_until(connection, 10 + SILENCE_S - 1)
    waits = ReportWaiting(JOB, "its scheduler is silent; it may be so for 600 s")
    assert [effect for effect in effects if effect != BEAT] == [waits]
    broken = Broken(JOB, "lost", "its scheduler has been silent for 600 s")
    assert run_until(connection, 10 + SILENCE_S) == [BEAT, broken]
    assert connection.sessions == {}


def test_a_short_silence_is_not_mentioned() -> None:
    connection = begun()
    for second in range(1, 60):
        connection.receive(m.Heartbeat(), [], now_s=float(second))
        assert run_until(connection, second + 1) in ([BEAT], [BEAT, BEAT])
    assert SILENCE_REPORT_S > 2 * m.BEAT_S


def test_asked_for_a_hello_it_says_everything_again_once() -> None:
    connection = begun()
    connection.handle(one_input(), 0)
    hello: list[Effect] = [Forget(), Send(HELLO)]
    assert connection.receive(m.HelloRequired(), [], now_s=5) == hello
    assert connection.receive(m.HelloRequired(), [], now_s=5) == []  # answers an earlier word
    resumed = Send(msgspec.structs.replace(spec(), resumed=True), [])
    again = connection.receive(WELCOME, [], now_s=5)
    assert again == [Subscribe(WELCOME.publisher), resumed, inputs()]
    assert connection.receive(m.HelloRequired(), [], now_s=9) == hello
    assert connection.receive(m.HelloRequired(), [], now_s=9 + m.BEAT_S) == hello


def test_jobs_that_were_closed_are_closed_again_after_a_reconnect() -> None:
    connection = begun()
    assert connection.handle(Close(JOB), 0) == [CLOSE]
    connection.receive(m.HelloRequired(), [], now_s=5)
    assert connection.receive(WELCOME, [], now_s=5) == [Subscribe(WELCOME.publisher), CLOSE]


def test_a_job_that_ends_while_it_is_not_connected_is_closed_after_the_reconnect() -> None:
    connection = begun()
    connection.receive(m.HelloRequired(), [], now_s=5)
    assert connection.handle(Close(JOB), 5) == []
    assert connection.receive(WELCOME, [], now_s=5) == [Subscribe(WELCOME.publisher), CLOSE]


def test_a_refusal_ends_all_jobs_and_those_to_come() -> None:
    connection = begun()
    refused = m.Refused("another protocol")
    assert connection.receive(refused, [], 1) == [Rejected(JOB, "another protocol", False)]
    assert connection.refused == "another protocol"
    rejected = [Rejected(OTHER, "another protocol", False)]
    assert connection.open(session(job=OTHER), 2) == rejected


def test_what_concerns_a_job_that_is_not_there_changes_nothing() -> None:
    connection = begun()
    assert connection.receive(m.JobStatus(OTHER, ""), [], 0) == []
    assert connection.hear_of_job(m.JobOutput(OTHER, LEASE, 1, (1,)), [b"x"], 0) == []
    assert connection.handle(one_input(OTHER), 0) == []
    connection.check()


def test_when_the_cluster_has_ended_so_have_all_jobs() -> None:
    connection = begun()
    assert connection.break_all("killed") == [Broken(JOB, "ended", "killed")]


def test_at_the_end_all_jobs_are_closed() -> None:
    connection = begun()
    assert connection.close_all() == [CLOSE]


def test_a_cluster_that_is_taken_down_fails_all_jobs_at_once_and_takes_others_later() -> None:
    connection = begun()
    why = "it was ended: root@head ran `burla down`"
    ended = m.ClusterEnded("root@head ran `burla down`")
    assert connection.receive(ended, [], now_s=1) == [Broken(JOB, "lost", why), CLOSE]
    assert connection.receive(ended, [], now_s=1) == []
    connection.check()
    assert connection.open(session(job=OTHER), now_s=2) == [Send(spec(OTHER), [])]


def test_blobs_are_sent_to_a_scheduler_that_takes_them_for_jobs_that_are_open() -> None:
    blob = m.Blob(b"D" * 32, 5)
    named = msgspec.structs.replace(spec(), blobs=(blob,))
    connection = Connection(HELLO, ANSWER_S, now_s=0)
    connection.receive(msgspec.structs.replace(WELCOME, features=(BLOBS,)), [], now_s=0)
    job = Session(named, [b"f"], True, blobs={blob.digest: memoryview(b"model")})
    assert connection.open(job, now_s=0) == [Send(named, [b"f"])]
    asked = m.BlobWanted(JOB, blob.digest, 0, 5)
    sent = Send(m.BlobPiece(JOB, blob.digest, 0), [b"model"])
    assert connection.receive(asked, [], now_s=0) == [sent]
    assert connection.receive(msgspec.structs.replace(asked, about=OTHER), [], now_s=0) == []
    connection.handle(Close(JOB), now_s=0)
    assert connection.receive(asked, [], now_s=0) == []


def record(job: bytes) -> JobRecord:
    """Return what a scheduler says of a job that has only just begun."""
    summary = JobSummary(job, "u", "f", JobState.WAITING, 0.0, 0.0, None, 0, 0, 0, 0, 0, "")
    options = JobOptions(1, None, None, False, False, 0.0, 0)
    return JobRecord(summary, options, "3.11", 0.0, (), (), 0, (), (), (), 0, 0)


def test_a_scheduler_that_can_say_is_asked_how_a_job_stands() -> None:
    connection = begun()
    assert connection.handle(AskStatus(JOB), 1.0) == []  # this one cannot
    connection.receive(msgspec.structs.replace(WELCOME, features=(JOBS,)), [], now_s=1.0)
    assert connection.handle(AskStatus(JOB), 1.0) == [Send(ShowJob(JOB.hex(), brief=True))]
    said = record(JOB)
    assert connection.receive(JobShown(said), [], 1.1) == [Status(JOB, said)]


def test_what_is_said_of_jobs_that_are_not_here_is_passed_over() -> None:
    connection = begun()
    for said in (JobShown(None, "there is no job"), JobShown(record(OTHER))):
        assert connection.receive(said, [], 1.0) == []
