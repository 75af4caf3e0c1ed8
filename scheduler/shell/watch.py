"""Watches the TCP connections of a listening socket, which libzmq keeps to itself.

libzmq gathers all parts of a message before anybody sees the first, however many there are. But
the kernel counts what each connection has received, and libzmq tells on which descriptor a whole
message came. So whoever has sent very much since its last whole message is hung up on, and so is
whoever gets in and never says a word. Descriptors are libzmq's, closed by it at any time and used
again: a connection is known by its inode, and only touched while a copy of the descriptor holds it.
"""

import asyncio
import contextlib
import errno
import os
import socket as python_socket
import struct
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING

import zmq
from msgspec import Struct

from burla.transport import sockets
from burla.transport.descriptors import spare

if TYPE_CHECKING:
    import ctypes

LOOK_S = 0.25  # between two looks; a fast network brings 300 MB meanwhile
UNFINISHED_MAX = 32 << 20  # bytes of one connection since its last whole message; ours have 3 MiB
FIRST_MAX = 4 << 20  # likewise before the first: a Hello has 1 MiB
UNFINISHED_ALL_MAX = 256 << 20  # of all connections together
QUEUED_MAX = 192 << 20  # more of one, while messages wait to be taken: they are whole, perhaps
QUEUED_ALL_MAX = 768 << 20  # likewise of all
IDLE_BYTES_PER_S = 1024.0  # what libzmq says by itself, over weeks, is no message
SILENT_S = 15.0  # a Hello is said at once
EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED
INFO_BYTES, RECEIVED_AT = 192, 128  # struct tcp_info, tcpi_bytes_received in it: Linux 4.1


class Connection(Struct, eq=False):
    """One connection, from its beginning to its end."""

    descriptor: int
    inode: int
    since_s: float
    peer: bytes = b""  # routing id under which it spoke last; empty: it has not
    user: str = ""  # likewise its key
    has_spoken: bool = False  # since the last look
    received: int = 0  # bytes until the last look after which it spoke
    heard_s: float = 0.0
    is_unwanted: bool = False  # it was told why, and is hung up on at the next look


class Watch:
    """The connections of one socket, as far as its monitor has told."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        clock_s: Callable[[], float],
        *,
        may_be_silent: bool = False,
    ) -> None:
        """Watch a socket that is not bound yet.

        Args:
            socket: which.
            clock_s: the clock.
            may_be_silent: those who connect need not say anything.
        """
        self.on_end: Callable[[Connection], None] = lambda ended: None  # told of each one's end
        self.on_begin: Callable[[Watch, Connection], None] = lambda watch, began: None
        self._watched, self._clock_s = socket, clock_s
        self._silent_s = float("inf") if may_be_silent else SILENT_S
        self._connections: dict[int, Connection] = {}  # by descriptor
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told: Callable[[], None] = lambda: None
        # Its socket was announced to be readable and is not drained yet; nothing is announced
        # before it was found empty once.
        self._has_news = True
        name = f"inproc://watch-{os.urandom(8).hex()}"
        socket.monitor(name, EVENTS)
        self.socket = sockets.make_socket(socket.context, zmq.PAIR)
        self.socket.setsockopt(zmq.RCVHWM, 0)  # else libzmq's threads would wait for us
        self.socket.connect(name)

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._connections.values())

    def follow(self, told: Callable[[], None]) -> None:
        """Call `told` when connections have begun or ended; `take_news` says which."""
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.socket.FD, self._on_news)

    def _on_news(self) -> None:
        self._has_news = True
        self._told()

    def take_news(self) -> None:
        """Take note of what was told of; as good as `take` once a turn, and costs nothing."""
        if self._has_news:
            self.take()

    def close(self) -> None:
        """Watch no longer. To be called before the socket is closed."""
        if self._loop is not None:
            self._loop.remove_reader(self.socket.FD)
        self._watched.disable_monitor()
        self.socket.close(0)

    def take(self) -> None:
        """Take note of the connections that began and ended."""
        while sockets.is_readable(self.socket):
            for event, *_ in sockets.take(self.socket):
                number, descriptor = struct.unpack_from("=hi", event)
                if number == zmq.EVENT_ACCEPTED:
                    self._begin(descriptor)
                elif ended := self._connections.pop(descriptor, None):
                    self.on_end(ended)
        self._has_news = False

    def _begin(self, descriptor: int) -> Connection | None:
        """Take up a connection; return None if it has ended already."""
        known = self._connections.get(descriptor)
        try:
            inode, now_s = os.fstat(descriptor).st_ino, self._clock_s()
        except OSError:
            return None
        if known is not None and known.inode == inode:
            return known
        connection = Connection(descriptor, inode, now_s, heard_s=now_s)
        self._connections[descriptor] = connection
        self.on_begin(self, connection)
        return connection

    def heard(self, descriptor: int, peer: bytes, user: str) -> Connection | None:
        """Note a whole message; return the connection that it came on, None if that has ended."""
        connection = self._connections.get(descriptor)
        if connection is None:  # it may speak before the thread that took it has told so
            self.take()
            connection = self._begin(descriptor)
        if connection is not None:
            connection.peer, connection.user, connection.has_spoken = peer, user, True
        return connection

    def look(self, *, is_drained: bool) -> list[tuple[Connection, str]]:
        """Hang up on whoever is too much; return these, and why, for the log.

        Args:
            is_drained: all whole messages were taken, so what is there is of unfinished ones.
        """
        self.take()
        now_s = self._clock_s()
        more = 0 if is_drained else QUEUED_MAX
        found: list[tuple[Connection, str]] = []
        open_: list[tuple[int, Connection]] = []
        for connection in self._connections.values():
            received = received_bytes(connection.descriptor)
            if connection.has_spoken:
                connection.has_spoken = False
                connection.received, connection.heard_s = received, now_s
            size = received - connection.received
            allowed = UNFINISHED_MAX if connection.peer else FIRST_MAX
            allowed += more + int(IDLE_BYTES_PER_S * (now_s - connection.heard_s))
            if connection.is_unwanted:
                found.append((connection, ""))
            elif size > allowed:
                found.append((connection, _endless(size)))
            elif not connection.peer and now_s >= connection.since_s + self._silent_s:
                found.append((connection, ""))
            else:
                open_.append((size, connection))
        found += _excess(open_, UNFINISHED_ALL_MAX if is_drained else QUEUED_ALL_MAX)
        for connection, _ in found:
            self.hang_up(connection)
        return found

    def hang_up(self, connection: Connection) -> None:
        """End a connection: libzmq reads that it has ended."""
        with contextlib.suppress(OSError):
            copy = _duplicate(connection.descriptor)
            try:
                if os.fstat(copy).st_ino == connection.inode:
                    _kernel()[0].shutdown(copy, python_socket.SHUT_RDWR)
            finally:
                os.close(copy)


def _duplicate(descriptor: int) -> int:
    try:
        return os.dup(descriptor)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
    with spare():
        return os.dup(descriptor)


def _endless(size: int) -> str:
    return f"it has sent {size >> 20} MiB without ending a message"


def _excess(open_: list[tuple[int, Connection]], bytes_max: int) -> list[tuple[Connection, str]]:
    """Return those with the most, so that the others have no more than `bytes_max` together."""
    total = sum(size for size, _ in open_)
    found: list[tuple[Connection, str]] = []
    if total > bytes_max:
        for size, connection in sorted(open_, key=lambda one: -one[0]):
            if total <= bytes_max:
                break
            total -= size
            found.append((connection, _endless(size)))
    return found


def received_bytes(descriptor: int) -> int:
    """Return how many bytes a TCP connection has received; 0: it is none (any more)."""
    libc, info, length = _kernel()
    length.value = INFO_BYTES
    level, name = python_socket.IPPROTO_TCP, python_socket.TCP_INFO
    if libc.getsockopt(descriptor, level, name, info, _by_reference(length)):
        return 0
    if length.value < RECEIVED_AT + 8:
        return 0
    received: int = struct.unpack_from("=Q", info, RECEIVED_AT)[0]
    return received


@cache
def _kernel() -> "tuple[ctypes.CDLL, ctypes.Array[ctypes.c_char], ctypes.c_uint32]":
    import ctypes  # a private cluster starts without

    return ctypes.CDLL(None), ctypes.create_string_buffer(INFO_BYTES), ctypes.c_uint32()


def _by_reference(length: "ctypes.c_uint32") -> object:
    import ctypes

    return ctypes.byref(length)


def seed_libzmq() -> None:
    """Let libzmq's random numbers differ from process to process: it never seeds them itself."""
    _kernel()[0].srand(int.from_bytes(os.urandom(4), "little"))
