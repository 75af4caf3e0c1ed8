"""A new scheduler gives out what nobody holds once all nodes of the one before are back."""

from cluster_model import ModelClient, ModelCluster, ModelNode, ident

from burla.scheduler.core.nodes import expected
from burla.scheduler.core.scheduler import SETTLED_S, Scheduler


def reborn(*, awaited: bool) -> tuple[ModelCluster, list[ModelNode], ModelClient]:
    """Return a cluster whose scheduler was killed with a job, of which two nodes have a part."""
    cluster = ModelCluster()
    nodes = [cluster.node(1), cluster.node(1)]
    client = cluster.client()
    cluster.inputs(client, 40)
    cluster.later(1)
    cluster.core = Scheduler(ident(77), "0", "inproc://pub")
    if awaited:
        cluster.core.state.former.awaited = {node.id for node in nodes}
    return cluster, nodes, client


def held(nodes: list[ModelNode]) -> int:
    return sum(ranges.total for node in nodes for ranges in node.held.values())


def test_what_nobody_holds_goes_out_when_the_last_node_is_back() -> None:
    cluster, nodes, client = reborn(awaited=True)
    before = held(nodes)
    cluster.reconnect_client(client)
    cluster.reconnect_node(nodes[0])
    assert held(nodes) == before
    cluster.reconnect_node(nodes[1])
    cluster.later(0.25)
    for node in nodes:
        for lease in list(node.held):
            cluster.run(node, node.held[lease].total)
    assert set(expected(cluster.core.state) or ()) == {node.id for node in nodes}
    cluster.core.check()
    assert held(nodes) > 0


def test_a_job_that_comes_after_the_nodes_gets_them_back_and_waits_for_nobody() -> None:
    cluster, nodes, client = reborn(awaited=True)
    for node in nodes:
        cluster.reconnect_node(node)
    leases = [node.active() for node in nodes]
    cluster.reconnect_client(client)
    assert [node.active() for node in nodes] == leases
    job = cluster.core.state.jobs[client.job]
    assert job.hold_until_s == 0.0


def test_where_nobody_knows_which_nodes_there_were_a_job_waits_for_all() -> None:
    cluster, nodes, client = reborn(awaited=False)
    cluster.reconnect_client(client)
    for node in nodes:
        cluster.reconnect_node(node)
    assert cluster.core.state.jobs[client.job].hold_until_s > cluster.now_s


def test_nothing_is_written_down_before_anything_is_known() -> None:
    cluster, nodes, client = reborn(awaited=False)
    cluster.nodes.clear()
    cluster.reconnect_client(client)
    assert expected(cluster.core.state) is None
    for node in nodes:
        cluster.nodes[node.peer] = node
        cluster.reconnect_node(node)
    assert set(expected(cluster.core.state) or ()) == {node.id for node in nodes}
    cluster.now_s += SETTLED_S
    cluster.later(1)
    assert set(expected(cluster.core.state) or ()) == {node.id for node in nodes}


def test_a_node_that_does_not_come_back_is_waited_for_as_long_as_ever() -> None:
    cluster, nodes, client = reborn(awaited=True)
    cluster.reconnect_client(client)
    cluster.reconnect_node(nodes[0])
    assert cluster.core.state.jobs[client.job].hold_until_s > cluster.now_s
    assert set(expected(cluster.core.state) or ()) == {node.id for node in nodes}
