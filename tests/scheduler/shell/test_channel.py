"""Who is granted which topic, and what happens to those who knock everywhere."""

import os
import select
from collections.abc import Callable
from tempfile import TemporaryDirectory

import pytest
import zmq

from burla.scheduler.shell import channel
from burla.scheduler.shell.channel import Channel

ANNA, BERT = "a" * 64, "b" * 64


class Following:
    """A channel without keys, and what it is told its followers' keys are."""

    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.channel = Channel(self.context, None, lambda: 0.0)
        self.place = TemporaryDirectory(prefix="b", dir="/tmp")  # short: a socket lies in it
        self.endpoint = self.channel.bind(f"ipc://{self.place.name}/s", ipv6=True)
        self.sockets: list[zmq.Socket[bytes]] = []

    def knock(self, user: str, *said: bytes) -> zmq.Socket[bytes]:
        """Let one connection of a key say something, and the channel take it."""
        socket = self.context.socket(zmq.XSUB)
        with socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED) as monitor:
            socket.connect(self.endpoint)
            assert monitor.poll(20_000)
            socket.disable_monitor()
        self.sockets.append(socket)
        for word in said:
            self.say(socket, user, word)
        return socket

    def say(self, socket: zmq.Socket[bytes], user: str, word: bytes) -> None:
        socket.send(word)
        assert self.channel.socket.poll(20_000)
        for frame in iter(self._received, None):
            self.channel._take(user, [frame])
        self.channel.serve()

    def _received(self) -> bytes | None:
        try:
            return self.channel.socket.recv(zmq.DONTWAIT)
        except zmq.Again:
            return None

    def close(self) -> None:
        for socket in self.sockets:
            socket.close(0)
        self.channel.close()
        self.context.term()
        self.place.cleanup()


def play(scene: Callable[[Following], None]) -> None:
    following = Following()
    try:
        scene(following)
    finally:
        following.close()


def heard(socket: zmq.Socket[bytes]) -> list[bytes]:
    return socket.recv_multipart() if socket.poll(200) else []


def test_a_topic_goes_to_the_first_key_that_names_it() -> None:
    def scene(at: Following) -> None:
        topic = os.urandom(16)
        anna = at.knock(ANNA, b"\1" + topic)
        bert = at.knock(BERT, b"\1" + topic)
        second = at.knock(ANNA, b"\1" + topic)  # as when she has reconnected
        assert not at.channel.publish(BERT, [topic, b"his"])  # his jobs don't go by her topic
        assert at.channel.publish(ANNA, [topic, b"hers"])
        assert heard(anna) == heard(second) == [topic, b"hers"]
        assert heard(bert) == []

    play(scene)


@pytest.mark.parametrize("size", [0, 1, 15, 17, 100])
def test_nothing_but_a_whole_topic_is_granted(size: int) -> None:
    def scene(at: Following) -> None:
        socket = at.knock(ANNA, b"\1" + bytes(size))
        assert not at.channel.publish(ANNA, [bytes(16), b"x"])
        at.say(socket, ANNA, b"\1" + bytes(16))
        assert at.channel.publish(ANNA, [bytes(16), b"x"])

    play(scene)


def test_a_topic_that_nobody_follows_any_more_is_not_published() -> None:
    def scene(at: Following) -> None:
        socket = at.knock(ANNA, b"\1" + bytes(16), b"\0" + bytes(16))
        assert not at.channel.publish(ANNA, [bytes(16), b"x"])
        at.say(socket, ANNA, b"\1" + bytes(16))
        assert at.channel.publish(ANNA, [bytes(16), b"x"])

    play(scene)


def test_a_subscription_that_comes_while_something_is_published_is_heard_of() -> None:
    def scene(at: Following) -> None:
        topic, told = os.urandom(16), []
        anna = at.knock(ANNA, b"\1" + topic)
        at.channel._on_readable = lambda: told.append(True)
        anna.send(b"\1" + os.urandom(16))
        descriptor = at.channel.socket.FD
        assert select.select([descriptor], [], [], 20)[0]
        while select.select([descriptor], [], [], 0)[0]:  # until a send has eaten the edge
            assert at.channel.publish(ANNA, [topic, b"x"])
        at.channel._on_readable = None  # there is no loop to forget it
        assert told

    play(scene)


def test_others_cannot_free_a_topic_for_themselves() -> None:
    def scene(at: Following) -> None:
        topic = bytes(16)
        anna = at.knock(ANNA, b"\1" + topic)
        bert = at.knock(BERT, b"\1" + topic)
        at.say(bert, BERT, b"\0" + topic)
        at.channel._take(BERT, [b"\0" + topic])  # however often he takes it back
        at.say(bert, BERT, b"\1" + topic)
        assert at.channel.publish(ANNA, [topic, b"hers"])
        assert heard(anna) == [topic, b"hers"]
        assert heard(bert) == []

    play(scene)


def test_topics_are_limited_per_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "TOPICS_MAX", 3)
    topics = [bytes([number]) * 16 for number in range(5)]

    def scene(at: Following) -> None:
        socket = at.knock(ANNA, *(b"\1" + topic for topic in topics))
        published = [at.channel.publish(ANNA, [topic, b"x"]) for topic in topics]
        assert published == [True] * 3 + [False] * 2
        at.say(socket, ANNA, b"\0" + topics[0])
        at.say(socket, ANNA, b"\1" + topics[4])
        assert at.channel.publish(ANNA, [topics[4], b"x"])
        at.knock(BERT, b"\1" + topics[3])  # others have their own
        assert at.channel.publish(BERT, [topics[3], b"x"])

    play(scene)


def test_after_a_message_that_is_no_subscription_nothing_is_granted_until_all_is_read() -> None:
    """Else the grant of one connection goes to another: libzmq counts them apart (4.3.5)."""

    def scene(at: Following) -> None:
        bert, anna = at.knock(BERT), at.knock(ANNA)
        topic = os.urandom(16)
        for socket, word in ((bert, b"\2x"), (anna, b"\1" + topic), (bert, b"\1" + bytes(16))):
            socket.send(word)
            assert at.channel.socket.poll(20_000)  # libzmq reads it from this connection now
        for user in (BERT, ANNA, BERT):
            at.channel._take(user, [at.channel.socket.recv()])
        assert not at.channel.publish(ANNA, [topic, b"hers"])
        at.channel.socket.send_multipart([topic, b"hers"])
        assert heard(bert) == []
        at.channel.serve()
        assert at.channel.is_shut_out(BERT)
        at.say(anna, ANNA, b"\0" + topic)
        at.say(anna, ANNA, b"\1" + topic)
        assert at.channel.publish(ANNA, [topic, b"hers"])
        assert heard(anna) == [topic, b"hers"]

    play(scene)


def test_who_was_shut_out_may_come_back_later() -> None:
    now = [0.0]

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    one = Channel(context, None, lambda: now[0])
    one._offence(ANNA, "tests")
    assert one.is_shut_out(ANNA)
    assert not one.is_shut_out(BERT)
    now[0] = channel.SHUT_OUT_S
    assert not one.is_shut_out(ANNA)
    for number in range(channel.SHUT_OUT_MAX + 10):
        one._offence(f"{number}", "tests")
    assert len(one._shut_out) <= channel.SHUT_OUT_MAX
    one.close()
    context.term()
