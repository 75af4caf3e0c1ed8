"""Turns connections away before descriptors run out: libzmq would spin, or even abort (ipc).

It cannot be told to stop accepting without ending all that it has accepted. So whoever is too much
is hung up on. Where strangers can come, those go that have said nothing for longest; on a socket
file, where all who come are known, those that come last, and each as soon as it is told of.
"""

import logging
from collections.abc import Callable

from burla.transport import descriptors

from .channel import Channel
from .watch import Connection, Watch

RESERVE = 32  # descriptors, besides connections: files that are read, what libzmq opens
FULL = 0.5  # of what is left may be connections: libzmq takes more before we are told of them
COMPLAIN_S = 10.0

log = logging.getLogger(__name__)


class Door:
    """How many connections a scheduler has, of its two sockets together, and which are too many."""

    def __init__(
        self, channel: Channel, watch: Watch, clock_s: Callable[[], float], *, strangers: bool
    ) -> None:
        """Let in as many as there will be descriptors for.

        Args:
            channel: has the one socket.
            watch: of the other.
            clock_s: the clock.
            strangers: whoever can reach the address may connect.
        """
        self._channel, self._watch, self._clock_s = channel, watch, clock_s
        self._strangers = strangers
        room = descriptors.limit() - descriptors.opened() - RESERVE
        self._most = max(1, int(room * FULL))
        self._complaint_s = 0.0
        if not strangers:
            watch.on_begin = channel.connections.on_begin = self._turn_away

    def look(self) -> None:
        """Hang up on who is too much; costs little if nobody is."""
        count = len(self._watch) + len(self._channel.connections)
        if count > self._most and self._strangers:
            self._thin(count - self._most)

    def _thin(self, count: int) -> None:
        """Hang up on so many that have not said a word, those first that have had longest."""
        found: list[tuple[Watch, Connection]] = []
        for watch in (self._watch, self._channel.connections):
            found += [(watch, one) for one in watch if not one.peer and not one.is_unwanted]
        found.sort(key=lambda one: one[1].since_s)
        for watch, connection in found[:count]:
            connection.is_unwanted = True
            watch.hang_up(connection)
        self._complain()

    def _turn_away(self, watch: Watch, connection: Connection) -> None:
        if len(self._watch) + len(self._channel.connections) > self._most:
            connection.is_unwanted = True
            watch.hang_up(connection)
            self._complain()

    def _complain(self) -> None:
        now_s = self._clock_s()
        if now_s >= self._complaint_s:
            self._complaint_s = now_s + COMPLAIN_S
            log.error(
                "more than %d connections, which is all that the limit of %d open files allows:"
                " others are turned away; raise it (ulimit -n; LimitNOFILE= of its unit)",
                self._most,
                descriptors.limit(),
            )
