"""What the autoscaler is told, and what callers are told of it."""

from cluster_model import ModelClient, ModelCluster, ident

from burla.scheduler.demand import HEARD_S
from burla.scheduler.effects import Send
from burla.wire import messages as m

ADMIN = b"admin"


class Autoscaler:
    """Asks; the answers are for the test to look at."""

    def __init__(self, cluster: ModelCluster) -> None:
        self.cluster = cluster
        cluster.say(ADMIN, m.ClientHello(m.PROTOCOL, "0", "3.11", ident(99), "root", "h", 1))

    def ask(self, doing: str = "", *retire: str, cpus: int = 0, ram: int = 0) -> m.Demand:
        said = m.AskDemand(doing, cpus, ram, retire)
        effects = self.cluster.core.receive(ADMIN, said, [], self.cluster.now_s)
        self.cluster.carry_out(effects)
        (answer,) = [e.message for e in effects if isinstance(e, Send) and e.peer == ADMIN]
        assert isinstance(answer, m.Demand)
        return answer

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds * 4)):
            self.cluster.later(0.25)


def test_only_jobs_that_may_grow_are_told_of() -> None:
    cluster = ModelCluster()
    autoscaler = Autoscaler(cluster)
    cluster.client()
    grows = cluster.client(max_parallelism=7, grow=True)
    cluster.inputs(grows, 12)
    cluster.later(2.0)
    (wish,) = autoscaler.ask().wishes
    assert wish == m.Wish("3.11", 1, None, 12, 7, 0, 0.0, 2.0, fits=False)


def test_a_job_that_runs_tells_how_long_its_calls_are_and_what_is_left() -> None:
    cluster = ModelCluster()
    autoscaler = Autoscaler(cluster)
    node = cluster.node(cpus=2)
    node.call_s = 0.5
    client = cluster.client(grow=True)
    cluster.inputs(client, 12)
    cluster.later(3.0)
    (before,) = autoscaler.ask().wishes
    assert (before.calls, before.slots, before.call_s, before.waited_s) == (12, 2, 0.0, 3.0)
    cluster.run(node, 1)
    cluster.end(client)
    (after,) = autoscaler.ask().wishes
    assert (after.calls, after.slots, after.call_s, after.fits) == (11, 2, 0.5, True)


def test_a_node_tells_for_how_long_it_serves_nobody() -> None:
    cluster = ModelCluster()
    autoscaler = Autoscaler(cluster)
    node = cluster.node()
    autoscaler.wait(10)
    assert [x.idle_s for x in autoscaler.ask().nodes] == [10.0]
    client = cluster.client()
    cluster.inputs(client, 1)
    cluster.later(1.0)
    (busy,) = autoscaler.ask().nodes
    assert (busy.state, busy.idle_s) == (m.NodeState.LEASED, 0.0)
    cluster.say(client.peer, m.CloseJob(client.job))
    cluster.stop(node)
    cluster.later(2.0)
    (idle,) = autoscaler.ask().nodes
    assert (idle.state, idle.idle_s) == (m.NodeState.FREE, 2.0)


def test_a_node_that_is_about_to_be_deleted_is_leased_no_more_until_that_is_forgotten() -> None:
    cluster = ModelCluster()
    autoscaler = Autoscaler(cluster)
    node = cluster.node()
    (retired,) = autoscaler.ask("", "n1").nodes
    assert retired.state is m.NodeState.LEAVING
    client = cluster.client()
    cluster.inputs(client, 1)
    autoscaler.wait(HEARD_S - 1)
    assert node.active() is None
    assert not node.released  # its machine ends, not its nodelet
    autoscaler.wait(1)  # whoever wanted to delete it is gone
    assert node.active() is not None


def test_a_node_that_is_not_named_any_more_is_leased_at_once() -> None:
    cluster = ModelCluster()
    autoscaler = Autoscaler(cluster)
    node = cluster.node()
    autoscaler.ask("", "n1")
    cluster.inputs(cluster.client(), 1)
    assert node.active() is None
    autoscaler.ask()
    assert node.active() is not None


def test_a_busy_node_is_not_retired() -> None:
    cluster = ModelCluster()
    autoscaler = Autoscaler(cluster)
    cluster.node()
    cluster.inputs(cluster.client(), 1)
    (busy,) = autoscaler.ask("", "n1").nodes
    assert busy.state is m.NodeState.LEASED


def waiting(cluster: ModelCluster, *, grow: bool) -> ModelClient:
    client = cluster.client(grow=grow)
    cluster.inputs(client, 1)
    for _ in range(4):
        cluster.later(0.25)
    return client


def test_a_caller_who_waits_is_told_what_is_done_about_it() -> None:
    cluster = ModelCluster()
    autoscaler = Autoscaler(cluster)
    grows, stays = waiting(cluster, grow=True), waiting(cluster, grow=False)
    assert grows.waiting.startswith("no node is connected to the cluster; nothing makes machines")
    autoscaler.ask("machines on their way: 1")
    cluster.later(0.25)
    assert grows.waiting == "no node is connected to the cluster; machines on their way: 1"
    assert stays.waiting == "no node is connected to the cluster"
    autoscaler.wait(HEARD_S)
    assert "nothing makes machines" in grows.waiting


def test_a_job_that_only_a_machine_to_be_made_could_run_waits_for_it() -> None:
    cluster = ModelCluster()
    autoscaler = Autoscaler(cluster)
    cluster.node(cpus=2)
    client = ModelClient(ident(50), b"c", ident(51), grow=True)
    cluster.clients[client.peer] = client
    cluster.say(client.peer, client.hello())
    cluster.say(client.peer, client.open(func_cpu=8), [b"function"])
    autoscaler.ask("machines on their way: 1", cpus=8)
    autoscaler.wait(10)
    assert client.failed == ""
    assert client.waiting == "no connected node fits: n1 has 2 CPUs; machines on their way: 1"
    autoscaler.ask(cpus=4)
    autoscaler.wait(1)
    assert client.failed == "no node of the cluster can run one such call (n1 has 2 CPUs)"
