"""The PUB channel: who gets which topic, and what happens to those who ask for too many.

A topic is a job's 128-bit secret. A client subscribes before it opens the job, so any topic of 16
bytes is granted, to the first key that names it; nothing shorter or longer ever is, so prefixes
and the empty topic get nothing. Output of a job goes out here only if its own client was granted
the topic, else to that client directly: no other can take it, or keep it from its owner.

libzmq keeps every subscription that was asked for, granted or not, and matches our grants to them
by order. Very many topics fill its memory; and a message that is no subscription breaks the match:
a grant would go to another connection than the one whose frame we read. So after such a message
nothing is granted until all that waits has been read, its sender's key is banned for a while, and
the socket is made anew: libzmq has then forgotten everything, and all others connect and subscribe
again by themselves.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence

import zmq

from burla.transport import sockets
from burla.transport.keys import ServerCurve
from burla.transport.sockets import Outbox

from .watch import Connection, Watch

TOPIC_BYTES = 16
TOPICS_MAX = 1024  # per key: a process has a job per thread
TOPICS_ALL_MAX = 1 << 16
REFUSALS_MAX = 2048  # of one key; then it is shut out
REFUSALS_ALL_MAX = 1 << 16  # of all keys, since the socket was made
SHUT_OUT_S = 300.0
SHUT_OUT_MAX = 1024  # keys
REBIND_S = 0.05  # libzmq gives up a port in a thread of its own, soon
UNSUBSCRIBE = 0  # first byte of what an XPUB hears; 1: subscribe

log = logging.getLogger(__name__)


class Channel:
    """An XPUB socket and what was granted on it."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        curve: ServerCurve | None,
        clock_s: Callable[[], float],
    ) -> None:
        """Make the socket; to be bound by `bind`."""
        self._context, self._curve, self._clock_s = context, curve, clock_s
        self._ipv6 = True
        self._endpoint = ""
        self._rebind_s: float | None = None  # when to try; None: it is bound
        self._shut_out: dict[str, float] = {}  # key -> until when
        self._on_readable: Callable[[], None] | None = None
        self._make()

    def _make(self) -> None:
        self.socket = sockets.make_socket(self._context, zmq.XPUB, self._curve)
        self.socket.setsockopt(zmq.IPV6, int(self._ipv6))
        self.connections = Watch(self.socket, self._clock_s, may_be_silent=True)
        self._outbox = Outbox()
        # topic -> the key that was granted it, and how many connections asked for it
        self._holders: dict[bytes, tuple[str, int]] = {}
        self._held: Counter[str] = Counter()  # topics per key
        self._refusals: Counter[str] = Counter()  # per key
        self._suspect = False  # libzmq's list is shifted until all that waits is read
        # Something may have come that `serve` has not seen: its FD says so once, or nobody does
        # when it came while the socket was used. Else it need not be asked in each turn.
        self._has_news = True
        if self._on_readable is not None:
            self.watch(self._on_readable)

    def watch(self, on_readable: Callable[[], None]) -> None:
        """Call `on_readable` when `serve` may have something to do; ask `is_waiting`, too."""
        self._on_readable = on_readable
        asyncio.get_running_loop().add_reader(self.socket.FD, self._on_news)
        self.connections.follow(self._notice)

    def _notice(self) -> None:
        """Take note of who came and went, before the next turn."""
        self.connections.take()
        if self._on_readable is not None:
            self._on_readable()

    def _on_news(self) -> None:
        self._has_news = True
        if self._on_readable is not None:
            self._on_readable()

    def _is_readable(self) -> bool:
        found = sockets.is_readable(self.socket)
        self._has_news = self._has_news or found
        return found

    def bind(self, endpoint: str, *, ipv6: bool) -> str:
        """Listen; return where."""
        self._ipv6 = ipv6
        self.socket.setsockopt(zmq.IPV6, int(ipv6))
        self.socket.bind(endpoint)
        self._endpoint = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        return self._endpoint

    def close(self) -> None:
        """Close the socket."""
        if self._on_readable is not None:
            asyncio.get_running_loop().remove_reader(self.socket.FD)
        self.connections.close()
        self.socket.close(0)

    def look(self) -> list[tuple[Connection, str]]:
        """Hang up on whoever sends too much; return these, and why."""
        return self.connections.look(is_drained=not self._is_readable())

    def is_shut_out(self, user: str) -> bool:
        """Return whether a key may not come in now."""
        until_s = self._shut_out.get(user)
        return until_s is not None and self._clock_s() < until_s

    def publish(self, user: str, frames: Sequence[bytes]) -> bool:
        """Send `[topic, ...]` if the client with this key follows the topic; else return False."""
        holder = self._holders.get(frames[0])
        if holder is None or holder[0] != user or self._rebind_s is not None:
            return False
        if self._outbox or not sockets.send(self.socket, frames):
            self._outbox.put(frames)
        self._has_news = True
        if self._on_readable is not None and self.is_waiting():
            self._on_readable()  # a send may eat the sign that something has come
        return True

    def is_waiting(self) -> bool:
        """Return whether `serve` has something to do soon."""
        if self._rebind_s is not None or self._outbox.waiting:
            return True
        return self._has_news and self._is_readable()

    def serve(self) -> None:
        """Send what waits; grant and refuse a bounded number of subscriptions."""
        if self._rebind_s is not None:
            self._bind_again()
            return
        if self._outbox.waiting:
            self._outbox.flush(self.socket)
            self._has_news = True
        if not self._has_news:
            return
        if not self._is_readable():
            self._suspect = self._has_news = False
            return
        for user, descriptor, frames in sockets.take_with_origin(self.socket):
            self.connections.heard(descriptor, b"subscriber", user)
            self._take(user, frames)
            if self._rebind_s is not None:
                return

    def _take(self, user: str, frames: Sequence[bytes]) -> None:
        """Look at one subscription; only right after it was received can it be granted."""
        said = bytes(frames[0])
        if len(frames) != 1 or said[:1] not in (b"\0", b"\1"):
            self._suspect = True
            self._offence(user, "sends messages where only subscriptions belong")
            return
        topic = said[1:]
        if said[0] == UNSUBSCRIBE:
            self._drop(user, topic)
            return
        if holder := self._holders.get(topic):
            self._holders[topic] = (holder[0], holder[1] + 1)
        if self._may_have(user, topic):
            self.socket.setsockopt(zmq.SUBSCRIBE, topic)
            if holder is None:
                self._holders[topic] = (user, 1)
                self._held[user] += 1
            return
        self._refusals[user] += 1
        if self._refusals[user] >= REFUSALS_MAX:
            self._offence(user, "asks for too many topics")
        elif self._refusals.total() >= REFUSALS_ALL_MAX:
            self._renew()

    def _may_have(self, user: str, topic: bytes) -> bool:
        if len(topic) != TOPIC_BYTES or self._suspect or self.is_shut_out(user):
            return False
        holder = self._holders.get(topic)
        if holder is not None:
            return holder[0] == user
        return self._held[user] < TOPICS_MAX and len(self._holders) < TOPICS_ALL_MAX

    def _drop(self, user: str, topic: bytes) -> None:
        """Note one connection less that asked for a topic, granted or not.

        libzmq says so itself, without a name, of a connection that ends: once for each topic that
        it asked for. So a topic is free for others only when all who ever asked for it are gone.
        """
        holder = self._holders.get(topic)
        if holder is None or self._suspect or user not in ("", holder[0]):
            return
        if user == holder[0]:
            self.socket.setsockopt(zmq.UNSUBSCRIBE, topic)
        key, connections = holder
        if connections > 1:
            self._holders[topic] = (key, connections - 1)
            return
        del self._holders[topic]
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]

    def _offence(self, user: str, what: str) -> None:
        log.warning("key %s is banned from the output channel: it %s", user[:16] or "(none)", what)
        del self._refusals[user]
        if not user:  # without keys one peer cannot be told from others
            return
        if len(self._shut_out) >= SHUT_OUT_MAX:
            del self._shut_out[next(iter(self._shut_out))]
        self._shut_out[user] = self._clock_s() + SHUT_OUT_S
        self._renew()

    def _renew(self) -> None:
        """Make the socket anew. Not over ipc: those who get there are the user's own processes."""
        if self._curve is None:
            return
        self.close()
        self._make()
        self._rebind_s = self._clock_s()

    def _bind_again(self) -> None:
        assert self._rebind_s is not None
        if self._clock_s() < self._rebind_s:
            return
        try:
            self.socket.bind(self._endpoint)
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE:
                raise
            self._rebind_s = self._clock_s() + REBIND_S
        else:
            self._rebind_s = None
