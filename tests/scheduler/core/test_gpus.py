"""Jobs whose calls want GPUs go to nodes that have some, as many at once as there are devices."""

from cluster_model import ModelCluster

from burla.protocol import messages as m

TWO = m.CallPolicy(func_gpu=2)


def test_as_many_run_at_once_as_there_are_devices_for() -> None:
    cluster = ModelCluster()
    plain, with_five = cluster.node(8), cluster.node(8, ("L4",) * 5)
    client = cluster.client(policy=TWO)
    cluster.inputs(client, 10)
    lease = with_five.active()
    assert lease is not None
    assert with_five.slots[lease] == 2
    assert plain.active() is None


def test_a_job_that_no_node_can_run_is_told_who_has_how_many() -> None:
    cluster = ModelCluster()
    cluster.node(8)
    cluster.node(8, ("L4",))
    client = cluster.client(policy=TWO)
    cluster.inputs(client, 1)
    for _ in range(24):
        cluster.later(0.25)
    assert "no node of the cluster can run one such call" in client.failed
    assert "n1 has no GPUs; n2 has 1 GPU" in client.failed
