"""Workers of a finished job wait a moment for one that is like it: who gets them, and who not."""

from cluster_model import ModelClient, ModelCluster, ModelNode, ident
from expected import (
    WELCOME,
    acked,
    assign,
    closed,
    ended,
    forwarded,
    joined,
    opened,
    passed_on,
    start,
    to,
)
from outcomes import outcomes

from burla.protocol import messages as m
from burla.protocol.fields import FOLLOWS, POLICIES
from burla.protocol.ranges import Ranges
from burla.scheduler.core.effects import Effect, Forget, Record
from burla.scheduler.core.node import UNREACHABLE_S
from burla.scheduler.core.scheduler import TICK_S
from burla.scheduler.core.warm_leases import WARM_S, WARM_S_MAX


def complete_job(cluster: ModelCluster, client: ModelClient, node: ModelNode, lease: int) -> None:
    """Run all of a job of four inputs on a lease that it has."""
    cluster.inputs(client, 4)
    cluster.end(client)
    cluster.run(node, 4)
    assert cluster.heard() == [
        assign(node, lease, m.Span(0, 0, 4), leaves=[m.Leaf(0, 0, 4, 1)]),
        passed_on(client, node, lease, 1, 0, 4),
        acked(node, lease, 1),
    ]


def waiting_workers() -> tuple[ModelCluster, ModelNode, ModelClient]:
    """Return a cluster with a node on which workers of lease 1 wait, and whose they were."""
    cluster = ModelCluster()
    node, client = cluster.node(), cluster.client()
    assert cluster.heard() == [*joined(node), *opened(client), start(node, client, 1)]
    complete_job(cluster, client, node, 1)
    cluster.say(client.peer, m.CloseJob(client.job))
    assert cluster.heard() == [to(node, m.Linger(ident(1))), closed(client)]
    return cluster, node, client


def open_again(cluster: ModelCluster, client: ModelClient, function: bytes = b"function") -> Effect:
    """Let a client open one more job; return the line about that."""
    client.job = ident(2000 + cluster._number())
    client.have = Ranges()
    client.entered, client.batches, client.total, client.function = 0, [], None, function
    cluster.say(client.peer, client.open(), [function])
    return Record("", "open job", client.job, "ok")


def test_a_job_like_the_last_one_goes_on_with_its_workers() -> None:
    cluster, node, client = waiting_workers()
    record = open_again(cluster, client)
    assert cluster.heard() == [record, start(node, client, 2, keep=ident(1))]


def test_workers_wait_too_if_the_end_of_the_inputs_is_told_after_the_last_outcome() -> None:
    cluster = ModelCluster()
    node, client = cluster.node(), cluster.client()
    cluster.inputs(client, 4)
    cluster.run(node, 4)
    cluster.end(client)
    cluster.say(client.peer, m.CloseJob(client.job))
    assert cluster.heard()[-2:] == [to(node, m.Linger(ident(1))), closed(client)]


def test_a_job_that_is_closed_when_another_has_its_workers_is_told_with_the_next_lease() -> None:
    cluster = ModelCluster()
    node, client = cluster.node(), cluster.client()
    assert cluster.heard() == [*joined(node), *opened(client), start(node, client, 1)]
    for lease in (1, 2, 3):
        complete_job(cluster, client, node, lease)
        before = client.job
        record = open_again(cluster, client)
        over = (ident(lease - 1),) if lease > 1 else ()
        kept = start(node, client, lease + 1, keep=ident(lease), over=over)
        assert cluster.heard() == [record, kept]
        cluster.say(client.peer, m.CloseJob(before))
        assert cluster.heard() == [Record("", "close job", before, "ok")]
        cluster.stop(node)
        assert cluster.heard() == []
    cluster.later(TICK_S)  # the third was closed after the last lease began
    assert cluster.heard_but_beats() == [ended(node, 3, discard=True)]


def test_another_function_gets_fresh_processes() -> None:
    cluster, node, client = waiting_workers()
    record = open_again(cluster, client, b"another function")
    assert cluster.heard() == [
        record,
        ended(node, 1, discard=True),
        start(node, client, 2, function=b"another function"),
    ]
    cluster.stop(node)
    assert cluster.heard() == []


def test_another_session_gets_fresh_processes_and_at_once() -> None:
    cluster, node, _ = waiting_workers()
    bob = cluster.client()
    assert cluster.heard() == [*opened(bob), ended(node, 1, discard=True), start(node, bob, 2)]
    cluster.stop(node)
    assert cluster.heard() == []


def test_other_nodes_are_taken_before_workers_that_wait_are_ended() -> None:
    cluster, _, _ = waiting_workers()
    second, bob = cluster.node(), cluster.client()
    assert cluster.heard() == [*joined(second), *opened(bob), start(second, bob, 2)]


def test_a_node_may_have_other_slots_for_the_next_job_which_its_nodelet_sees_to() -> None:
    cluster = ModelCluster()
    first, second = cluster.node(), cluster.node()
    client = cluster.client(max_parallelism=3)
    cluster.inputs(client, 3)
    cluster.end(client)
    assert start(second, client, 2, slots=1) in cluster.heard()
    cluster.run(first, 2)
    cluster.run(second, 1)
    cluster.say(client.peer, m.CloseJob(client.job))
    del cluster.nodes[first.peer]
    cluster.unreachable(first.peer)
    cluster.later(0.25)
    cluster.later(UNREACHABLE_S)
    cluster.heard()
    open_again(cluster, client)
    assert start(second, client, 3, slots=2, keep=ident(2)) in cluster.heard()


def test_workers_wait_only_so_long() -> None:
    cluster, node, _ = waiting_workers()
    cluster.later(WARM_S - 0.5)
    assert cluster.heard_but_beats() == []
    cluster.later(1.0)
    assert cluster.heard_but_beats() == [ended(node, 1, discard=True)]


def run_long(cluster: ModelCluster, node: ModelNode, client: ModelClient, seconds: int) -> None:
    """Run a job that takes so long; its workers wait, though it is not closed."""
    for _ in range(seconds):
        cluster.later(1.0)
    cluster.inputs(client, 4)
    cluster.end(client)
    cluster.run(node, 4)
    cluster.heard()


def test_workers_wait_for_ten_times_the_longest_job_that_they_have_run() -> None:
    cluster = ModelCluster()
    node, client = cluster.node(), cluster.client()
    run_long(cluster, node, client, 2)
    cluster.later(15.0)
    assert cluster.heard_but_beats() == []
    first, record = client.job, open_again(cluster, client)
    assert cluster.heard() == [record, start(node, client, 2, keep=ident(1))]
    cluster.say(client.peer, m.CloseJob(first))
    cluster.stop(node)
    cluster.heard()
    complete_job(cluster, client, node, 2)  # a quick one: what was imported is there all the same
    cluster.later(19.0)
    assert ended(node, 2) not in cluster.heard_but_beats()
    cluster.later(2.0)
    assert ended(node, 2) in cluster.heard_but_beats()


def test_workers_wait_for_a_minute_at_most() -> None:
    cluster = ModelCluster()
    node, client = cluster.node(), cluster.client()
    run_long(cluster, node, client, 200)
    cluster.later(WARM_S_MAX - 0.5)
    assert cluster.heard_but_beats() == []
    cluster.later(1.0)
    assert cluster.heard_but_beats() == [ended(node, 1)]


def test_workers_of_a_session_that_is_gone_are_ended() -> None:
    cluster, node, client = waiting_workers()
    del cluster.clients[client.peer]
    cluster.unreachable(client.peer)
    cluster.later(0.25)
    cluster.later(0.25)
    assert cluster.heard_but_beats() == []
    cluster.later(6.0)
    assert cluster.heard_but_beats() == [ended(node, 1, discard=True), Forget(client.peer)]


def test_workers_of_a_job_that_failed_do_not_wait() -> None:
    cluster = ModelCluster()
    node, client = cluster.node(), cluster.client()
    assert cluster.heard() == [*joined(node), *opened(client), start(node, client, 1)]
    cluster.inputs(client, 1)
    cluster.end(client)
    assert cluster.heard() == [assign(node, 1, m.Span(0, 0, 1), leaves=[m.Leaf(0, 0, 1, 1)])]
    said = outcomes(ident(1), [m.Run(0, 1, m.Kind.ERROR, 1)])
    cluster.say(node.peer, said, [b"e"])
    assert cluster.heard() == [
        forwarded(client, node, said, [b"e"]),
        ended(node, 1),
        acked(node, 1, 1),
    ]


def test_a_nodelet_that_reconnects_has_ended_what_waited() -> None:
    cluster, node, client = waiting_workers()
    node.held.clear()  # as a nodelet does that says Hello
    before = node.peer
    cluster.reconnect_node(node)
    assert cluster.heard() == [Forget(before), to(node, WELCOME)]
    record = open_again(cluster, client)
    assert cluster.heard() == [record, start(node, client, 2)]


def test_another_function_of_the_same_session_follows_where_the_last_one_was() -> None:
    cluster = ModelCluster()
    node = cluster.node(features=(POLICIES, FOLLOWS))
    client = cluster.client()
    assert start(node, client, 1) in cluster.heard()
    complete_job(cluster, client, node, 1)
    cluster.say(client.peer, m.CloseJob(client.job))
    cluster.heard()
    record = open_again(cluster, client, b"another")
    assert cluster.heard() == [
        record,
        start(node, client, 2, function=b"another", follows=ident(1)),
    ]
    cluster.stop(node)
    assert cluster.heard() == []
    complete_job(cluster, client, node, 2)
    open_again(cluster, client, b"another")
    assert start(node, client, 3, function=b"another", keep=ident(2)) in cluster.heard()


def test_the_same_function_of_another_session_does_not_follow() -> None:
    cluster = ModelCluster()
    node = cluster.node(features=(POLICIES, FOLLOWS))
    first = cluster.client()
    cluster.heard()
    complete_job(cluster, first, node, 1)
    cluster.say(first.peer, m.CloseJob(first.job))
    cluster.heard()
    second = cluster.client()
    heard = cluster.heard()
    assert ended(node, 1, discard=True) in heard
    assert start(node, second, 2) in heard
