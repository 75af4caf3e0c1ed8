"""Keys in the scheduler's core: sessions, nodes and jobs belong to the key that brought them."""

from opening import client_hello, node_hello, open_job

from burla.protocol import messages as m
from burla.scheduler.core.effects import Effect, Forget, Record, Send
from burla.scheduler.core.scheduler import Scheduler

ANNA, BERT = "a" * 64, "b" * 64
SESSION, OTHER, NODE, JOB = (bytes([number]) * 16 for number in range(4))


def begun() -> Scheduler:
    core = Scheduler(bytes(16), "0", "pub")
    core.receive(b"anna", client_hello(SESSION), [], 0.0, ANNA)
    core.receive(b"anna", open_job(JOB), [b"f"], 0.0, ANNA)
    core.receive(b"bert", client_hello(OTHER), [], 0.0, BERT)
    return core


def sent_to(peer: bytes, effects: list[Effect]) -> list[m.Message]:
    return [e.message for e in effects if isinstance(e, Send) and e.peer == peer]


def recorded(effects: list[Effect]) -> list[tuple[str, str, str]]:
    return [(e.user[:1], e.operation, e.result) for e in effects if isinstance(e, Record)]


def test_a_session_stays_with_its_key_through_reconnects() -> None:
    core = begun()
    assert isinstance(
        sent_to(b"2", core.receive(b"2", client_hello(SESSION), [], 1.0, ANNA))[0], m.Welcome
    )
    effects = core.receive(b"3", client_hello(SESSION), [], 2.0, BERT)
    (refused,) = sent_to(b"3", effects)
    assert isinstance(refused, m.Refused)
    assert refused.not_authorised
    assert recorded(effects) == [("b", "take over a session", "refused")]
    assert core.follower(JOB) == (b"2", ANNA)


def test_a_node_stays_with_its_key() -> None:
    core = begun()
    core.receive(b"n", node_hello(NODE), [], 0.0, ANNA)
    effects = core.receive(b"m", node_hello(NODE), [], 1.0, BERT)
    assert [type(x) for x in sent_to(b"m", effects)] == [m.Refused]
    assert core.state.nodes[NODE].peer == b"n"


def test_another_key_on_a_connection_ends_it_but_not_what_it_was() -> None:
    core = begun()
    effects = core.receive(b"anna", m.CloseJob(JOB), [], 1.0, BERT)
    assert recorded(effects) == [("b", "use the connection of another", "refused")]
    assert Forget(b"anna") in effects
    assert sent_to(b"anna", core.expire(1.5)) == []  # the thief hears nothing more
    assert core.follower(JOB) == (b"", ANNA)
    core.receive(b"again", client_hello(SESSION), [], 2.0, ANNA)
    assert core.follower(JOB) == (b"again", ANNA)
    core.check()


def test_another_key_on_a_nodes_connection_gets_no_work() -> None:
    core = Scheduler(bytes(16), "0", "pub")
    core.receive(b"n", node_hello(NODE), [], 0.0, ANNA)
    core.receive(b"n", m.Heartbeat(), [], 0.1, BERT)
    core.receive(b"anna", client_hello(SESSION), [], 0.2, ANNA)
    effects = core.receive(b"anna", open_job(JOB), [b"f"], 0.2, ANNA)
    assert not sent_to(b"n", effects)
    core.check()


def test_another_tenants_job_is_not_found() -> None:
    core = begun()
    effects = core.receive(b"bert", open_job(JOB), [b"f"], 1.0, BERT)
    assert sent_to(b"bert", effects) == [m.JobFailed(JOB, "", "not found")]
    for word in (m.CloseJob(JOB), m.InputsEnd(JOB, 0)):
        effects = core.receive(b"bert", word, [], 1.0, BERT)
        assert sent_to(b"bert", effects) == []
        assert [result for *_, result in recorded(effects)] == ["not found"]
    effects = core.receive(b"bert", m.CloseJob(bytes(16)), [], 1.0, BERT)
    assert effects == []  # of a job that never was there is nothing to say either
    assert core.state.jobs[JOB].work.total is None


def test_who_is_expelled_leaves_no_job_and_no_lease() -> None:
    core = begun()
    core.receive(b"n", node_hello(NODE), [], 0.0, ANNA)
    said = sent_to(b"anna", core.expel(b"anna", "revoked", 1.0))
    assert m.Refused("revoked", not_authorised=True) in said
    assert not core.state.jobs
    core.check()
    assert [peer for peer, _ in core.peers()] == [b"bert", b"n"]
    effects = core.expel(b"n", "revoked", 1.0)
    assert [type(x) for x in sent_to(b"n", effects)] == [m.Refused]
    assert not core.state.nodes
    core.check()
