"""The scheduler's core under any order of events: nothing is lost, and everything ends."""

import json
from typing import Any

from cluster_model import ModelCluster, ident
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from burla.protocol import messages as m
from burla.scheduler.core.scheduler import Scheduler


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
                if client.have.total == client.total or client.failed:  # three nodes died of one
                    cluster.say(peer, m.CloseJob(client.job))
                    del open_jobs[peer]
            if not open_jobs:
                return
        raise AssertionError({c.job: (c.have, c.total) for c in open_jobs.values()})


AnyOrder.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, derandomize=True, deadline=None
)
TestAnyOrder = AnyOrder.TestCase
