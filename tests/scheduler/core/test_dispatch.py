"""Work given to leases and taken back: all that each event makes, and nothing else."""

from cluster_model import ModelClient, ModelCluster, ModelNode, ident
from expected import acked, assign, closed, joined, opened, passed_on, retract, start, to

from burla.protocol import messages as m
from burla.scheduler.core.effects import Send


def served() -> tuple[ModelCluster, ModelNode, ModelClient]:
    """Return a cluster whose only node has all four inputs of a job on its one slot."""
    cluster = ModelCluster()
    node, client = cluster.node(cpus=1), cluster.client()
    cluster.inputs(client, 4)
    cluster.end(client)
    assert cluster.heard() == [
        *joined(node),
        *opened(client),
        start(node, client, 1, slots=1),
        assign(node, 1, m.Span(0, 0, 4), leaves=[m.Leaf(0, 0, 4, 1)]),
    ]
    return cluster, node, client


def test_new_inputs_wake_only_the_node_that_has_room() -> None:
    cluster = ModelCluster()
    first, second, client = cluster.node(cpus=1), cluster.node(cpus=1), cluster.client()
    cluster.inputs(client, 1)
    assert cluster.heard() == [
        *joined(first),
        *joined(second),
        *opened(client),
        start(first, client, 1, slots=1),
        assign(first, 1, m.Span(0, 0, 1), leaves=[m.Leaf(0, 0, 1, 1)]),
    ]
    cluster.inputs(client, 3)  # the first has one; the other is leased when there is more
    assert cluster.heard() == [
        start(second, client, 2, slots=1),
        assign(second, 2, m.Span(1, 1, 2), left=2, leaves=[m.Leaf(1, 1, 3, 1)]),
    ]


def test_outcomes_are_passed_on_and_answered_with_more_work_in_two_messages() -> None:
    cluster = ModelCluster()
    node, other, client = cluster.node(cpus=1), cluster.node(cpus=1), cluster.client()
    cluster.inputs(client, 40)
    first = m.Leaf(0, 0, 4, 1)
    assert cluster.heard() == [
        *joined(node),
        *joined(other),
        *opened(client),
        start(node, client, 1, slots=1),
        start(other, client, 2, slots=1),
        assign(node, 1, m.Span(0, 0, 2), left=38, leaves=[first]),
        assign(other, 2, m.Span(0, 2, 4), left=36, leaves=[first]),
    ]
    node.call_s = 1.0
    cluster.run(node, 1)
    assert cluster.heard() == [
        passed_on(client, node, 1, 1, 0, 1),
        assign(node, 1, m.Span(0, 4, 5), left=35, leaves=[m.Leaf(0, 4, 4, 1)]),
        acked(node, 1, 1),  # by the client
    ]


def test_the_last_outcome_of_a_job_makes_no_message_but_its_own() -> None:
    cluster, node, client = served()
    client.deliver = False  # it would acknowledge
    cluster.run(node, 4)
    assert cluster.heard() == [passed_on(client, node, 1, 1, 0, 4)]
    cluster.say(client.peer, m.CloseJob(client.job))
    assert cluster.heard() == [to(node, m.Linger(ident(1))), closed(client)]


def test_a_node_that_joins_gets_what_another_has_not_begun() -> None:
    cluster, first, client = served()
    joins = cluster.node(cpus=1)
    assert cluster.heard() == [
        *joined(joins),
        start(joins, client, 2, slots=1),
        retract(first, 1, 2),  # of the three that wait
    ]


def test_a_lease_is_asked_once_until_it_has_answered_and_had_outcomes() -> None:
    cluster, first, client = served()
    joins = cluster.node(cpus=1)
    asked = retract(first, 1, 2)
    assert cluster.heard() == [*joined(joins), start(joins, client, 2, slots=1), asked]
    for _ in range(4):
        cluster.later(m.BEAT_S)
    assert cluster.heard_but_beats() == []
    cluster.say(first.peer, m.Retracted(ident(1), ()))  # it had begun all
    assert cluster.heard() == []
    cluster.run(first, 1)
    assert cluster.heard() == [
        passed_on(client, first, 1, 1, 0, 1),
        retract(first, 1, 1),
        acked(first, 1, 1),
    ]


def test_what_is_given_back_goes_to_the_idle_one_and_nowhere_else() -> None:
    cluster, first, client = served()
    joins = cluster.node(cpus=1)
    asked = retract(first, 1, 2)
    assert cluster.heard() == [*joined(joins), start(joins, client, 2, slots=1), asked]
    first.held[ident(1)].remove(2, 4)
    cluster.say(first.peer, m.Retracted(ident(1), (m.Span(0, 2, 4),)))
    leaf = m.Leaf(0, 0, 4, 1)  # a call; the other one goes to whoever runs dry first
    assert cluster.heard() == [assign(joins, 2, m.Span(0, 2, 3), left=1, leaves=[leaf])]


def test_a_retracted_that_gives_what_the_lease_has_not_changes_nothing() -> None:
    cluster, first, client = served()
    cluster.say(first.peer, m.Retracted(ident(1), (m.Span(0, 7, 9),)))
    assert cluster.heard() == []
    cluster.run(first, 4)  # it has all four
    assert cluster.heard() == [passed_on(client, first, 1, 1, 0, 4), acked(first, 1, 1)]


def test_the_client_of_a_lazy_job_is_told_of_slots_and_of_the_speed_of_calls() -> None:
    cluster = ModelCluster()
    client = cluster.client(lazy=True)
    first = cluster.node(2)
    cluster.inputs(client, 8)

    def told() -> list[int]:
        said = [e.message for e in cluster.heard() if isinstance(e, Send)]
        return [message.slots for message in said if isinstance(message, m.JobStatus)]

    assert told() == [2]
    second = cluster.node(4)
    assert told() == [6]
    second.alive = False
    cluster.unreachable(second.peer)
    for _ in range(4):
        cluster.later(0.25)
    assert told() == [2]
    cluster.run(first, 1)
    said = [e.message for e in cluster.heard() if isinstance(e, Send)]
    (outcomes,) = [message for message in said if isinstance(message, m.JobOutcomes)]
    assert outcomes.call_s == first.call_s
    cluster.reconnect_client(client)  # it may have missed what it was told
    assert told() == [2]
