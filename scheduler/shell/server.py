"""The scheduler shell: ROUTER and PUB sockets and the clock around the core. Decides nothing."""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import zmq

from burla.protocol import VERSION
from burla.protocol.codec import ByteBudget, Reassembler, WireError, decode, encode, split
from burla.protocol.messages import AdminToScheduler, Bulk, Join, Message, NodeletToScheduler
from burla.scheduler.config import SchedulerConfig
from burla.scheduler.core.admission import RateLimiter
from burla.scheduler.core.client import Client
from burla.scheduler.core.effects import Effect, Forget, Note, Publish, Record, Send
from burla.scheduler.core.node import Node
from burla.scheduler.core.scheduler import Scheduler
from burla.transport import sockets
from burla.transport.addresses import ANY_HOST, full_address
from burla.transport.keys import ServerCurve
from burla.transport.sockets import Outbox, SocketWaiter

from .channel import Channel

if TYPE_CHECKING:
    from burla.scheduler.auth.authorizer import Authorizer
    from burla.scheduler.auth.zap import ZapHandler

OUTBOX_COST_MAX = 64 << 20  # 200,000 short words for a peer that never reads: no honest one
COMPLAINTS_PER_S = 10  # lines in the log about what one peer says
COMPLAINERS_MAX = 256  # peers of which such lines are written at once
UNFINISHED_BYTES_MAX = 4 << 30  # of messages in pieces, per peer; one input or outcome may be big
IO_THREADS = 2  # they encrypt; and handshakes should not hold up what flows
PORT_MAX = 65535
ROUTING_ID_BYTES = 5  # of those that libzmq makes up: a zero and a number that begins at random
OUTBOX_RETRY_S = sockets.RETRY_S
DIRECTIONS = {
    Client: AdminToScheduler,  # without keys whoever gets there is the administrator
    Node: NodeletToScheduler,
    None: AdminToScheduler | NodeletToScheduler,
}
log = logging.getLogger(__name__)


async def run(config: SchedulerConfig, announce: Callable[[str], None]) -> None:
    """Serve on `config.bind` until cancelled; call `announce` with the address once it listens.

    Raises:
        zmq.ZMQError: the address cannot be bound; EADDRINUSE when somebody listens there.
        KeyFileError: the keys are refused.
    """
    keyed = config.keys is not None
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(IO_THREADS if keyed else 1)
    with contextlib.ExitStack() as ends:
        ends.callback(_unlink, config.bind)
        ends.callback(context.term)
        doors = _doors(config.keys, context, ends) if config.keys is not None else None
        router = sockets.make_socket(context, zmq.ROUTER, doors.router if doors else None)
        ends.callback(router.close, linger=200)  # a last word may still go out
        channel = Channel(context, doors.output if doors else None, time.monotonic)
        ends.callback(channel.close)
        endpoint, publisher = _bind(router, channel, config.bind)
        core = Scheduler(os.urandom(16), VERSION, publisher, config.quotas)
        server = Server(core, router, channel, gate=doors.gate if doors else None)
        async with asyncio.TaskGroup() as tasks:
            if doors is not None:
                doors.gate.is_output_shut = channel.is_shut_out
                tasks.create_task(doors.zap.serve())
                endpoint = full_address(named(endpoint), doors.router.pair.public)
            tasks.create_task(server.serve())
            announce(endpoint)


@dataclass(frozen=True)
class Doors:
    """What a scheduler with keys has more than one without."""

    gate: "Authorizer"
    zap: "ZapHandler"
    router: ServerCurve
    output: ServerCurve


def _doors(
    keys: Path, context: zmq.Context[zmq.Socket[bytes]], ends: contextlib.ExitStack
) -> Doors:
    """Read the keys, and bind the ZAP handler, which must be there before any socket asks it."""
    from burla.scheduler.auth.authorizer import (  # a private cluster starts without them
        OUTPUT_DOMAIN,
        ROUTER_DOMAIN,
        Authorizer,
    )
    from burla.scheduler.auth.key_store import KeyStore
    from burla.scheduler.auth.zap import ZapHandler

    roster = KeyStore(keys)
    pair = roster.server_pair()
    gate = Authorizer(roster)
    ends.callback(gate.close)
    zap = ZapHandler(context, gate.admit)
    ends.callback(zap.close)
    return Doors(gate, zap, ServerCurve(pair, ROUTER_DOMAIN), ServerCurve(pair, OUTPUT_DOMAIN))


def _bind(router: zmq.Socket[bytes], channel: Channel, bind: str) -> tuple[str, str]:
    """Bind both sockets; return their endpoints as others can connect to them."""
    if bind.startswith("ipc://"):
        router.bind(bind)
        return bind, channel.bind(f"{bind}.pub", ipv6=True)
    ipv6 = "[" in bind  # else an IPv4 endpoint is told as [::ffff:127.0.0.1]
    router.setsockopt(zmq.IPV6, int(ipv6))
    router.bind(bind)
    endpoint = router.getsockopt_string(zmq.LAST_ENDPOINT)
    host, _, port = endpoint.rpartition(":")
    if not bind.endswith(":0") and int(port) < PORT_MAX:
        with contextlib.suppress(zmq.ZMQError):  # taken: any other does, and is told
            return endpoint, channel.bind(f"{host}:{int(port) + 1}", ipv6=ipv6)
    return endpoint, channel.bind(f"{host}:0", ipv6=ipv6)


def named(endpoint: str) -> str:
    """Return an endpoint that others can try: one that listens everywhere by this host's name."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return f"tcp://{socket.gethostname()}:{port}" if host in ANY_HOST else endpoint


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
        channel: Channel,
        clock_s: Callable[[], float] = time.monotonic,
        gate: "Authorizer | None" = None,
    ) -> None:
        """Serve `core` over sockets that are bound; who is heard, the gate decides if any."""
        self._core, self._router, self._channel = core, router, channel
        self._clock_s, self._gate = clock_s, gate
        self._joiners: dict[bytes, Reassembler] = {}
        self._rooms: dict[str, ByteBudget] = {}  # of clients, by key: as many as there are keys
        self._complaints = RateLimiter(COMPLAINTS_PER_S, COMPLAINERS_MAX)
        self._outboxes: dict[bytes, Outbox] = {}  # of peers whose pipe is full

    async def serve(self) -> None:
        """Take, decide, carry out; until cancelled."""
        watch = SocketWaiter(self._router)
        self._channel.watch(watch.wake)
        try:
            while True:
                wait_s = max(0.0, self._core.next_deadline_s() - self._clock_s())
                if self._outboxes or self._channel.is_waiting():
                    wait_s = min(wait_s, OUTBOX_RETRY_S)
                await watch.wait_readable(wait_s)
                self._flush()
                if self._gate is None:
                    for frames in sockets.take_in_place(self._router):
                        self._carry_out(self._receive("", frames))
                else:
                    self._gate.refresh()  # each turn: what was revoked is so from now on
                    if self._gate.has_changed():
                        self._expel()
                    for user, frames in sockets.take_with_user(self._router):
                        self._carry_out(self._receive(user, frames))
                if self._clock_s() >= self._core.next_deadline_s():
                    self._carry_out(self._core.expire(self._clock_s()))
        finally:
            watch.close()

    def _receive(self, user: str, frames: list[bytes]) -> list[Effect]:
        peer = frames[0]
        kind = self._core.direction(peer)
        direction = DIRECTIONS[kind]
        if self._gate is not None:
            direction = self._gate.direction(user, kind)
            if direction is None or not _is_assigned(peer):
                return self._gate.refuse(peer, user, frames[1:])
        try:
            said: tuple[Message, list[bytes]] | None = decode(frames[1:], direction)
            if kind is not None and isinstance(said[0], Bulk):  # type: ignore[index]  # just set
                joiner = self._joiner(peer, user, kind)
                said = joiner.add(said[0], said[1], len(frames[1]))  # type: ignore[index]  # set
        except WireError as error:
            if self._may_complain(peer):
                log.warning("ignored a frame of %s: %s", peer.hex(), error)
            return [] if self._gate is None else self._gate.refuse(peer, user, frames[1:])
        if said is None:
            return []
        if isinstance(said[0], Join):
            assert self._gate is not None  # its union has no Join without keys
            return self._gate.join(peer, user, said[0])
        return self._core.receive(peer, *said, self._clock_s(), user)

    def _joiner(self, peer: bytes, user: str, kind: type[Client] | type[Node]) -> Reassembler:
        """Return what joins the pieces of a peer; all clients of a key share the quota of bytes."""
        joiner = self._joiners.get(peer)
        if joiner is None:
            room = None
            if kind is Client:
                room = self._rooms.setdefault(user, ByteBudget(self._core.board.quotas.bytes_max))
            joiner = self._joiners[peer] = Reassembler(UNFINISHED_BYTES_MAX, room)
        return joiner

    def _may_complain(self, peer: bytes) -> bool:
        return self._complaints.allows(peer.hex(), self._clock_s())

    def _drop(self, peer: bytes) -> None:
        """Forget what is kept for a connection."""
        self._outboxes.pop(peer, None)
        if joiner := self._joiners.pop(peer, None):
            joiner.close()

    def _expel(self) -> None:
        """Give up the connections whose keys may not do any more what they do."""
        assert self._gate is not None
        for peer, user in self._core.peers():
            if self._gate.direction(user, self._core.direction(peer)) is None:
                why = self._gate.why_not(user)
                self._carry_out(self._core.expel(peer, why, self._clock_s()))

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self._send_message(effect)
                case Publish():
                    self._publish(effect)
                case Forget():
                    self._drop(effect.peer)
                case Note():
                    if not effect.peer or self._may_complain(effect.peer):
                        log.info("%s", effect.text)
                case Record():
                    if self._gate is not None:
                        self._gate.record(effect)
                case _:
                    assert_never(effect)

    def _send_message(self, effect: Send) -> None:
        try:
            pieces = _framed(effect.message, effect.payload)
        except WireError as error:  # whatever made it too long costs this message only
            log.error("not sent to %s: %s", effect.peer.hex(), error)
            return
        for frames in pieces:
            self._send(effect.peer, frames)

    def _publish(self, effect: Publish) -> None:
        """Send output to who follows the topic, or to the client directly if it does not (yet)."""
        frames = encode(effect.message, effect.payload)
        peer, user = self._core.follower(effect.message.job)
        if not self._channel.publish(user, [effect.topic, *frames]) and peer is not None:
            self._send(peer, frames)

    def _send(self, peer: bytes, frames: list[bytes]) -> None:
        framed = [peer, *frames]
        if outbox := self._outboxes.get(peer):
            outbox.put(framed)
            if outbox.cost > OUTBOX_COST_MAX:
                self._give_up(peer)
            return
        try:
            if not sockets.send(self._router, framed):
                self._outboxes.setdefault(peer, Outbox()).put(framed)
        except zmq.ZMQError as error:
            self._unreachable(peer, error)

    def _give_up(self, peer: bytes) -> None:
        """Drop a peer that asks and asks, or is told and told, and never reads."""
        self._drop(peer)
        if self._core.direction(peer) is not None:
            why = "you do not read what is sent to you"
            self._carry_out(self._core.expel(peer, why, self._clock_s(), keys=False))

    def _flush(self) -> None:
        self._channel.serve()
        for peer, outbox in list(self._outboxes.items()):
            try:
                if outbox.flush(self._router):
                    del self._outboxes[peer]
            except zmq.ZMQError as error:
                self._unreachable(peer, error)

    def _unreachable(self, peer: bytes, error: zmq.ZMQError) -> None:
        if error.errno != zmq.EHOSTUNREACH:
            raise error
        self._drop(peer)
        self._carry_out(self._core.unreachable(peer, self._clock_s()))


def _is_assigned(peer: bytes) -> bool:
    """Return whether libzmq chose this routing id, which nobody can guess.

    A peer that chooses its own may choose that of another who is just reconnecting, and be sent
    what is for that one.
    """
    return len(peer) == ROUTING_ID_BYTES and peer[0] == 0


def _framed(message: Message, payload: Iterable[bytes]) -> list[list[bytes]]:
    if isinstance(message, Bulk):
        return [encode(*piece) for piece in split(message, list(payload))]
    return [encode(message, list(payload))]
