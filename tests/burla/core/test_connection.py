"""The conversation with a scheduler that comes, goes, and falls silent."""

from outcomes import payload_of, table_of

from burla.core.connection import (
    BEAT_S,
    LATE_MAX,
    LATE_S,
    SILENCE_S,
    SILENCE_SAID_S,
    Broken,
    Connection,
    ConnectionEffect,
    Forget,
    ForJob,
    Rejected,
    Subscribe,
)
from burla.core.effects import Deliver, ReportWaiting, Send
from burla.core.session import Session
from burla.protocol import messages as m

JOB, OTHER = b"j" * 16, b"o" * 16
LEASE = b"l" * 16
HELLO = m.ClientHello(m.PROTOCOL, "0", "3.11", b"c" * 16, "user", "host", 1)
WELCOME = m.Welcome(b"s" * 16, "0", "tcp://127.0.0.1:1")
ANSWER_S = 8.0


def session(now_s: float = 0.0, job: bytes = JOB) -> Session:
    spec = m.OpenJob(
        job=job,
        topic=b"t" * 16,
        name="f",
        func_cpu=1,
        func_ram=None,
        max_parallelism=None,
        unpack=False,
        environment=b"",
    )
    return Session(spec, [], prompt=True, now_s=now_s)


def begun() -> Connection:
    """Return a link that was welcomed at 0 and has one open job."""
    link = Connection(HELLO, ANSWER_S, now_s=0)
    link.start()
    link.receive(WELCOME, [], now_s=0)
    link.open(session(), now_s=0)
    return link


def sent(effects: list[ConnectionEffect]) -> list[type]:
    return [type(effect.message) for effect in effects if isinstance(effect, Send)]


def run_until(link: Connection, until_s: float) -> list[ConnectionEffect]:
    effects: list[ConnectionEffect] = []
    while (due_s := link.next_deadline_s()) <= until_s:
        effects += link.expire(due_s)
        link.check()
    return effects


def test_it_says_hello_first_and_opens_jobs_when_welcome() -> None:
    link = Connection(HELLO, ANSWER_S, now_s=0)
    assert link.start() == [Send(HELLO)]
    assert link.open(session(), now_s=0) == []
    assert link.tell(JOB, lambda s, now_s: s.add_batch([(1, [b"a"])], now_s), 0) == []
    effects = link.receive(WELCOME, [], now_s=0.1)
    assert effects[0] == Subscribe("tcp://127.0.0.1:1")
    assert sent(effects) == [m.OpenJob, m.Inputs]


def test_it_beats() -> None:
    link = begun()
    assert sent(run_until(link, 3 * BEAT_S)) == [m.Heartbeat] * 3


def complete(link: Connection, job: bytes, now_s: float) -> list[ConnectionEffect]:
    """Have the one input of `job` run."""
    link.tell(job, lambda s, now_s: s.add_batch([(1, [b"a"])], now_s, last=True), now_s)
    table = table_of([m.Run(0, 1, m.Kind.RESULT, 1)])
    said = m.JobOutcomes(job=job, lease=LEASE, seq=1, node="n", runs=table, output=0)
    return link.receive(said, payload_of(table), now_s)


def test_that_a_job_went_well_is_said_with_the_next_one() -> None:
    link = begun()
    assert sent(complete(link, JOB, 0)) == []
    assert sent(link.open(session(job=OTHER), now_s=0.01)) == [m.OpenJob]
    assert sent(run_until(link, 0.01)) == [m.CloseJob]
    assert sent(complete(link, OTHER, 0.02)) == []
    assert sent(run_until(link, 0.02 + LATE_S)) == [m.CloseJob]  # there is no next one


def test_only_so_much_is_said_late() -> None:
    link = Connection(HELLO, ANSWER_S, now_s=0)
    link.start()
    link.receive(WELCOME, [], now_s=0)
    jobs = [bytes([number]) * 16 for number in range(LATE_MAX + 1)]
    for job in jobs:
        link.open(session(job=job), now_s=0)
    said = [complete(link, job, 0) for job in jobs]
    assert [sent(effects) for effects in said] == [[]] * LATE_MAX + [[m.CloseJob] * len(jobs)]


def test_what_is_to_be_said_late_is_said_at_the_end() -> None:
    link = begun()
    complete(link, JOB, 0)
    assert sent(link.close_all(0)) == [m.CloseJob]


def test_no_answer_at_all_ends_a_job() -> None:
    link = Connection(HELLO, ANSWER_S, now_s=0)
    link.open(session(), now_s=0)
    said = ForJob(JOB, ReportWaiting("the cluster has not answered yet"))
    assert run_until(link, ANSWER_S - 1).count(said) == 1
    broken = [effect for effect in run_until(link, 10) if isinstance(effect, Broken)]
    assert [(one.job, one.how) for one in broken] == [(JOB, "unreachable")]


def test_a_job_on_a_connection_that_died_long_ago_ends_as_soon() -> None:
    link = begun()
    link.tell(JOB, lambda s, now_s: s.close(now_s), 1)
    run_until(link, 100)
    link.open(session(100), now_s=100)
    broken = [effect for effect in run_until(link, 110) if isinstance(effect, Broken)]
    assert [one.how for one in broken] == ["unreachable"]


def test_a_scheduler_that_falls_silent_is_waited_for_and_then_named() -> None:
    link = begun()
    link.receive(m.Heartbeat(), [], now_s=10)
    effects = run_until(link, 10 + SILENCE_S - 1)
    assert ForJob(JOB, ReportWaiting("its scheduler is silent")) in effects
    assert not any(isinstance(effect, Broken) for effect in effects)
    broken = [e for e in run_until(link, 10 + SILENCE_S + 1) if isinstance(e, Broken)]
    assert [one.how for one in broken] == ["lost"]
    assert link.sessions == {}


def test_a_short_silence_is_not_mentioned() -> None:
    link = begun()
    for second in range(1, 60):
        link.receive(m.Heartbeat(), [], now_s=float(second))
        waits = [e for e in run_until(link, second + 1) if isinstance(e, ForJob)]
        assert waits == [], second
    assert SILENCE_SAID_S > 2 * BEAT_S


def test_introduce_makes_it_say_everything_again_once() -> None:
    link = begun()
    link.tell(JOB, lambda s, now_s: s.add_batch([(1, [b"a"])], now_s), 0)
    assert link.receive(m.HelloRequired(), [], now_s=5) == [Forget(), Send(HELLO)]
    assert link.receive(m.HelloRequired(), [], now_s=5) == []  # an answer to what was said before
    again = link.receive(WELCOME, [], now_s=5)
    assert sent(again) == [m.OpenJob, m.Inputs]
    assert link.receive(m.HelloRequired(), [], now_s=9) == [Forget(), Send(HELLO)]
    assert link.receive(m.HelloRequired(), [], now_s=9 + BEAT_S) == [Forget(), Send(HELLO)]


def test_jobs_that_were_closed_are_closed_again_after_a_reconnect() -> None:
    link = begun()
    assert sent(link.tell(JOB, lambda s, now_s: s.close(now_s), 0)) == [m.CloseJob]
    link.receive(m.HelloRequired(), [], now_s=5)
    assert Send(m.CloseJob(JOB)) in link.receive(WELCOME, [], now_s=5)


def test_a_refusal_ends_all_jobs() -> None:
    link = begun()
    effects = link.receive(m.Refused("another protocol"), [], 1)
    assert effects == [Rejected(JOB, "another protocol", False)]
    assert link.refused == "another protocol"


def test_each_message_reaches_the_session_of_its_job() -> None:
    link = begun()
    link.tell(JOB, lambda s, now_s: s.add_batch([(2, [b"a"])], now_s), 0)
    said = m.JobOutcomes(
        job=JOB,
        lease=b"l" * 16,
        seq=1,
        node="n",
        runs=table_of([m.Run(0, 1, m.Kind.RESULTS, 1)]),
        output=0,
    )
    first = link.receive(said, [b"x"], now_s=0)[0]
    assert isinstance(first, ForJob)
    assert isinstance(first.effect, Deliver)
    assert link.receive(m.JobStatus(b"?" * 16, "", 0, 0), [], 0) == []


def test_when_the_cluster_has_ended_so_have_all_jobs() -> None:
    link = begun()
    assert link.break_all("killed") == [Broken(JOB, "ended", "killed")]


def test_at_the_end_all_jobs_are_closed() -> None:
    link = begun()
    assert link.close_all(0) == [Send(m.CloseJob(JOB))]
