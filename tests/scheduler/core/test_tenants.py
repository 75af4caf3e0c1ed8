"""Keys in the scheduler's core: sessions, nodes and jobs belong to the key that brought them."""

from opening import client_hello, node_hello, open_job

from burla.protocol import messages as m
from burla.scheduler.core.effects import Effect, Forget, Note, Record, Send
from burla.scheduler.core.quotas import BYTES_MAX
from burla.scheduler.core.scheduler import Scheduler

ANNA, BERT = "a" * 64, "b" * 64
SESSION, OTHER, NODE, JOB = (bytes([number]) * 16 for number in range(4))
WELCOME = m.Welcome(bytes(16), "0", "pub", BYTES_MAX)
THEFT = m.Refused("another key has this session already: start a new process", not_authorised=True)
REVOKED = m.Refused("revoked", not_authorised=True)
START = m.StartLease(
    lease=bytes(15) + b"\x01",
    job=JOB,
    slots=2,
    func_cpu=1,
    unpack=False,
    environment=b"",
    outcome_window=m.LEASE_OUTCOME_WINDOW,
    report_s=0.02,
)


def begun() -> Scheduler:
    """Return a core that Anna and Bert have said Hello to; Anna has a job."""
    core = Scheduler(bytes(16), "0", "pub")
    assert core.receive(b"anna", client_hello(SESSION), [], 0.0, ANNA) == [Send(b"anna", WELCOME)]
    assert core.receive(b"anna", open_job(JOB), [b"f"], 0.0, ANNA) == [
        Record(ANNA, "open job", JOB, "ok")
    ]
    assert core.receive(b"bert", client_hello(OTHER), [], 0.0, BERT) == [Send(b"bert", WELCOME)]
    return core


def joined(peer: bytes) -> list[Effect]:
    """Return what Anna's node makes that says Hello."""
    return [
        Record(ANNA, "join as node n", None, "ok"),
        Note("node n joined: 2 CPUs"),
        Send(peer, WELCOME),
    ]


def test_a_session_stays_with_its_key_through_reconnects() -> None:
    core = begun()
    assert core.receive(b"2", client_hello(SESSION), [], 1.0, ANNA) == [
        Forget(b"anna"),
        Send(b"2", WELCOME),
    ]
    assert core.receive(b"3", client_hello(SESSION), [], 2.0, BERT) == [
        Send(b"3", THEFT),
        Record(BERT, "take over a session", None, "refused"),
    ]
    assert core.follower(JOB) == (b"2", ANNA)


def test_a_node_stays_with_its_key() -> None:
    core = begun()
    assert core.receive(b"n", node_hello(NODE), [], 0.0, ANNA) == [
        *joined(b"n"),
        Send(b"n", START, [b"f"]),
    ]
    assert core.receive(b"m", node_hello(NODE), [], 1.0, BERT) == [
        Send(b"m", THEFT),
        Record(BERT, "take over a node", None, "refused"),
    ]
    assert core.peers() == [(b"anna", ANNA), (b"bert", BERT), (b"n", ANNA)]


def test_another_key_on_a_connection_ends_it_but_not_what_it_was() -> None:
    core = begun()
    assert core.receive(b"anna", m.CloseJob(JOB), [], 1.0, BERT) == [
        Record(BERT, "use the connection of another", None, "refused"),
        Forget(b"anna"),
    ]
    assert core.expire(1.5) == [Send(b"bert", m.Heartbeat())]  # the thief hears nothing more
    assert core.follower(JOB) == (b"", ANNA)
    assert core.receive(b"again", client_hello(SESSION), [], 2.0, ANNA) == [
        Forget(b""),
        Send(b"again", WELCOME),
    ]
    assert core.follower(JOB) == (b"again", ANNA)
    core.check()


def test_another_key_on_a_nodes_connection_gets_no_work() -> None:
    core = Scheduler(bytes(16), "0", "pub")
    assert core.receive(b"n", node_hello(NODE), [], 0.0, ANNA) == joined(b"n")
    assert core.receive(b"n", m.Heartbeat(), [], 0.1, BERT) == [
        Record(BERT, "use the connection of another", None, "refused"),
        Forget(b"n"),
    ]
    assert core.receive(b"anna", client_hello(SESSION), [], 0.2, ANNA) == [Send(b"anna", WELCOME)]
    assert core.receive(b"anna", open_job(JOB), [b"f"], 0.2, ANNA) == [
        Record(ANNA, "open job", JOB, "ok")
    ]
    core.check()


def test_another_tenants_job_is_not_found() -> None:
    core = begun()
    assert core.receive(b"bert", open_job(JOB), [b"f"], 1.0, BERT) == [
        Record(BERT, "open job", JOB, "not found"),
        Send(b"bert", m.JobFailed(JOB, "", "not found")),
    ]
    for word, operation in ((m.CloseJob(JOB), "close job"), (m.InputsEnd(JOB, 0), "submit")):
        assert core.receive(b"bert", word, [], 1.0, BERT) == [
            Record(BERT, operation, JOB, "not found")
        ]
    # of a job that never was there is nothing to say either
    assert core.receive(b"bert", m.CloseJob(bytes(16)), [], 1.0, BERT) == []
    # Anna's is open and not complete: it gets a node
    assert core.receive(b"n", node_hello(NODE), [], 1.0, ANNA) == [
        *joined(b"n"),
        Send(b"n", START, [b"f"]),
    ]


def test_who_is_expelled_leaves_no_job_and_no_lease() -> None:
    core = begun()
    assert core.receive(b"n", node_hello(NODE), [], 0.0, ANNA) == [
        *joined(b"n"),
        Send(b"n", START, [b"f"]),
    ]
    assert core.expel(b"anna", "revoked", 1.0) == [
        Send(b"anna", REVOKED),
        Record(ANNA, "go on", None, "refused"),
        Forget(b"anna"),
        Send(b"n", m.EndLease(START.lease, discard=True)),
    ]
    core.check()
    assert core.peers() == [(b"bert", BERT), (b"n", ANNA)]
    assert core.expel(b"n", "revoked", 1.0) == [
        Send(b"n", REVOKED),
        Record(ANNA, "go on", None, "refused"),
        Forget(b"n"),
        Note("node n is lost: revoked"),
    ]
    core.check()
    assert core.peers() == [(b"bert", BERT)]
