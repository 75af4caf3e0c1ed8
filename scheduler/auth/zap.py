"""Our ZAP handler: libzmq asks it for every handshake whether a key may come in.

Without one, CURVE encrypts and lets everybody in. It is bound before the first socket that asks,
answers each question in the order of arrival, and whatever goes wrong in an answer is a 500.
"""

import logging
from collections.abc import Callable, Sequence

import zmq

from burla.transport import sockets
from burla.transport.keys import KEY_BYTES
from burla.transport.sockets import SocketWaiter

ENDPOINT = "inproc://zeromq.zap.01"  # RFC 27
VERSION = b"1.0"
MECHANISM = b"CURVE"

Decide = Callable[[str, str, str], str | None]  # domain, address, key -> user id; None: refused

log = logging.getLogger(__name__)


def answer(request: Sequence[bytes], decide: Decide) -> list[bytes]:
    """Return the reply to one request; 500 if it is malformed or `decide` raises."""
    number = bytes(request[1]) if len(request) > 1 else b""
    try:
        version, _, domain, address, _, mechanism, key = map(bytes, request)
        if version != VERSION or mechanism != MECHANISM or len(key) != KEY_BYTES:
            raise ValueError(f"a request for {mechanism!r}, version {version!r}")
        user = decide(domain.decode(), address.decode(), key.hex())
    except Exception:  # the next one must be answered, whatever happened to this one
        log.exception("a handshake was refused because the answer failed")
        return [VERSION, number, b"500", b"internal error", b"", b""]
    if user is None:
        return [VERSION, number, b"400", b"not authorised", b"", b""]
    return [VERSION, number, b"200", b"", user.encode(), b""]


class ZapHandler:
    """Answers handshakes in a task of its own."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], decide: Decide) -> None:
        """Bind. To be made before any socket that is to ask."""
        self._decide = decide
        self._socket = sockets.make_socket(context, zmq.REP)
        self._socket.bind(ENDPOINT)

    async def serve(self) -> None:
        """Answer until cancelled."""
        watch = SocketWaiter(self._socket)
        try:
            while True:
                await watch.wait_readable(None)
                for request in sockets.take(self._socket):
                    sockets.send(self._socket, answer(request, self._decide))
                if watch.readable():  # the drain is bounded; others have their turn
                    watch.wake()
        finally:
            watch.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close(0)
