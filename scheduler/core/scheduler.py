"""The scheduler's core: decides everything, does nothing. Pure.

Feed it what arrives (`receive`), what could not be delivered (`unreachable`) and the time
(`expire`); carry out the effects that it returns, in order. It never opens a payload. This file
knows who speaks and when; what follows for jobs, nodes and leases is in board.py.
"""

from typing import assert_never

from burla.protocol import messages as m
from burla.protocol.messages import AdminToScheduler, NodeletToScheduler

from . import invariants, reconcile, warm_leases
from .autoscaling import EXPECTED_S, Autoscalers
from .board import Board
from .client import Client
from .effects import Effect, Forget, Note, Record, Send
from .job import Job
from .node import Node
from .pending_reasons import reasons, unsatisfiable
from .quotas import Quotas
from .status import node_statuses

TICK_S = 0.25  # silences, waits and holds are looked at this often
BEAT_S = 1.0
REOPEN_S = 10.0  # a client that reconnected names its open jobs at once
UNFIT_S = 5.0  # nodes may still join; then a job that fits none of them fails
SETTLED_S = 15.0  # a nodelet that says nothing for this long is lost
NOT_FOUND = "not found"
WAIT_SAID_S = 0.5  # a job that waits longer is told why


class Scheduler:
    """Holds per-job queues and leases nodes to jobs."""

    def __init__(
        self, instance: bytes, version: str, publisher: str, quotas: Quotas | None = None
    ) -> None:
        """Start empty.

        Args:
            instance: 16 bytes, new with each life of the scheduler; leases are named after it.
            version: of burla, told in the Welcome.
            publisher: endpoint of the PUB channel, told in the Welcome.
            quotas: what each tenant may have at once.
        """
        self.board = Board(instance, quotas)
        self.clients: dict[bytes, Client] = {}  # by session
        self._instance, self._version, self._publisher = instance, version, publisher
        self._peers: dict[bytes, Client | Node] = {}  # by routing id
        self._autoscalers = Autoscalers()
        self._beat_s = 0.0
        self._tick_s = 0.0
        self._began = False

    def receive(
        self,
        peer: bytes,
        message: m.Message,
        payload: list[bytes],
        now_s: float,
        user: str = "",
    ) -> list[Effect]:
        """Take one message that arrived at `now_s`; return what to do, in order.

        Args:
            peer: routing id of the connection.
            message: what was said.
            payload: its frames.
            now_s: when.
            user: public key of who said it; empty where there are no keys.
        """
        if not self._began:
            self._began, self.board.settled_s = True, now_s + SETTLED_S
            self._autoscalers.expected_s = now_s + EXPECTED_S
        who = self._peers.get(peer)
        if who is not None and who.user != user:  # its routing id is another's now
            self._record(user, "use the connection of another", None, "refused")
            self._cut_off(peer, who, now_s)
        elif isinstance(message, m.ClientHello):
            self._client_hello(peer, message, now_s, user)
        elif isinstance(message, m.NodeHello):
            self._node_hello(peer, message, now_s, user)
        else:
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
            self.board.effects += [Send(peer, m.Heartbeat()) for peer in self._peers]
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

    def follower(self, job_id: bytes) -> tuple[bytes | None, str]:
        """Return the routing id and the key of a job's client, for whom its output is."""
        job = self.board.jobs.get(job_id)
        client = self.clients.get(job.owner) if job is not None else None
        return (None, "") if client is None else (client.peer, client.user)

    def peers(self) -> list[tuple[bytes, str]]:
        """Return all connections that said Hello: routing id and key."""
        return [(peer, who.user) for peer, who in self._peers.items()]

    def expel(self, peer: bytes, why: str, now_s: float, *, keys: bool = True) -> list[Effect]:
        """Give up a peer, as a matter of keys or for what it does; return what to do."""
        who = self._peers[peer]
        self.board.effects.append(Send(peer, m.Refused(why, not_authorised=keys)))
        self._record(who.user, "go on", None, "refused")
        if isinstance(who, Client):
            self._lose_client(who)
        else:
            self._forget(peer)
            self.board.lose_node(who, why)
        return self._settle(now_s)

    def check(self) -> None:
        """Assert what holds between any two calls. Costs O(state): for tests."""
        invariants.check(self.board, self.clients)

    # --- who speaks ---

    def _client_hello(self, peer: bytes, hello: m.ClientHello, now_s: float, user: str) -> None:
        if not self._agrees(peer, hello.protocol, hello.version):
            return
        old = self.clients.get(hello.session)
        if old is not None and old.user != user:
            self._refuse_theft(peer, user, "take over a session")
            return
        if old is not None and old.peer != peer:
            self._forget(old.peer)
        self._be_only(peer, hello.session)
        name = f"key {user[:8]}" if user else f"{hello.user}@{hello.host}"
        client = Client(hello.session, peer, hello.python, name, now_s, user=user)
        self.clients[hello.session] = self._peers[peer] = client
        self.board.peers[hello.session] = peer
        if old is not None:  # its CloseJob may have been lost
            for job in self.board.jobs.values():
                if job.owner == hello.session:
                    job.reopen_by_s = now_s + REOPEN_S
        self._welcome(peer)

    def _node_hello(self, peer: bytes, hello: m.NodeHello, now_s: float, user: str) -> None:
        if not self._agrees(peer, hello.protocol, hello.version):
            return
        node = self.board.nodes.get(hello.node)
        if node is not None and node.user != user:
            self._refuse_theft(peer, user, "take over a node")
            return
        self._be_only(peer, hello.node)
        if node is None:
            node = self.board.nodes[hello.node] = Node.from_hello(peer, hello, now_s)
            node.user = user
            self._record(user, f"join as node {node.name}", None, "ok")
            self.board.effects.append(Note(f"node {node.name} joined: {node.cpus} CPUs"))
        else:
            if node.peer != peer:
                self._forget(node.peer)
            node.peer, node.heard_s, node.unreachable_s = peer, now_s, None
        self._peers[peer] = node
        self._welcome(peer)
        reconcile.compare(self.board, node, hello.held, now_s)

    def _be_only(self, peer: bytes, name: bytes) -> None:
        """Give up what a connection was if it says Hello as something else: it is one thing."""
        who = self._peers.get(peer)
        if isinstance(who, Client) and who.session != name:
            self._lose_client(who)
        elif isinstance(who, Node) and who.id != name:
            self._forget(peer)
            self.board.lose_node(who, "its connection is another node's now")

    def _forget(self, peer: bytes) -> None:
        self._peers.pop(peer, None)
        self.board.effects.append(Forget(peer))

    def _cut_off(self, peer: bytes, who: Client | Node, now_s: float) -> None:
        """Send nothing more to where `peer` was; it comes back on a new connection, or is lost."""
        self._forget(peer)
        who.peer = b""  # unreachable
        who.unreachable_s = now_s
        if isinstance(who, Client):
            self.board.peers.pop(who.session, None)

    def _refuse_theft(self, peer: bytes, user: str, what: str) -> None:
        text = "this session belongs to another key; end this process and start a new one"
        self.board.effects.append(Send(peer, m.Refused(text, not_authorised=True)))
        self._record(user, what, None, "refused")

    def _record(self, user: str, operation: str, job: bytes | None, result: str) -> None:
        self.board.effects.append(Record(user, operation, job, result))

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
            self.board.effects.append(Send(peer, m.HelloRequired()))
            return
        if who.unreachable_s is not None and isinstance(who, Node):
            self.board.look_at(who)
        who.heard_s, who.unreachable_s = now_s, None
        try:
            if isinstance(who, Client):
                self._from_client(who, message, payload, now_s)  # type: ignore[arg-type]  # checked there
            else:
                self._from_nodelet(who, message, payload, now_s)  # type: ignore[arg-type]  # checked there
        except ValueError as error:  # what it says does not fit together: that message is void
            self.board.effects.append(Note(f"ignored {type(message).__name__}: {error}", peer))

    def _from_client(
        self, client: Client, said: AdminToScheduler, payload: list[bytes], now_s: float
    ) -> None:
        board = self.board
        match said:
            case m.OpenJob():
                self._open_job(client, said, payload, now_s)
            case m.Inputs():
                if job := self._job_of(client, said.job, "submit"):
                    board.inputs(job, said, payload)
                    if said.total is not None:
                        board.inputs_end(job, said.total)
            case m.InputsEnd():
                if job := self._job_of(client, said.job, "submit"):
                    board.inputs_end(job, said.total)
            case m.AckOutcomes() | m.AckOutput() | m.ReplayOutput():
                of = board.lease_jobs.get(said.lease)
                if of is not None and of.owner == client.session:
                    board.pass_on(of, said)
                elif of is not None:
                    self._record(client.user, "read", of.id, NOT_FOUND)
                elif isinstance(said, m.ReplayOutput):
                    self._miss_output(client, said, now_s)
            case m.CloseJob():
                if job := self._job_of(client, said.job, "close job"):
                    board.close(job)
                    self._record(client.user, "close job", job.id, "ok")
            case m.ListNodes():
                nodes = m.Nodes(node_statuses(board, client.name, now_s))
                board.effects.append(Send(client.peer, nodes))
            case m.AskDemand():
                demand = self._autoscalers.ask(board, said, client.name, now_s)
                board.effects.append(Send(client.peer, demand))
            case m.Heartbeat() | m.ClientHello():
                pass
            case _:
                assert_never(said)

    def _from_nodelet(
        self, node: Node, said: NodeletToScheduler, payload: list[bytes], now_s: float
    ) -> None:
        board = self.board
        match said:
            case m.Outcomes():
                board.outcomes(node, said, payload, now_s)
            case m.Output():
                board.output(node, said, payload)
            case m.Retracted():
                board.returned(node, said)
            case m.Stopped():
                board.stopped(node, said.lease)
            case m.Drain():
                board.leave(node)
            case m.Heartbeat() | m.NodeHello():
                pass
            case _:
                assert_never(said)

    def _open_job(
        self, client: Client, said: m.OpenJob, payload: list[bytes], now_s: float
    ) -> None:
        known = self.board.jobs.get(said.job)
        if known is not None and known.owner != client.session:
            self._record(client.user, "open job", said.job, NOT_FOUND)
            self.board.effects.append(Send(client.peer, m.JobFailed(said.job, "", NOT_FOUND)))
            return
        why = self.board.open_job(
            client.session, client.python, client.name, said, payload, now_s, client.user
        )
        if why:
            self.board.effects.append(Send(client.peer, m.JobFailed(said.job, "", why)))
        if known is None:
            self._record(client.user, "open job", said.job, why or "ok")

    def _job_of(self, client: Client, job_id: bytes, operation: str) -> Job | None:
        """Return a job of `client`; of another's it learns no more than of one that never was."""
        job = self.board.jobs.get(job_id)
        if job is None or job.owner == client.session:
            return job
        self._record(client.user, operation, job_id, NOT_FOUND)
        return None

    def _miss_output(self, client: Client, said: m.ReplayOutput, now_s: float) -> None:
        """Tell a client that waits for output of a lease that nobody has: it may have been cut off.

        Nodelets that this scheduler does not know yet have a moment to say what they hold.
        """
        job = self._job_of(client, said.job, "read")
        if job is not None and now_s >= job.hold_until_s:
            self.board.tell(job, m.LeaseLost(job.id, said.lease, ""))

    # --- time ---

    def _tick(self, now_s: float) -> None:
        board = self.board
        for node in list(board.nodes.values()):
            if node.is_lost(now_s):
                silent = node.unreachable_s is None
                self._forget(node.peer)
                board.lose_node(node, "silent" if silent else "its connection is gone")
            else:
                reconcile.end_orphans(board, node, now_s)
                if node.lingering is not None and now_s >= node.lingering.until_s:
                    warm_leases.end(board, node)
                warm_leases.tell_over(board, node)
        for client in list(self.clients.values()):
            if client.is_gone(now_s):
                self._lose_client(client)
        self._autoscalers.expire(board, now_s)
        waiting = [job for job in list(board.jobs.values()) if self._look_after(job, now_s)]
        if waiting:
            whys = reasons(waiting, board.jobs.values(), list(board.nodes.values()))
            for job in waiting:
                if (why := whys.get(job.id)) is None:
                    continue
                why += self._autoscalers.said_of(job, board)
                if why != job.said:
                    job.said = why
                    board.tell(job, m.JobStatus(job.id, why, 0, 0))
        board.drain_for_waiting(now_s)

    def _lose_client(self, client: Client) -> None:
        self._forget(client.peer)
        del self.clients[client.session]
        self.board.end_session(client.session)

    def _look_after(self, job: Job, now_s: float) -> bool:
        """End a job's holds, fail it if it waits in vain; return whether it must be told why."""
        board = self.board
        if job.reopen_by_s is not None and now_s >= job.reopen_by_s:
            board.close(job)
            return False
        if (job.hold_until_s or job.limbo) and now_s >= job.hold_until_s:
            job.hold_until_s = 0.0
            job.release_limbo()
            board.touch(job)
        if job.leases or job.failed or now_s - job.opened_s < WAIT_SAID_S:
            return False
        if now_s - job.opened_s >= UNFIT_S and not self._autoscalers.may_make(job, now_s):
            misfit = unsatisfiable(job, board.nodes.values())
            if misfit is not None:
                board.fail(job, *misfit)
                return False
        return True

    def _settle(self, now_s: float) -> list[Effect]:
        self.board.settle(now_s)
        effects, self.board.effects = self.board.effects, []
        return effects
