"""Work given to leases and taken back, effect by effect."""

from cluster_model import ModelCluster, ModelNode
from opening import node_hello
from outcomes import outcomes, payload_of

from burla.protocol import messages as m
from burla.scheduler.core.effects import Effect, Send


def say(cluster: ModelCluster, peer: bytes, message: m.Message, *payload: bytes) -> list[Effect]:
    """Let somebody say something; return all that follows, which then happens."""
    effects = cluster.core.receive(peer, message, list(payload), cluster.now_s)
    cluster.carry_out(effects)
    cluster.core.check()
    return effects


def assign(
    node: ModelNode, lo: int, hi: int, left: int, *, leaves: tuple[m.Leaf, ...] = ()
) -> Send:
    lease = node.active()
    assert lease is not None
    message = m.Assign(
        lease=lease,
        left=left,
        spans=(m.Span(0, lo, hi),),
        leaves=leaves,
        forget=(),
        report_s=0.02,
    )
    return Send(node.peer, message, [b"x"] * len(leaves))


def test_new_inputs_wake_only_the_node_that_has_room() -> None:
    cluster = ModelCluster()
    _, second = cluster.node(cpus=1), cluster.node(cpus=1)
    client = cluster.client()
    cluster.inputs(client, 1)  # the first has one; the other is leased when there is more
    message, payload = client.more(3)
    effects = say(cluster, client.peer, message, *payload)
    sent = [(type(e.message), e.peer) for e in effects if isinstance(e, Send)]
    assert sent == [(m.StartLease, second.peer), (m.Assign, second.peer)]
    assert len(effects) == len(sent)


def test_outcomes_are_passed_on_and_answered_with_more_work_in_two_messages() -> None:
    cluster = ModelCluster()
    node, _ = cluster.node(cpus=1), cluster.node(cpus=1)
    client = cluster.client()
    cluster.inputs(client, 40)
    lease = node.active()
    assert lease is not None
    ((lo, hi),) = node.held[lease]
    node.call_s = 1.0
    said = node.run(lease, lo, lo + 1)
    effects = cluster.core.receive(node.peer, said, payload_of(said.runs), 0.0)
    told = [e.message for e in effects if isinstance(e, Send)]
    assert [type(message) for message in told] == [m.JobOutcomes, m.Assign]
    assert [e.peer for e in effects if isinstance(e, Send)] == [client.peer, node.peer]
    assert isinstance(told[1], m.Assign)
    assert sum(span.hi - span.lo for span in told[1].spans) == 1
    assert len(effects) == 2
    assert hi > lo


def test_the_last_outcome_of_a_job_makes_no_message_but_its_own() -> None:
    cluster = ModelCluster()
    node = cluster.node(cpus=1)
    client = cluster.client()
    cluster.inputs(client, 1)
    cluster.end(client)
    lease = node.active()
    assert lease is not None
    said = outcomes(lease, [m.Run(0, 1, m.Kind.RESULTS, 1)])
    effects = say(cluster, node.peer, said, b"r")
    passed_on = m.JobOutcomes(
        job=client.job, lease=lease, seq=1, node=node.name, runs=said.runs, output=0
    )
    assert effects == [Send(client.peer, passed_on, [b"r"])]
    assert say(cluster, client.peer, m.CloseJob(client.job))[:1] == [
        Send(node.peer, m.Linger(lease))
    ]


def served() -> tuple[ModelCluster, ModelNode, bytes]:
    """Return a cluster whose only node has all four inputs of a job on its one slot."""
    cluster = ModelCluster()
    node = cluster.node(cpus=1)
    client = cluster.client()
    cluster.inputs(client, 4)
    cluster.end(client)
    lease = node.active()
    assert lease is not None
    return cluster, node, lease


def test_a_node_that_joins_gets_what_another_has_not_begun() -> None:
    cluster, first, lease = served()
    hello = node_hello(b"j" * 16, name="joins", cpus=1)
    effects = cluster.core.receive(b"joins", hello, [], 0.0)
    sent = [e for e in effects if isinstance(e, Send)]
    assert [type(e.message) for e in sent] == [m.Welcome, m.StartLease, m.Retract]
    assert sent[-1] == Send(first.peer, m.Retract(lease, 2))  # of the three that wait


def test_a_lease_is_asked_once_until_it_has_answered_and_had_outcomes() -> None:
    cluster, first, lease = served()
    cluster.node(cpus=1)
    asked = m.Retract(lease, 2)
    assert first.retracts == [asked]
    for _ in range(4):
        cluster.later(m.BEAT_S)
    assert first.retracts == [asked]
    assert say(cluster, first.peer, m.Retracted(lease, ())) == []  # it had begun all
    cluster.run(first, 1)
    assert first.retracts == [asked, m.Retract(lease, 1)]


def test_what_is_given_back_goes_to_the_idle_one_and_nowhere_else() -> None:
    cluster, first, lease = served()
    joined = cluster.node(cpus=1)
    first.held[lease].remove(2, 4)
    effects = say(cluster, first.peer, m.Retracted(lease, (m.Span(0, 2, 4),)))
    leaf = m.Leaf(0, 0, 4, 1)  # a call; the other one goes to whoever runs dry first
    assert effects == [assign(joined, 2, 3, 1, leaves=(leaf,))]


def test_a_retracted_that_gives_what_the_lease_has_not_changes_nothing() -> None:
    cluster, first, lease = served()
    assert say(cluster, first.peer, m.Retracted(lease, (m.Span(0, 7, 9),))) == []
    assert cluster.core.state.leases[lease].held.total == 4
