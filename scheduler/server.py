"""The scheduler shell: ROUTER and PUB sockets and the clock around the core. Decides nothing."""

import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import assert_never

import zmq

from burla.wire import VERSION, sockets
from burla.wire.codec import Joiner, WireError, decode, encode, split
from burla.wire.messages import Bulk, ClientToScheduler, Message, NodeletToScheduler
from burla.wire.sockets import Outbox, Watch

from .config import SchedulerConfig
from .core import Client, Scheduler
from .effects import Effect, Forget, Note, Publish, Send
from .nodes import Node

UNFINISHED_BYTES_MAX = 4 << 30  # of messages in pieces, per peer; one input or outcome may be big
OUTBOX_RETRY_S = sockets.RETRY_S
DIRECTIONS = {
    Client: ClientToScheduler,
    Node: NodeletToScheduler,
    None: ClientToScheduler | NodeletToScheduler,
}
log = logging.getLogger(__name__)


async def run(config: SchedulerConfig, announce: Callable[[str], None]) -> None:
    """Serve on `config.bind` until cancelled; call `announce` with the address once it listens.

    Raises:
        zmq.ZMQError: the address cannot be bound; EADDRINUSE when somebody listens there.
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = sockets.make_socket(context, zmq.ROUTER)
    publisher = sockets.make_socket(context, zmq.PUB)
    try:
        address, channel = _bind(router, publisher, config.bind)
        core = Scheduler(os.urandom(16), VERSION, channel)
        server = Server(core, router, publisher)
        announce(address)
        await server.serve()
    finally:
        router.close(linger=200)  # a last word may still go out
        publisher.close(linger=0)
        context.term()
        _unlink(config.bind)


def _bind(router: zmq.Socket[bytes], publisher: zmq.Socket[bytes], bind: str) -> tuple[str, str]:
    """Bind both sockets; return their endpoints as others can connect to them."""
    if bind.startswith("ipc://"):
        router.bind(bind)
        publisher.bind(f"{bind}.pub")
        return bind, f"{bind}.pub"
    if "[" not in bind:  # else an IPv4 endpoint is told as [::ffff:127.0.0.1]
        router.setsockopt(zmq.IPV6, 0)
        publisher.setsockopt(zmq.IPV6, 0)
    router.bind(bind)
    address = router.getsockopt_string(zmq.LAST_ENDPOINT)
    host = address.removeprefix("tcp://").rpartition(":")[0]
    publisher.bind(f"tcp://{host}:0")
    return address, publisher.getsockopt_string(zmq.LAST_ENDPOINT)


def _unlink(bind: str) -> None:
    """Remove the files of an ipc endpoint; libzmq leaves them when it is stopped hard."""
    if bind.startswith("ipc://"):
        for endpoint in (bind, f"{bind}.pub"):
            Path(endpoint.removeprefix("ipc://")).unlink(missing_ok=True)


class Server:
    """Drives a core with what arrives on its sockets."""

    def __init__(
        self,
        core: Scheduler,
        router: zmq.Socket[bytes],
        publisher: zmq.Socket[bytes],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Serve `core` over sockets that are bound."""
        self._core, self._router, self._publisher = core, router, publisher
        self._clock_s = clock_s
        self._joiners: dict[bytes, Joiner] = {}
        self._outboxes: dict[bytes, Outbox] = {}  # of peers whose pipe is full
        self._public = Outbox()

    async def serve(self) -> None:
        """Take, decide, carry out; until cancelled."""
        watch = Watch(self._router)
        try:
            while True:
                wait_s = max(0.0, self._core.next_deadline_s() - self._clock_s())
                if self._outboxes or self._public:
                    wait_s = min(wait_s, OUTBOX_RETRY_S)
                await watch.wait_readable(wait_s)
                self._flush()
                for frames in sockets.take_in_place(self._router):
                    self._carry_out(self._receive(frames))
                if self._clock_s() >= self._core.next_deadline_s():
                    self._carry_out(self._core.expire(self._clock_s()))
        finally:
            watch.close()

    def _receive(self, frames: list[bytes]) -> list[Effect]:
        peer = frames[0]
        kind = self._core.direction(peer)
        try:
            said: tuple[Message, list[bytes]] | None = decode(frames[1:], DIRECTIONS[kind])
            if kind is not None and isinstance(said[0], Bulk):  # type: ignore[index]  # just set
                joiner = self._joiners.setdefault(peer, Joiner(UNFINISHED_BYTES_MAX))
                said = joiner.add(*said)  # type: ignore[misc]  # just set
        except WireError as error:
            log.warning("ignored a frame of %s: %s", peer.hex(), error)
            return []
        return [] if said is None else self._core.receive(peer, *said, self._clock_s())

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    for frames in _framed(effect.message, effect.payload):
                        self._send(effect.peer, frames)
                case Publish():
                    frames = [effect.topic, *encode(effect.message, effect.payload)]
                    if self._public or not sockets.send(self._publisher, frames):
                        self._public.put(frames)
                case Forget():
                    self._outboxes.pop(effect.peer, None)
                    self._joiners.pop(effect.peer, None)
                case Note():
                    log.info("%s", effect.text)
                case _:
                    assert_never(effect)

    def _send(self, peer: bytes, frames: list[bytes]) -> None:
        framed = [peer, *frames]
        if outbox := self._outboxes.get(peer):
            outbox.put(framed)
            return
        try:
            if not sockets.send(self._router, framed):
                self._outboxes.setdefault(peer, Outbox()).put(framed)
        except zmq.ZMQError as error:
            self._unreachable(peer, error)

    def _flush(self) -> None:
        self._public.flush(self._publisher)
        for peer, outbox in list(self._outboxes.items()):
            try:
                if outbox.flush(self._router):
                    del self._outboxes[peer]
            except zmq.ZMQError as error:
                self._unreachable(peer, error)

    def _unreachable(self, peer: bytes, error: zmq.ZMQError) -> None:
        if error.errno != zmq.EHOSTUNREACH:
            raise error
        self._outboxes.pop(peer, None)
        self._joiners.pop(peer, None)
        self._carry_out(self._core.unreachable(peer, self._clock_s()))


def _framed(message: Message, payload: Iterable[bytes]) -> list[list[bytes]]:
    if isinstance(message, Bulk):
        return [encode(*piece) for piece in split(message, list(payload))]
    return [encode(message, list(payload))]
