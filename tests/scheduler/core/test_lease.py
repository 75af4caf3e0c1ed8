"""The states of a lease: where each leads, and that no word of a peer makes it go elsewhere."""

from itertools import product

import pytest
from cluster_model import ModelCluster, ModelNode, ident
from expected import joined, retract, start
from opening import node_hello

from burla.protocol import messages as m
from burla.scheduler.core import leases
from burla.scheduler.core.effects import Send
from burla.scheduler.core.lease import (
    TRANSITIONS,
    TRANSITIONS_KEPT,
    Lease,
    LeaseState,
    WrongTransition,
)
from burla.scheduler.core.reconcile import ORPHAN_S
from burla.scheduler.core.scheduler import Scheduler
from burla.scheduler.core.state import GONE_KEPT
from burla.scheduler.core.warm_leases import WARM_S

S = LeaseState
PAIRS = list(product(LeaseState, LeaseState))


def lease_in(state: LeaseState) -> Lease:
    return Lease(ident(1), ident(2), ident(3), 1, 0.0, state)


@pytest.mark.parametrize(("before", "after"), [p for p in PAIRS if p[1] not in TRANSITIONS[p[0]]])
def test_a_wrong_transition_raises_by_name_and_changes_nothing(
    before: LeaseState, after: LeaseState
) -> None:
    lease = lease_in(before)
    with pytest.raises(WrongTransition) as raised:
        lease.move(after, 1.0)
    assert str(raised.value) == f"lease {lease.id.hex()} cannot go from {before} to {after}"
    assert (lease.state, lease.history) == (before, [(0.0, before)])


@pytest.mark.parametrize(("before", "after"), [p for p in PAIRS if p[1] in TRANSITIONS[p[0]]])
def test_a_transition_of_the_table_is_remembered(before: LeaseState, after: LeaseState) -> None:
    lease = lease_in(before)
    lease.move(after, 1.0)
    assert (lease.state, lease.history) == (after, [(0.0, before), (1.0, after)])


def test_every_state_is_in_the_table_and_leads_to_the_end() -> None:
    assert set(TRANSITIONS) == set(LeaseState)
    for state in LeaseState:
        assert state is S.GONE or S.GONE in TRANSITIONS[state]


def test_only_the_last_transitions_are_kept() -> None:
    lease = lease_in(S.STOPPING)
    for at in range(TRANSITIONS_KEPT):
        lease.move(S.PAST, at)
        lease.move(S.STOPPING, at)
    assert len(lease.history) == TRANSITIONS_KEPT
    assert lease.history[-1] == (TRANSITIONS_KEPT - 1, S.STOPPING)


def story(cluster: ModelCluster, lease_id: bytes) -> list[LeaseState]:
    """Return the states that a lease has gone through, whether it is still there or not."""
    if (lease := cluster.core.state.leases.get(lease_id)) is not None:
        return [state for _, state in lease.history]
    (gone,) = [gone for gone in cluster.core.state.gone if gone.id == lease_id]
    return [state for _, state in gone.history]


def served() -> tuple[ModelCluster, ModelNode, bytes]:
    """Return a cluster whose only node serves a job of four inputs, and the lease."""
    cluster = ModelCluster()
    node = cluster.node()
    client = cluster.client()
    cluster.inputs(client, 4)
    cluster.end(client)
    lease = node.active()
    assert lease is not None
    return cluster, node, lease


def close(cluster: ModelCluster) -> None:
    (client,) = cluster.clients.values()
    cluster.say(client.peer, m.CloseJob(client.job))


def test_the_story_of_a_job_that_is_cancelled() -> None:
    cluster, node, lease = served()
    close(cluster)
    cluster.stop(node)
    assert story(cluster, lease) == [S.ACTIVE, S.STOPPING, S.GONE]


def test_the_story_of_workers_that_wait_in_vain() -> None:
    cluster, node, lease = served()
    cluster.run(node, 4)
    cluster.later(WARM_S)
    cluster.stop(node)
    assert story(cluster, lease) == [S.ACTIVE, S.WARM, S.STOPPING, S.PAST]
    close(cluster)
    cluster.later(1.0)
    assert story(cluster, lease)[-1] is S.GONE


def test_the_story_of_a_lease_that_is_drained() -> None:
    cluster, node, lease = served()
    cluster.say(node.peer, m.Drain())
    cluster.say(node.peer, m.Drain())  # said again after each Welcome
    cluster.answer_retracts(node, begun=1)
    cluster.run(node, 1)
    cluster.stop(node)
    assert story(cluster, lease) == [S.ACTIVE, S.DRAINING, S.STOPPING, S.PAST]
    assert node.released


def test_the_story_of_a_node_that_is_lost() -> None:
    cluster, node, lease = served()
    node.alive = False
    for _ in range(8):
        cluster.later(0.25)
    assert story(cluster, lease) == [S.ACTIVE, S.GONE]


def test_the_story_of_a_lease_that_a_new_scheduler_takes_up() -> None:
    cluster, node, lease = served()
    (client,) = cluster.clients.values()
    cluster.core = Scheduler(ident(2)[::-1], "0", "inproc://pub")
    cluster.reconnect_node(node)
    assert story(cluster, lease) == [S.ORPHAN]
    cluster.reconnect_client(client)
    assert story(cluster, lease) == [S.ORPHAN, S.ACTIVE]
    cluster.core.check()


def test_an_orphan_whose_client_does_not_come_is_ended() -> None:
    cluster, node, lease = served()
    cluster.core = Scheduler(ident(2)[::-1], "0", "inproc://pub")
    cluster.clients.clear()
    cluster.reconnect_node(node)
    for _ in range(int(ORPHAN_S) + 1):
        cluster.later(1.0)
    assert node.ended == [lease]
    cluster.stop(node)
    assert story(cluster, lease) == [S.ORPHAN, S.STOPPING, S.GONE]
    cluster.core.check()


@pytest.mark.parametrize("state", [S.ACTIVE, S.WARM, S.STOPPING])
def test_late_words_about_a_lease_change_nothing(state: LeaseState) -> None:
    cluster, node, lease = served()
    if state is S.WARM:
        cluster.run(node, 4)
    elif state is S.STOPPING:
        close(cluster)
    stranger = cluster.node()
    said: list[tuple[bytes, m.Message]] = [
        (stranger.peer, m.Stopped(lease)),
        (stranger.peer, m.Retracted(lease, (m.Span(0, 0, 4),))),
    ]
    if state is S.ACTIVE:
        said.append((node.peer, m.Stopped(lease)))  # it was never told to
    else:
        said.append((node.peer, m.Retracted(lease, (m.Span(0, 0, 4),))))
    for peer, message in said:
        assert cluster.core.receive(peer, message, [], 0.0) == []
        cluster.core.check()
        assert story(cluster, lease)[-1] is state


def test_a_lease_is_held_by_one_node_whatever_others_say() -> None:
    cluster, node, lease = served()
    (client,) = cluster.clients.values()
    claim = m.Held(lease, client.job, 2, (), stopped=False)
    liar = node_hello(ident(99), name="liar", held=(claim,) * 2)
    effects = cluster.core.receive(b"liar", liar, [], 0.0)
    as_node = ModelNode(ident(99), b"liar", "liar")
    assert effects == [
        *joined(as_node),
        Send(b"liar", m.EndLease(lease, discard=True)),
        start(as_node, client, 2),  # a free node all the same, under another lease
        retract(node, 1, 1),
    ]
    assert story(cluster, lease) == [S.ACTIVE]
    cluster.core.check()


def test_a_lease_that_a_nodelet_made_up_keeps_no_job_from_getting_one() -> None:
    """It may be named as the scheduler's next one; then that is named otherwise."""
    core = Scheduler(ident(1), "0", "inproc://pub")
    cluster = ModelCluster()
    cluster.core = core
    made_up = ident(1)[:8] + (1).to_bytes(8, "big")
    claim = m.Held(made_up, ident(50), 2, (), stopped=False)
    liar = node_hello(ident(99), name="liar", held=(claim,))
    core.receive(b"liar", liar, [], 0.0)
    assert story(cluster, made_up) == [S.STOPPING]
    node = cluster.node()
    cluster.client()
    assert node.active() == ident(1)[:8] + (2).to_bytes(8, "big")
    core.check()


def test_so_many_leases_are_remembered_after_their_end() -> None:
    cluster, node, first = served()
    state = cluster.core.state
    for number in range(GONE_KEPT + 1):
        lease = Lease(ident(5000 + number), node.id, ident(3), 1, 0.0, S.STOPPING, wanted=False)
        leases.enter(state, lease)
        leases.move(state, lease, S.GONE)
    assert len(state.gone) == GONE_KEPT
    assert state.gone[0].id == ident(5001)
    assert first in state.leases
