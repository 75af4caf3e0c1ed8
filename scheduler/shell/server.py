"""The scheduler's shell: ROUTER and PUB sockets and the clock around the core. Decides nothing.

Each turn: take what has arrived, let the core decide once for each message, send, and wait for the
socket or for the core's next deadline.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace as replace_settings
from functools import partial
from typing import TYPE_CHECKING, Any, assert_never

import zmq
from msgspec.structs import replace

from burla.limits import VALUE_BYTES_MAX
from burla.protocol import VERSION
from burla.protocol.admin_messages import AdminToScheduler, KeyOperation, ManageKeys
from burla.protocol.blob_messages import BLOBS
from burla.protocol.codec import (
    ByteBudget,
    OverLimitError,
    Reassembler,
    WireError,
    decode,
    encode,
    split,
)
from burla.protocol.detach_messages import ADOPT
from burla.protocol.fields import MACHINES, POLICIES
from burla.protocol.image_messages import IMAGES
from burla.protocol.input_messages import INPUTS
from burla.protocol.job_messages import JOBS
from burla.protocol.key_messages import KEYS, RenewKey, ServerKey
from burla.protocol.messages import (
    BlobPiece,
    Bulk,
    Join,
    NodeHello,
    NodeletToScheduler,
    ReplaceKey,
    Welcome,
)
from burla.protocol.output_messages import OUTPUT
from burla.protocol.overview_messages import OVERVIEW
from burla.protocol.package_messages import PACKAGES
from burla.protocol.store_messages import STORE, STORE_SIZES
from burla.scheduler.config import SchedulerConfig
from burla.scheduler.core import nodes
from burla.scheduler.core.admission import RateLimiter
from burla.scheduler.core.client import Client
from burla.scheduler.core.effects import (
    DropBlob,
    Effect,
    FetchOutput,
    Follow,
    Forget,
    KeepBlob,
    KeepOutput,
    KeepRecords,
    Note,
    Publish,
    Record,
    Send,
    SendBlob,
    ToFile,
)
from burla.scheduler.core.node import Node
from burla.scheduler.core.scheduler import Scheduler
from burla.system.dump import dump_on_signal
from burla.transport import sockets
from burla.transport.addresses import full_address
from burla.transport.clock import AwakeClock
from burla.transport.direct import DirectEnd, Said
from burla.transport.sockets import ROUTING_ID_BYTES, Outbox, SocketWaiter

from . import blob_files, former_nodes
from .binding import bind_both, named, unlink
from .blob_files import BlobFiles
from .channel import Channel
from .door import Door
from .observing import keep_jobs, show_metrics
from .watch import Watch, seed_libzmq

if TYPE_CHECKING:
    from burla.scheduler.auth.authorizer import Authorizer

    from .keeping import Keeping

OUTBOX_COST_MAX = 64 << 20  # 200,000 short words for a peer that never reads: no honest one
COMPLAINTS_PER_S = 10  # lines in the log about what one peer says
COMPLAINERS_MAX = 256  # peers of which such lines are written at once
# Of messages in pieces, per peer: one value of the largest size, and what counts besides.
UNFINISHED_BYTES_MAX = VALUE_BYTES_MAX + (64 << 20)
IO_THREADS = 2  # they encrypt; and handshakes should not hold up what flows
FEATURES = (KEYS, BLOBS, INPUTS, POLICIES, JOBS, PACKAGES, OUTPUT, OVERVIEW, MACHINES, IMAGES)
OF_STORE = (STORE, ADOPT, STORE_SIZES)
OUTBOX_RETRY_S = sockets.RETRY_S
INSIDE_BYTES = 256  # of the name of who speaks in this process: no routing id is so long
DIRECT = b"direct".ljust(INSIDE_BYTES)  # who is at the other end of a direct line
DIRECTIONS = {
    Client: AdminToScheduler,  # without keys, all who get there are administrators
    Node: NodeletToScheduler,
    None: AdminToScheduler | NodeletToScheduler,
}
log = logging.getLogger(__name__)


async def run(
    config: SchedulerConfig,
    announce: Callable[[str], None],
    alive: Callable[[], None] = lambda: None,
    direct: DirectEnd | None = None,
) -> None:
    """Serve on `config.bind` until cancelled; under another key as soon as that counts.

    Args:
        config: what to serve, and where.
        announce: is called with the address once it listens.
        alive: is called again and again by the loop that serves.
        direct: the end of a line to a nodelet that is in this process.

    Raises:
        zmq.ZMQError: the address cannot be bound; EADDRINUSE when another process listens there.
        KeyFileError: the keys are refused.
    """
    if config.keys is not None:
        seed_libzmq()  # before the first context
    while True:  # a new key is a new life: peers hold all that goes on
        bind = await _serve(config, announce, alive, direct)
        config = replace_settings(config, bind=bind)


async def _serve(
    config: SchedulerConfig,
    announce: Callable[[str], None],
    alive: Callable[[], None],
    direct: DirectEnd | None,
) -> str:
    """Serve until cancelled, or until another key counts; return where it listened."""
    keyed = config.keys is not None
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(IO_THREADS if keyed else 1)
    with contextlib.ExitStack() as ends:
        ends.callback(unlink, config.bind)
        ends.callback(context.term)
        doors = None
        if config.keys is not None:
            from .doors import doors_of

            doors = doors_of(config.keys, context, ends)
        router = sockets.make_socket(context, zmq.ROUTER, doors.router if doors else None)
        ends.callback(router.close, linger=200)  # a last word may still go out
        clock_s = AwakeClock()
        channel = Channel(context, doors.output if doors else None, clock_s)
        ends.callback(channel.close)
        watch = Watch(router, clock_s)
        ends.callback(watch.close)
        bound, publisher = bind_both(router, channel, config.bind)
        endpoint = bound
        options = (config.quotas, config.is_private, config.away_limit_s, config.shared)
        core = Scheduler(os.urandom(16), VERSION, publisher, *options)
        core.state.blobs.bytes_max = blob_files.room()
        core.state.blobs.number_max = blob_files.number_max()
        core.state.journal.is_kept = log.isEnabledFor(logging.INFO)
        authorizer = doors.authorizer if doors else None
        door = Door(channel, watch, clock_s, strangers=keyed)
        keeping = None
        if config.store is not None:
            from .keeping import keeping_of

            keeping = keeping_of(config.store, config.stored, core, clock_s, authorizer)
        server = Server(core, router, channel, watch, door, clock_s, authorizer, keeping)
        if config.jobs_file is not None:
            server.to_file = keep_jobs(config.jobs_file, core, ends, clock_s, server.send)
        server.publish = show_metrics(config, core, ends)
        if config.state_file is not None:
            dump_on_signal(config.state_file, lambda: core.snapshot(clock_s()))
        async with asyncio.TaskGroup() as tasks:
            running = []
            if config.nodes_file is not None:
                missing = former_nodes.read(config.nodes_file, time.time())
                core.state.former.awaited = None if missing is None else set(missing)
                known = partial(nodes.expected, core.state), partial(nodes.awaited, core.state)
                keep = former_nodes.keep(config.nodes_file, *known, missing or {})
                running.append(tasks.create_task(keep))
            if doors is not None:
                doors.authorizer.is_output_shut = channel.is_shut_out
                running.append(tasks.create_task(doors.zap.serve()))
                follow_quotas = doors.follow_quotas(config.quotas, core.set_tenants)
                running.append(tasks.create_task(follow_quotas))
                endpoint = full_address(named(bound), doors.router.pair.public)
            if direct is not None:
                server.attach(direct)
            running.append(tasks.create_task(server.serve(alive)))
            announce(endpoint)
            if doors is not None:
                await doors.follow_key(server.announce_key)
                for task in running:
                    task.cancel()
    return bound


class Server:
    """Drives a core with what arrives on its sockets."""

    def __init__(
        self,
        core: Scheduler,
        router: zmq.Socket[bytes],
        channel: Channel,
        watch: Watch,
        door: Door,
        clock_s: Callable[[], float],
        authorizer: "Authorizer | None" = None,
        keeping: "Keeping | None" = None,
    ) -> None:
        """Serve `core` over sockets that are bound; an authorizer decides who is heard."""
        self._core, self._router, self._channel, self._watch = core, router, channel, watch
        self._door = door
        self._clock_s, self._authorizer = clock_s, authorizer
        self._intake = None
        if authorizer is not None:
            from .intake import Intake

            self._intake = Intake(core, router, channel, watch, authorizer, clock_s)
        self._reassemblers: dict[bytes, Reassembler] = {}
        self._budgets: dict[str, ByteBudget] = {}  # of clients, by tenant: at most one a key
        self._complaints = RateLimiter(COMPLAINTS_PER_S, COMPLAINERS_MAX)
        self._outboxes: dict[bytes, Outbox] = {}  # of peers whose pipe is full
        self._blobs = BlobFiles(self._send_piece, self._lose_blob)
        self._wake: Callable[[], None] = lambda: None  # while it serves: look around at once
        self._used: Callable[[], None] = lambda: None  # likewise: something was sent
        self._direct: DirectEnd | None = None
        self.to_file: Callable[[ToFile], None] = lambda what: None
        self.publish: Callable[[], None] = lambda: None  # metrics, now and then
        self._keeping = keeping

    def attach(self, direct: DirectEnd) -> None:
        """Serve the nodelet at the other end of a direct line, too."""
        self._direct = direct
        direct.begin(self._hear)

    async def serve(self, alive: Callable[[], None] = lambda: None) -> None:
        """Take, decide, carry out; until cancelled. Calls `alive` at each of the core's ticks."""
        waiter = SocketWaiter(self._router)
        self._wake, self._used = waiter.wake, waiter.used
        self._channel.watch(waiter.wake)
        self._watch.follow(waiter.wake)
        if (keeping := self._keeping) is not None:
            keeping.begin(self._carry_out, waiter.wake)
        due_s = self._core.next_deadline_s()
        try:
            while True:
                wait_s = due_s - self._clock_s()
                self._door.look()
                has_parts = keeping is not None and keeping.is_waiting()
                if self._outboxes or self._channel.is_waiting() or has_parts:
                    wait_s = min(wait_s, OUTBOX_RETRY_S)
                elif self._blobs or (keeping is not None and keeping.is_busy()):
                    wait_s = 0.0
                if self._intake is not None:
                    self._intake.look()
                    wait_s = 0.0 if self._intake.is_waiting() else wait_s
                    await asyncio.sleep(0)  # those who want to come in have their turn, too
                await waiter.wait_readable(wait_s)
                self._flush()
                for user, frames in self._arrived():
                    self._receive(user, frames)
                    if self._direct is not None:  # a worker loads while we hear of its inputs
                        self._direct.flush()
                if keeping is not None:
                    keeping.turn()
                if self._core.state.journal.lines:
                    for line in self._core.state.journal.take():
                        log.info("%s", line)
                if self._clock_s() >= due_s:
                    self._carry_out(self._core.expire(self._clock_s()))
                    due_s = self._core.next_deadline_s()
                    self.publish()
                    alive()
        finally:
            waiter.close()
            self._blobs.close()
            if keeping is not None:
                keeping.close()

    def _arrived(self) -> Iterable[tuple[str, list[bytes]]]:
        """Return what has arrived, a bounded part of it: the sender's key, and frames."""
        if self._authorizer is None or self._intake is None:
            self._watch.take_news()
            return (("", frames) for frames in sockets.take_in_place(self._router))
        self._authorizer.refresh()  # each turn: what was revoked is so from now on
        if self._authorizer.has_changed():
            self._expel()
        return self._intake.take()

    def _receive(self, user: str, frames: list[bytes]) -> None:
        """Let the core hear a message, and do what it says."""
        peer = frames[0]
        kind = self._core.direction(peer)
        direction = DIRECTIONS[kind]
        if self._authorizer is not None:
            direction = self._authorizer.direction(user, kind)
            if direction is None or not _is_random(peer):
                self._refuse(peer, user, frames)
                return
        try:
            message, payload = decode(frames[1:], direction)
            if isinstance(message, Bulk) and message.pieces > 1 and kind is not None:
                whole = self._gather(peer, user, kind, message, payload, len(frames[1]))
                if whole is None:
                    return
                message, payload = whole
        except WireError as error:
            if self._may_complain(peer):
                log.warning("ignored a message from %s: %s", peer.hex(), error)
            if isinstance(error, OverLimitError):
                now_s = self._clock_s()
                self._carry_out(self._core.too_large(peer, error.message, error.bytes_max, now_s))
            self._refuse(peer, user, frames)
            return
        if isinstance(message, Join):
            assert self._authorizer is not None  # its union has no Join without keys
            self._carry_out(self._authorizer.join(peer, user, message))
        elif self._authorizer is not None and _is_about_keys(message):
            self._manage(peer, user, message)
        elif self._keeping is not None and self._keeping.takes(peer, message):
            self._keeping.receive(peer, user, message, payload)
        else:
            sees_all = direction is AdminToScheduler
            now_s = self._clock_s()
            self._carry_out(
                self._core.receive(peer, message, payload, now_s, user, sees_all=sees_all)
            )
            if isinstance(message, NodeHello) and KEYS in message.features:
                self._renew_if_expiring(peer, user)

    def send(self, effect: Send) -> None:
        """Send what was found out elsewhere."""
        self._carry_out([effect])

    def announce_key(self, coming: ServerKey) -> None:
        """Tell everybody what will be our key."""
        self._carry_out(self._core.announce_key(coming, self._clock_s()))

    def _manage(self, peer: bytes, user: str, message: ManageKeys | ReplaceKey) -> None:
        """Look at or change the table of keys, as a peer says that may."""
        assert self._authorizer is not None
        if isinstance(message, ReplaceKey) and self._core.direction(peer) is Node:
            effects, is_taken = self._authorizer.replace_key(peer, user, message)
            if is_taken:
                key = message.key.hex()
                self._carry_out(self._core.key_taken(peer, key, self._clock_s()))
        else:
            effects = self._authorizer.manage(peer, user, message)
        self._carry_out(effects)

    def _renew_if_expiring(self, peer: bytes, user: str) -> None:
        """Have a node make a new key that has lost the one that replaced its own."""
        is_there = self._core.direction(peer) is Node
        if self._authorizer is not None and is_there and self._authorizer.is_expiring(user):
            self._carry_out([Send(peer, RenewKey())])

    def _hear(self, said: Iterable[Said]) -> None:
        """Let the core hear what comes on the direct line."""
        for message, payload in said:
            self._carry_out(self._core.receive(DIRECT, message, payload, self._clock_s()))
        if self._blobs:
            self._wake()

    def _refuse(self, peer: bytes, user: str, frames: list[bytes]) -> None:
        if self._authorizer is not None and self._intake is not None:
            self._carry_out(self._authorizer.refuse(peer, user, frames[1:]))
            if not _is_random(peer):
                self._intake.turn_away(peer)

    def _gather(
        self,
        peer: bytes,
        user: str,
        kind: type[Client] | type[Node],
        piece: Bulk,
        payload: list[bytes],
        header_bytes: int,
    ) -> tuple[Any, list[bytes]] | None:
        """Take a piece of a message; return the whole, or None while pieces are missing.

        Raises:
            WireError: it does not follow, or the peer has too many bytes in unfinished messages.
        """
        reassembler = self._reassemblers.get(peer)
        if reassembler is None:
            budget = None
            if kind is Client:  # all clients of a tenant share the quota of bytes
                tenants = self._core.state.tenants
                tenant = tenants.of(user)
                budget = self._budgets.setdefault(tenant, ByteBudget(0))
                budget.bytes_max = tenants.quotas_of(tenant).bytes_max
            reassembler = self._reassemblers[peer] = Reassembler(UNFINISHED_BYTES_MAX, budget)
        return reassembler.add(piece, payload, header_bytes)

    def _may_complain(self, peer: bytes) -> bool:
        return self._complaints.allows(peer.hex(), self._clock_s())

    def _drop(self, peer: bytes) -> None:
        """Forget what is kept for a connection."""
        self._outboxes.pop(peer, None)
        self._blobs.forget(peer)
        if reassembler := self._reassemblers.pop(peer, None):
            reassembler.close()

    def _expel(self) -> None:
        """Give up the connections whose keys may not do any more what they do."""
        assert self._authorizer is not None
        for peer, user in self._core.peers():
            if self._authorizer.direction(user, self._core.direction(peer)) is None:
                why = self._authorizer.why_not(user)
                self._carry_out(self._core.expel(peer, why, self._clock_s()))

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self._send_message(effect)
                case KeepBlob():
                    self._blobs.keep(effect)
                case SendBlob():
                    self._blobs.queue(effect)
                case DropBlob():
                    self._blobs.drop(effect.number)
                case Publish():
                    self._publish(effect)
                case Follow():
                    frames = encode(effect.message, effect.payload)
                    self._channel.publish(effect.user, [effect.topic, *frames])
                case KeepRecords() | KeepOutput() | FetchOutput():
                    self.to_file(effect)
                case Forget():
                    self._drop(effect.peer)
                    if self._intake is not None:
                        self._intake.forget(effect.peer)
                case Note():
                    if not effect.peer or self._may_complain(effect.peer):
                        log.info("%s", effect.text)
                case Record():
                    if self._authorizer is not None:
                        self._authorizer.record(effect)
                case _:
                    assert_never(effect)

    def _send_message(self, effect: Send) -> None:
        if len(effect.peer) == INSIDE_BYTES:
            self._say_inside(effect.peer, effect.message, effect.payload)
            return
        try:
            if type(effect.message) is Welcome:
                features = FEATURES if self._keeping is None else (*FEATURES, *OF_STORE)
                full = replace(effect.message, time_s=time.time(), features=features)
                self._send(effect.peer, encode(full))
            elif isinstance(effect.message, Bulk) and effect.payload:
                payload = effect.payload
                if effect.blobs:
                    whole = self._blobs.frames_of(effect.blobs)
                    payload = [*payload[:1], *whole, *payload[1:]]
                for piece in split(effect.message, payload):
                    self._send(effect.peer, encode(*piece))
            else:
                self._send(effect.peer, encode(effect.message, effect.payload))
        except WireError as error:  # whatever made it too long costs this message only
            log.error("cannot send to %s: %s", effect.peer.hex(), error)
        except OSError as error:
            self._lose_blob(effect.blobs[0], str(error))

    def _say_inside(self, peer: bytes, message: Any, payload: Sequence[bytes]) -> None:
        """Send to who is in this process."""
        if peer != DIRECT:
            if self._keeping is not None:
                self._keeping.hear_core(peer, message, payload)
        elif self._direct is not None:
            self._direct.say(message, payload)

    def _publish(self, effect: Publish) -> None:
        """Send output to who follows the topic, or to the client directly if it does not (yet)."""
        peer, user = self._core.follower(effect.message.job)
        if peer is not None and len(peer) == INSIDE_BYTES:
            self._say_inside(peer, effect.message, effect.payload)
            return
        frames = encode(effect.message, effect.payload)
        if not self._channel.publish(user, [effect.topic, *frames]) and peer is not None:
            self._send(peer, frames)

    def _send(self, peer: bytes, frames: list[bytes]) -> None:
        """Send to a connection, or queue behind what waits for it."""
        framed = [peer, *frames]
        if self._intake is not None and self._intake.is_gone(peer):  # perhaps it is another's now
            self._unreachable(peer)
            return
        if outbox := self._outboxes.get(peer):
            outbox.put(framed)
            if outbox.cost > OUTBOX_COST_MAX:
                self._give_up(peer)
            return
        try:
            if not sockets.send(self._router, framed):
                self._outboxes.setdefault(peer, Outbox()).put(framed)
                self._wake()
        except zmq.ZMQError as error:
            _check_unreachable(error)
            self._unreachable(peer)
        self._used()

    def _give_up(self, peer: bytes) -> None:
        """Drop a peer that asks and asks, or is told and told, and never reads."""
        self._drop(peer)
        if self._core.direction(peer) is not None:
            why = "you do not read the messages that are sent to you"
            self._carry_out(self._core.expel(peer, why, self._clock_s(), keys=False))

    def _send_piece(self, peer: bytes, piece: BlobPiece, data: bytes) -> None:
        self._send_message(Send(peer, piece, [data]))

    def _lose_blob(self, number: int, why: str) -> None:
        self._carry_out(self._core.blob_lost(number, why, self._clock_s()))

    def _flush(self) -> None:
        self._channel.serve()
        if self._blobs:
            self._blobs.send_some(self._outboxes.__contains__)
        for peer, outbox in list(self._outboxes.items()):
            if self._intake is not None and self._intake.is_gone(peer):
                self._unreachable(peer)
                continue
            try:
                if outbox.flush(self._router):
                    del self._outboxes[peer]
            except zmq.ZMQError as error:
                _check_unreachable(error)
                self._unreachable(peer)

    def _unreachable(self, peer: bytes) -> None:
        self._drop(peer)
        self._carry_out(self._core.unreachable(peer, self._clock_s()))


def _is_about_keys(message: object) -> bool:
    """Return whether the table of keys answers it; nodes renew their own keys, told by the core."""
    if isinstance(message, ManageKeys):
        return message.operation is not KeyOperation.ROTATE_NODE
    return isinstance(message, ReplaceKey)


def _check_unreachable(error: zmq.ZMQError) -> None:
    if error.errno != zmq.EHOSTUNREACH:
        raise error


def _is_random(peer: bytes) -> bool:
    """Return whether a routing id has the form of those that our peers choose at random.

    All others could be guessed: who has it when another's connection ends would be sent what is for
    that one. libzmq makes up ids of 5 bytes, and ends the process if it finds one taken.
    """
    return len(peer) == ROUTING_ID_BYTES
