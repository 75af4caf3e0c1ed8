"""Counts of calls that failed go with the inputs, whatever dies; and to another node, if asked."""

import msgspec
from cluster_model import ModelClient, ModelCluster, ModelNode

from burla.protocol import messages as m
from burla.protocol.fields import Try
from burla.scheduler.core.effects import Send
from burla.scheduler.core.retries import ELSEWHERE_S

HERE = m.CallPolicy(retries=3)
ELSEWHERE = m.CallPolicy(retries=3, other_node=True)


def cluster_of(policy: m.CallPolicy, inputs: int, *cpus: int) -> tuple[ModelCluster, ModelClient]:
    cluster = ModelCluster()
    for count in cpus:
        cluster.node(count)
    client = cluster.client(policy=policy)
    cluster.inputs(client, inputs)
    cluster.end(client)
    return cluster, client


def fail(
    cluster: ModelCluster, node: ModelNode, *tried: Try, gives_back: bool = False
) -> m.Outcomes:
    """Let a nodelet say that calls have failed."""
    lease = node.active()
    assert lease is not None
    node.seq[lease] += 1
    said = m.Outcomes(
        lease=lease,
        seq=node.seq[lease],
        done=(),
        failed=False,
        runs=b"\x90",
        output=0,
        call_s=0.0,
        tried=tried,
    )
    if gives_back:
        for one in tried:
            node.held[lease].remove(one.index, one.index + 1)
    cluster.say(node.peer, said)
    cluster.core.check()
    return said


def told(cluster: ModelCluster, kind: type[m.Assign] | type[m.JobOutcomes]) -> list[Try]:
    """Return what was told of failed calls in messages of a kind since this was last asked."""
    said = [e.message for e in cluster.heard() if isinstance(e, Send)]
    return [one for each in said if isinstance(each, kind) for one in each.tried]


def test_the_client_hears_of_failed_calls() -> None:
    cluster, _ = cluster_of(HERE, 2, 2)
    (node,) = cluster.nodes.values()
    cluster.heard()
    fail(cluster, node, Try(0, 1, 0.5, b"KeyError"))
    assert told(cluster, m.JobOutcomes) == [Try(0, 1, 0.5, b"KeyError")]


def test_who_gets_the_inputs_of_a_lost_node_gets_the_counts() -> None:
    cluster, _ = cluster_of(HERE, 2, 2)
    (node,) = cluster.nodes.values()
    fail(cluster, node, Try(1, 2, 60.0))
    node.alive = False
    cluster.unreachable(node.peer)
    cluster.later(1)
    del cluster.nodes[node.peer]
    cluster.heard()
    cluster.node(2)
    assert told(cluster, m.Assign) == [Try(1, 2, 59.0)]


def test_a_new_scheduler_learns_the_counts_from_either_side() -> None:
    cluster, client = cluster_of(HERE, 2, 2)
    state = cluster.core.state
    job = state.jobs[client.job]
    (node,) = cluster.nodes.values()
    lease = node.active()
    assert lease is not None
    held = m.Held(lease, client.job, 2, (m.Span(0, 0, 2),), False, (Try(0, 2),))
    cluster.say(node.peer, msgspec.structs.replace(node.hello(), held=(held,)))
    assert job.failed_calls[0].tries == 2
    again = msgspec.structs.replace(client.open(resumed=True), tried=(Try(0, 1), Try(1, 3)))
    cluster.say(client.peer, client.hello())
    cluster.say(client.peer, again, [b"function"])
    assert {index: one.tries for index, one in job.failed_calls.items()} == {0: 2, 1: 3}


def test_what_has_its_outcome_is_forgotten() -> None:
    cluster, client = cluster_of(HERE, 2, 2)
    (node,) = cluster.nodes.values()
    said = fail(cluster, node, Try(0, 1))
    cluster.run(node, 1)
    assert not cluster.core.state.jobs[client.job].failed_calls
    cluster.say(node.peer, said)  # once more, late
    assert not cluster.core.state.jobs[client.job].failed_calls


def test_with_other_node_a_free_one_gets_it() -> None:
    cluster, _ = cluster_of(ELSEWHERE, 1, 2)
    (first,) = cluster.nodes.values()
    second = cluster.node(2)
    assert second.active() is None
    said = fail(cluster, first, Try(0, 1), gives_back=True)
    lease = second.active()
    assert lease is not None
    assert list(second.held[lease]) == [(0, 1)]
    cluster.say(first.peer, said)  # repeated: it is not taken from who has it now
    cluster.core.check()
    assert list(second.held[lease]) == [(0, 1)]


def test_where_there_is_no_other_node_it_is_called_again_where_it_was() -> None:
    cluster, _ = cluster_of(ELSEWHERE, 1, 2)
    (node,) = cluster.nodes.values()
    fail(cluster, node, Try(0, 1), gives_back=True)
    lease = node.active()
    assert lease is not None
    assert list(node.held[lease]) == [(0, 1)]


def test_another_node_is_waited_for_only_so_long() -> None:
    cluster, _ = cluster_of(ELSEWHERE, 1, 2)
    (first,) = cluster.nodes.values()
    other = cluster.node(2)
    busy = cluster.client(user="another")
    cluster.inputs(busy, 1)
    assert other.active() is not None
    fail(cluster, first, Try(0, 1), gives_back=True)
    lease = first.active()
    assert lease is not None
    cluster.later(1)
    assert not first.held[lease]
    for _ in range(int(ELSEWHERE_S) + 1):
        cluster.later(1)
    assert list(first.held[lease]) == [(0, 1)]
