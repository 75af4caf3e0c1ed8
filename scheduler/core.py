"""The scheduler's core: decides everything, does nothing. Pure.

Feed it what arrives (`receive`), what could not be delivered (`unreachable`) and the time
(`expire`); carry out the effects that it returns, in order. It never opens a payload. This file
knows who speaks and when; what follows for jobs, nodes and leases is in board.py.
"""

from dataclasses import dataclass
from typing import assert_never

from burla.wire import messages as m
from burla.wire.messages import ClientToScheduler, NodeletToScheduler

from . import leases
from .board import Board
from .effects import Effect, Forget, Note, Send
from .jobs import Job
from .nodes import Node

TICK_S = 0.25  # silences, waits and holds are looked at this often
BEAT_S = 1.0
CLIENT_SILENCE_S = 30.0
CLIENT_UNREACHABLE_S = 5.0  # a client that reconnects does so within a second
REOPEN_S = 10.0  # a client that reconnected names its open jobs at once
UNFIT_S = 5.0  # nodes may still join; then a job that fits none of them fails
WAIT_SAID_S = 0.5  # a job that waits longer is told why


@dataclass(slots=True)
class Client:
    """One client process."""

    session: bytes
    peer: bytes
    python: str
    heard_s: float
    user: str = ""  # as it says itself
    unreachable_s: float | None = None

    def is_gone(self, now_s: float) -> bool:
        """Return whether it must be given up."""
        broken = (
            self.unreachable_s is not None and now_s - self.unreachable_s >= CLIENT_UNREACHABLE_S
        )
        return broken or now_s - self.heard_s >= CLIENT_SILENCE_S


class Scheduler:
    """Holds per-job queues and leases nodes to jobs."""

    def __init__(self, instance: bytes, version: str, publisher: str) -> None:
        """Start empty.

        Args:
            instance: 16 bytes, new with each life of the scheduler; leases are named after it.
            version: of burla, told in the Welcome.
            publisher: endpoint of the PUB channel, told in the Welcome.
        """
        self.board = Board(instance)
        self.clients: dict[bytes, Client] = {}  # by session
        self._instance, self._version, self._publisher = instance, version, publisher
        self._peers: dict[bytes, Client | Node] = {}  # by routing id
        self._beat_s = 0.0
        self._tick_s = 0.0

    def receive(
        self, peer: bytes, message: m.Message, payload: list[bytes], now_s: float
    ) -> list[Effect]:
        """Take one message that arrived from `peer` at `now_s`; return what to do, in order."""
        match message:
            case m.ClientHello():
                self._client_hello(peer, message, now_s)
            case m.NodeHello():
                self._node_hello(peer, message, now_s)
            case _:
                self._from_known(peer, message, payload, now_s)
        return self._settle(now_s)

    def unreachable(self, peer: bytes, now_s: float) -> list[Effect]:
        """Note that `peer` could not be reached; return what to do."""
        who = self._peers.get(peer)
        if who is not None and who.unreachable_s is None:
            who.unreachable_s = now_s
        return self._settle(now_s)

    def expire(self, now_s: float) -> list[Effect]:
        """Do what is due at `now_s`; return what to do."""
        if now_s >= self._beat_s:
            self._beat_s = now_s + BEAT_S
            self.board.effects += [Send(peer, m.Beat()) for peer in self._peers]
        if now_s >= self._tick_s:
            self._tick_s = now_s + TICK_S
            self._tick(now_s)
        return self._settle(now_s)

    def next_deadline_s(self) -> float:
        """Return when `expire` must be called next, on the caller's clock."""
        return min(self._beat_s, self._tick_s)

    def direction(self, peer: bytes) -> type[Client] | type[Node] | None:
        """Return what kind of peer this is: `Client`, `Node`, or None before its Hello."""
        who = self._peers.get(peer)
        return None if who is None else type(who)

    def check(self) -> None:
        """Assert what holds between any two calls. Costs O(state): for tests."""
        board = self.board
        served = [node.lease for node in board.nodes.values() if node.lease is not None]
        assert len(served) == len(set(served))
        for job in board.jobs.values():
            job.check()
            assert job.owner in self.clients
            for lease in job.leases.values():
                assert board.nodes[lease.node].lease == lease.id
                assert board.lease_jobs[lease.id] is job
            cap = job.spec.max_parallelism
            assert cap is None or job.slots() <= cap
        assert {e for job in board.jobs.values() for e in job.leases} == set(served)
        assert set(board.lease_jobs) == {
            e for job in board.jobs.values() for e in [*job.leases, *job.past]
        }
        assert not board.effects

    # --- who speaks ---

    def _client_hello(self, peer: bytes, hello: m.ClientHello, now_s: float) -> None:
        if not self._agrees(peer, hello.protocol, hello.version):
            return
        old = self.clients.get(hello.session)
        if old is not None and old.peer != peer:
            self._forget(old.peer)
        client = Client(hello.session, peer, hello.python, now_s, hello.user)
        self.clients[hello.session] = self._peers[peer] = client
        self.board.peers[hello.session] = peer
        if old is not None:  # its CloseJob may have been lost
            for job in self.board.jobs.values():
                if job.owner == hello.session:
                    job.reopen_by_s = now_s + REOPEN_S
        self._welcome(peer)

    def _node_hello(self, peer: bytes, hello: m.NodeHello, now_s: float) -> None:
        if not self._agrees(peer, hello.protocol, hello.version):
            return
        node = self.board.nodes.get(hello.node)
        if node is None:
            node = self.board.nodes[hello.node] = Node.from_hello(peer, hello, now_s)
            self.board.effects.append(Note(f"node {node.name} joined: {node.cpus} CPUs"))
        else:
            if node.peer != peer:
                self._forget(node.peer)
            node.peer, node.heard_s, node.unreachable_s = peer, now_s, None
        self._peers[peer] = node
        self._welcome(peer)
        self.board.compare_with_held(node, hello.held, now_s)

    def _forget(self, peer: bytes) -> None:
        self._peers.pop(peer, None)
        self.board.effects.append(Forget(peer))

    def _agrees(self, peer: bytes, protocol: int, version: str) -> bool:
        if protocol == m.PROTOCOL:
            return True
        text = (
            f"the scheduler speaks protocol {m.PROTOCOL} (burla {self._version}), you speak "
            f"protocol {protocol} (burla {version}): install the same version of burla on both"
        )
        self.board.effects.append(Send(peer, m.Refused(text)))
        return False

    def _welcome(self, peer: bytes) -> None:
        welcome = m.Welcome(self._instance, self._version, self._publisher)
        self.board.effects.append(Send(peer, welcome))

    def _from_known(
        self, peer: bytes, message: m.Message, payload: list[bytes], now_s: float
    ) -> None:
        who = self._peers.get(peer)
        if who is None:
            self.board.effects.append(Send(peer, m.Introduce()))
            return
        who.heard_s, who.unreachable_s = now_s, None
        try:
            if isinstance(who, Client):
                self._from_client(who, message, payload, now_s)  # type: ignore[arg-type]  # checked there
            else:
                self._from_nodelet(who, message, payload)  # type: ignore[arg-type]  # checked there
        except ValueError as error:  # what it says does not fit together: that message is void
            self.board.effects.append(Note(f"ignored {type(message).__name__}: {error}"))

    def _from_client(
        self, client: Client, said: ClientToScheduler, payload: list[bytes], now_s: float
    ) -> None:
        board = self.board
        match said:
            case m.OpenJob():
                board.open_job(client.session, client.python, said, payload, now_s)
            case m.Inputs():
                if job := self._job_of(client, said.job):
                    board.inputs(job, said, payload)
            case m.InputsEnd():
                if job := self._job_of(client, said.job):
                    board.inputs_end(job, said.total)
            case m.AckOutcomes() | m.AckOutput() | m.ReplayOutput():
                of = board.lease_jobs.get(said.lease)
                if of is not None and of.owner == client.session:
                    board.pass_on(of, said)
            case m.CloseJob():
                if job := self._job_of(client, said.job):
                    board.close(job)
            case m.ListNodes():
                board.effects.append(Send(client.peer, self._nodes(client)))
            case m.Beat() | m.ClientHello():
                pass
            case _:
                assert_never(said)

    def _nodes(self, client: Client) -> m.Nodes:
        """Return all nodes; costs O(nodes), which only people ask for."""
        found = []
        for node in self.board.nodes.values():
            job = self.board.lease_jobs.get(node.lease or b"")
            ours = job is not None and self.clients[job.owner].user == client.user
            found.append(node.status(job.spec.name if job is not None and ours else ""))
        return m.Nodes(tuple(sorted(found, key=lambda node: node.name)))

    def _from_nodelet(self, node: Node, said: NodeletToScheduler, payload: list[bytes]) -> None:
        board = self.board
        match said:
            case m.Outcomes():
                board.outcomes(node, said, payload)
            case m.Output():
                board.output(node, said, payload)
            case m.Returned():
                board.returned(node, said)
            case m.Stopped():
                board.stopped(node, said.lease)
            case m.Beat() | m.NodeHello():
                pass
            case _:
                assert_never(said)

    def _job_of(self, client: Client, job_id: bytes) -> Job | None:
        job = self.board.jobs.get(job_id)
        return job if job is not None and job.owner == client.session else None

    # --- time ---

    def _tick(self, now_s: float) -> None:
        board = self.board
        for node in list(board.nodes.values()):
            if node.is_lost(now_s):
                silent = node.unreachable_s is None
                self._forget(node.peer)
                board.lose_node(node, "silent" if silent else "its connection is gone")
            else:
                board.end_orphans(node, now_s)
        for client in list(self.clients.values()):
            if client.is_gone(now_s):
                self._lose_client(client)
        for job in list(board.jobs.values()):
            self._look_after(job, now_s)
        board.drain_for_waiting()

    def _lose_client(self, client: Client) -> None:
        self._forget(client.peer)
        del self.clients[client.session]
        self.board.peers.pop(client.session, None)
        for job in [job for job in self.board.jobs.values() if job.owner == client.session]:
            self.board.close(job)

    def _look_after(self, job: Job, now_s: float) -> None:
        """Tell a waiting job why, fail it if it waits in vain, and end its holds."""
        board = self.board
        if job.reopen_by_s is not None and now_s >= job.reopen_by_s:
            board.close(job)
            return
        if (job.hold_until_s or job.limbo) and now_s >= job.hold_until_s:
            job.hold_until_s = 0.0
            job.release_limbo()
            board.touch(job)
        if job.leases or job.failed or now_s - job.opened_s < WAIT_SAID_S:
            return
        if now_s - job.opened_s >= UNFIT_S:
            misfit = leases.unsatisfiable(job, board.nodes.values())
            if misfit is not None:
                board.fail(job, *misfit)
                return
        why = leases.why_waiting(job, board.jobs.values(), board.nodes.values())
        if leases.wants_node(job) and why != job.said:
            job.said = why
            board.tell(job, m.JobStatus(job.id, why, 0, 0))

    def _settle(self, now_s: float) -> list[Effect]:
        self.board.settle(now_s)
        effects, self.board.effects = self.board.effects, []
        return effects
