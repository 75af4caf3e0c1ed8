"""The scheduler's core, as conversations (test_any_order.py has any order of events).

In a conversation all that comes back is compared, so that a word too many fails as one too few.
"""

from typing import Any

import pytest
from cluster_model import ModelClient, ModelCluster, ModelNode, ident
from expected import (
    WELCOME,
    acked,
    assign,
    closed,
    ended,
    forwarded,
    joined,
    opened,
    passed_on,
    retract,
    start,
    to,
)
from opening import PYTHON, client_hello
from outcomes import outcomes

from burla.protocol import messages as m
from burla.scheduler.core.effects import Forget, Note, Publish, Send
from burla.scheduler.core.pending_reasons import unsatisfiable
from burla.scheduler.core.quotas import BYTES_MAX
from burla.scheduler.core.scheduler import Scheduler
from burla.scheduler.core.warm_leases import WARM_S_MAX


def serving(cpus: int = 2) -> tuple[ModelCluster, ModelNode, ModelClient]:
    """Return a cluster whose only node serves the job of its only client, by lease 1."""
    cluster = ModelCluster()
    node, client = cluster.node(cpus), cluster.client()
    assert cluster.heard() == [*joined(node), *opened(client), start(node, client, 1, slots=cpus)]
    return cluster, node, client


def wait(cluster: ModelCluster, seconds: float) -> None:
    """Let time pass, a tick at a time."""
    for _ in range(round(seconds / 0.25)):
        cluster.later(0.25)


def lost(node: ModelNode, client: ModelClient, lease: int) -> list[Forget | Note | Send]:
    """Return what a node makes that can't be reached, and that served `client`."""
    return [
        Forget(node.peer),
        Note(f"node {node.name} is lost: its connection is gone"),
        Send(client.peer, m.LeaseLost(client.job, ident(lease), node.name)),
    ]


def test_everybody_is_told_each_second_that_the_scheduler_lives() -> None:
    cluster, node, client = serving()
    cluster.later(0.0)
    beats = [Send(node.peer, m.Heartbeat()), Send(client.peer, m.Heartbeat())]
    assert cluster.heard() == beats
    wait(cluster, m.BEAT_S - 0.25)
    assert cluster.heard() == []
    wait(cluster, 0.25)
    assert cluster.heard() == beats


def test_four_inputs_go_to_four_idle_nodes_one_each() -> None:
    cluster, first, client = serving(cpus=32)
    nodes = [first, *(cluster.node(cpus=32) for _ in range(3))]
    assert cluster.heard() == [effect for node in nodes[1:] for effect in joined(node)]
    cluster.inputs(client, 4)
    leaf = m.Leaf(0, 0, 4, 1)
    assert cluster.heard() == [
        *(start(node, client, lease, slots=32) for lease, node in enumerate(nodes[1:], 2)),
        *(
            assign(node, at + 1, m.Span(0, at, at + 1), left=3 - at, leaves=[leaf])
            for at, node in enumerate(nodes)
        ),
    ]


def test_a_node_serves_one_job_at_a_time() -> None:
    cluster, node, alice = serving()
    bob = cluster.client()
    assert cluster.heard() == opened(bob)
    leaf = m.Leaf(0, 0, 1, 1)
    cluster.inputs(alice, 1)
    cluster.end(alice)
    assert cluster.heard() == [assign(node, 1, m.Span(0, 0, 1), leaves=[leaf])]
    cluster.inputs(bob, 1)
    cluster.end(bob)
    assert cluster.heard() == []
    cluster.run(node, 1)
    assert cluster.heard() == [
        passed_on(alice, node, 1, 1, 0, 1),
        ended(node, 1),
        start(node, bob, 2),  # the nodelet begins it when the other has ended
        assign(node, 2, m.Span(0, 0, 1), leaves=[leaf]),
        acked(node, 1, 1),
    ]
    cluster.say(alice.peer, m.CloseJob(alice.job))
    assert cluster.heard() == [closed(alice)]
    cluster.stop(node)
    assert cluster.heard() == []


def test_a_node_that_was_told_to_end_is_not_leased_before_it_says_stopped() -> None:
    cluster, node, alice = serving()
    bob = cluster.client()
    assert cluster.heard() == opened(bob)
    cluster.say(alice.peer, m.CloseJob(alice.job))
    assert cluster.heard() == [ended(node, 1, discard=True), closed(alice)]
    cluster.stop(node)
    assert cluster.heard() == [start(node, bob, 2)]


def test_nodes_are_listed_with_what_they_do_for_the_asker() -> None:
    cluster, node, client = serving()
    cluster.say(client.peer, m.ListNodes())
    status = m.NodeStatus(
        node.name, "process", node.cpus, 8 << 30, PYTHON, m.NodeState.LEASED, job="f"
    )
    assert cluster.heard() == [to(client, m.Nodes((status,)))]


def test_a_job_without_anything_to_run_gives_its_only_node_to_one_that_has() -> None:
    """Its next input may come from the very job that waits: a call inside the inputs."""
    cluster, node, outer = serving()
    leaf = m.Leaf(0, 0, 1, 1)
    busy = "number 1 in line, the node is busy (u@h: 1)"
    cluster.inputs(outer, 1)
    assert cluster.heard() == [assign(node, 1, m.Span(0, 0, 1), leaves=[leaf])]
    inner = cluster.client()
    assert cluster.heard() == opened(inner)
    cluster.inputs(inner, 1)
    wait(cluster, 0.25)
    assert cluster.heard_but_beats() == []  # the input of the other runs
    cluster.run(node, 1)
    assert cluster.heard() == [
        passed_on(outer, node, 1, 1, 0, 1),
        assign(node, 1, forget=(0,)),
        acked(node, 1, 1),
    ]
    wait(cluster, 0.25)
    assert cluster.heard() == [to(inner, m.JobStatus(inner.job, busy)), ended(node, 1)]
    cluster.stop(node)
    assert cluster.heard() == [
        start(node, inner, 2),
        to(inner, m.JobStatus(inner.job, "")),
        assign(node, 2, m.Span(0, 0, 1), leaves=[leaf]),
    ]
    cluster.run(node, 1)
    assert cluster.heard() == [
        passed_on(inner, node, 2, 1, 0, 1),
        assign(node, 2, forget=(0,)),
        acked(node, 2, 1),
    ]
    wait(cluster, 0.25)  # the other is idle, too: no taking turns
    assert cluster.heard() == [to(outer, m.JobStatus(outer.job, busy))]
    cluster.inputs(outer, 1)
    wait(cluster, 0.25)
    assert cluster.heard_but_beats() == [ended(node, 2)]
    cluster.stop(node)
    assert cluster.heard() == [
        start(node, outer, 3),
        to(outer, m.JobStatus(outer.job, "")),
        assign(node, 3, m.Span(1, 1, 2), leaves=[m.Leaf(1, 1, 1, 1)]),
    ]


def test_a_node_that_leaves_gets_nothing_more_and_is_released_when_it_serves_nobody() -> None:
    cluster, leaves, client = serving(cpus=1)
    other = cluster.node(cpus=1)
    assert cluster.heard() == joined(other)
    cluster.inputs(client, 6)
    first = m.Leaf(0, 0, 4, 1)
    assert cluster.heard() == [
        start(other, client, 2, slots=1),
        assign(leaves, 1, m.Span(0, 0, 2), left=4, leaves=[first]),
        assign(other, 2, m.Span(0, 2, 3), left=3, leaves=[first]),
    ]
    cluster.say(leaves.peer, m.Drain())
    assert cluster.heard() == [retract(leaves, 1, 2)]  # its call runs on
    cluster.answer_retracts(leaves)
    assert cluster.heard() == [retract(leaves, 1, 1)]
    cluster.answer_retracts(leaves)
    assert cluster.heard() == []
    cluster.run(leaves, 1)
    assert cluster.heard() == [
        passed_on(client, leaves, 1, 1, 0, 1),
        ended(leaves, 1),
        assign(other, 2, m.Span(0, 1, 2), m.Span(0, 3, 6), leaves=[m.Leaf(0, 4, 2, 1)]),
        acked(leaves, 1, 1),
    ]
    cluster.stop(leaves)
    assert cluster.heard() == [to(leaves, m.Drained())]
    cluster.run(other, 5)
    assert cluster.heard() == [
        passed_on(client, other, 2, 1, 1, 6),
        assign(other, 2, forget=(0,)),
        acked(other, 2, 1),
    ]
    wait(cluster, 2.0)
    assert cluster.heard_but_beats() == []


def test_a_lost_node_gives_its_spans_to_another() -> None:
    cluster, gone, client = serving()
    other = cluster.node()
    assert cluster.heard() == joined(other)
    cluster.inputs(client, 4)
    cluster.end(client)
    leaf = m.Leaf(0, 0, 4, 1)
    assert cluster.heard() == [
        start(other, client, 2),
        assign(gone, 1, m.Span(0, 0, 2), left=2, leaves=[leaf]),
        assign(other, 2, m.Span(0, 2, 4), leaves=[leaf]),
    ]
    gone.alive = False
    cluster.run(other, 8)
    assert cluster.heard() == [passed_on(client, other, 2, 1, 2, 4), acked(other, 2, 1)]
    wait(cluster, 1.0)
    assert cluster.heard_but_beats() == [
        *lost(gone, client, 1),
        assign(other, 2, m.Span(0, 0, 2)),  # it has the leaf
    ]
    cluster.run(other, 8)
    assert cluster.heard() == [passed_on(client, other, 2, 2, 0, 2), acked(other, 2, 2)]
    wait(cluster, 2.0)
    assert cluster.heard_but_beats() == []


def test_a_node_that_was_lost_is_free_again_soon_after_it_comes_back_when_its_job_is_over() -> None:
    cluster, node, client = serving()
    cluster.inputs(client, 4)
    assert cluster.heard() == [assign(node, 1, m.Span(0, 0, 4), leaves=[m.Leaf(0, 0, 4, 1)])]
    node.alive = False
    wait(cluster, 2.0)
    nobody = m.JobStatus(
        client.job,
        f"no node is connected to the cluster; lost while they ran this job: {node.name}",
    )
    assert cluster.heard_but_beats() == [*lost(node, client, 1), to(client, nobody)]
    cluster.say(client.peer, m.CloseJob(client.job))
    assert cluster.heard() == [closed(client)]
    node.alive = True
    cluster.reconnect_node(node)
    assert cluster.heard() == [*joined(node), ended(node, 1, discard=True)]
    cluster.stop(node)  # nobody is waited for
    assert cluster.heard() == []
    other = cluster.client()
    assert cluster.heard() == [*opened(other), start(node, other, 2)]


def test_a_node_that_reconnects_keeps_its_lease_and_what_was_lost_on_the_way_is_dealt_again() -> (
    None
):
    cluster, node, client = serving()
    cluster.inputs(client, 4)
    leaf = m.Leaf(0, 0, 4, 1)
    assert cluster.heard() == [assign(node, 1, m.Span(0, 0, 4), leaves=[leaf])]
    node.held[ident(1)].remove(2, 4)  # the last Assign never arrived
    node.leaves[ident(1)].remove(0, 4)
    before = node.peer
    cluster.reconnect_node(node)
    assert cluster.heard() == [
        Forget(before),
        to(node, WELCOME),
        assign(node, 1, m.Span(0, 2, 4), leaves=[leaf]),
    ]


def test_outcomes_lost_on_the_way_to_a_client_are_sent_again() -> None:
    cluster, node, client = serving()
    cluster.inputs(client, 4)
    cluster.end(client)
    assert cluster.heard() == [assign(node, 1, m.Span(0, 0, 4), leaves=[m.Leaf(0, 0, 4, 1)])]
    client.deliver = False
    cluster.run(node, 4)
    assert cluster.heard() == [passed_on(client, node, 1, 1, 0, 4)]
    before = client.peer
    cluster.reconnect_client(client)
    assert cluster.heard() == [
        Forget(before),
        to(client, WELCOME),
        to(node, m.HelloRequired()),  # a nodelet that says Hello sends everything again
    ]
    before = node.peer
    cluster.reconnect_node(node)
    assert cluster.heard() == [
        Forget(before),
        to(node, WELCOME),
        ended(node, 1),
        passed_on(client, node, 1, 1, 0, 4),
        acked(node, 1, 1),
    ]


def test_a_restarted_scheduler_takes_up_what_the_parties_hold() -> None:
    cluster, node, client = serving()
    cluster.inputs(client, 8)
    cluster.end(client)
    first, second = m.Leaf(0, 0, 4, 1), m.Leaf(0, 4, 4, 1)
    assert cluster.heard() == [assign(node, 1, m.Span(0, 0, 8), leaves=[first, second])]
    client.deliver = False
    cluster.run(node, 2)
    assert cluster.heard() == [passed_on(client, node, 1, 1, 0, 2)]
    cluster.core = Scheduler(ident(2)[::-1], "0", "inproc://pub")
    welcome = m.Welcome(ident(2)[::-1], "0", "inproc://pub", BYTES_MAX)
    cluster.reconnect_node(node)
    assert cluster.heard() == [*joined(node)[:2], to(node, welcome)]
    cluster.reconnect_client(client)
    assert cluster.heard() == [
        to(client, welcome),
        to(node, m.HelloRequired()),  # the outcomes that it sent were of an unknown job
        opened(client)[1],
    ]
    cluster.run(node, 8)
    assert cluster.heard() == [passed_on(client, node, 1, 2, 2, 8), acked(node, 1, 2)]
    wait(cluster, 10.0)
    assert cluster.heard_but_beats() == []
    before = node.peer
    cluster.reconnect_node(node)
    assert cluster.heard() == [
        Forget(before),
        to(node, welcome),
        assign(node, 1, m.Span(0, 0, 2), leaves=[first]),  # it goes on with the lease that it has
    ]
    cluster.run(node, 8)
    assert cluster.heard() == [passed_on(client, node, 1, 3, 0, 2), acked(node, 1, 3)]
    cluster.later(2.75)
    assert cluster.heard_but_beats() == []
    cluster.later(WARM_S_MAX)
    assert cluster.heard_but_beats() == [ended(node, 1)]
    wait(cluster, 10.0)
    assert cluster.heard_but_beats() == []


def test_a_client_that_is_gone_and_has_no_job_is_forgotten() -> None:
    cluster, node, client = serving()
    cluster.inputs(client, 4)
    assert cluster.heard() == [assign(node, 1, m.Span(0, 0, 4), leaves=[m.Leaf(0, 0, 4, 1)])]
    cluster.say(client.peer, m.CloseJob(client.job))
    assert cluster.heard() == [ended(node, 1, discard=True), closed(client)]
    cluster.stop(node)
    client.silent = True
    cluster.unreachable(client.peer)
    wait(cluster, 6.0)
    assert cluster.heard_but_beats() == [Forget(client.peer)]


def test_a_job_that_a_client_does_not_open_again_after_it_reconnected_is_closed() -> None:
    cluster, node, client = serving()
    cluster.inputs(client, 4)
    assert cluster.heard() == [assign(node, 1, m.Span(0, 0, 4), leaves=[m.Leaf(0, 0, 4, 1)])]
    cluster.say(client.peer, client.hello())  # its CloseJob went with the old connection
    assert cluster.heard() == [to(client, WELCOME)]
    wait(cluster, 11.0)
    assert cluster.heard_but_beats() == [ended(node, 1, discard=True)]
    cluster.stop(node)
    assert cluster.heard() == []  # there is no job left that could have it


def test_a_job_that_waits_is_told_why() -> None:
    cluster = ModelCluster()
    client = cluster.client()
    assert cluster.heard() == opened(client)
    wait(cluster, 1.0)
    nobody = m.JobStatus(client.job, "no node is connected to the cluster")
    assert cluster.heard_but_beats() == [to(client, nobody)]
    node = cluster.node()
    assert cluster.heard() == [
        *joined(node),
        start(node, client, 1),
        to(client, m.JobStatus(client.job, "")),
    ]


def test_what_no_node_could_ever_run_fails_and_names_the_argument() -> None:
    cluster = ModelCluster()
    node = cluster.node(cpus=2)
    client = cluster.client(func_cpu=64)
    assert cluster.heard() == [*joined(node), *opened(client)]
    wait(cluster, 6.0)
    waits = m.JobStatus(client.job, "no connected node fits: n1 has 2 CPUs")
    text = "no node of the cluster can run one such call (n1 has 2 CPUs)"
    assert cluster.heard_but_beats() == [
        to(client, waits),
        to(client, m.JobFailed(client.job, "func_cpu", text)),
    ]


def test_a_caller_with_another_python_hears_how_each_kind_of_node_gets_it() -> None:
    cluster = ModelCluster()
    cluster.node()
    state = cluster.core.state
    job = state.jobs[cluster.client().job]
    job.python = "3.99"
    found = unsatisfiable(job, state.nodes.values())
    assert found is not None
    assert f"n1 runs Python {PYTHON}, you run 3.99): run your script with one" in found[1]
    assert 'by running `burla up` with Python 3.99, elsewhere by python = "3.99"' in found[1]


def test_a_private_cluster_refuses_at_once_what_its_one_node_never_can_run() -> None:
    cluster = ModelCluster()
    cluster.core = Scheduler(ident(1), "0", "inproc://pub", is_private=True)
    early = cluster.client(func_cpu=3)  # before the node is there
    wait(cluster, 6.0)
    assert not early.failed
    cluster.node(cpus=2)
    wait(cluster, 1.0)
    late = cluster.client(func_cpu=64)
    for client in (early, late):
        assert client.failed == (
            "no cluster is set (BURLA_CLUSTER, `burla login`), so calls run on this machine:"
            f" {cluster.nodes[max(cluster.nodes)].name} has 2 CPUs"
        )


def test_max_parallelism_caps_slots_over_all_nodes() -> None:
    cluster = ModelCluster()
    nodes = [cluster.node(cpus=4) for _ in range(3)]
    client = cluster.client(max_parallelism=6)
    assert cluster.heard() == [
        *(effect for node in nodes for effect in joined(node)),
        *opened(client),
        start(nodes[0], client, 1, slots=4),
    ]
    cluster.inputs(client, 100)
    leaves = [m.Leaf(0, at, 4, 1) for at in (0, 4, 8)]
    assert cluster.heard() == [
        start(nodes[1], client, 2, slots=2),
        assign(nodes[0], 1, m.Span(0, 0, 8), left=92, leaves=leaves[:2]),
        assign(nodes[1], 2, m.Span(0, 8, 12), left=88, leaves=leaves[2:]),
    ]


def test_an_idle_node_gets_what_another_has_not_begun() -> None:
    cluster, first, client = serving(cpus=1)
    cluster.inputs(client, 2)
    cluster.end(client)
    leaf = m.Leaf(0, 0, 2, 1)
    assert cluster.heard() == [assign(first, 1, m.Span(0, 0, 2), leaves=[leaf])]
    second = cluster.node(cpus=1)
    assert cluster.heard() == [
        *joined(second),
        start(second, client, 2, slots=1),
        retract(first, 1, 1),
    ]
    cluster.answer_retracts(first)
    assert cluster.heard() == [assign(second, 2, m.Span(0, 1, 2), leaves=[leaf])]


def test_an_error_of_an_input_that_has_its_outcome_changes_nothing() -> None:
    """It ran twice; the client, which has a result, would wait for the others for ever."""
    cluster, node, client = serving(cpus=1)
    cluster.inputs(client, 2)
    assert cluster.heard() == [assign(node, 1, m.Span(0, 0, 2), leaves=[m.Leaf(0, 0, 2, 1)])]
    cluster.run(node, 1)
    assert cluster.heard() == [passed_on(client, node, 1, 1, 0, 1), acked(node, 1, 1)]
    late = outcomes(ident(1), [m.Run(0, 1, m.Kind.ERROR, 1)], seq=2)
    cluster.say(node.peer, late, [b"late"])
    assert cluster.heard() == [forwarded(client, node, late, [b"late"]), acked(node, 1, 2)]
    cluster.inputs(client, 2)
    assert cluster.heard() == [assign(node, 1, m.Span(1, 2, 4), leaves=[m.Leaf(1, 2, 2, 1)])]


def test_the_first_error_stops_the_job() -> None:
    cluster, node, client = serving(cpus=1)
    cluster.inputs(client, 8)
    leaves = [m.Leaf(0, 0, 4, 1), m.Leaf(0, 4, 4, 1)]
    assert cluster.heard() == [assign(node, 1, m.Span(0, 0, 8), leaves=leaves)]
    first = outcomes(ident(1), [m.Run(0, 1, m.Kind.ERROR, 1)])
    cluster.say(node.peer, first, [b"e"])
    assert cluster.heard() == [forwarded(client, node, first, [b"e"]), acked(node, 1, 1)]
    cluster.inputs(client, 8)
    assert cluster.heard() == []


def test_another_protocol_is_refused_in_one_line() -> None:
    core = Scheduler(ident(1), "1.0", "p")
    hello = client_hello(ident(2), protocol=m.PROTOCOL + 1, version="9.9")
    reason = (
        f"the scheduler is burla 1.0 (protocol {m.PROTOCOL}), you are burla 9.9 (protocol"
        f" {m.PROTOCOL + 1}): an administrator upgrades the cluster with `burla up` of a newer"
        " burla, or you `pip install burla==1.0`"
    )
    assert core.receive(b"c", hello, [], 0.0) == [Send(b"c", m.Refused(reason))]


def test_who_is_not_known_is_asked_to_say_hello() -> None:
    core = Scheduler(ident(1), "1.0", "p")
    assert core.receive(b"x", m.Heartbeat(), [], 0.0) == [Send(b"x", m.HelloRequired())]


def test_output_is_published_and_a_replay_goes_to_the_client_alone() -> None:
    cluster, node, client = serving()
    said = m.Output(ident(1), 1, (1,))
    shown = m.JobOutput(client.job, ident(1), 1, (1,))
    cluster.say(node.peer, said, [b"hi\n"])
    assert cluster.heard() == [Publish(client.job, shown, [b"hi\n"])]
    replay = m.Output(ident(1), 1, (1,), replay=True)
    cluster.say(node.peer, replay, [b"hi\n"])
    assert cluster.heard() == [Send(client.peer, shown, [b"hi\n"])]


@pytest.mark.parametrize("at", [1, 5])
def test_a_batch_that_does_not_follow_is_ignored(at: int) -> None:
    cluster, _, client = serving()
    leaf = m.Leaf(0, at, 1, 1)
    cluster.say(client.peer, m.Inputs(job=client.job, batch=0, start=at, leaves=(leaf,)), [b"x"])
    why = f"ignored Inputs: batch 0 starts at {at}, not 0"
    assert cluster.heard() == [Note(why, client.peer)]


def test_which_calls_last_is_told_to_the_client_of_the_lease_alone() -> None:
    cluster, node, client = serving()
    other = cluster.node()
    cluster.inputs(client, 4)
    lease = node.active()
    assert lease is not None
    calls = (m.LongCall(0, 1, 12.5),)
    cluster.heard()
    cluster.say(other.peer, m.Running(lease, calls, 0.0))
    cluster.say(node.peer, m.Running(ident(99), calls, 0.0))
    assert cluster.heard() == []
    cluster.say(node.peer, m.Running(lease, calls, 0.0))
    assert cluster.heard() == [to(client, m.JobRunning(client.job, lease, node.name, calls, 0.0))]
    said = {"calls": [[0, 1, 12.5]], "loading_s": 0.0}
    assert [each["running"] for each in shown_leases(cluster)] == [said, None]
    cluster.say(node.peer, m.Running(lease, (), 0.0))
    assert cluster.heard() == [to(client, m.JobRunning(client.job, lease, node.name, (), 0.0))]
    assert [each["running"] for each in shown_leases(cluster)] == [None, None]


def shown_leases(cluster: ModelCluster) -> list[dict[str, Any]]:
    """Return the leases as operators see them."""
    leases: Any = cluster.core.snapshot(cluster.now_s)["leases"]
    return list(leases)


def test_a_client_that_is_away_is_not_told_which_calls_last() -> None:
    cluster, node, client = serving()
    cluster.inputs(client, 4)
    lease = node.active()
    assert lease is not None
    cluster.fall_silent(client)
    wait(cluster, 40)
    cluster.heard()
    cluster.say(node.peer, m.Running(lease, (m.LongCall(0, 1, 40.0),), 0.0))
    assert cluster.heard() == []
