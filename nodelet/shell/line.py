"""The line between an agent and its scheduler: over a socket, or direct, in the same process.

The agent says and hears messages; which kind of line it has, neither it nor its core knows.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import zmq

from burla.limits import VALUE_BYTES_MAX
from burla.nodelet.config import NodeletConfig
from burla.protocol import messages as m
from burla.protocol.codec import Reassembler, WireError, decode, encode, split
from burla.protocol.key_messages import KeyReplaced, RenewKey, ServerKey
from burla.transport import sockets
from burla.transport.dialing import REFUSALS, Dialer
from burla.transport.direct import DirectEnd, Hear, Said
from burla.transport.sockets import Alarm, Outbox, SocketWaiter

from .node_keys import NodeKeys

# Of messages in pieces: one of the largest size that a scheduler takes, and the inputs beside it.
UNFINISHED_BYTES_MAX = 2 * VALUE_BYTES_MAX
LAST_WORD_MS = 200  # for it to go out, if the scheduler still listens
RETRY_S = 0.05  # what the socket did not take is tried again; its FD usually tells sooner

log = logging.getLogger(__name__)


class Line(Protocol):
    """What the agent needs of its line."""

    refusal: str | None  # why the scheduler never will take this nodelet's key

    def begin(self, hear: Hear) -> None:
        """Be ready; from now on `hear` takes what the scheduler says, in the loop."""

    def connect(self) -> None:
        """Connect, without waiting for it."""

    async def wait(self, timeout_s: float) -> None:
        """Return when `attend` has something to do, `wake` was called or `timeout_s` has passed."""

    def wake(self) -> None:
        """End a `wait` that is under way, or the next one."""

    def hurry(self, timeout_s: float) -> None:
        """End a `wait` that is under way after so long instead of later."""

    def attend(self) -> None:
        """Do what is due: let what has come be heard, send what waits."""

    def say(self, message: m.Message, payload: Sequence[bytes]) -> None:
        """Send a message to the scheduler, in order; never waits."""

    def end(self) -> None:
        """Hear no more."""

    def close(self) -> None:
        """Let go of everything; a last word may still go out."""


class SocketLine:
    """A DEALER: over ipc, or over TCP with keys."""

    def __init__(self, config: NodeletConfig, clock_s: Callable[[], float]) -> None:
        """Make the socket; not connected yet."""
        self.refusal: str | None = None
        self._endpoint, self._clock_s = config.endpoint(), clock_s
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        curve = config.curve()
        self._dealer = sockets.make_socket(self._context, zmq.DEALER, curve)
        self._dialer = Dialer(self._dealer, clock_s, curve) if curve is not None else None
        self._keys = None
        if self._dialer is not None:
            self._keys = NodeKeys(self._dialer, config.key_file, self.say)
        self._has_met = False  # the scheduler took our key once
        self._reassembler = Reassembler(UNFINISHED_BYTES_MAX)
        self._outbox = Outbox()
        self._waits = False
        self._hear: Hear

    def begin(self, hear: Hear) -> None:
        """Watch the socket."""
        self._hear = hear
        self._waiter = SocketWaiter(self._dealer)

    def connect(self) -> None:
        """Connect."""
        if self._dialer is None:
            self._dealer.connect(self._endpoint)
            return
        asyncio.get_running_loop().add_reader(self._dialer.socket.FD, self._waiter.wake)
        self._dialer.connect(self._endpoint)

    async def wait(self, timeout_s: float) -> None:
        """Wait for the socket, and for the time to try again what it did not take."""
        if self._outbox.waiting:
            timeout_s = min(timeout_s, RETRY_S)
        if self._dialer is not None and (redial_s := self._dialer.due_s()) is not None:
            timeout_s = min(timeout_s, redial_s - self._clock_s())
        self._waits = True
        await self._waiter.wait_readable(timeout_s)
        self._waits = False

    def wake(self) -> None:
        """Look again."""
        self._waiter.wake()

    def hurry(self, timeout_s: float) -> None:
        """Look again after so long instead of later."""
        self._waiter.hurry(timeout_s)

    def attend(self) -> None:
        """Send what waits, hear what has come, connect anew if it is time to."""
        if self._outbox.waiting:
            self._outbox.flush(self._dealer)
        self._hear(self._whole())
        if self._dialer is not None:
            self._look_at(self._dialer)

    def _whole(self) -> Iterator[Said]:
        for frames in sockets.take_in_place(self._dealer):
            self._has_met = True
            try:
                said = self._reassembler.add(*decode(frames, m.SchedulerToNodelet))
            except WireError as error:
                log.warning("ignored a frame of the scheduler: %s", error)
                continue
            if said is None:
                continue
            if not isinstance(said[0], ServerKey | RenewKey | KeyReplaced):
                yield said
            elif self._keys is not None:
                self._keys.take(said[0])

    def _look_at(self, dialer: Dialer) -> None:
        what = dialer.look()
        # who has served a scheduler waits for it to come back, whatever answers there meanwhile
        if what == "key" or (what == "server" and not self._has_met):
            self.refusal = REFUSALS[what]

    def say(self, message: m.Message, payload: Sequence[bytes] = ()) -> None:
        """Send now, or queue behind what waits."""
        if isinstance(message, m.Heartbeat) and self._outbox.waiting:
            return  # nobody is there; or all the rest says that we live
        pieces: Sequence[tuple[m.Message, Sequence[Any]]] = [(message, payload)]
        if isinstance(message, m.Bulk):
            pieces = split(message, payload)
        for piece, frames in pieces:
            self._outbox.send(self._dealer, encode(piece, frames))
        if self._waits and self._outbox.waiting:
            self._waiter.wake()
        self._waiter.used()

    def end(self) -> None:
        """Watch the socket no more."""
        self._waiter.close()
        if self._dialer is not None:
            asyncio.get_running_loop().remove_reader(self._dialer.socket.FD)

    def close(self) -> None:
        """Close the socket."""
        if self._dialer is not None:
            self._dialer.close()
        self._dealer.close(linger=LAST_WORD_MS)
        self._context.term()


class DirectLine:
    """To the scheduler in this process: what it says is heard at once."""

    def __init__(self, end: DirectEnd) -> None:
        """Use this end."""
        self.refusal: str | None = None
        self._end = end
        self._alarm = Alarm()
        self.wait, self.wake, self.hurry = self._alarm.wait, self._alarm.wake, self._alarm.hurry

    def begin(self, hear: Hear) -> None:
        """Let it be heard from now on."""
        self._end.begin(hear)

    def connect(self) -> None:
        """Do nothing: it is there."""

    def attend(self) -> None:
        """Do nothing: what was said has been heard."""

    def say(self, message: m.Message, payload: Sequence[bytes]) -> None:
        """Let the scheduler hear it soon."""
        self._end.say(message, payload)

    def end(self) -> None:
        """Hear no more."""
        self._end.end()

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""
