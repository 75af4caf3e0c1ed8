"""The socket of a scheduler that a test plays: whole messages go out, and whole ones come in."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import zmq

from burla.protocol import messages as m
from burla.protocol.codec import Reassembler, decode, encode, split
from burla.transport.sockets import make_socket

Heard = tuple[bytes, m.Message, list[bytes]]  # peer, message, payload
PAYLOAD_MAX = 1 << 32


class Router:
    """A ROUTER that splits what is said into pieces, and joins the pieces of what it hears."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, hears: Any) -> None:
        """Bind to `address`; `hears`: the union of the messages that may come."""
        self._hears = hears
        self._joiners: dict[bytes, Reassembler] = {}
        self._socket = make_socket(context, zmq.ROUTER)
        self._socket.bind(address)

    def poll(self, wait_ms: int) -> bool:
        """Wait until something comes; return False if nothing does."""
        return bool(self._socket.poll(wait_ms))

    def hear(self) -> Heard | None:
        """Return the next message; None if it was only a piece of one."""
        peer, *frames = self._socket.recv_multipart()
        joiner = self._joiners.setdefault(peer, Reassembler(PAYLOAD_MAX))
        whole = joiner.add(*decode(frames, self._hears))
        return whole and (peer, *whole)

    def say(self, peer: bytes, message: m.Message, payload: Sequence[bytes] = ()) -> None:
        """Say something to a peer, which may be gone."""
        pieces: Any = [(message, payload)]
        if isinstance(message, m.Bulk):
            pieces = split(message, payload)
        for piece, frames in pieces:
            self.say_frames(peer, encode(piece, frames))

    def say_frames(self, peer: bytes, frames: Sequence[bytes]) -> None:
        """Say what need not be a message."""
        with suppress(zmq.ZMQError):
            self._socket.send_multipart([peer, *frames])

    def close(self) -> None:
        """Drop all connections, and what is not sent yet."""
        self._socket.close(0)
