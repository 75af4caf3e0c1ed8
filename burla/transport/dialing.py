"""How a socket with keys connects, and connects again: under a new routing id each time.

libzmq would connect again under the same id, and a ROUTER then cannot tell the new connection from
the one before. An id is random: who cannot guess it can neither take its place nor be sent what is
meant for it. libzmq tries on for ever, and says nothing but to a monitor.
"""

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Literal

import zmq

from burla.protocol.key_messages import ServerKey

from .keys import ClientCurve, KeyPair
from .sockets import is_readable, make_socket, new_routing_id, take
from .threads import leave_signals

HANDSHAKES_MAX = 3  # that end without a reason; they are tried again after a moment each
ZAP_REFUSED = 400
AGAIN_S, AGAIN_MAX_S = 0.2, 5.0  # between two attempts: at most, the first time and at last
GREETING, GREETING_S = b"\xff", 0.5  # what each ZMTP peer says first, and at once
NEVER_MS = 3_600_000  # libzmq's own next attempt, which we come before
REFUSALS = {
    "key": "the scheduler does not know this key, or it was revoked; an administrator can add it "
    "by `burla auth add` (`burla login` prints the command)",
    "server": "the server there has a different key than this address says: either the scheduler "
    "was re-keyed, or something else is listening. Get the current address from the cluster's "
    "administrator, and run `burla login` with it",
}
EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_CONNECT_RETRIED
)


class Dialer:
    """Connects a socket that has keys; tells that it never will get through."""

    def __init__(
        self,
        watched: zmq.Socket[bytes],
        clock_s: Callable[[], float] = time.monotonic,
        curve: ClientCurve | None = None,
    ) -> None:
        """Watch a socket, which is not connected yet; `curve`: with which it was made."""
        self._watched, self._clock_s, self._curve = watched, clock_s, curve
        self.server = b"" if curve is None else curve.server  # the key that we expect there
        self._endpoint = ""
        self._failures = 0  # of handshakes with what is a ZeroMQ socket
        self._prober: threading.Thread | None = None
        self._refusal: Literal["key", "server"] | None = None
        self._attempts = 0  # since the last handshake that went well
        self._due_s: float | None = None  # when to connect anew; None: libzmq is at it
        watched.setsockopt(zmq.RECONNECT_IVL, NEVER_MS)
        watched.setsockopt(zmq.RECONNECT_IVL_MAX, 0)
        name = f"inproc://dialer-{os.urandom(8).hex()}"
        watched.monitor(name, EVENTS)
        self.socket = make_socket(watched.context, zmq.PAIR)
        self.socket.connect(name)

    def connect(self, endpoint: str) -> None:
        """Connect for the first time. Whoever waits must `look` in time: see `due_s`."""
        self._endpoint = endpoint
        self._connect()

    def due_s(self) -> float | None:
        """Return when to `look` at the latest; before, when `socket` is readable."""
        return self._due_s

    def look(self) -> Literal["key", "server"] | None:
        """Connect anew if it is time to; return what is wrong for good, as far as is known.

        `key`: the other end does not know ours, or does not want it any more. `server`: the other
        end does not have the key that we expect. Who hopes for a change may go on looking.
        """
        for event, *_ in take(self.socket):
            self._take(*struct.unpack_from("=hi", event))
        if self._failures >= HANDSHAKES_MAX * max(1, len(self._servers())):
            self._refusal = "server"
        # what came on the old connection is read first: it may say why that has ended
        is_due = self._due_s is not None and self._clock_s() >= self._due_s
        if is_due and not is_readable(self._watched):
            self._due_s = None
            with contextlib.suppress(zmq.ZMQError):  # libzmq has given it up already
                self._watched.disconnect(self._endpoint)
            self._watched.setsockopt(zmq.ROUTING_ID, new_routing_id())
            self._connect()
        return self._refusal

    def learn(self, said: ServerKey) -> None:
        """Keep in mind what will be the key of the scheduler, as that says."""
        if self._curve is not None and self._curve.known is not None:
            self._curve.known.learn(self.server, said.key, said.from_s)

    def change(self, pair: KeyPair) -> None:
        """Connect anew, under other keys of ours."""
        self._watched.setsockopt(zmq.CURVE_PUBLICKEY, pair.public)
        self._watched.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
        self._due_s = self._clock_s()

    def close(self) -> None:
        """Watch no longer. To be called before the socket is closed."""
        self._watched.disable_monitor()
        self.socket.close(0)

    def _connect(self) -> None:
        likely = self._servers()
        if len(likely) > 1 or (likely and likely[0] != self.server):
            self.server = likely[self._failures % len(likely)]
            self._watched.setsockopt(zmq.CURVE_SERVERKEY, self.server)
        self._watched.connect(self._endpoint)

    def _probe(self) -> None:
        """Count a failed handshake if anybody was there; in a thread, for asking may take long."""
        if self._prober is not None and self._prober.is_alive():
            return

        def ask() -> None:
            leave_signals()
            self._failures += _greets(self._endpoint)

        self._prober = threading.Thread(target=ask, name="burla-probe", daemon=True)
        self._prober.start()

    def _servers(self) -> list[bytes]:
        """Return the keys that the scheduler may have, the likeliest first; none: there is one."""
        if self._curve is None or self._curve.known is None:
            return []
        return self._curve.known.candidates(self._curve.server)

    def _take(self, event: int, value: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._failures, self._attempts, self._refusal = 0, 0, None
            return
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            if value == ZAP_REFUSED:  # others mean: not now
                self._refusal = "key"
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            self._refusal = "server"  # it speaks without keys, or not ZMTP
        elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            # it hung up: our hello is no hello to another key; or it was just ending
            self._probe()
        if self._due_s is None:
            longest_s = min(AGAIN_MAX_S, AGAIN_S * 2 ** min(self._attempts, 16))
            self._due_s = self._clock_s() + longest_s * _from_half_to_one()
            self._attempts += 1


def _greets(endpoint: str) -> bool:
    """Return whether there is a ZeroMQ socket, and not only a tunnel to where none is now."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), GREETING_S) as probe:
            probe.settimeout(GREETING_S)
            return probe.recv(1) == GREETING
    except (OSError, ValueError):
        return False


def _from_half_to_one() -> float:
    """Return a number by chance; `random` may be a module of the caller's."""
    return 0.5 + int.from_bytes(os.urandom(2), "big") / (1 << 17)
