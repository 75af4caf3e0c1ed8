"""Big inputs at the scheduler: passed on in turn, kept nowhere, and whole to who cannot ask."""

from typing import Any

from cluster_model import ModelClient, ModelCluster, ModelNode, ident
from expected import to
from opening import node_hello

from burla.protocol import messages as m
from burla.protocol.fields import POLICIES
from burla.protocol.input_messages import INPUT_WINDOW, INPUTS
from burla.scheduler.core.big_inputs import WHOLE_AGAIN_S
from burla.scheduler.core.effects import Effect, Note, Send
from burla.scheduler.core.input_table import LOST_S, STALLED_S

MIB = 1 << 20
SIZE = 100 * MIB
PIECE = bytes(MIB)


class BigCluster(ModelCluster):
    """A cluster in which some nodes ask for what is big."""

    def asking(self, *, is_old: bool = False) -> ModelNode:
        number = self._number()
        node = ModelNode(ident(number), b"n%d" % number, f"n{number}", 2)
        self.nodes[node.peer] = node
        self.hello(node, is_old=is_old)
        return node

    def hello(self, node: ModelNode, *, is_old: bool = False) -> None:
        said = node.hello()
        features = (POLICIES,) if is_old else (POLICIES, INPUTS)
        more = {name: getattr(said, name) for name in ("name", "cpus", "ram", "held")}
        self.say(node.peer, node_hello(node.id, **more, features=features))

    def big(self, client: ModelClient, *sizes: int) -> None:
        """Let a client hand in a batch of big inputs."""
        client.batches.append((client.entered, client.entered + len(sizes)))
        self.say(client.peer, announced(client, client.entered, *sizes))
        client.entered += len(sizes)

    def ask(self, node: ModelNode, client: ModelClient, leaf: int, *part: int, lease: int) -> None:
        have, start, stop = part
        self.say(node.peer, wanted(client, leaf, have, start, stop, lease))


def announced(client: ModelClient, start: int, *sizes: int) -> m.Inputs:
    number = len(client.batches) - 1
    leaves = tuple(m.Leaf(number, start + at, 1, 0, size) for at, size in enumerate(sizes))
    return m.Inputs(job=client.job, batch=number, start=start, leaves=leaves)


def wanted(
    client: ModelClient, leaf: int, have: int, start: int, stop: int, lease: int, batch: int = 0
) -> m.InputWanted:
    return m.InputWanted(ident(lease), client.job, batch, leaf, have, start, stop)


def piece(client: ModelClient, leaf: int, start: int, lease: int = 1) -> m.InputPiece:
    return m.InputPiece(ident(lease), client.job, leaf, start)


def said(effects: list[Effect], peer: bytes) -> list[Any]:
    """Return what was said to a peer, but for what is always said."""
    usual = (m.Welcome, m.StartLease, m.JobStatus, m.Heartbeat)
    sent = [e.message for e in effects if isinstance(e, Send) and e.peer == peer]
    return [message for message in sent if not isinstance(message, usual)]


def serving(*sizes: int) -> tuple[BigCluster, ModelNode, ModelClient]:
    cluster = BigCluster()
    node, client = cluster.asking(), cluster.client()
    cluster.big(client, *(sizes or (SIZE,)))
    return cluster, node, client


def test_a_big_input_goes_from_its_client_to_the_node_that_asks_for_it() -> None:
    cluster, node, client = serving()
    (assigned,) = said(cluster.heard(), node.peer)
    assert assigned.leaves == (m.Leaf(0, 0, 1, 0, SIZE),)
    cluster.ask(node, client, 0, 0, 0, 2 * MIB, lease=1)
    assert cluster.heard() == [to(client, wanted(client, 0, 0, 0, 2 * MIB, 1))]
    for start in (0, MIB):
        cluster.say(client.peer, piece(client, 0, start), [PIECE])
        assert cluster.heard() == [Send(node.peer, piece(client, 0, start), [PIECE])]
    cluster.say(client.peer, piece(client, 0, 2 * MIB), [PIECE])  # nobody asked for that
    assert cluster.heard() == []
    cluster.ask(node, client, 0, 2 * MIB, 2 * MIB, 3 * MIB, lease=1)
    assert cluster.heard() == [to(client, wanted(client, 0, 2 * MIB, 2 * MIB, 3 * MIB, 1))]


def test_so_much_is_under_way_and_then_each_waits_for_its_turn() -> None:
    cluster = BigCluster()
    cluster.core.state.inputs.bytes_max = 3 * MIB
    nodes = [cluster.asking() for _ in range(3)]
    clients = [cluster.client() for _ in nodes]
    for client in clients:
        cluster.big(client, SIZE)
    cluster.heard()
    for number, (node, client) in enumerate(zip(nodes, clients, strict=True), 1):
        cluster.ask(node, client, 0, 0, 0, 2 * MIB, lease=number)
    assert [bool(said(cluster.effects, client.peer)) for client in clients] == [True, False, False]
    first, second, third = clients
    for start in (0, MIB):
        cluster.say(first.peer, piece(first, 0, start), [PIECE])
    cluster.heard()
    cluster.ask(nodes[0], first, 0, 2 * MIB, 2 * MIB, 4 * MIB, lease=1)
    assert said(cluster.heard(), second.peer) == [wanted(second, 0, 0, 0, 2 * MIB, 2)]
    for _ in range(round(STALLED_S / 0.25) + 1):
        cluster.later(0.25)  # the second sends nothing, and holds up nobody
    effects = cluster.heard()
    assert said(effects, third.peer) == [wanted(third, 0, 0, 0, 2 * MIB, 3)]


def test_a_slow_client_leaves_room_for_another_however_many_nodes_ask_it() -> None:
    cluster = BigCluster()
    cluster.core.state.inputs.bytes_max = 8 * MIB
    slow = cluster.client()
    cluster.big(slow, *[SIZE] * 6)
    nodes = [cluster.asking() for _ in range(2)]
    cluster.heard()
    for lease, node in enumerate(nodes, 1):
        cluster.ask(node, slow, lease - 1, 0, 0, 4 * MIB, lease=lease)
    assert said(cluster.heard(), slow.peer) == [wanted(slow, 0, 0, 0, 4 * MIB, 1)]
    fast = cluster.client()
    cluster.big(fast, SIZE)
    cluster.ask(cluster.asking(), fast, 0, 0, 0, 4 * MIB, lease=3)
    assert said(cluster.heard(), fast.peer) == [wanted(fast, 0, 0, 0, 4 * MIB, 3)]


def test_what_is_asked_for_again_keeps_its_turn_and_is_not_sent_twice() -> None:
    cluster = BigCluster()
    cluster.core.state.inputs.bytes_max = 6 * MIB
    slow = cluster.client()
    cluster.big(slow, *[SIZE] * 6)
    nodes = [cluster.asking() for _ in range(2)]
    cluster.heard()
    for lease, node in enumerate(nodes, 1):
        cluster.ask(node, slow, lease - 1, 0, 0, 3 * MIB, lease=lease)
    asked = said(cluster.heard(), slow.peer)
    assert asked == [wanted(slow, 0, 0, 0, 3 * MIB, 1)]
    for _ in range(2):  # one piece in most of the time in which a node waits for its own
        cluster.later(LOST_S - 1)
        cluster.ask(nodes[0], slow, 0, 0, 0, 3 * MIB, lease=1)
        cluster.ask(nodes[1], slow, 1, 0, 0, 3 * MIB, lease=2)
        start = cluster.core.state.inputs.asked[ident(1), 0].at
        cluster.say(slow.peer, piece(slow, 0, start), [PIECE])
        assert said(cluster.heard(), slow.peer) == []
    cluster.say(slow.peer, piece(slow, 0, 2 * MIB), [PIECE])
    cluster.ask(nodes[0], slow, 0, 3 * MIB, 3 * MIB, 3 * MIB, lease=1)
    assert said(cluster.heard(), slow.peer) == [wanted(slow, 1, 0, 0, 3 * MIB, 2)]
    cluster.later(LOST_S)  # the client sends nothing at all
    cluster.ask(nodes[1], slow, 1, 0, 0, 3 * MIB, lease=2)
    assert said(cluster.heard(), slow.peer) == [wanted(slow, 1, 0, 0, 3 * MIB, 2)]


def test_who_asks_again_and_wants_more_is_asked_for_the_rest() -> None:
    cluster, node, client = serving()
    cluster.ask(node, client, 0, 0, 0, 2 * MIB, lease=1)
    cluster.core.state.inputs.bytes_max = 3 * MIB
    cluster.ask(node, client, 0, 0, 2 * MIB, 4 * MIB, lease=1)  # it waits
    cluster.ask(node, client, 0, 0, 0, 4 * MIB, lease=1)
    cluster.heard()
    cluster.core.state.inputs.bytes_max = 12 * MIB
    cluster.later(0.25)
    assert said(cluster.heard(), client.peer) == [wanted(client, 0, 0, 2 * MIB, 4 * MIB, 1)]


def test_what_a_node_asks_before_the_inputs_have_come_is_not_forgotten() -> None:
    cluster = BigCluster()
    client, node = cluster.client(), cluster.asking()  # both are back after a restart
    cluster.big(client, SIZE)
    asked = wanted(client, 1, 0, 0, 2 * MIB, 1, batch=1)
    cluster.say(node.peer, asked)
    assert said(cluster.heard(), client.peer) == []
    cluster.big(client, SIZE)
    assert said(cluster.heard(), client.peer) == [asked]
    assert not cluster.core.state.inputs.early
    cluster.say(node.peer, wanted(client, 2, 0, 0, 2 * MIB, 1, batch=2))
    cluster.say(client.peer, m.CloseJob(client.job))
    assert not cluster.core.state.inputs.early
    assert not cluster.core.state.inputs.lines


def test_a_client_that_comes_back_is_asked_from_the_missing_piece() -> None:
    cluster, node, client = serving()
    cluster.ask(node, client, 0, 0, 0, 4 * MIB, lease=1)
    cluster.say(client.peer, piece(client, 0, 0), [PIECE])
    cluster.heard()
    del cluster.clients[client.peer]
    client.peer = b"again"
    cluster.clients[client.peer] = client
    cluster.say(client.peer, client.hello())
    cluster.say(client.peer, client.open(resumed=True), [b"function"])
    again = wanted(client, 0, 0, MIB, 4 * MIB, 1)
    assert said(cluster.heard(), client.peer) == [again]


def test_a_node_that_comes_back_asks_anew() -> None:
    cluster, node, client = serving()
    cluster.ask(node, client, 0, 0, 0, 4 * MIB, lease=1)
    cluster.say(client.peer, piece(client, 0, 0), [PIECE])
    cluster.hello(node)
    cluster.heard()
    cluster.say(client.peer, piece(client, 0, MIB), [PIECE])  # it was on its way, and is lost
    assert cluster.heard() == []
    cluster.ask(node, client, 0, MIB, MIB, 4 * MIB, lease=1)
    assert cluster.heard() == [to(client, wanted(client, 0, MIB, MIB, 4 * MIB, 1))]


def test_an_input_of_a_node_that_is_lost_is_had_again_by_another() -> None:
    cluster, node, client = serving()
    cluster.ask(node, client, 0, 0, 0, 4 * MIB, lease=1)
    other = cluster.asking()
    cluster.heard()
    node.alive = False
    cluster.unreachable(node.peer)
    for _ in range(8):
        cluster.later(0.25)
    (assigned,) = said(cluster.heard(), other.peer)
    assert assigned.leaves == (m.Leaf(0, 0, 1, 0, SIZE),)
    cluster.ask(other, client, 0, 0, 0, MIB, lease=2)
    assert said(cluster.heard(), client.peer) == [wanted(client, 0, 0, 0, MIB, 2)]
    cluster.say(client.peer, piece(client, 0, 0, lease=1), [PIECE])
    assert cluster.heard() == []


def test_nothing_is_asked_any_more_of_a_job_that_is_closed() -> None:
    cluster, node, client = serving()
    cluster.ask(node, client, 0, 0, 0, 4 * MIB, lease=1)
    cluster.say(client.peer, m.CloseJob(client.job))
    cluster.heard()
    assert not cluster.core.state.inputs.asked
    cluster.say(client.peer, piece(client, 0, 0), [PIECE])
    cluster.ask(node, client, 0, 0, 0, 4 * MIB, lease=1)
    assert cluster.heard() == []


def test_nobody_asks_for_too_much_or_of_anothers() -> None:
    cluster, node, client = serving()
    stranger, other = cluster.client(), cluster.asking()
    cluster.heard()
    parts = ((0, 0, INPUT_WINDOW + 1), (0, SIZE, SIZE + 1), (2, 1, 3), (0, 3, 2))
    for part in parts:
        cluster.ask(node, client, 0, *part, lease=1)
    assert [type(effect) for effect in cluster.heard()] == [Note] * len(parts)
    cluster.ask(other, client, 0, 0, 0, MIB, lease=1)
    assert cluster.heard() == []
    cluster.ask(node, client, 0, 0, 0, MIB, lease=1)
    cluster.heard()
    cluster.say(stranger.peer, piece(client, 0, 0), [PIECE])
    mine = m.InputPiece(ident(1), stranger.job, 0, 0)
    cluster.say(stranger.peer, mine, [PIECE])
    assert [e for e in cluster.heard() if isinstance(e, Send)] == []


def test_a_leaf_has_frames_or_a_size() -> None:
    cluster = BigCluster()
    client = cluster.client()
    cluster.heard()
    for leaf in (m.Leaf(0, 0, 1, 0, 0), m.Leaf(0, 0, 1, 1, 5), m.Leaf(0, 0, 1, 0, 1 << 40)):
        message = m.Inputs(job=client.job, batch=0, start=0, leaves=(leaf,))
        cluster.say(client.peer, message, [b"x"] * leaf.frames)
    assert [type(effect) for effect in cluster.heard()] == [Note] * 3


def test_sizes_count_for_the_quota_of_bytes() -> None:
    cluster, _, client = serving()
    (usage,) = cluster.core.state.usages.values()
    assert usage.bytes_held >= SIZE
    cluster.say(client.peer, m.CloseJob(client.job))
    assert usage.bytes_held == 0


def whole(client: ModelClient) -> tuple[m.Inputs, list[bytes]]:
    leaf = m.Leaf(0, 0, 1, 2)
    message = m.Inputs(job=client.job, batch=0, start=0, leaves=(leaf,))
    return message, [b"all", b"of it"]


def test_a_node_that_cannot_ask_gets_the_batch_whole() -> None:
    cluster = BigCluster()
    node, client = cluster.asking(is_old=True), cluster.client()
    cluster.big(client, SIZE)
    effects = cluster.heard()
    assert said(effects, client.peer) == [m.BatchWanted(client.job, 0)]
    assert said(effects, node.peer) == []
    for _ in range(round(WHOLE_AGAIN_S / 0.25)):
        cluster.later(0.25)
    assert said(cluster.heard(), client.peer) == [m.BatchWanted(client.job, 0)]
    message, payload = whole(client)
    cluster.say(client.peer, message, payload)
    (assigned,) = said(cluster.heard(), node.peer)
    assert assigned.leaves == message.leaves
    cluster.say(client.peer, message, payload)
    assert cluster.heard() == []
    cluster.run(node, 1)
    cluster.end(client)
    cluster.heard()
    assert client.have.total == 1


def test_other_nodes_do_not_wait_for_what_is_whole() -> None:
    cluster = BigCluster()
    old, client = cluster.asking(is_old=True), cluster.client()
    cluster.big(client, SIZE, SIZE)
    cluster.heard()
    new = cluster.asking()
    effects = cluster.heard()
    assert [type(message) for message in said(effects, new.peer)] == [m.Assign]
    assert said(effects, old.peer) == []
