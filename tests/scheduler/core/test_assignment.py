"""Who gets which node, and who must give one up."""

from cluster_model import ModelClient, ModelCluster

from burla.protocol import messages as m
from burla.scheduler.core.assignment import TURN_S
from burla.scheduler.core.lease import LeaseState

MANY = 1000


def cluster_of(nodes: int) -> ModelCluster:
    """Return a cluster of nodes of two slots, with calls that take as long as `pass_time` lets."""
    cluster = ModelCluster()
    for _ in range(nodes):
        cluster.node().call_s = 0.25
    return cluster


def job(cluster: ModelCluster, user: str, inputs: int = MANY) -> ModelClient:
    """Open a job of a user with so many inputs."""
    client = cluster.client(user=user)
    cluster.inputs(client, inputs)
    cluster.end(client)
    return client


def served(cluster: ModelCluster) -> dict[bytes, int]:
    """Return how many nodes work for each job."""
    found: dict[bytes, int] = {}
    for node in cluster.nodes.values():
        if (lease := node.active()) is not None:
            found[node.jobs[lease]] = found.get(node.jobs[lease], 0) + 1
    return found


def nodes_of(cluster: ModelCluster, client: ModelClient) -> int:
    return served(cluster).get(client.job, 0)


def pass_time(cluster: ModelCluster, seconds: float, calls: int = 1) -> None:
    """Let time pass in which each node runs `calls` calls a quarter of a second."""
    for _ in range(int(seconds / 0.25)):
        for node in list(cluster.nodes.values()):
            cluster.answer_retracts(node, begun=node.cpus)
            cluster.run(node, calls)
            cluster.stop(node)
        cluster.later(0.25)
        cluster.core.check()


def test_one_user_alone_has_all_nodes() -> None:
    cluster = cluster_of(8)
    alice = job(cluster, "alice")
    assert served(cluster) == {alice.job: 8}


def test_a_newcomer_gets_half_of_the_nodes() -> None:
    cluster = cluster_of(16)
    alice = job(cluster, "alice")
    bob = job(cluster, "bob")
    assert served(cluster) == {alice.job: 16}
    pass_time(cluster, 1.5)
    assert served(cluster) == {alice.job: 8, bob.job: 8}
    pass_time(cluster, 3)
    assert served(cluster) == {alice.job: 8, bob.job: 8}  # and that is that: no churn


def test_a_newcomer_takes_no_more_nodes_than_it_has_inputs() -> None:
    cluster = cluster_of(16)
    alice = job(cluster, "alice")
    bob = job(cluster, "bob", inputs=2)
    cluster.later(0.25)
    leases = cluster.core.state.jobs[alice.job].work.leases.values()
    assert [lease.state for lease in leases].count(LeaseState.DRAINING) == 2
    pass_time(cluster, 1.5)
    assert bob.have.total == 2
    assert nodes_of(cluster, alice) == 16


def test_users_come_before_their_jobs() -> None:
    cluster = cluster_of(8)
    mine = [job(cluster, "alice") for _ in range(3)]
    bob = job(cluster, "bob")
    pass_time(cluster, 3)
    assert nodes_of(cluster, bob) == 4
    assert sorted(nodes_of(cluster, each) for each in mine) == [1, 1, 2]


def test_jobs_of_one_user_share_too() -> None:
    cluster = cluster_of(6)
    first, second = job(cluster, "alice"), job(cluster, "alice")
    pass_time(cluster, 2)
    assert (nodes_of(cluster, first), nodes_of(cluster, second)) == (3, 3)


def test_with_more_jobs_than_nodes_they_take_turns() -> None:
    cluster = cluster_of(1)
    alice, bob, carol = (job(cluster, user) for user in ("alice", "bob", "carol"))
    seen: list[bytes] = []
    for _ in range(int(6 * TURN_S / 0.25)):
        pass_time(cluster, 0.25)
        seen += [each for each in served(cluster) if [each] != seen[-1:]]
    assert seen[:6] == [alice.job, bob.job, carol.job] * 2


def test_who_has_the_only_node_keeps_it_for_a_turn() -> None:
    cluster = cluster_of(1)
    alice = job(cluster, "alice")
    bob = job(cluster, "bob")
    pass_time(cluster, TURN_S - 0.5)
    assert nodes_of(cluster, alice) == 1
    pass_time(cluster, 1.0)
    assert nodes_of(cluster, bob) == 1


def test_a_running_call_is_waited_for_and_named() -> None:
    cluster = ModelCluster()
    for _ in range(2):
        cluster.node(cpus=1)
    job(cluster, "alice")
    bob = job(cluster, "bob")
    for _ in range(8):  # alice's calls take their time
        for node in cluster.nodes.values():
            cluster.answer_retracts(node, begun=1)
        cluster.later(0.25)
    assert nodes_of(cluster, bob) == 0
    assert bob.waiting.startswith("number 1 in line, all 2 nodes that fit are busy (alice@h: 2)")
    assert "is handed over when input" in bob.waiting
    pass_time(cluster, 0.5)
    assert nodes_of(cluster, bob) == 1


def test_a_job_that_is_nearly_done_keeps_its_nodes() -> None:
    cluster = cluster_of(2)
    alice = job(cluster, "alice", inputs=20)
    for node in cluster.nodes.values():
        node.call_s = 0.01
        cluster.run(node, 4)  # all of it takes 0.1 s
    job(cluster, "bob")
    cluster.later(0.25)
    leases = cluster.core.state.jobs[alice.job].work.leases.values()
    assert [lease.state for lease in leases] == [LeaseState.ACTIVE] * 2


def test_nodes_that_do_not_fit_are_not_taken() -> None:
    cluster = ModelCluster()
    big, small = cluster.node(cpus=8), cluster.node(cpus=2)
    big.call_s = small.call_s = 0.25
    alice = job(cluster, "alice")
    bob = cluster.client(user="bob", func_cpu=4)
    cluster.inputs(bob, 10)
    pass_time(cluster, 4)
    assert big.jobs[big.active() or b""] == bob.job
    assert small.jobs[small.active() or b""] == alice.job


def test_those_who_wait_are_told_their_place() -> None:
    cluster = cluster_of(1)
    job(cluster, "alice")
    waiting = [job(cluster, user) for user in ("bob", "carol")]
    for _ in range(3):
        cluster.later(0.25)
    assert [each.waiting for each in waiting] == [
        f"number {place} in line, the node is busy (alice@h: 1)" for place in (1, 2)
    ]


def test_no_job_starves_among_many() -> None:
    cluster = cluster_of(3)
    jobs = [job(cluster, f"user {number % 4}", inputs=60) for number in range(12)]
    for _ in range(400):
        pass_time(cluster, 0.25, calls=2)
        for each in jobs:
            if each.have.total == 60 and each.job in cluster.core.state.jobs:
                cluster.say(each.peer, m.CloseJob(each.job))
        if not cluster.core.state.jobs:
            return
    raise AssertionError([each.have.total for each in jobs])
