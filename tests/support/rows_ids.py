"""Rows of the security table: under which routing ids one may come, and how often."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path

import zmq
from opening import client_hello, open_job
from outcomes import outcomes
from stage import Peer, Stage, stage
from waiting import LATE_S, wait_until

from burla.protocol import messages as m
from burla.scheduler.auth.zap import ADMITTED, ADMITTED_PER_S
from burla.scheduler.core.admission import Role
from burla.transport.keys import KeyPair
from burla.transport.sockets import make_socket

# The first id that libzmq makes up in a process that has never seeded its random numbers.
FIRST_ID = 0x00E43C9869
HELD_IDS = 20  # of the ids at the beginning
TRIED = 12  # times that a thief is given a chance
SETTLE_MS = 50


def assert_turned_away(at: Stage, pair: KeyPair, routing_id: bytes) -> None:
    """Come under an id that is not like one of ours; one is told so and hung up on."""
    peer = Peer(at, pair, routing_id=routing_id)
    before = at.ring.audit().count('"say ClientHello"')
    peer.say(client_hello(os.urandom(16)))
    assert peer.hear(m.Refused)[0].not_authorised
    wait_until(lambda: at.ring.audit().count('"say ClientHello"') > before, "it was written down")
    with suppress(AssertionError):
        peer.socket.disable_monitor()
    wait_until(lambda: not peer.socket.poll(0, zmq.POLLOUT), "it was hung up on")
    peer.dialer.socket.close(0)
    peer.socket.close(0)


def chosen_ids(directory: Path) -> None:
    """Who chooses an id of another form chooses one that libzmq may make up, or that is guessed."""
    with stage(directory) as at:
        pair = at.ring.make(Role.CLIENT, "anna")
        for chosen in (b"anna", b"\1" * 5, bytes(5), b"x", b"y" * 15, b"z" * 17, b"w" * 255):
            assert_turned_away(at, pair, chosen)
        anna = at.peer(pair)
        anna.be_client()
        again = at.peer(pair)
        assert anna.routing_id != again.routing_id


def predicted_ids(directory: Path) -> None:
    """Hold the ids that a process of libzmq begins with, and come without one: it would abort.

    Who holds one says nothing: for a word under such an id it would be hung up on, and the id free.
    """
    with stage(directory) as at:
        pair = at.ring.make(Role.JOIN, "a token is enough")
        anna, _ = at.client("anna")
        for number in range(HELD_IDS):
            held = at.peer(pair, routing_id=(FIRST_ID + number).to_bytes(5, "big"))
            assert held.socket.poll(int(LATE_S * 1000), zmq.POLLOUT)
        anna.fence()  # all of them are known
        for _ in range(HELD_IDS // 4):
            with nameless(at, pair) as socket:
                assert socket.poll(int(LATE_S * 1000), zmq.POLLOUT)
                socket.send(b"")
                anna.fence()


def nameless(at: Stage, pair: KeyPair) -> zmq.Socket[bytes]:
    """Connect without an id, as any program of ZeroMQ does."""
    curve = at.ring.curve(pair)
    socket = make_socket(at.context, zmq.DEALER)
    socket.setsockopt(zmq.CURVE_SERVERKEY, curve.server)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, pair.public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
    socket.connect(at.endpoint)
    return socket


def stolen_routing_id(directory: Path) -> None:
    """Who knows the id of another and comes under it hears nothing, silent or not."""
    with stage(directory) as at:
        pair = at.ring.make(Role.CLIENT, "anna")
        bert = at.ring.make(Role.CLIENT, "bert")
        node = at.node()
        anna = Peer(at, pair)
        anna.be_client()
        job = os.urandom(16)
        anna.open(job, inputs=TRIED)
        lease = node.hear(m.StartLease)[0].lease
        anna.close()
        assert_hears_nothing(at, bert, anna.routing_id, node, lease)

        def is_caught() -> bool:
            thief = Peer(at, bert, routing_id=anna.routing_id)
            thief.say(m.CloseJob(job))
            thief.socket.poll(SETTLE_MS)
            thief.close()
            return "use the connection of another" in at.ring.audit()

        wait_until(is_caught, "the thief has spoken")
        again = at.peer(pair)
        again.be_client(anna.session)
        again.say(open_job(job, resumed=True), [b"function"])
        said = outcomes(lease, [m.Run(0, 1, m.Kind.RESULT, 1)], TRIED + 1)
        node.say(said, [b"result"])
        assert again.hear(m.JobOutcomes)[1] == [b"result"]  # it was never closed
        audit = [json.loads(line) for line in at.ring.audit().splitlines()]
        assert [x for x in audit if x["user"] == "bert" and x["result"] == "ok"] == []


def assert_hears_nothing(
    at: Stage, pair: KeyPair, routing_id: bytes, node: Peer, lease: bytes
) -> None:
    """Connect under an id whose owner has left, again and again, while there is news for it."""
    for number in range(1, TRIED + 1):
        thief = Peer(at, pair, routing_id=routing_id)
        assert thief.socket.poll(int(LATE_S * 1000), zmq.POLLOUT)
        node.say(outcomes(lease, [m.Run(0, 1, m.Kind.RESULT, 1)], number), [b"secret"])
        if thief.socket.poll(SETTLE_MS):
            assert b"secret" not in thief.socket.recv_multipart()
        thief.close()


def stolen_node_id(directory: Path) -> None:
    """Under the id of a node that has left, nobody is sent functions, secrets and inputs."""
    with stage(directory) as at:
        anna, _ = at.client("anna")
        other = at.ring.make(Role.NODE, "other")
        for _ in range(TRIED // 3):
            node = Peer(at, at.ring.make(Role.NODE, "raw"))
            node.be_node()
            node.close()
            thief = Peer(at, other, routing_id=node.routing_id)
            assert thief.socket.poll(int(LATE_S * 1000), zmq.POLLOUT)
            job = os.urandom(16)
            anna.say(open_job(job, secret=b"s" * 32), [b"function"])
            anna.fence()
            while thief.socket.poll(SETTLE_MS):
                assert b"function" not in thief.socket.recv_multipart()
            anna.say(m.CloseJob(job))
            thief.close()


def many_handshakes(directory: Path) -> None:
    """One key comes again and again: after some it waits, and nobody else does."""
    with stage(directory) as at:
        pair = at.ring.make(Role.CLIENT, "anna")
        bert, _ = at.client("bert")
        crowd = [nameless(at, pair) for _ in range(2 * ADMITTED)]
        started_s = time.monotonic()

        def let_in() -> int:
            return sum(bool(one.poll(0, zmq.POLLOUT)) for one in crowd)

        def is_through() -> bool:
            bert.fence()
            return let_in() >= ADMITTED

        wait_until(is_through, "the first were let in")
        found, passed_s = let_in(), time.monotonic() - started_s
        assert found <= ADMITTED + ADMITTED_PER_S * (passed_s + 1.0), (found, passed_s)
        other, _ = at.client("carl")  # another key comes in at once
        other.fence()
        for one in crowd:
            one.close(0)
