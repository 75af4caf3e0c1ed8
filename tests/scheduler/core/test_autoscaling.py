"""What the autoscaler is told, and what callers are told of it."""

from collections.abc import Sequence

from cluster_model import ModelClient, ModelCluster, ident
from expected import assign, start, to
from opening import client_hello

from burla.protocol import messages as m
from burla.protocol.codec import encode
from burla.protocol.messages import WISHES_MAX
from burla.scheduler.core.autoscaling import EXPECTED_S, HEARD_S, NOBODY
from burla.scheduler.core.effects import Effect, Send
from burla.scheduler.core.quotas import Quotas
from burla.scheduler.core.scheduler import Scheduler

ADMIN = b"admin"


class Autoscaler:
    """Asks; the answers are for the test to look at."""

    def __init__(self, cluster: ModelCluster) -> None:
        self.cluster = cluster
        cluster.say(ADMIN, client_hello(b"an administrator", user="root"))

    def ask(
        self,
        doing: str = "",
        *retire: str,
        cpus: int = 0,
        ram: int = 0,
        gpus: int = 0,
        heeds: tuple[str, ...] = (),
        name: str = "lab/gce",
        then: Sequence[Effect] = (),
    ) -> m.Demand:
        """Return the answer; nothing else comes of it, but for what is expected `then`."""
        self.cluster.heard()
        self.cluster.say(ADMIN, m.AskDemand(name, doing, cpus, ram, retire, gpus, heeds))
        first, *others = self.cluster.heard()
        assert others == list(then)
        assert isinstance(first, Send)
        assert isinstance(first.message, m.Demand)
        assert first == Send(ADMIN, first.message)
        return first.message

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
    cluster.later(0.25)
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
    client = cluster.client()
    cluster.inputs(client, 1)
    assert node.active() is None
    leaf = m.Leaf(0, 0, 1, 1)
    given = [start(node, client, 1), assign(node, 1, m.Span(0, 0, 1), leaves=[leaf])]
    autoscaler.ask(then=given)


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
    assert grows.waiting.startswith("no node is connected to the cluster; no autoscaler is running")
    autoscaler.ask("machines on their way: 1")
    cluster.later(0.25)
    assert grows.waiting == "no node is connected to the cluster; machines on their way: 1"
    assert "on their way" not in stays.waiting
    autoscaler.wait(HEARD_S)
    assert "no autoscaler is running" in grows.waiting


def test_without_nodes_a_caller_is_told_what_to_do() -> None:
    cluster = ModelCluster()
    client = waiting(cluster, grow=False)
    assert client.waiting == "no node is connected to the cluster"
    Autoscaler(cluster).ask()  # there is one: it has deleted what was idle
    cluster.later(0.25)
    assert client.waiting.startswith("no node is connected to the cluster; pass grow=True")


def test_two_autoscalers_do_not_undo_what_the_other_does() -> None:
    cluster = ModelCluster()
    autoscaler = Autoscaler(cluster)
    node = cluster.node()
    autoscaler.ask("machines on their way: 1", "n1", cpus=2, name="lab/gce")
    (status,) = autoscaler.ask(name="lab/slurm").nodes
    assert status.state is m.NodeState.LEAVING
    client = waiting(cluster, grow=True)
    assert client.waiting.endswith("; machines on their way: 1")
    for number in range(20):
        cluster.say(ADMIN, m.AskDemand(f"flood-{number}", "", 0, 0))
    given = [
        start(node, client, 1),
        to(client, m.JobStatus(client.job, "")),
        assign(node, 1, m.Span(0, 0, 1), leaves=[m.Leaf(0, 0, 1, 1)]),
    ]
    (status,) = autoscaler.ask(name="lab/gce", then=given).nodes
    assert status.state is m.NodeState.FREE


def test_a_job_waits_for_an_autoscaler_that_may_be_about_to_speak() -> None:
    cluster = ModelCluster()
    autoscaler = Autoscaler(cluster)
    cluster.node(cpus=2)
    client = cluster.client(grow=True, func_cpu=8)
    autoscaler.wait(EXPECTED_S - 1)
    assert client.failed == ""
    autoscaler.wait(1)
    assert client.failed == "no node of the cluster can run one such call (n1 has 2 CPUs)"


def test_only_so_many_jobs_are_told_of() -> None:
    cluster = ModelCluster()
    cluster.core = Scheduler(ident(1), "0", "inproc://pub", Quotas(jobs_max=2 * WISHES_MAX))
    autoscaler = Autoscaler(cluster)
    for _ in range(WISHES_MAX + 1):
        cluster.client(grow=True)
    assert len(cluster.core.state.jobs) == WISHES_MAX + 1
    demand = autoscaler.ask()
    assert len(demand.wishes) == WISHES_MAX
    encode(demand)  # it is not too long


def test_a_job_that_goes_on_after_a_restart_has_not_waited_since_the_machine_began() -> None:
    cluster = ModelCluster()
    cluster.now_s = 900_000.0
    node = cluster.node()
    client = cluster.client(grow=True)
    cluster.inputs(client, 12)
    cluster.core = Scheduler(b"another instance", "0", "inproc://pub")
    autoscaler = Autoscaler(cluster)
    cluster.reconnect_node(node)
    cluster.reconnect_client(client)
    (wish,) = autoscaler.ask().wishes
    assert wish.slots == 2
    assert wish.waited_s < 60


def test_a_job_that_only_a_machine_to_be_made_could_run_waits_for_it() -> None:
    cluster = ModelCluster()
    autoscaler = Autoscaler(cluster)
    cluster.node(cpus=2)
    client = cluster.client(grow=True, func_cpu=8)
    autoscaler.ask("machines on their way: 1", cpus=8)
    autoscaler.wait(10)
    assert client.failed == ""
    assert client.waiting == "no connected node fits: n1 has 2 CPUs; machines on their way: 1"
    autoscaler.ask(cpus=4)
    autoscaler.wait(1)
    assert client.failed == "no node of the cluster can run one such call (n1 has 2 CPUs)"


def test_calls_that_want_gpus_wait_for_machines_with_as_many() -> None:
    cluster = ModelCluster()
    cluster.node(8)
    autoscaler = Autoscaler(cluster)
    client = cluster.client(policy=m.CallPolicy(func_gpu=2), grow=True)
    cluster.inputs(client, 1)
    (wish,) = autoscaler.ask(cpus=8, gpus=2).wishes
    autoscaler.wait(6)
    assert (wish.func_gpu, wish.fits, client.failed) == (2, False, "")
    autoscaler.ask(cpus=8, gpus=1)
    autoscaler.wait(6)
    assert "n1 has no GPUs" in client.failed


MACHINES = m.Machines("us-east1", 50)


def test_what_machines_are_to_be_like_is_told_who_makes_them() -> None:
    cluster = ModelCluster()
    client = cluster.client(grow=True, machines=MACHINES)
    cluster.inputs(client, 1)
    autoscaler = Autoscaler(cluster)
    (wish,) = autoscaler.ask(cpus=8, heeds=("disk_gb", "region")).wishes
    assert wish.machines == MACHINES
    autoscaler.wait(EXPECTED_S + 1)
    assert client.notices == []


def test_what_nobody_heeds_is_told_once_of_each_job() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    client = cluster.client(grow=True, machines=MACHINES)
    cluster.inputs(client, 1)
    autoscaler = Autoscaler(cluster)
    autoscaler.ask()  # it does not know yet what it makes
    autoscaler.wait(1)
    assert client.notices == []
    autoscaler.ask(cpus=8, heeds=("region",), name="lab/x")
    autoscaler.ask(cpus=8, name="lab/slurm")
    autoscaler.wait(1)
    assert client.notices == [
        "without effect: disk_gb (it is not heeded by what makes machines here, lab/slurm, lab/x)"
    ]
    assert node.active() is not None  # it runs all the same
    autoscaler.ask(cpus=8)
    autoscaler.wait(EXPECTED_S)
    assert len(client.notices) == 1


def test_where_nobody_makes_machines_that_is_told_after_a_while() -> None:
    cluster = ModelCluster()
    cluster.node()
    client = cluster.client(grow=True, machines=MACHINES)
    plain = cluster.client(grow=True)
    for _ in range(round(EXPECTED_S) * 4 + 4):
        cluster.later(0.25)
    assert client.notices == [f"without effect: region, disk_gb ({NOBODY})"]
    assert plain.notices == []
