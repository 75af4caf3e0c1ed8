"""A CurveZMQ client without libzmq, which says on its connection what libzmq would never send.

libzmq keeps all parts of a message back until its last one is there; this one does not. See
https://rfc.zeromq.org/spec/26 (CurveZMQ) and /23 (ZMTP).
"""

import os
import socket
from collections.abc import Sequence

from nacl.bindings import (
    crypto_box_afternm,
    crypto_box_beforenm,
    crypto_box_keypair,
    crypto_box_open_afternm,
)

from burla.protocol import messages as m
from burla.protocol.codec import encode
from burla.transport.keys import KeyPair
from burla.transport.sockets import new_routing_id

COMMAND, LONG, MORE = 4, 2, 1
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)


class RawCurve:
    """One connection of a DEALER, from its handshake on."""

    def __init__(
        self,
        place: tuple[str, int],
        server: bytes,
        pair: KeyPair,
        routing_id: bytes | None = None,
        kind: bytes = b"DEALER",
    ) -> None:
        """Connect to the scheduler at `place`, whose public key is `server`."""
        self._raw = socket.create_connection(place, 20)
        self._sent = 0
        try:
            self._raw.sendall(GREETING)
            self._read(len(GREETING))
            self._shake_hands(server, pair, routing_id or new_routing_id(), kind)
        except BaseException:
            self._raw.close()
            raise

    def _shake_hands(self, server: bytes, pair: KeyPair, routing_id: bytes, kind: bytes) -> None:
        public, secret = crypto_box_keypair()
        nonce = self._short()
        to_server = crypto_box_beforenm(server, secret)
        box = crypto_box_afternm(bytes(64), b"CurveZMQHELLO---" + nonce, to_server)
        self._command(b"\x05HELLO\x01\0" + bytes(72) + public + nonce + box)
        welcome = self._frame()[len(b"\x07WELCOME") :]
        opened = crypto_box_open_afternm(welcome[16:], b"WELCOME-" + welcome[:16], to_server)
        passing, cookie = opened[:32], opened[32:]
        salt = os.urandom(16)
        vouched = crypto_box_beforenm(passing, pair.secret)
        vouch = crypto_box_afternm(public + server, b"VOUCH---" + salt, vouched)
        self._shared = crypto_box_beforenm(passing, secret)
        about = _property(b"Socket-Type", kind) + _property(b"Identity", routing_id)
        nonce = self._short()
        box = crypto_box_afternm(
            pair.public + salt + vouch + about, b"CurveZMQINITIATE" + nonce, self._shared
        )
        self._command(b"\x08INITIATE" + cookie + nonce + box)
        said = self._frame()
        assert said.startswith(b"\x05READY"), said

    def say(self, message: m.Message, payload: Sequence[bytes] = ()) -> None:
        """Say a whole message."""
        frames = encode(message, payload)
        for frame in frames[:-1]:
            self.part(frame, more=True)
        self.part(frames[-1], more=False)

    def part(self, data: bytes, *, more: bool) -> None:
        """Send one part of a message, whatever follows; raise OSError when hung up on."""
        self._raw.sendall(self._boxed(data, more=more))

    def hangs_up(self, timeout_s: float) -> bool:
        """Read until the other end hangs up; return False if it does not."""
        self._raw.settimeout(timeout_s)
        try:
            while self._raw.recv(1 << 16):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def close(self) -> None:
        self._raw.close()

    def _boxed(self, data: bytes, *, more: bool) -> bytes:
        nonce = self._short()
        plain = (b"\1" if more else b"\0") + data
        box = crypto_box_afternm(plain, b"CurveZMQMESSAGEC" + nonce, self._shared)
        body = b"\x07MESSAGE" + nonce + box
        size = len(body)
        head = bytes([0, size]) if size < 256 else bytes([LONG]) + size.to_bytes(8, "big")
        return head + body

    def _command(self, body: bytes) -> None:
        size = len(body)
        if size < 256:
            head = bytes([COMMAND, size])
        else:
            head = bytes([COMMAND | LONG]) + size.to_bytes(8, "big")
        self._raw.sendall(head + body)

    def _frame(self) -> bytes:
        flags = self._read(1)[0]
        size = int.from_bytes(self._read(8 if flags & LONG else 1), "big")
        return self._read(size)

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._raw.recv(count - len(data))
            if not more:
                raise ConnectionError("hung up on")
            data += more
        return data

    def _short(self) -> bytes:
        self._sent += 1
        return self._sent.to_bytes(8, "big")


def _property(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value
