"""Rows of the security table: who can see what others print."""

import os
from pathlib import Path

import zmq
from stage import Peer, Stage, stage
from waiting import LATE_S, wait_until

from burla.protocol import messages as m
from burla.scheduler.shell import channel
from burla.transport.keys import KeyPair

LATE_MS = int(LATE_S * 1000)
FLOOD = 150_000  # topics, all different
FLOOD_BYTES_MAX = 64 << 20  # what the scheduler may grow by meanwhile


def job_that_prints(client: Peer, node: Peer, topic: bytes) -> bytes:
    """Open a job on the node; return its lease."""
    client.open(os.urandom(16), topic)
    return node.hear(m.StartLease)[0].lease


def followed(at: Stage, client: Peer, pair: KeyPair, topic: bytes) -> zmq.Socket[bytes]:
    socket = at.subscriber(pair, client.publisher)
    socket.setsockopt(zmq.SUBSCRIBE, topic)
    return socket


def wait_published(node: Peer, lease: bytes, socket: zmq.Socket[bytes], text: bytes) -> bytes:
    """Print until it is heard on `socket`; return the topic."""

    def is_heard() -> bool:
        node.say(m.Output(lease, 1, (1,)), [text])
        return bool(socket.poll(50))

    wait_until(is_heard, "output is published")
    topic, _, chunk = socket.recv_multipart()
    assert chunk == text
    return topic


def foreign_topics(directory: Path) -> None:
    with stage(directory) as at:
        anna, anna_pair = at.client("anna")
        bert, bert_pair = at.client("bert")
        node, other = at.node(), at.node()
        topic, own = os.urandom(16), os.urandom(16)
        socket = followed(at, anna, anna_pair, topic)
        lease = job_that_prints(anna, node, topic)
        assert wait_published(node, lease, socket, b"anna's\n") == topic
        spies = [
            followed(at, bert, bert_pair, what)
            for what in (b"", topic[:1], topic[:15], topic, topic + b"x", topic * 2)
        ]
        for spy in spies:
            spy.setsockopt(zmq.SUBSCRIBE, own)  # granted: tells that what was asked before is done
        own_lease = job_that_prints(bert, other, own)
        for spy in spies:  # whoever hears this was asked for everything before, and got an answer
            assert wait_published(other, own_lease, spy, b"bert's\n") == own
        for _ in range(20):
            node.say(m.Output(lease, 1, (1,)), [b"anna's\n"])
        assert socket.poll(LATE_MS)
        for spy in spies:
            assert wait_published(other, own_lease, spy, b"bert's\n") == own
            while spy.poll(0):
                assert spy.recv_multipart()[0] == own


def shifted_grants(directory: Path) -> None:
    """libzmq grants to the next in its list, which a message that is no subscription shifts."""
    with stage(directory) as at:
        anna, anna_pair = at.client("anna")
        _, bert_pair = at.client("bert")
        node = at.node()
        spies = [at.subscriber(bert_pair, anna.publisher, zmq.XSUB) for _ in range(4)]
        topic = os.urandom(16)
        for _ in range(50):
            for spy in spies:
                if spy.poll(50, zmq.POLLOUT):
                    spy.send(b"\x02shift", zmq.DONTWAIT)
                    spy.send(b"\x01" + os.urandom(16), zmq.DONTWAIT)
        socket = followed(at, anna, anna_pair, topic)
        for spy in spies:
            if spy.poll(0, zmq.POLLOUT):
                spy.send(b"\x01" + os.urandom(16), zmq.DONTWAIT)
        lease = job_that_prints(anna, node, topic)
        heard: list[tuple[m.JobOutput, list[bytes]]] = []

        def all_arrives() -> bool:  # over the channel, or directly
            node.say(m.Output(lease, 1, (1,)), [b"anna's\n"])
            anna.socket.poll(10)
            heard.extend(anna.heard(m.JobOutput))
            return bool(socket.poll(50)) and bool(heard)

        wait_until(all_arrives, "she hears it, and follows again after the socket was made anew")
        for spy in spies:
            assert not spy.poll(0), "somebody else's output"
        log = (directory / "scheduler.log").read_text()
        assert "sends messages where only subscriptions belong" in log


def topic_flood(directory: Path) -> None:
    with stage(directory) as at:
        anna, anna_pair = at.client("anna")
        bert, bert_pair = at.client("bert")
        node = at.node()
        topic = os.urandom(16)
        socket = followed(at, anna, anna_pair, topic)
        lease = job_that_prints(anna, node, topic)
        wait_published(node, lease, socket, b"before\n")
        before = at.usage().memory_info().rss
        flood = at.subscriber(bert_pair, bert.publisher, zmq.XSUB)
        for number in range(FLOOD):
            flood.send(b"\1" + os.urandom(16 if number % 8 else 900))
            if not number % 200:
                anna.fence()  # others are served meanwhile
        log = directory / "scheduler.log"
        wait_until(lambda: "asks for too many topics" in log.read_text(), "it is shut out")
        while socket.poll(0):
            socket.recv_multipart()
        wait_published(node, lease, socket, b"after\n")
        grown = at.usage().memory_info().rss - before
        assert grown < FLOOD_BYTES_MAX, f"{grown >> 20} MiB"
        assert channel.REFUSALS_MAX < FLOOD
