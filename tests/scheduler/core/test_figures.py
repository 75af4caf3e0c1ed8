"""What monitoring is told: sums over all jobs and nodes, whoever they belong to."""

from cluster_model import ModelCluster
from msgspec.structs import replace
from outcomes import payload_of

from burla.protocol import job_messages as jm, messages as m
from burla.scheduler.core import telling
from burla.scheduler.core.figures import figures
from burla.scheduler.core.quotas import Quotas, Tenants


def test_a_scheduler_without_anything_has_a_figure_for_everything() -> None:
    found = figures(ModelCluster().core.state)
    assert found.jobs == {"waiting": 0, "running": 0, "failing": 0}
    assert found.nodes == {"free": 0, "leased": 0, "leaving": 0, "lost": 0}
    assert set(found.jobs_ended) == {"complete", "failed", "cancelled", "ended", "lost"}
    assert found.quota_used == {"jobs": 0.0, "inputs": 0.0, "bytes": 0.0}


def test_jobs_calls_and_nodes_are_counted() -> None:
    cluster = ModelCluster()
    cluster.core.set_tenants(Tenants(Quotas(jobs_max=4)))
    node = cluster.node(cpus=2)
    alice, bob = cluster.client(), cluster.client()
    cluster.inputs(alice, 10)
    cluster.inputs(bob, 1)
    cluster.later(5.0)
    found = figures(cluster.core.state)
    assert found.jobs == {"waiting": 1, "running": 1, "failing": 0}
    assert (found.slots, found.calls_running, found.calls_pending) == (2, 2, 9)
    assert (found.nodes["leased"], found.cpus, found.ram) == (1, 2, 8 << 30)
    assert (found.clients, found.clients_away, found.queue_oldest_s) == (2, 0, 5.0)
    assert found.quota_used["jobs"] == 0.5
    lease = node.active()
    assert lease is not None
    tally = jm.Tally(((10, 1), (20, 1)), 1, (), None, 3.0)
    said = replace(node.run(lease, 0, 2), tally=tally)
    cluster.say(node.peer, said, payload_of(said.runs))
    cluster.say(node.peer, said, payload_of(said.runs))  # again: counted once
    cluster.say(alice.peer, m.CloseJob(alice.job))
    found = figures(cluster.core.state)
    assert (found.calls_completed, found.calls_failed, found.calls_busy_s) == (2, 1, 3.0)
    assert found.call_durations == {10: 1, 20: 1}
    assert (found.jobs_opened, found.jobs_ended["ended"]) == (2, 1)
    assert (found.bytes_in, found.bytes_out) == (4, 1)


def test_what_an_earlier_scheduler_has_counted_is_not_counted_again() -> None:
    cluster = ModelCluster()
    alice = cluster.client()
    record = cluster.core.state.records.open[alice.job]
    record.counts.calls, record.durations[5] = 7, 7
    told = telling.told(record, cluster.core.state.jobs[alice.job], 0.0, str)
    new = ModelCluster()
    done = replace(told, summary=replace(told.summary, done=7))
    new.core.state.records.restore(telling.taken_up([("", done, 1.0)], 0.0), 0.0)
    new.clients[alice.peer] = alice
    new.say(alice.peer, alice.hello())
    new.say(alice.peer, alice.open(resumed=True), [b"function"])
    found = figures(new.core.state)
    assert (found.calls_completed, sum(found.call_durations.values())) == (0, 0)
    new.say(alice.peer, m.CloseJob(alice.job))
    assert figures(new.core.state).calls_completed == 0
