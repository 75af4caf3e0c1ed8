"""Our ZAP handler: libzmq asks it for every handshake whether a key may come in.

Without one, CURVE encrypts and lets everybody in. It is bound before the first socket that asks,
and whatever goes wrong in an answer is a 500. A key that comes too often is answered later: who
makes connections without end could try out what is not to be guessed, and would keep all busy.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence

import zmq

from burla.scheduler.core.pacing import Pacer
from burla.transport import sockets
from burla.transport.keys import KEY_BYTES
from burla.transport.sockets import SocketWaiter

ENDPOINT = "inproc://zeromq.zap.01"  # RFC 27
VERSION = b"1.0"
MECHANISM = b"CURVE"
OK, REFUSED, NOT_NOW = b"200", b"400", b"500"
ADMITTED = 256  # handshakes of one key at once: each process of a user makes two
ADMITTED_PER_S = 10.0  # after that
WAIT_MAX_S = 3.0  # libzmq gives a handshake up after 5 s

Decide = Callable[[str, str, str], str | None]  # domain, address, key -> user id; None: refused

log = logging.getLogger(__name__)


class NotNowError(Exception):
    """Whoever asks may come again."""


def answer(request: Sequence[bytes], decide: Decide) -> list[bytes]:
    """Return the reply to one request; 500 if it is malformed or `decide` raises."""
    number = bytes(request[1]) if len(request) > 1 else b""
    try:
        version, _, domain, address, _, mechanism, key = map(bytes, request)
        if version != VERSION or mechanism != MECHANISM or len(key) != KEY_BYTES:
            raise ValueError(f"a request for {mechanism!r}, version {version!r}")
        user = decide(domain.decode(), address.decode(), key.hex())
    except NotNowError:
        return not_now(number)
    except Exception:  # the next one must be answered, whatever happened to this one
        log.exception("a handshake was refused because the answer failed")
        return not_now(number)
    if user is None:
        return [VERSION, number, REFUSED, b"not authorised", b"", b""]
    return [VERSION, number, OK, b"", user.encode(), b""]


def not_now(number: bytes) -> list[bytes]:
    """Return the reply to a request that is not decided: whoever asks may come again."""
    return [VERSION, number, NOT_NOW, b"not now", b"", b""]


class ZapHandler:
    """Answers handshakes in a task of its own."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        decide: Decide,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Bind. To be made before any socket that is to ask."""
        self._decide, self._clock_s = decide, clock_s
        self._pacer = Pacer(ADMITTED, ADMITTED_PER_S, WAIT_MAX_S)
        self._socket = sockets.make_socket(context, zmq.ROUTER)
        self._socket.bind(ENDPOINT)

    async def serve(self) -> None:
        """Answer until cancelled."""
        watch = SocketWaiter(self._socket)
        try:
            while True:
                await watch.wait_readable(None)
                for peer, _, *request in sockets.take(self._socket):
                    self._answer(peer, request)
                if watch.readable():  # the drain is bounded; others have their turn
                    watch.wake()
                    await asyncio.sleep(0)
        finally:
            watch.close()

    def _answer(self, peer: bytes, request: Sequence[bytes]) -> None:
        """Reply at once, later, or that it is too much now."""
        reply = answer(request, self._decide)
        if reply[2] == OK:
            wait_s = self._pacer.wait_s(bytes(request[-1]), self._clock_s())
            if wait_s is None:
                reply = not_now(reply[1])
            elif wait_s > 0.0:  # by then it may be another answer
                loop = asyncio.get_running_loop()
                loop.call_later(wait_s, lambda: self._reply(peer, answer(request, self._decide)))
                return
        self._reply(peer, reply)

    def _reply(self, peer: bytes, reply: list[bytes]) -> None:
        with contextlib.suppress(zmq.ZMQError):  # it has hung up; or all ends
            sockets.send(self._socket, [peer, b"", *reply])

    def close(self) -> None:
        """Close the socket."""
        self._socket.close(0)
