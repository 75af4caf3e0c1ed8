"""Clients and nodes as the scheduler sees them: they keep the protocol and nothing else.

Messages from the scheduler take effect at once; what clients and nodes do is decided by the test.
"""

from dataclasses import dataclass, field

from opening import client_hello, node_hello, open_job
from outcomes import outcomes, payload_of, runs_of

from burla.protocol import messages as m
from burla.protocol.digest import digest_of
from burla.protocol.fields import POLICIES
from burla.protocol.ranges import Ranges
from burla.scheduler.core.effects import Effect, Send
from burla.scheduler.core.scheduler import Scheduler


def ident(number: int) -> bytes:
    return number.to_bytes(16, "big")


@dataclass
class ModelNode:
    """A nodelet that runs what it is told when it is told."""

    id: bytes
    peer: bytes
    name: str
    cpus: int = 2
    held: dict[bytes, Ranges] = field(default_factory=dict)  # by lease
    jobs: dict[bytes, bytes] = field(default_factory=dict)  # lease -> job
    slots: dict[bytes, int] = field(default_factory=dict)
    batches: dict[bytes, list[m.Span]] = field(default_factory=dict)
    leaves: dict[bytes, Ranges] = field(default_factory=dict)
    unacked: dict[bytes, list[m.Outcomes]] = field(default_factory=dict)
    seq: dict[bytes, int] = field(default_factory=dict)
    stopping: list[bytes] = field(default_factory=list)
    retracts: list[m.Retract] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)  # leases whose workers went on with others
    ended: list[bytes] = field(default_factory=list)  # leases that were told to end
    alive: bool = True
    over: list[bytes] = field(default_factory=list)  # told with another lease
    released: bool = False  # told that it may end
    call_s: float = 0.01  # what it says of its calls
    gpus: tuple[str, ...] = ()
    features: tuple[str, ...] = (POLICIES,)

    def hello(self) -> m.NodeHello:
        held = []
        for lease, ranges in self.held.items():
            spans = [self.span(lease, lo, hi) for lo, hi in ranges]
            for said in self.unacked[lease]:
                spans += [self.span(lease, lo, hi) for lo, hi in said.done]
            held.append(
                m.Held(
                    lease, self.jobs[lease], self.slots[lease], tuple(spans), lease in self.stopping
                )
            )
        more = {
            "name": self.name,
            "cpus": self.cpus,
            "ram": 8 << 30,
            "held": tuple(held),
            "gpus": self.gpus,
            "features": self.features,
        }
        return node_hello(self.id, **more)

    def span(self, lease: bytes, lo: int, hi: int) -> m.Span:
        return m.Span(next(s.batch for s in self.batches[lease] if s.lo <= lo < s.hi), lo, hi)

    def take(self, message: m.Message) -> None:
        match message:
            case m.StartLease():
                if message.keep in self.held and message.keep not in self.stopping:
                    assert not self.held[message.keep]
                    self.stopping.append(message.keep)
                    self.kept.append(message.keep)
                if message.follows in self.held:
                    self.take(m.EndLease(message.follows, discard=False))
                assert not self.held or set(self.held) <= set(self.stopping), "two leases"
                self.held[message.lease] = Ranges()
                self.jobs[message.lease] = message.job
                self.slots[message.lease] = message.slots
                self.batches[message.lease] = []
                self.leaves[message.lease] = Ranges()
                self.unacked[message.lease] = []
                self.seq[message.lease] = 0
                for lease in message.over:
                    self.over.append(lease)
                    self.unacked[lease] = []
            case m.Assign():
                for leaf in message.leaves:
                    self.leaves[message.lease].add(leaf.start, leaf.start + leaf.count)
                for span in message.spans:
                    assert self.leaves[message.lease].covers(span.lo, span.hi)
                    new = self.held[message.lease].add(span.lo, span.hi)
                    assert new == span.hi - span.lo, "assigned twice"
                    self.batches[message.lease].append(span)
            case m.Retract():
                self.retracts.append(message)
            case m.Drained():
                self.released = True
            case m.EndLease():
                self.ended.append(message.lease)
                if message.lease in self.held:
                    if message.lease not in self.stopping:
                        self.stopping.append(message.lease)
                    self.held[message.lease] = Ranges()
                    if message.discard:
                        self.unacked[message.lease] = []
            case m.Linger():
                self.unacked[message.lease] = []
            case m.AckOutcomes():
                if message.lease in self.unacked:
                    self.unacked[message.lease] = [
                        said for said in self.unacked[message.lease] if said.seq > message.seq
                    ]
            case _:
                pass

    def run(self, lease: bytes, lo: int, hi: int) -> m.Outcomes:
        spans = [m.Run(a, b, m.Kind.RESULTS, 1) for a, b in self.held[lease].remove(lo, hi)]
        self.seq[lease] += 1
        said = outcomes(lease, spans, self.seq[lease], self.call_s)
        self.unacked[lease].append(said)
        return said

    def active(self) -> bytes | None:
        """Return the lease that is served; one that comes before the last is gone waits."""
        return None if self.stopping else next(iter(self.held), None)


@dataclass
class ModelClient:
    """A client with one job."""

    session: bytes
    peer: bytes
    job: bytes
    max_parallelism: int | None = None
    user: str = "u"
    grow: bool = False
    lazy: bool = False
    policy: m.CallPolicy | None = None
    machines: m.Machines | None = None
    lost: dict[int, tuple[str, ...]] = field(default_factory=dict)
    func_cpu: int = 1
    have: Ranges = field(default_factory=Ranges)
    entered: int = 0
    batches: list[tuple[int, int]] = field(default_factory=list)
    total: int | None = None
    function: bytes = b"function"
    failed: str = ""
    waiting: str = ""
    notices: list[str] = field(default_factory=list)
    deliver: bool = True  # False: what the scheduler sends gets lost (the connection is cut)
    silent: bool = False  # it stands still

    def hello(self) -> m.ClientHello:
        return client_hello(self.session, user=self.user)

    def open(self, *, resumed: bool = False) -> m.OpenJob:
        return open_job(
            self.job,
            self.job,
            func_cpu=self.func_cpu,
            max_parallelism=self.max_parallelism,
            grow=self.grow,
            lazy=self.lazy,
            policy=self.policy,
            machines=self.machines,
            digest=digest_of([self.function]),
            resumed=resumed,
            done=tuple(self.have),
        )

    def inputs(self, number: int) -> tuple[m.Inputs, list[bytes]]:
        lo, hi = self.batches[number]
        leaves = tuple(m.Leaf(number, at, min(4, hi - at), 1) for at in range(lo, hi, 4))
        return m.Inputs(job=self.job, batch=number, start=lo, leaves=leaves), [b"x"] * len(leaves)

    def more(self, count: int) -> tuple[m.Inputs, list[bytes]]:
        self.batches.append((self.entered, self.entered + count))
        self.entered += count
        return self.inputs(len(self.batches) - 1)

    def take(self, message: m.Message) -> m.AckOutcomes | None:
        match message:
            case m.JobOutcomes():
                for run in runs_of(message.runs) if message.runs else ():
                    self.have.add(run.lo, run.hi)
                return m.AckOutcomes(message.lease, message.seq)
            case m.JobFailed():
                self.failed = message.text
            case m.CallLost():
                self.lost[message.index] = message.nodes
                self.have.add(message.index, message.index + 1)
            case m.JobStatus():
                self.waiting = message.waiting
                self.notices += [message.notice] * bool(message.notice)
            case _:
                pass
        return None


class ModelCluster:
    """One real scheduler core among model clients and nodes."""

    def __init__(self) -> None:
        self.core = Scheduler(ident(1), "0", "inproc://pub")
        self.now_s = 0.0
        self.nodes: dict[bytes, ModelNode] = {}  # by peer
        self.clients: dict[bytes, ModelClient] = {}  # by peer
        self.effects: list[Effect] = []  # all that came back since they were last asked for
        self._made = 0

    def heard(self) -> list[Effect]:
        """Check the invariants; return all effects since this was last asked for, in order."""
        self.core.check()
        heard, self.effects = self.effects, []
        return heard

    def heard_but_beats(self) -> list[Effect]:
        """Return as `heard` does what was said besides Heartbeats, where time has passed."""
        return [e for e in self.heard() if not (isinstance(e, Send) and e.message == m.Heartbeat())]

    def _number(self) -> int:
        self._made += 1
        return self._made

    def node(
        self, cpus: int = 2, gpus: tuple[str, ...] = (), *, features: tuple[str, ...] = (POLICIES,)
    ) -> ModelNode:
        number = self._number()
        node = ModelNode(ident(number), b"n%d" % number, f"n{number}", cpus, gpus=gpus)
        node.features = features
        self.nodes[node.peer] = node
        self.say(node.peer, node.hello())
        return node

    def client(
        self,
        max_parallelism: int | None = None,
        user: str = "u",
        *,
        grow: bool = False,
        lazy: bool = False,
        func_cpu: int = 1,
        policy: m.CallPolicy | None = None,
        machines: m.Machines | None = None,
    ) -> ModelClient:
        number = self._number()
        client = ModelClient(ident(number), b"c%d" % number, ident(1000 + number))
        client.max_parallelism, client.user, client.grow = max_parallelism, user, grow
        client.func_cpu, client.lazy, client.policy = func_cpu, lazy, policy
        client.machines = machines
        self.clients[client.peer] = client
        self.say(client.peer, client.hello())
        self.say(client.peer, client.open(), [b"function"])
        return client

    def inputs(self, client: ModelClient, count: int) -> None:
        self.say(client.peer, *client.more(count))

    def end(self, client: ModelClient) -> None:
        client.total = client.entered
        self.say(client.peer, m.InputsEnd(client.job, client.entered))

    def say(self, peer: bytes, message: m.Message, payload: list[bytes] | None = None) -> None:
        self.carry_out(self.core.receive(peer, message, payload or [], self.now_s))

    def later(self, seconds: float) -> None:
        self.now_s += seconds
        for peer, node in list(self.nodes.items()):
            if node.alive:
                self.say(peer, m.Heartbeat())
        for peer, client in list(self.clients.items()):
            if not client.silent:
                self.say(peer, m.Heartbeat())
        self.carry_out(self.core.expire(self.now_s))

    def unreachable(self, peer: bytes) -> None:
        self.carry_out(self.core.unreachable(peer, self.now_s))

    def carry_out(self, effects: list[Effect]) -> None:
        self.effects += effects
        for effect in effects:
            if not isinstance(effect, Send):
                continue
            if node := self.nodes.get(effect.peer):
                if node.alive:
                    node.take(effect.message)
                else:
                    self.unreachable(effect.peer)
            elif (client := self.clients.get(effect.peer)) and client.deliver:
                ack = client.take(effect.message)
                if ack is not None:
                    self.say(client.peer, ack)

    def fall_silent(self, client: ModelClient) -> None:
        """Let a client stand still; what is said to it gets lost with its connection."""
        client.silent, client.deliver = True, False

    def reconnect_node(self, node: ModelNode) -> None:
        del self.nodes[node.peer]
        node.peer = b"n%d" % self._number()
        self.nodes[node.peer] = node
        self.say(node.peer, node.hello())
        for lease in node.held:
            for said in node.unacked[lease]:
                self.say(node.peer, said, payload_of(said.runs))

    def reconnect_client(self, client: ModelClient) -> None:
        del self.clients[client.peer]
        client.peer, client.deliver, client.silent = b"c%d" % self._number(), True, False
        self.clients[client.peer] = client
        self.say(client.peer, client.hello())
        self.say(client.peer, client.open(resumed=True), [b"function"])
        for number, (lo, hi) in enumerate(client.batches):
            if not client.have.covers(lo, hi):
                self.say(client.peer, *client.inputs(number))
        if client.total is not None:
            self.end(client)

    def run(self, node: ModelNode, count: int) -> None:
        lease = node.active()
        if lease is None:
            return
        for lo, hi in node.held[lease].pop_front(count):
            node.held[lease].add(lo, hi)
            said = node.run(lease, lo, hi)
            self.say(node.peer, said, payload_of(said.runs))

    def stop(self, node: ModelNode) -> None:
        for lease in node.stopping:
            del node.held[lease]
            self.say(node.peer, m.Stopped(lease))
        node.stopping = []

    def answer_retracts(self, node: ModelNode, begun: int = 1) -> None:
        asked, node.retracts = node.retracts, []
        for retract in asked:
            held = node.held.get(retract.lease, Ranges())
            count = min(retract.inputs, max(0, held.total - begun))
            parts = held.pop_back(count)
            spans = [
                m.Span(s.batch, max(lo, s.lo), min(hi, s.hi))
                for lo, hi in parts
                for s in node.batches[retract.lease]
                if max(lo, s.lo) < min(hi, s.hi)
            ]
            # a span may have been assigned here before: the same part is given back once
            given = Ranges()
            unique = [s for s in spans if given.add(s.lo, s.hi) == s.hi - s.lo]
            self.say(node.peer, m.Retracted(retract.lease, tuple(unique)))
