"""Many simulated nodelets in one process: `python -m perf.fleet ADDRESS NODES SLOTS CALL_S`.

Each has a connection of its own. All of them hang on one ROUTER of ours, which names the
connections: 1,000 DEALERs would cost a wake-up and several calls each for what is one here, and the
scheduler can't tell. A line on stdin asks for a line of JSON with what was counted since the start.
"""

import heapq
import json
import math
import os
import select
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

import msgspec
import zmq

from burla.protocol import VERSION, messages as m
from burla.transport import sockets

from .simulated import SimulatedNode

BEAT_S = 1.0
RAM = 64 << 30  # bytes; nothing is asked for
TAKE_MAX = 256  # messages in a row, then the clock is looked at
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
ANSWER_S_MAX = 60.0  # for a line of counts; a process that computes without a pause is slow


@dataclass
class Counts:
    """What happened since the start."""

    taken: int = 0  # messages from the scheduler
    sent: int = 0  # messages to it
    welcomed: int = 0  # nodes that joined
    leased: int = 0  # nodes that have a lease now
    busy_s: float = 0.0  # slot-seconds of calls, over all nodes
    at_s: float = 0.0  # on the clock that all processes share


class Fleet:
    """The nodes and their one socket."""

    def __init__(self, address: str, nodes: int, slots: int, call_s: float) -> None:
        """Connect all of them."""
        self.counts = Counts()
        self._nodes = [SimulatedNode(slots, call_s) for _ in range(nodes)]
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = sockets.make_socket(self._context, zmq.ROUTER)
        # pipes at once, else they would not get their names
        self._router.setsockopt(zmq.IMMEDIATE, 0)
        # Straight to and from msgpack: here only time counts, and bad headers don't come.
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(m.SchedulerToNodelet).decode
        self._wakes: list[tuple[float, int]] = []
        self._wake_s = [math.inf] * nodes  # the one entry that counts of each node
        now_s = time.monotonic()
        self._beats = [(now_s + BEAT_S * (1 + i / nodes), i) for i in range(nodes)]
        for number in range(nodes):
            self._router.setsockopt(zmq.CONNECT_ROUTING_ID, self._name(number))
            self._router.connect(address)
            hello = m.NodeHello(
                m.PROTOCOL, VERSION, PYTHON, os.urandom(16), f"sim{number}", slots, RAM, ()
            )
            self._say(number, hello)

    def close(self) -> None:
        """Drop all connections."""
        self._router.close(linger=0)
        self._context.term()

    def run(self) -> None:
        """Serve until stdin is closed."""
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(sys.stdin.fileno(), zmq.POLLIN)
        while True:
            due_s = min(self._wakes[0][0] if self._wakes else math.inf, self._beats[0][0])
            ready = dict(poller.poll(max(0, math.ceil((due_s - time.monotonic()) * 1000))))
            if sys.stdin.fileno() in ready:
                if not os.read(sys.stdin.fileno(), 4096):
                    return
                self._tell_counts()
            self._take()
            self._look_at_clock()

    def _take(self) -> None:
        router, decode, counts = self._router, self._decode, self.counts
        for _ in range(TAKE_MAX):
            try:
                name, header, *_ = router.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            counts.taken += 1
            self._heard(int.from_bytes(name[1:], "big"), decode(header))

    def _heard(self, number: int, said: m.Message) -> None:
        node = self._nodes[number]
        match said:
            case m.Assign() if said.lease == node.lease and said.piece == 0:
                node.assign(said.spans, said.report_s, time.monotonic())
            case m.Retract() if said.lease == node.lease:
                spans = node.retract(said.inputs, time.monotonic())
                self._say(number, m.Retracted(said.lease, tuple(spans)))
            case m.StartLease():
                node.begin(said)
                self.counts.leased += 1
            case m.EndLease():
                if said.lease == node.lease:
                    node.end()
                    self.counts.leased -= 1
                self._say(number, m.Stopped(said.lease))
            case m.Welcome():
                self.counts.welcomed += 1
            case m.Refused() | m.HelloRequired():
                raise RuntimeError(f"the scheduler says {said}")
            case _:
                return
        self._set_wake(number)

    def _look_at_clock(self) -> None:
        now_s = time.monotonic()
        while self._wakes and self._wakes[0][0] <= now_s:
            wake_s, number = heapq.heappop(self._wakes)
            if wake_s != self._wake_s[number]:
                continue  # another one was set since
            self._wake_s[number] = math.inf
            for message, payload in self._nodes[number].report(now_s):
                self._say(number, message, payload)
            self._set_wake(number)
        while self._beats[0][0] <= now_s:
            beat_s, number = self._beats[0]
            heapq.heapreplace(self._beats, (beat_s + BEAT_S, number))
            self._say(number, m.Heartbeat())

    def _set_wake(self, number: int) -> None:
        wake_s = self._nodes[number].wake_s()
        if wake_s != self._wake_s[number]:
            self._wake_s[number] = wake_s
            if wake_s < math.inf:
                heapq.heappush(self._wakes, (wake_s, number))

    def _say(self, number: int, message: m.Message, payload: list[bytes] | None = None) -> None:
        self.counts.sent += 1
        self._router.send_multipart([self._name(number), self._encode(message), *(payload or ())])

    def _tell_counts(self) -> None:
        now_s = self.counts.at_s = time.monotonic()
        self.counts.busy_s = sum(node.busy_until(now_s) for node in self._nodes)
        print(json.dumps(asdict(self.counts)), flush=True)

    @staticmethod
    def _name(number: int) -> bytes:
        return b"n" + number.to_bytes(4, "big")  # not a zero in front: those are libzmq's


def start(address: str, nodes: int, slots: int, call_s: float) -> subprocess.Popen[bytes]:
    """Start a process with so many nodes; it ends when its stdin is closed."""
    line = [sys.executable, "-m", __name__, address, str(nodes), str(slots), str(call_s)]
    return subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def counts_of(fleet: subprocess.Popen[bytes]) -> Counts:
    """Ask for what was counted."""
    assert fleet.stdin is not None
    assert fleet.stdout is not None
    fleet.stdin.write(b"\n")
    fleet.stdin.flush()
    if not select.select([fleet.stdout], [], [], ANSWER_S_MAX)[0]:
        raise TimeoutError(f"the simulated nodes say nothing for {ANSWER_S_MAX} s")
    return Counts(**json.loads(fleet.stdout.readline()))


def main() -> None:
    """Run the fleet that the command line says."""
    address, nodes, slots, call_s = sys.argv[1:]
    fleet = Fleet(address, int(nodes), int(slots), float(call_s))
    try:
        fleet.run()
    finally:
        fleet.close()


if __name__ == "__main__":
    main()
