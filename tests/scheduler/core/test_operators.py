"""What administrators see and do: whose jobs are open, that they end, which nodes were lost."""

from typing import TypeVar

import pytest
from cluster_model import ModelCluster, ModelNode
from expected import closed, ended, to
from msgspec.structs import replace

from burla.protocol import admin_messages as am, messages as m
from burla.scheduler.core import operators
from burla.scheduler.core.effects import Effect, Note, Record, Send
from burla.scheduler.core.node import SILENCE_S
from burla.scheduler.core.quotas import Quotas, Tenants

BY = "root@head ran `burla down`"
M = TypeVar("M", bound=m.Message)


def sent(effects: list[Effect], kind: type[M]) -> list[M]:
    said = [effect.message for effect in effects if isinstance(effect, Send)]
    return [message for message in said if isinstance(message, kind)]


def lost(cluster: ModelCluster) -> list[m.NodeStatus]:
    """Return the lost nodes that an administrator sees."""
    asker = cluster.client()
    cluster.heard()
    cluster.say(asker.peer, m.ListNodes())
    (answer,) = sent(cluster.heard(), m.Nodes)
    return [node for node in answer.nodes if node.state is m.NodeState.LOST]


def die(cluster: ModelCluster, node: ModelNode) -> None:
    """Let a node fall silent, and everybody notice."""
    node.alive = False
    for _ in range(round(SILENCE_S / 0.25) + 1):
        cluster.later(0.25)


def test_open_jobs_are_told_with_whose_they_are() -> None:
    cluster = ModelCluster()
    cluster.node()
    alice = cluster.client(user="alice")
    cluster.inputs(alice, 5)
    cluster.end(alice)
    cluster.later(2.0)
    cluster.heard()
    cluster.say(alice.peer, am.AskJobs())
    job = am.OpenedJob("alice@h", "f", 2.0, 5, 1)
    assert cluster.heard() == [to(alice, am.Jobs((job,), 1))]


def test_a_job_is_whoever_the_table_of_keys_says() -> None:
    cluster = ModelCluster()
    cluster.client(user="says root")
    cluster.core.set_tenants(Tenants(Quotas(), {}, {"": "anna"}))
    (job,) = operators.open_jobs(cluster.core.state).jobs
    assert job.user == "anna"


def test_all_jobs_end_and_their_callers_are_told_once() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    alice, bob = cluster.client(), cluster.client()
    cluster.inputs(alice, 2)
    cluster.heard()
    cluster.say(bob.peer, am.EndJobs(BY))
    heard = cluster.heard()
    told = sent(heard, am.Jobs)
    assert [effect for effect in heard if not isinstance(effect, Record | Note)] == [
        to(alice, m.ClusterEnded(BY)),
        to(bob, m.ClusterEnded(BY)),
        ended(node, 1, discard=True),
        to(bob, told[0]),
    ]
    assert Record("", "end all jobs", None, "ok") in heard
    assert told[0].total == 2
    assert not cluster.core.state.jobs
    cluster.core.check()
    cluster.say(alice.peer, m.CloseJob(alice.job))  # which it says of its own
    assert closed(alice) not in cluster.heard()
    cluster.stop(node)
    assert cluster.client().job in cluster.core.state.jobs  # what comes later is taken


def test_more_jobs_than_are_told_end_all_the_same() -> None:
    cluster = ModelCluster()
    client = cluster.client()
    for number in range(am.JOBS_TOLD_MAX + 5):
        job = replace(client.open(), job=number.to_bytes(16, "big"))
        cluster.say(client.peer, job)
        if number == 990:  # the quota of a tenant is 1000
            cluster.core.set_tenants(Tenants(Quotas(jobs_max=10_000)))
    state = cluster.core.state
    total = len(state.jobs)
    assert total > am.JOBS_TOLD_MAX
    told = operators.end_jobs(state, BY)
    assert (len(told.jobs), told.total, len(state.jobs)) == (am.JOBS_TOLD_MAX, total, 0)


def test_a_lost_node_stays_listed_with_since_when_and_why() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    die(cluster, node)
    for _ in range(40):
        cluster.later(0.25)
    (seen,) = lost(cluster)
    assert (seen.name, seen.why, seen.job) == (node.name, "its connection is gone", "")
    assert seen.lost_s >= 10.0
    assert not any(n.name == node.name for n in demanded(cluster))


def demanded(cluster: ModelCluster) -> list[m.NodeStatus]:
    """Return what an autoscaler is told: it counts machines that are there."""
    asker = cluster.client()
    cluster.heard()
    cluster.say(asker.peer, m.AskDemand("a", "", 0, 0))
    (answer,) = sent(cluster.heard(), m.Demand)
    return list(answer.nodes)


def test_a_node_that_is_back_or_removed_or_was_to_go_is_not_listed_as_lost() -> None:
    cluster = ModelCluster()
    back, removed, leaving = cluster.node(), cluster.node(), cluster.node()
    cluster.say(leaving.peer, m.Drain())
    for node in (back, removed, leaving):
        node.alive = False
    die(cluster, back)
    assert {node.name for node in lost(cluster)} == {back.name, removed.name}
    cluster.say(b"new", replace(back.hello(), node=b"z" * 16))
    assert [node.name for node in lost(cluster)] == [removed.name]
    cluster.say(cluster.client().peer, am.ForgetNodes((removed.name, "nobody")))
    assert lost(cluster) == []


def test_lost_nodes_are_forgotten_after_a_time_and_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = ModelCluster()
    monkeypatch.setattr(operators, "LOST_MAX", 2)
    names = []
    for _ in range(3):
        node = cluster.node()
        names.append(node.name)
        die(cluster, node)
    assert [node.name for node in lost(cluster)] == names[1:]
    cluster.core.state.now_s += operators.LOST_KEPT_S
    operators.expire(cluster.core.state)
    assert not cluster.core.state.lost
