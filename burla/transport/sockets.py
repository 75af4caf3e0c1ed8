"""How every ZeroMQ socket is made, waited for, read and closed. No other file makes one.

Raw sockets with DONTWAIT, driven from asyncio by their edge-triggered FD: `zmq.asyncio` costs a
future per message, and a cancelled `recv` of it can lose one.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import zmq

from .keys import ClientCurve, ServerCurve

HWM = 1000  # messages per peer; our windows (bytes) stay below it
MESSAGE_BYTES_MAX = 16 << 20  # one frame; ours are at most 1 MiB and a header
# Of one message: a piece of codec.split, its header, and what a ROUTER puts in front.
FRAMES_MAX = (1 << 14) + 16
DRAIN_MESSAGES = 256  # taken per turn of the loop, then others have theirs
DRAIN_S = 0.002
LATE = 0.01  # of a wait, that it may take longer: readings of a clock differ by as much
RETRY_S = 0.002  # a peer whose pipe is full is tried again after this long
MESSAGE_COST = 256  # bytes that an empty message takes while it waits
COPY_BYTES = 32 << 10  # frames below are copied on their way: cheaper than the bookkeeping
SUBSCRIPTION_BYTES_MAX = 1024  # a handshake command of CURVE fits; a subscription has 17 bytes
ROUTING_ID_BYTES = 16  # of a peer with keys: its own choice, which nobody can guess
HWM_KEYED = 64  # received messages per peer, where strangers send some of 16 MiB
BUFFER_BYTES = 4 << 20  # of the kernel, per direction, where nothing goes over a network
# As numbers: to join two of zmq's enums takes longer than to send a frame.
_READABLE, _NOW, _MORE = int(zmq.POLLIN), int(zmq.DONTWAIT), int(zmq.DONTWAIT | zmq.SNDMORE)
_SRCFD = int(zmq.SRCFD)


def make_socket(
    context: zmq.Context[zmq.Socket[bytes]],
    kind: int,
    curve: ClientCurve | ServerCurve | None = None,
) -> zmq.Socket[bytes]:
    """Return a socket with every option set that must be set before bind or connect.

    Args:
        context: of the socket.
        kind: ROUTER, DEALER, XPUB, ...
        curve: the keys, for TCP; None for what never leaves this machine.
    """
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, HWM)
    socket.setsockopt(zmq.RCVHWM, HWM)
    if curve is None:
        # Not over TCP: who says how much stops the kernel from finding out, and gets at most
        # net.core.wmem_max. By default that is 208 KiB, and a line of 40 ms carries 6 MB/s.
        socket.setsockopt(zmq.SNDBUF, BUFFER_BYTES)
        socket.setsockopt(zmq.RCVBUF, BUFFER_BYTES)
    socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
    socket.setsockopt(zmq.IMMEDIATE, 1)  # never queue for a peer that is not there
    socket.setsockopt(zmq.HEARTBEAT_IVL, 5000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 20000)
    socket.setsockopt(zmq.HEARTBEAT_TTL, 20000)  # 65,600 ms and more overflow in libzmq
    socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 5000)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 30)
    socket.setsockopt(zmq.BACKLOG, 1024)
    socket.setsockopt(zmq.IPV6, 1)
    if kind == zmq.ROUTER:
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # a send to nobody is an error, not silence
    if kind == zmq.XPUB:
        socket.setsockopt(zmq.XPUB_MANUAL, 1)  # nobody gets a topic that we did not grant
        socket.setsockopt(zmq.MAXMSGSIZE, SUBSCRIPTION_BYTES_MAX)
    if isinstance(curve, ServerCurve):
        socket.setsockopt(zmq.RCVHWM, HWM_KEYED)
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, curve.pair.secret)
        socket.setsockopt(zmq.ZAP_DOMAIN, curve.domain.encode())  # without one, nobody is asked
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    elif curve is not None:
        socket.setsockopt(zmq.CURVE_SERVERKEY, curve.server)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, curve.pair.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, curve.pair.secret)
        if kind == zmq.DEALER:
            socket.setsockopt(zmq.ROUTING_ID, new_routing_id())
    return socket


def new_routing_id() -> bytes:
    """Return an id for one connection: random, and not of the form that a ROUTER makes up."""
    return b"\1" + os.urandom(ROUTING_ID_BYTES - 1)


class Alarm:
    """Wakes one task after a time that may be made shorter while it waits, or at once."""

    def __init__(self) -> None:
        """Be used inside the running loop."""
        import asyncio  # 20 ms of a script's start, and clients have no loop

        self._loop = asyncio.get_running_loop()
        self._is_set = False
        self._waiting: asyncio.Future[None] | None = None  # the task; an Event takes twice as long
        self._timer: asyncio.Handle | None = None  # rings when the present wait ends, or before
        self._rings_s = 0.0  # when, on the loop's clock

    def is_set(self) -> bool:
        """Return whether the next `wait` returns at once."""
        return self._is_set

    def wake(self) -> None:
        """End a `wait` that is under way, or the next one."""
        self._is_set = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def hurry(self, timeout_s: float) -> None:
        """End a `wait` that is under way after so long instead of later."""
        if self._waiting is not None:
            self._set_timer(timeout_s)

    async def wait(self, timeout_s: float | None) -> None:
        """Return when `wake` was called, or `timeout_s` has passed; None: not by itself.

        It may also return sooner, now and then.
        """
        if not self._is_set:
            self._waiting = self._loop.create_future()
            if timeout_s is not None:
                self._set_timer(timeout_s)
            try:
                await self._waiting
            finally:
                self._waiting = None
        self._is_set = False

    def _set_timer(self, timeout_s: float) -> None:
        """Be woken after so long.

        A timer that rings earlier, or hardly later, stays: a loop that is woken by messages again
        and again would make one for each. It may end a later wait too soon, once.
        """
        until_s = self._loop.time() + timeout_s
        if self._timer is not None:
            if self._rings_s <= until_s + LATE * timeout_s:
                return
            self._timer.cancel()
        self._rings_s = until_s
        self._timer = self._loop.call_later(max(0.0, timeout_s), self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._waiting is not None:
            self.wake()

    def close(self) -> None:
        """Let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class SocketWaiter:
    """Wakes one task when a ZeroMQ socket may be read, or when somebody calls `wake`."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        """Register the socket's FD with the running loop."""
        import asyncio  # as above

        self._socket = socket
        self._fd = socket.FD
        self._loop = asyncio.get_running_loop()
        self._alarm = Alarm()
        self._waits = False
        self.wake, self.hurry = self._alarm.wake, self._alarm.hurry
        self._loop.add_reader(self._fd, self.wake)

    async def wait_readable(self, timeout_s: float | None) -> None:
        """Return when the socket may be read, `wake` was called, or `timeout_s` has passed.

        The FD is edge-triggered, and any call on the socket may eat the edge: ask EVENTS first.
        """
        if not self._alarm.is_set() and is_readable(self._socket):
            self.wake()
        self._waits = True
        try:
            await self._alarm.wait(timeout_s)
        finally:
            self._waits = False

    def readable(self) -> bool:
        """Return whether a message waits; also makes libzmq process what its FD announced."""
        return is_readable(self._socket)

    def used(self) -> None:
        """Take note that somebody has sent on the socket, perhaps while it is waited for.

        That may have eaten the edge: then nobody would hear of what has come until something else
        happens.
        """
        if self._waits and is_readable(self._socket):
            self.wake()

    def close(self) -> None:
        """Forget the FD. To be called before the socket is closed."""
        self._loop.remove_reader(self._fd)
        self._alarm.close()


def is_readable(socket: zmq.Socket[bytes]) -> bool:
    """Return whether a message waits; also makes libzmq process what its FD announced."""
    events: Any = socket.getsockopt(zmq.EVENTS)
    return bool(events & _READABLE)


def take(socket: zmq.Socket[bytes]) -> Iterator[list[bytes]]:
    """Yield the messages that wait on `socket`, a bounded number of them."""
    return ([frame.bytes for frame in frames] for frames in _take(socket))


def take_in_place(socket: zmq.Socket[bytes]) -> Iterator[list[bytes]]:
    """Yield as `take` does; large frames stay where libzmq put them, and are seen as bytes.

    Not for what may be freed in the main thread of a caller: freeing a frame looks for signals, and
    what their handlers raise then, as Ctrl-C does, is lost.
    """
    return map(_contents, _take(socket))


def take_with_origin(
    socket: zmq.Socket[bytes], cut: Callable[[str, int], None] = lambda user, descriptor: None
) -> Iterator[tuple[str, int, list[bytes]]]:
    """Yield as `take_in_place` does, each behind where it came from.

    That is the user id that the ZAP handler gave its sender, whatever its routing id says; and the
    descriptor of the connection that it came on, -1 if it is not known. `cut` is called with these
    for a message that is dropped, because it has more than `FRAMES_MAX` frames.
    """

    def is_cut(frame: zmq.Frame) -> None:
        cut(*_origin(frame))

    return ((*_origin(frames[-1]), _contents(frames)) for frames in _take(socket, is_cut))


def _origin(frame: zmq.Frame) -> tuple[str, int]:
    try:
        return str(frame.get("User-Id")), int(frame.get(_SRCFD))
    except zmq.ZMQError:  # nobody asked: ipc, or libzmq's own words about a peer that left
        return "", -1


def _take(
    socket: zmq.Socket[bytes], cut: Callable[[zmq.Frame], None] = lambda frame: None
) -> Iterator[list[zmq.Frame]]:
    until = time.monotonic() + DRAIN_S
    is_cut = True  # the last message, perhaps, by the turn before
    for _ in range(DRAIN_MESSAGES):
        if is_cut and socket.getsockopt(zmq.RCVMORE) and not _skip(socket):
            return
        events: Any = socket.getsockopt(zmq.EVENTS)
        if not events & _READABLE:  # a third of what an exception costs that nothing is there
            return
        frames = [socket.recv(_NOW, copy=False)]
        while frames[-1].more and len(frames) < FRAMES_MAX:  # libzmq has all of a message, or none
            frames.append(socket.recv(_NOW, copy=False))
        is_cut = frames[-1].more
        if is_cut:
            cut(frames[-1])
        else:
            yield frames
        if time.monotonic() > until:
            return


def _skip(socket: zmq.Socket[bytes]) -> bool:
    """Drop what is left of a message with too many frames, a bounded part of it at a time.

    Return whether the next frame begins a message.
    """
    for _ in range(FRAMES_MAX):
        if not socket.getsockopt(zmq.RCVMORE):
            return True
        socket.recv(_NOW)
    return not socket.getsockopt(zmq.RCVMORE)


def _contents(frames: Sequence[zmq.Frame]) -> list[bytes]:
    found: list[Any] = [
        frame.bytes if len(frame) < COPY_BYTES else frame.buffer for frame in frames
    ]
    return found


def send(socket: zmq.Socket[bytes], frames: Sequence[bytes]) -> bool:
    """Send one message without waiting; return False when the peer's pipe is full or there is none.

    Raises:
        zmq.ZMQError: EHOSTUNREACH on a ROUTER: the peer is gone.
    """
    copy = max(map(len, frames)) < COPY_BYTES
    last = len(frames) - 1
    try:
        for at, frame in enumerate(frames):  # once the first is taken, libzmq takes them all
            sent = frame if copy else _of_libzmq(frame)
            socket.send(sent, _MORE if at < last else _NOW, copy=copy)
    except zmq.Again:
        return False
    return True


def hold(data: bytes | bytearray | memoryview) -> memoryview:
    """Return a copy of many bytes, which is sent in place."""
    return zmq.Frame(data, copy=True).buffer


def _of_libzmq(frame: object) -> Any:
    """Return the frame that libzmq has, if these are all of its bytes: it goes out as it is.

    For any other memory a thread of pyzmq must hear of it when it went out: that takes longer than
    to copy a MiB.
    """
    if type(frame) is memoryview:
        held: Any = frame.obj
        if type(held) is zmq.Frame and len(held) == frame.nbytes:
            return held
    return frame


def _cost(frames: Sequence[bytes]) -> int:
    return MESSAGE_COST + sum(len(frame) for frame in frames[:2])  # routing id and header


class Outbox:
    """Messages for one peer that did not fit into its pipe yet, in order."""

    def __init__(self) -> None:
        """Start empty."""
        self.waiting: deque[Sequence[bytes]] = deque()
        self.cost = 0  # of what waits, without payloads: those are bounded by our windows

    def __bool__(self) -> bool:
        return bool(self.waiting)

    def send(self, socket: zmq.Socket[bytes], frames: Sequence[bytes]) -> None:
        """Send one message behind those that wait, now if that can be."""
        if self.waiting or not send(socket, frames):
            self.put(frames)

    def put(self, frames: Sequence[bytes]) -> None:
        """Queue one message."""
        self.waiting.append(frames)
        self.cost += _cost(frames)

    def flush(self, socket: zmq.Socket[bytes]) -> bool:
        """Send what fits; return whether all went.

        Raises:
            zmq.ZMQError: EHOSTUNREACH on a ROUTER: the peer is gone.
        """
        while self.waiting:
            if not send(socket, self.waiting[0]):
                return False
            self.cost -= _cost(self.waiting.popleft())
        return True
