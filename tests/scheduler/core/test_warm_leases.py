"""Workers of a finished job wait a moment for one that is like it: who gets them, and who not."""

from cluster_model import ModelClient, ModelCluster, ModelNode, ident
from outcomes import outcomes

from burla.protocol import messages as m
from burla.protocol.ranges import Ranges
from burla.scheduler.core.scheduler import TICK_S
from burla.scheduler.core.warm_leases import WARM_S


def complete_job(cluster: ModelCluster, client: ModelClient, nodes: list[ModelNode]) -> None:
    """Run all of a job of four inputs."""
    cluster.inputs(client, 4)
    cluster.end(client)
    while client.have.total < 4:
        for node in nodes:
            cluster.run(node, 4)


def run_job(cluster: ModelCluster, client: ModelClient, nodes: list[ModelNode]) -> None:
    """Run all of a job of four inputs, and close it."""
    complete_job(cluster, client, nodes)
    cluster.say(client.peer, m.CloseJob(client.job))


def open_again(cluster: ModelCluster, client: ModelClient, function: bytes = b"function") -> None:
    """Let a client open one more job."""
    client.job = ident(2000 + cluster._number())
    client.have = Ranges()
    client.entered, client.batches, client.total = 0, [], None
    cluster.say(client.peer, client.open(), [function])


def test_a_job_like_the_last_one_goes_on_with_its_workers() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    client = cluster.client()
    run_job(cluster, client, [node])
    before = node.active()
    open_again(cluster, client)
    assert node.stopping == [before]  # as the model has it: taken over, not killed
    assert node.kept == [before]
    assert node.ended == []


def test_a_job_that_is_closed_when_another_has_its_workers_is_told_with_the_next_lease() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    client = cluster.client()
    jobs, leases = [], []
    for _ in range(3):
        complete_job(cluster, client, [node])
        jobs.append(client.job)
        leases += [lease for lease, job in node.jobs.items() if job == client.job]
        open_again(cluster, client)
        cluster.say(client.peer, m.CloseJob(jobs[-1]))
        cluster.stop(node)
    assert node.kept == leases
    assert node.over == leases[:2]  # the third was closed after the last lease began
    assert node.ended == []
    cluster.later(TICK_S)
    assert node.ended == leases[2:]
    cluster.core.check()


def test_another_function_gets_fresh_processes() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    client = cluster.client()
    run_job(cluster, client, [node])
    before = node.active()
    open_again(cluster, client, b"another function")
    assert node.kept == []
    assert node.ended == [before]
    assert node.active() is None  # the new lease waits for the end of the old
    cluster.stop(node)
    assert node.jobs[node.active() or b""] == client.job


def test_another_session_gets_fresh_processes_and_at_once() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    alice = cluster.client()
    run_job(cluster, alice, [node])
    bob = cluster.client()
    assert node.kept == []
    cluster.stop(node)
    assert node.jobs[node.active() or b""] == bob.job


def test_other_nodes_are_taken_before_workers_that_wait_are_ended() -> None:
    cluster = ModelCluster()
    first = cluster.node()
    alice = cluster.client()
    run_job(cluster, alice, [first])
    second = cluster.node()
    cluster.client()
    assert first.ended == []
    assert second.active() is not None


def test_workers_wait_only_so_long() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    client = cluster.client()
    run_job(cluster, client, [node])
    before = node.active()
    cluster.later(WARM_S - 0.5)
    assert node.ended == []
    cluster.later(1.0)
    assert node.ended == [before]


def test_workers_of_a_session_that_is_gone_are_ended() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    client = cluster.client()
    run_job(cluster, client, [node])
    del cluster.clients[client.peer]
    cluster.core.unreachable(client.peer, cluster.now_s)
    for _ in range(2):
        cluster.later(0.25)
    cluster.later(6.0)
    assert len(node.ended) == 1


def test_workers_of_a_job_that_failed_do_not_wait() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    client = cluster.client()
    cluster.inputs(client, 1)
    cluster.end(client)
    lease = node.active()
    assert lease is not None
    node.held[lease].remove(0, 1)
    cluster.say(node.peer, outcomes(lease, [m.Run(0, 1, m.Kind.ERROR, 1)]), [b"e"])
    assert node.ended == [lease]


def test_a_nodelet_that_reconnects_has_ended_what_waited() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    client = cluster.client()
    run_job(cluster, client, [node])
    node.held.clear()  # as a nodelet does that says Hello
    cluster.reconnect_node(node)
    open_again(cluster, client)
    assert node.kept == []
    assert node.jobs[node.active() or b""] == client.job
    cluster.core.check()
