"""The scheduler's core, as conversations and under any order of events."""

import json
from typing import Any

import pytest
from cluster_model import ModelCluster, ModelNode, ident
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from opening import client_hello
from outcomes import outcomes

from burla.protocol import messages as m
from burla.scheduler.core.effects import Publish, Send
from burla.scheduler.core.scheduler import Scheduler


def held(node: ModelNode) -> list[tuple[int, int]]:
    lease = node.active()
    return [] if lease is None else list(node.held[lease])


def test_four_inputs_go_to_four_idle_nodes_one_each() -> None:
    cluster = ModelCluster()
    nodes = [cluster.node(cpus=32) for _ in range(4)]
    client = cluster.client()
    cluster.inputs(client, 4)
    assert sorted(held(node) for node in nodes) == [[(0, 1)], [(1, 2)], [(2, 3)], [(3, 4)]]


def test_a_node_serves_one_job_at_a_time() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    alice, bob = cluster.client(), cluster.client()
    for client in (alice, bob):
        cluster.inputs(client, 1)
        cluster.end(client)
    assert node.jobs == {node.active(): alice.job}
    cluster.run(node, 1)
    cluster.say(alice.peer, m.CloseJob(alice.job))
    assert node.active() is None  # told to end, and not leased again before it says Stopped
    cluster.stop(node)
    assert node.jobs[node.active() or b""] == bob.job


def test_nodes_are_listed_with_what_they_do_for_the_asker() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    client = cluster.client()
    cluster.inputs(client, 1)
    (sent,) = [
        effect.message
        for effect in cluster.core.receive(client.peer, m.ListNodes(), [], cluster.now_s)
        if isinstance(effect, Send)
    ]
    assert isinstance(sent, m.Nodes)
    (status,) = sent.nodes
    assert (status.state, status.isolation) == (m.NodeState.LEASED, "process")
    assert node.jobs[node.active() or b""] == client.job


def test_a_job_without_anything_to_run_gives_its_only_node_to_one_that_has() -> None:
    """Its next input may come from the very job that waits: a call inside the inputs."""
    cluster = ModelCluster()
    node = cluster.node()
    outer = cluster.client()
    cluster.inputs(outer, 1)
    inner = cluster.client()
    cluster.inputs(inner, 1)
    cluster.later(0.25)
    assert node.jobs[node.active() or b""] == outer.job  # its input runs
    cluster.run(node, 1)
    cluster.later(0.25)
    cluster.stop(node)
    assert node.jobs[node.active() or b""] == inner.job
    cluster.run(node, 1)
    cluster.later(0.25)
    assert node.jobs[node.active() or b""] == inner.job  # the other is idle, too: no taking turns
    cluster.inputs(outer, 1)
    cluster.later(0.25)
    cluster.stop(node)
    assert node.jobs[node.active() or b""] == outer.job


def test_a_node_that_leaves_gets_nothing_more_and_is_released_when_it_serves_nobody() -> None:
    cluster = ModelCluster()
    leaves, other = cluster.node(cpus=1), cluster.node(cpus=1)
    client = cluster.client()
    cluster.inputs(client, 6)
    cluster.say(leaves.peer, m.Drain())
    assert not leaves.released  # its call runs on
    for _ in range(12):
        cluster.later(0.25)
        cluster.answer_retracts(leaves)
        cluster.run(leaves, 1)
        cluster.stop(leaves)
        cluster.run(other, 1)
    assert leaves.active() is None
    assert leaves.released
    assert list(client.have) == [(0, 6)]


def test_a_lost_node_gives_its_spans_to_another() -> None:
    cluster = ModelCluster()
    lost, other = cluster.node(), cluster.node()
    client = cluster.client()
    cluster.inputs(client, 4)
    cluster.end(client)
    lost.alive = False
    for _ in range(12):
        cluster.later(0.25)
        cluster.run(other, 8)
    assert list(client.have) == [(0, 4)]


def test_a_node_that_was_lost_is_free_again_soon_after_it_comes_back_when_its_job_is_over() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    client = cluster.client()
    cluster.inputs(client, 4)
    node.alive = False
    for _ in range(8):
        cluster.later(0.25)
    cluster.say(client.peer, m.CloseJob(client.job))
    node.alive = True
    cluster.reconnect_node(node)
    cluster.stop(node)  # it was told to end what it holds: nobody is waited for
    other = cluster.client()
    cluster.inputs(other, 1)
    assert node.jobs[node.active() or b""] == other.job


def test_a_node_that_reconnects_keeps_its_lease_and_what_was_lost_on_the_way_is_dealt_again() -> (
    None
):
    cluster = ModelCluster()
    node = cluster.node()
    client = cluster.client()
    cluster.inputs(client, 4)
    lease = node.active()
    assert lease is not None
    node.held[lease].remove(2, 4)  # the last Assign never arrived
    node.leaves[lease].remove(0, 4)
    cluster.reconnect_node(node)
    assert node.active() == lease
    assert list(node.held[lease]) == [(0, 4)]


def test_outcomes_lost_on_the_way_to_a_client_are_sent_again() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    client = cluster.client()
    cluster.inputs(client, 4)
    cluster.end(client)
    client.deliver = False
    cluster.run(node, 4)
    cluster.reconnect_client(client)
    assert not client.have
    cluster.reconnect_node(node)  # what HelloRequired makes a nodelet do: it sends everything again
    assert list(client.have) == [(0, 4)]


def test_a_restarted_scheduler_takes_up_what_the_parties_hold() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    client = cluster.client()
    cluster.inputs(client, 8)
    cluster.end(client)
    client.deliver = False
    cluster.run(node, 2)
    lease = node.active()
    cluster.core = Scheduler(ident(2)[::-1], "0", "inproc://pub")
    cluster.reconnect_node(node)
    cluster.reconnect_client(client)
    cluster.core.check()
    for _ in range(40):
        cluster.later(0.25)
        cluster.run(node, 8)
    cluster.reconnect_node(node)
    for _ in range(40):
        cluster.later(0.25)
        cluster.run(node, 8)
    assert list(node.jobs) == [lease]  # there was no second one
    assert list(client.have) == [(0, 8)]


def test_a_client_that_is_gone_leaves_no_lease() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    client = cluster.client()
    cluster.inputs(client, 4)
    del cluster.clients[client.peer]
    cluster.core.unreachable(client.peer, cluster.now_s)
    for _ in range(24):
        cluster.later(0.25)
    assert node.active() is None
    assert not cluster.core.state.jobs


def test_a_job_that_a_client_does_not_open_again_after_it_reconnected_is_closed() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    client = cluster.client()
    cluster.inputs(client, 4)
    cluster.say(client.peer, client.hello())  # its CloseJob went with the old connection
    for _ in range(44):
        cluster.later(0.25)
    assert node.active() is None
    assert not cluster.core.state.jobs


def test_a_job_that_waits_is_told_why() -> None:
    cluster = ModelCluster()
    client = cluster.client()
    for _ in range(4):
        cluster.later(0.25)
    assert client.waiting == "no node is connected to the cluster"
    cluster.node()
    assert client.waiting == ""


def test_what_no_node_could_ever_run_fails_and_names_the_argument() -> None:
    cluster = ModelCluster()
    cluster.node(cpus=2)
    client = cluster.client(func_cpu=64)
    for _ in range(24):
        cluster.later(0.25)
    assert client.failed == "no node of the cluster can run one such call (n1 has 2 CPUs)"


def test_max_parallelism_caps_slots_over_all_nodes() -> None:
    cluster = ModelCluster()
    nodes = [cluster.node(cpus=4) for _ in range(3)]
    client = cluster.client(max_parallelism=6)
    cluster.inputs(client, 100)
    assert sum(node.slots[e] for node in nodes if (e := node.active())) == 6


def test_an_idle_node_gets_what_another_has_not_begun() -> None:
    cluster = ModelCluster()
    first = cluster.node(cpus=1)
    client = cluster.client()
    cluster.inputs(client, 2)
    cluster.end(client)
    assert held(first) == [(0, 2)]
    second = cluster.node(cpus=1)
    cluster.answer_retracts(first)
    assert (held(first), held(second)) == ([(0, 1)], [(1, 2)])


def test_an_error_of_an_input_that_has_its_outcome_changes_nothing() -> None:
    """It ran twice; the client, which has a result, would wait for the others for ever."""
    cluster = ModelCluster()
    node = cluster.node(cpus=1)
    client = cluster.client()
    cluster.inputs(client, 2)
    cluster.run(node, 1)
    lease = node.active()
    assert lease is not None
    late = outcomes(lease, [m.Run(0, 1, m.Kind.ERROR, 1)], seq=2)
    cluster.say(node.peer, late, [b"late"])
    cluster.inputs(client, 2)
    assert held(node)[-1][1] == 4


def test_the_first_error_stops_the_job() -> None:
    cluster = ModelCluster()
    node = cluster.node(cpus=1)
    client = cluster.client()
    cluster.inputs(client, 8)
    lease = node.active()
    assert lease is not None
    before = list(node.held[lease])
    node.held[lease].remove(0, 1)
    cluster.say(node.peer, outcomes(lease, [m.Run(0, 1, m.Kind.ERROR, 1)]), [b"e"])
    cluster.inputs(client, 8)
    assert before == [(0, 8)]
    assert list(node.held[lease]) == [(1, 8)]


def test_another_protocol_is_refused_in_one_line() -> None:
    core = Scheduler(ident(1), "1.0", "p")
    hello = client_hello(ident(2), protocol=m.PROTOCOL + 1, version="9.9")
    effects = core.receive(b"c", hello, [], 0.0)
    assert isinstance(effects[0], Send)
    assert isinstance(effects[0].message, m.Refused)
    assert "install the same version" in effects[0].message.reason
    assert "\n" not in effects[0].message.reason


def test_who_is_not_known_is_asked_to_say_hello() -> None:
    core = Scheduler(ident(1), "1.0", "p")
    assert core.receive(b"x", m.Heartbeat(), [], 0.0) == [Send(b"x", m.HelloRequired())]


def test_output_is_published_and_a_replay_goes_to_the_client_alone() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    client = cluster.client()
    lease = node.active()
    assert lease is not None
    said = m.Output(lease, 1, (1,))
    shown = m.JobOutput(client.job, lease, 1, (1,))
    assert cluster.core.receive(node.peer, said, [b"hi\n"], 0.0) == [
        Publish(client.job, shown, [b"hi\n"])
    ]
    replay = m.Output(lease, 1, (1,), replay=True)
    assert cluster.core.receive(node.peer, replay, [b"hi\n"], 0.0) == [
        Send(client.peer, shown, [b"hi\n"])
    ]


@pytest.mark.parametrize("start", [1, 5])
def test_a_batch_that_does_not_follow_is_ignored(start: int) -> None:
    cluster = ModelCluster()
    node = cluster.node()
    client = cluster.client()
    leaf = m.Leaf(0, start, 1, 1)
    cluster.say(client.peer, m.Inputs(job=client.job, batch=0, start=start, leaves=(leaf,)), [b"x"])
    cluster.core.check()
    assert held(node) == []


class AnyOrder(RuleBasedStateMachine):
    """Nodes and clients come, work, break and go in any order; the invariants hold."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = ModelCluster()

    @initialize(nodes=st.integers(1, 3), count=st.integers(1, 60))
    def a_job_is_under_way(self, nodes: int, count: int) -> None:
        for _ in range(nodes):
            self.cluster.node()
        self.cluster.inputs(self.cluster.client(), count)

    def _pick(self, number: int, among: dict[bytes, Any]) -> Any:
        values = list(among.values())
        return values[number % len(values)] if values else None

    @rule(cpus=st.integers(1, 4))
    def a_node_joins(self, cpus: int) -> None:
        if len(self.cluster.nodes) < 4:
            self.cluster.node(cpus)

    @rule(cap=st.sampled_from([None, 1, 3]))
    def a_job_opens(self, cap: int | None) -> None:
        if len(self.cluster.clients) < 3:
            self.cluster.client(cap)

    @rule(which=st.integers(0, 9), count=st.integers(1, 30))
    def inputs_come(self, which: int, count: int) -> None:
        client = self._pick(which, self.cluster.clients)
        if client is not None and client.total is None:
            self.cluster.inputs(client, count)

    @rule(which=st.integers(0, 9))
    def inputs_end(self, which: int) -> None:
        client = self._pick(which, self.cluster.clients)
        if client is not None:
            self.cluster.end(client)

    @rule(which=st.integers(0, 9), count=st.integers(1, 20))
    def a_node_runs(self, which: int, count: int) -> None:
        node = self._pick(which, self.cluster.nodes)
        if node is not None and node.alive:
            self.cluster.run(node, count)

    @rule(which=st.integers(0, 9), begun=st.integers(0, 3))
    def a_node_gives_back(self, which: int, begun: int) -> None:
        node = self._pick(which, self.cluster.nodes)
        if node is not None and node.alive:
            self.cluster.answer_retracts(node, begun)

    @rule(which=st.integers(0, 9))
    def a_node_drains(self, which: int) -> None:
        node = self._pick(which, self.cluster.nodes)
        if node is not None and node.alive:
            self.cluster.say(node.peer, m.Drain())

    @rule(which=st.integers(0, 9))
    def a_node_stops_leases(self, which: int) -> None:
        node = self._pick(which, self.cluster.nodes)
        if node is not None and node.alive:
            self.cluster.stop(node)

    @rule(which=st.integers(0, 9))
    def a_node_dies(self, which: int) -> None:
        node = self._pick(which, self.cluster.nodes)
        if node is not None:
            node.alive = False

    @rule(which=st.integers(0, 9))
    def a_node_reconnects(self, which: int) -> None:
        node = self._pick(which, self.cluster.nodes)
        if node is not None and node.alive:
            self.cluster.reconnect_node(node)

    @rule(which=st.integers(0, 9), lost=st.booleans())
    def a_client_reconnects(self, which: int, lost: bool) -> None:
        client = self._pick(which, self.cluster.clients)
        if client is not None:
            client.deliver = not lost
            if not lost:
                self.cluster.reconnect_client(client)

    @rule(which=st.integers(0, 9))
    def a_job_closes(self, which: int) -> None:
        client = self._pick(which, self.cluster.clients)
        if client is not None:
            self.cluster.say(client.peer, m.CloseJob(client.job))
            del self.cluster.clients[client.peer]

    @rule()
    def the_scheduler_restarts(self) -> None:
        self.cluster.core = Scheduler(
            ident(7000 + self.cluster._number())[::-1], "0", "inproc://pub"
        )
        for node in list(self.cluster.nodes.values()):
            if node.alive:
                self.cluster.reconnect_node(node)
        for client in list(self.cluster.clients.values()):
            self.cluster.reconnect_client(client)

    @rule(seconds=st.sampled_from([0.3, 1.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.cluster.later(seconds)

    @invariant()
    def every_index_is_in_one_place(self) -> None:
        self.cluster.core.check()

    @invariant()
    def the_state_can_be_written_down(self) -> None:
        assert json.dumps(self.cluster.core.snapshot(self.cluster.now_s))

    def teardown(self) -> None:
        """One healthy node finishes everything."""
        cluster = self.cluster
        for client in list(cluster.clients.values()):
            cluster.reconnect_client(client)
            cluster.end(client)
        for node in cluster.nodes.values():
            node.alive = False
        healthy = cluster.node(cpus=4)
        open_jobs = dict(cluster.clients)
        for _ in range(400):
            cluster.later(0.25)
            cluster.run(healthy, 100)
            cluster.answer_retracts(healthy)
            cluster.stop(healthy)
            cluster.core.check()
            for peer, client in list(open_jobs.items()):
                if client.have.total == client.total:
                    cluster.say(peer, m.CloseJob(client.job))
                    del open_jobs[peer]
            if not open_jobs:
                return
        raise AssertionError({c.job: (c.have, c.total) for c in open_jobs.values()})


AnyOrder.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, derandomize=True, deadline=None
)
TestAnyOrder = AnyOrder.TestCase
