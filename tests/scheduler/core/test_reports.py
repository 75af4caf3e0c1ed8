"""Fragments of big outcomes pass through: nothing of them is kept, or counted before the last."""

from cluster_model import ModelCluster, ident
from expected import to
from msgspec.structs import replace
from outcomes import outcomes

from burla.protocol import messages as m
from burla.scheduler.core.effects import Send

SIZE = 3


def amid_a_value() -> tuple[ModelCluster, m.Outcomes, m.Outcomes]:
    """Return a cluster that has passed on a fragment, that, and the next and last one."""
    cluster = ModelCluster()
    node, client = cluster.node(1), cluster.client()
    cluster.inputs(client, 1)
    cluster.end(client)
    (lease,) = node.held
    whole = outcomes(lease, [m.Run(0, 1, m.Kind.RESULT, 1)], seq=2)
    first = replace(whole, seq=1, done=(), runs=b"", fragment=m.Fragment(0, 0, SIZE))
    last = replace(whole, fragment=m.Fragment(0, 2, SIZE))
    cluster.heard()
    cluster.say(node.peer, first, [b"ab"])
    return cluster, first, last


def test_a_fragment_goes_on_as_it_is_and_its_input_is_done_with_the_last() -> None:
    cluster, first, last = amid_a_value()
    (node,), (client,) = cluster.nodes.values(), cluster.clients.values()
    passed = m.JobOutcomes(
        job=client.job,
        lease=first.lease,
        seq=1,
        node=node.name,
        runs=b"",
        output=0,
        fragment=first.fragment,
    )
    ack = m.AckOutcomes(first.lease, 1)
    assert cluster.heard() == [Send(client.peer, passed, [b"ab"]), to(node, ack)]
    assert not cluster.core.state.jobs[client.job].work.done
    cluster.say(node.peer, last, [b"c"])
    assert cluster.core.state.jobs[client.job].work.is_complete()
    cluster.heard()


def test_what_got_lost_amid_a_value_is_asked_for_when_the_client_is_back() -> None:
    cluster, *_ = amid_a_value()
    (node,), (client,) = cluster.nodes.values(), cluster.clients.values()
    cluster.heard()
    cluster.reconnect_client(client)
    assert to(node, m.HelloRequired()) in cluster.heard()


def test_who_had_its_result_under_way_is_not_what_its_node_died_of() -> None:
    cluster, *_ = amid_a_value()
    (node,), (client,) = cluster.nodes.values(), cluster.clients.values()
    node.alive = False
    cluster.unreachable(node.peer)
    for _ in range(4):
        cluster.later(0.25)
    (loss,) = cluster.core.state.jobs[client.job].work.suspects.losses
    assert not loss.held


def test_leases_carry_what_the_client_can_take() -> None:
    cluster = ModelCluster()
    node = cluster.node(1)
    client = cluster.client()
    started = [e.message for e in cluster.heard() if isinstance(e, Send) and e.peer == node.peer]
    assert [(x.fragments, x.blake3) for x in started if isinstance(x, m.StartLease)] == [
        (False, False)
    ]
    spec = replace(client.open(), job=ident(77), fragments=True, blake3=True)
    cluster.say(client.peer, m.CloseJob(client.job))
    cluster.stop(node)
    cluster.say(client.peer, spec, [b"function"])
    started = [e.message for e in cluster.heard() if isinstance(e, Send) and e.peer == node.peer]
    assert [(x.fragments, x.blake3) for x in started if isinstance(x, m.StartLease)] == [
        (True, True)
    ]
