"""A virtual clock and a seeded network that delays, drops, repeats, reorders and cuts.

A direct line does none of that: it is inside one process.

A connection keeps its order, as a ZeroMQ connection does, until it is cut: then what is under way
on it is lost, and what follows goes over a new one, under a new routing id, after a moment.
Idempotent messages may be repeated. The PUB channel drops and reorders.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import pytest

from burla.protocol import messages as m

DIRECT = b"direct"
Said = tuple[m.Message, list[bytes]]  # a message and its payload
REPEATABLE = (
    m.Heartbeat | m.Outcomes | m.Output | m.JobOutcomes | m.JobOutput | m.AckOutcomes | m.AckOutput
)


class Clock:
    """Runs what is due, in order of time; ties in order of entry."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._ties = count()

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (max(time_s, self.now_s), next(self._ties), action))

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        self.at(self.now_s + delay_s, action)

    def step(self) -> bool:
        """Run the next action; return False if there is none."""
        if not self._due:
            return False
        self.now_s, _, action = heapq.heappop(self._due)
        action()
        return True


@dataclass
class Faults:
    """How bad the network is."""

    delay_s: float = 0.001  # mean
    repeat: float = 0.05  # of repeatable messages
    drop_published: float = 0.2
    cut_every_s: float = 1.0  # mean time between two cuts of one connection; 0: never


@dataclass
class Connection:
    """One life of a DEALER's connection to the ROUTER."""

    peer: bytes
    alive: bool = True
    last_s: dict[str, float] = field(default_factory=dict)  # per direction


class Wire:
    """The line between one DEALER and the ROUTER, through all its reconnects."""

    def __init__(
        self,
        clock: Clock,
        random: random.Random,
        faults: Faults,
        to_router: Callable[[bytes, Said], None],
        to_dealer: Callable[[Said], None],
        register: Callable[[bytes, "Wire"], None],
    ) -> None:
        self._clock, self._random, self._faults = clock, random, faults
        self._to_router, self._to_dealer, self._register = to_router, to_dealer, register
        self._waiting: list[Said] = []  # said while there is no connection
        self._connection: Connection | None = None
        self.closed = False
        self._connect()

    def _connect(self) -> None:
        if self.closed:
            return
        peer = self._random.randbytes(5)
        self._connection = Connection(peer)
        self._register(peer, self)
        waiting, self._waiting = self._waiting, []
        for said in waiting:
            self.say(said)
        if self._faults.cut_every_s:
            until_s = self._random.expovariate(1 / self._faults.cut_every_s)
            self._clock.after(until_s, self._cut_by_chance)

    def _cut_by_chance(self) -> None:
        if self._faults.cut_every_s:
            self.cut()

    def cut(self, away_s: float | None = None) -> None:
        """Break the connection; a new one comes by itself, soon or after `away_s`."""
        if self._connection is not None:
            self._connection.alive = False
            self._connection = None
            soon_s = self._random.uniform(0.05, 0.4)
            self._clock.after(soon_s if away_s is None else away_s, self._connect)

    def close(self) -> None:
        """Break it for good: the process is dead."""
        self.closed = True
        if self._connection is not None:
            self._connection.alive = False
            self._connection = None

    def forget(self) -> None:
        """Drop what waits for a connection."""
        self._waiting.clear()

    def say(self, said: Said) -> None:
        """Send from the DEALER."""
        if self._connection is None:
            self._waiting.append(said)
            return
        peer = self._connection.peer
        self._send("up", lambda: self._to_router(peer, said), said)

    def answer(self, peer: bytes, said: Said) -> bool:
        """Send from the ROUTER; return False if that peer is gone."""
        if self._connection is None or self._connection.peer != peer:
            return False
        self._send("down", lambda: self._to_dealer(said), said)
        return True

    def _send(self, way: str, deliver: Callable[[], None], said: Said) -> None:
        connection = self._connection
        assert connection is not None

        def arrive() -> None:
            if connection.alive and not self.closed:
                deliver()

        times = 1
        if isinstance(said[0], REPEATABLE):
            times += self._random.random() < self._faults.repeat
        for _ in range(times):
            delay_s = self._random.expovariate(1 / self._faults.delay_s)
            at_s = max(self._clock.now_s + delay_s, connection.last_s.get(way, 0.0))
            connection.last_s[way] = at_s
            self._clock.at(at_s, arrive)


class DirectWire:
    """The line between a nodelet and the scheduler in its process: what is said is heard next."""

    def __init__(
        self,
        clock: Clock,
        to_router: Callable[[bytes, Said], None],
        to_dealer: Callable[[Said], None],
        register: Callable[[bytes, "DirectWire"], None],
    ) -> None:
        self._clock, self._to_router, self._to_dealer = clock, to_router, to_dealer
        register(DIRECT, self)

    def say(self, said: Said) -> None:
        """Send from the nodelet."""
        self._clock.after(0.0, lambda: self._to_router(DIRECT, said))

    def answer(self, peer: bytes, said: Said) -> bool:
        """Send from the scheduler."""
        self._clock.after(0.0, lambda: self._to_dealer(said))
        return peer == DIRECT

    def cut(self, away_s: float | None = None) -> None:
        """Do nothing: it cannot be cut."""

    def close(self) -> None:
        """Do nothing: the process is dead, and the scheduler with it."""


def pieces_sent(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return a list to which each piece of an input that is said is added: its leaf and start."""
    sent: list[tuple[int, int]] = []
    say = wire.say

    def note(said: Said) -> None:
        if isinstance(said[0], m.InputPiece):
            sent.append((said[0].leaf, said[0].start))
        say(said)

    monkeypatch.setattr(wire, "say", note)
    return sent
