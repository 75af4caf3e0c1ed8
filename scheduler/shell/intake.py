"""What arrives at a scheduler with keys, and in which order it is dealt with: nobody is held up.

Each key has a share of the time; who takes more waits (core/shares.py). Connections are watched
for messages without an end (watch.py), and known by what spoke on them, so that nothing is sent to
where somebody else may be now.
"""

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import zmq

from burla.scheduler.core.scheduler import Scheduler
from burla.scheduler.core.shares import Shares
from burla.transport import sockets

from .channel import Channel
from .watch import LOOK_S, Connection, Watch

if TYPE_CHECKING:
    from burla.scheduler.auth.authorizer import Authorizer

CATCH_UP_S = 0.002  # for what has waited, then others have their turn

log = logging.getLogger(__name__)


class Intake:
    """Takes messages off the ROUTER and hands them on, each key's in order."""

    def __init__(
        self,
        core: Scheduler,
        router: zmq.Socket[bytes],
        channel: Channel,
        watch: Watch,
        authorizer: "Authorizer",
        clock_s: Callable[[], float],
    ) -> None:
        """Take what arrives on `router`, whose connections `watch` has."""
        self._core, self._router, self._channel = core, router, channel
        self._authorizer, self._watch, self._clock_s = authorizer, watch, clock_s
        watch.on_end = self._on_end
        self._shares = Shares()
        self._gone: set[bytes] = set()  # peers whose connection has ended
        self._look_s = 0.0

    def is_waiting(self) -> bool:
        """Return whether there is something to deal with at once."""
        return bool(self._shares)

    def is_gone(self, peer: bytes) -> bool:
        """Return whether the connection that this peer spoke on has ended."""
        return peer in self._gone

    def forget(self, peer: bytes) -> None:
        """Drop what is kept for a peer."""
        self._gone.discard(peer)

    def take(self) -> Iterator[tuple[str, list[bytes]]]:
        """Yield what is to be dealt with now, a bounded part of it: the sender's key, and frames.

        The time until the next one is asked for is the sender's.
        """
        self._watch.take()
        since_s = self._clock_s()
        for user, descriptor, frames in sockets.take_with_origin(self._router, self._cut):
            if self._shares.must_wait(user, since_s):
                self._let_wait(user, descriptor, frames)
            else:
                self._note(descriptor, frames[0], user)
                yield user, frames
            since_s = self._charge(user, since_s)
        yield from self._catch_up(since_s)

    def _catch_up(self, since_s: float) -> Iterator[tuple[str, list[bytes]]]:
        until_s = since_s + CATCH_UP_S
        while self._shares and since_s < until_s:
            is_idle = not sockets.is_readable(self._router)
            waited = self._shares.pop(since_s, is_idle=is_idle)
            if waited is None:
                return
            user, frames = waited
            yield user, frames
            since_s = self._charge(user, since_s)

    def _charge(self, user: str, since_s: float) -> float:
        now_s = self._clock_s()
        self._shares.charge(user, now_s - since_s, now_s)
        return now_s

    def _note(self, descriptor: int, peer: bytes, user: str) -> Connection | None:
        connection = self._watch.heard(descriptor, peer, user)
        if connection is None:
            self._gone.add(peer)
        return connection

    def _let_wait(self, user: str, descriptor: int, frames: list[bytes]) -> None:
        """Keep a message of who has taken too much time; hang up on who has no more room.

        What such a one holds it says again on its next connection, as after the end of any other.
        """
        connection = self._note(descriptor, frames[0], user)
        self._core.note_heard(frames[0], self._clock_s(), user)
        if not self._shares.put(user, frames) and connection is not None:
            log.warning("hung up on key %s: it says more than its share of time allows", user[:16])
            self._watch.hang_up(connection)

    def _cut(self, user: str, descriptor: int) -> None:
        """Hang up on who sends messages of more frames than any of ours has: each costs time."""
        why = f"a message of it has more than {sockets.FRAMES_MAX} frames"
        for connection in self._watch:
            if connection.descriptor == descriptor:
                log.warning("hung up on a connection of key %s: %s", user[:16], why)
                self._watch.hang_up(connection)
        self._authorizer.shut_out(user, why)

    def turn_away(self, peer: bytes) -> None:
        """Hang up soon on who speaks as `peer`; what was sent to it may still go out."""
        for connection in self._watch:
            if connection.peer == peer:
                connection.is_unwanted = True

    def look(self) -> None:
        """Hang up on whoever is too much, if it is time to look again."""
        now_s = self._clock_s()
        if now_s < self._look_s:
            return
        self._look_s = now_s + LOOK_S
        is_drained = not sockets.is_readable(self._router)
        for connection, why in [*self._watch.look(is_drained=is_drained), *self._channel.look()]:
            if why:
                name = connection.user[:16] or "(none yet)"
                log.warning("hung up on a connection of key %s: %s", name, why)
                self._authorizer.shut_out(connection.user, why)
        self._shares.forget(now_s)
        self._gone = {peer for peer in self._gone if self._core.direction(peer) is not None}

    def _on_end(self, ended: Connection) -> None:
        if self._core.direction(ended.peer) is not None:
            self._gone.add(ended.peer)
