"""An input of which nodes die: it is run alone, and named; nobody else is, and others go on."""

import msgspec
from cluster_model import ModelClient, ModelCluster, ModelNode, ident

from burla.protocol import messages as m
from burla.protocol.ranges import Ranges
from burla.scheduler.core.allocation import SUSPECTS_AHEAD
from burla.scheduler.core.effects import Send
from burla.scheduler.core.work import Work


def cluster_of(
    inputs: int, *cpus: int, policy: m.CallPolicy | None = None
) -> tuple[ModelCluster, ModelClient]:
    cluster = ModelCluster()
    for count in cpus:
        cluster.node(count)
    client = cluster.client(policy=policy)
    cluster.inputs(client, inputs)
    cluster.end(client)
    return cluster, client


def work_of(cluster: ModelCluster, client: ModelClient) -> Work:
    cluster.core.check()
    return cluster.core.state.jobs[client.job].work


def kill(cluster: ModelCluster, node: ModelNode, restart: int = 0) -> None:
    """Let a node end without a word, until that is known; perhaps another one comes then."""
    node.alive = False
    cluster.unreachable(node.peer)
    for _ in range(4):
        cluster.later(0.25)
    del cluster.nodes[node.peer]
    if restart:
        cluster.node(restart)
        cluster.later(0.25)


def only(cluster: ModelCluster) -> ModelNode:
    (node,) = cluster.nodes.values()
    return node


def held(node: ModelNode) -> Ranges:
    lease = node.active()
    assert lease is not None
    return node.held[lease]


def test_a_million_inputs_are_dealt_at_once_until_a_node_dies_of_them() -> None:
    cluster, client = cluster_of(100_000, 2)
    assert held(only(cluster)).total == 100_000
    kill(cluster, only(cluster), restart=2)
    node = only(cluster)
    assert held(node).total == 4
    node.call_s = 1e-6
    cluster.run(node, 1)
    assert held(node).total <= SUSPECTS_AHEAD
    kill(cluster, node, restart=2)
    assert work_of(cluster, client).quarantine.total <= SUSPECTS_AHEAD


def test_what_was_on_two_dead_nodes_is_run_alone_and_named_by_the_third() -> None:
    cluster, _client = cluster_of(20, 2)
    for _ in range(2):
        kill(cluster, only(cluster), restart=2)
    tried = []
    while list(held(only(cluster))) != [(2, 3)]:
        tried += list(held(only(cluster)))
        cluster.run(only(cluster), 1)
    assert tried == [(0, 1), (1, 2)]
    kill(cluster, only(cluster), restart=2)
    for _ in range(12):  # it may be back with its outcomes until then
        cluster.later(0.25)
    said = [e.message for e in cluster.heard_but_beats() if isinstance(e, Send)]
    failed = [each for each in said if isinstance(each, m.JobFailed)]
    assert [(each.index, each.nodes) for each in failed] == [(2, ("n1", "n3", "n4"))]


def test_who_is_nobodys_death_goes_back_to_work_with_the_others() -> None:
    cluster, client = cluster_of(20, 2)
    for _ in range(2):
        kill(cluster, only(cluster), restart=2)
    for _ in range(20):
        cluster.run(only(cluster), 1)
        cluster.answer_retracts(only(cluster), 0)
        cluster.later(0.25)
    assert client.have.total == 20
    assert not client.failed


def test_while_some_are_tried_alone_the_rest_goes_on_elsewhere() -> None:
    cluster, _client = cluster_of(400, 2)
    for _ in range(2):
        kill(cluster, only(cluster), restart=2)
    cluster.node(4)
    cluster.later(0.25)
    alone, other = cluster.nodes.values()
    assert held(alone).total == 1
    assert held(other).total > 1
    assert all(lo >= 4 for lo, hi in held(other))


def test_a_lease_that_is_to_try_some_gives_back_what_it_has_not_begun() -> None:
    cluster, client = cluster_of(400, 2)
    work = work_of(cluster, client)
    node = only(cluster)
    (lease,) = work.leases.values()
    cluster.heard()
    work.begin_alone(lease)
    work.pending.add(0, 0)
    cluster.core.state.marks.leases[lease.id] = lease
    cluster.later(0.25)
    assert m.Retract(lease.id, 400) in node.retracts
    cluster.answer_retracts(node, 0)
    cluster.later(0.25)
    assert held(node).total == 400  # there was nothing to be tried
    assert not lease.is_alone


def test_nodes_that_are_drained_count_for_nothing() -> None:
    cluster, client = cluster_of(20, 2)
    for _ in range(4):
        cluster.say(only(cluster).peer, m.Drain())
        kill(cluster, only(cluster), restart=2)
    assert not work_of(cluster, client).quarantine
    assert held(only(cluster)).total > 1


def test_a_node_that_was_only_silent_clears_who_was_on_it() -> None:
    cluster, client = cluster_of(20, 2)
    kill(cluster, only(cluster), restart=2)
    silent = only(cluster)
    kill(cluster, silent, restart=2)
    assert work_of(cluster, client).quarantine.total or held(only(cluster)).total == 1
    silent.alive = True
    cluster.nodes[silent.peer] = silent
    cluster.reconnect_node(silent)
    work = work_of(cluster, client)
    assert not work.quarantine
    assert len(work.suspects.losses) == 1


def test_a_job_that_failed_is_told_so_again_when_its_client_did_not_hear() -> None:
    cluster, client = cluster_of(1, 2)
    client.deliver = False
    for _ in range(3):
        kill(cluster, only(cluster), restart=2)
    for _ in range(12):
        cluster.later(0.25)
    assert not client.failed
    cluster.reconnect_client(client)
    assert client.failed.startswith("input 0: each node that ran it was lost (n1, ")


def test_other_jobs_keep_their_nodes_and_their_inputs() -> None:
    cluster = ModelCluster()
    first, second = cluster.node(2), cluster.node(2)
    bad, good = cluster.client(), cluster.client(user="v")
    for client in (bad, good):
        cluster.inputs(client, 20)
        cluster.end(client)
    victims = {
        client.job: node
        for node in (first, second)
        for client in (bad, good)
        if client.job in node.jobs.values()
    }
    kill(cluster, victims[bad.job])
    assert held(victims[good.job]).total == 20
    assert not work_of(cluster, good).suspects.losses


def test_without_a_node_the_job_waits_and_says_what_it_has_lost() -> None:
    cluster, client = cluster_of(20, 2)
    kill(cluster, only(cluster))
    cluster.later(0.25)
    assert client.waiting == (
        "no node is connected to the cluster; lost while they ran this job: n1"
    )


def test_the_cap_holds_when_a_lease_has_tried_what_was_to_be_tried() -> None:
    cluster = ModelCluster()
    cluster.node(2)
    client = cluster.client(2)
    cluster.inputs(client, 12)
    cluster.end(client)
    for _ in range(2):
        kill(cluster, only(cluster), restart=2)
    cluster.node(2)
    for _ in range(40):
        for node in list(cluster.nodes.values()):
            cluster.run(node, 1)
            cluster.answer_retracts(node, 0)
            cluster.stop(node)
        cluster.later(0.25)
    assert client.have.total == 12


def test_a_job_that_goes_on_loses_that_input_alone() -> None:
    cluster, client = cluster_of(6, 2, policy=m.CallPolicy(goes_on=True))
    for _ in range(2):
        kill(cluster, only(cluster), restart=2)
    while list(held(only(cluster))) != [(2, 3)]:
        cluster.run(only(cluster), 1)
    client.deliver = False  # what it is told now gets lost
    kill(cluster, only(cluster), restart=2)
    for _ in range(12):
        cluster.later(0.25)
    assert not client.lost
    cluster.reconnect_client(client)
    assert client.lost == {2: ("n1", "n3", "n4")}
    for _ in range(12):
        cluster.run(only(cluster), 1)
        cluster.later(0.25)
    assert not client.failed
    assert client.have == Ranges([(0, 6)])
    cluster.reconnect_client(client)  # which has it, and says so
    assert work_of(cluster, client).is_complete()
    assert not cluster.core.state.jobs[client.job].lost


def test_a_job_with_a_policy_waits_for_nodes_that_know_it() -> None:
    cluster = ModelCluster()
    old = ModelNode(ident(7), b"old", "old")
    cluster.nodes[old.peer] = old
    cluster.say(old.peer, msgspec.structs.replace(old.hello(), features=()))
    client = cluster.client(policy=m.CallPolicy(goes_on=True))
    cluster.inputs(client, 2)
    for _ in range(8):
        cluster.later(0.25)
    assert not old.held
    assert "old runs an older burla" in client.waiting
    new = cluster.node(2)
    assert held(new).total == 2
