"""The scheduler's core: decides everything, does nothing. Pure.

Feed it what arrives (`receive`), what could not be delivered (`unreachable`) and the time
(`expire`); carry out the effects that it returns, in order. It never opens a payload. This file
knows who may say what; what follows is in functions over the state, by topic (state.py).
"""

from typing import assert_never, get_args

from msgspec.structs import replace

from burla.protocol import (
    admin_messages as am,
    detach_messages as dm,
    job_messages as jm,
    messages as m,
    output_messages as om,
    overview_messages as ov,
    store_messages as sm,
)
from burla.protocol.key_messages import ServerKey

from . import (
    absence,
    big_inputs,
    blobs,
    connections,
    invariants,
    jobs,
    nodes,
    operators,
    overview,
    preparing,
    questions,
    reconcile,
    renewing,
    reports,
    upkeep,
)
from .autoscaling import EXPECTED_S, Autoscalers
from .client import AWAY_LIMIT_S, Client
from .effects import Effect
from .job import Job
from .jobs import NOT_FOUND
from .node import Node
from .quotas import Quotas, Tenants
from .settling import settle
from .snapshot import snapshot
from .state import State
from .status import node_statuses

TICK_S = 0.25  # silences, waits and holds are looked at this often
# What each kind of peer may say. A look into a set: to go through a union takes microseconds.
_CLIENTS_SAY = frozenset(get_args(am.AdminToScheduler))
_NODELETS_SAY = frozenset(get_args(m.NodeletToScheduler))
_HELLOS = (m.ClientHello, m.NodeHello)
SETTLED_S = 15.0  # a nodelet that says nothing for this long is lost


class Scheduler:
    """Holds per-job queues and leases nodes to jobs."""

    def __init__(
        self,
        instance: bytes,
        version: str,
        publisher: str,
        quotas: Quotas | None = None,
        is_private: bool = False,
        away_limit_s: float = AWAY_LIMIT_S,
        shared: str = "",
    ) -> None:
        """Start empty.

        Args:
            instance: 16 bytes, new with each life of the scheduler; leases are named after it.
            version: of burla, told in the Welcome.
            publisher: endpoint of the PUB channel, told in the Welcome.
            quotas: what each tenant may have at once, unless `state.tenants` says otherwise.
            is_private: there will never be more than one node.
            away_limit_s: how long the jobs of a client that is away are kept.
            shared: where all nodes have one file system, told in the Welcome; empty: nowhere.
        """
        tenants = Tenants(Quotas() if quotas is None else quotas)
        self.state = State(instance, tenants, is_private, away_limit_s)
        bytes_max = tenants.default.bytes_max
        self._welcome = m.Welcome(instance, version, publisher, bytes_max, shared=shared)
        self._autoscalers = Autoscalers()
        self._beat_s = 0.0
        self._tick_s = 0.0
        self._began = False
        self._sees_all = False  # who speaks may know of everybody's jobs

    def receive(
        self,
        peer: bytes,
        message: m.Message,
        payload: list[bytes],
        now_s: float,
        user: str = "",
        *,
        sees_all: bool = True,
    ) -> list[Effect]:
        """Take one message that arrived at `now_s`; return what to do, in order.

        Args:
            peer: routing id of the connection.
            message: what was said.
            payload: its frames.
            now_s: when.
            user: public key of the sender; empty where there are no keys.
            sees_all: the sender may know of everybody's jobs.
        """
        state = self.state
        state.now_s = now_s
        if not self._began:
            self._begin()
        who = state.peers.get(peer)
        if who is not None and who.user != user:  # its routing id is another's now
            state.record(user, "use the connection of another", None, "refused")
            connections.cut_off(state, peer, who)
        elif isinstance(message, _HELLOS):
            self._hello(peer, message, user)
        elif who is None:
            state.send(peer, m.HelloRequired())
        else:
            self._sees_all = sees_all
            self._from_known(who, peer, message, payload)
        return settle(self.state)

    def too_large(self, peer: bytes, message: m.Bulk, bytes_max: int, now_s: float) -> list[Effect]:
        """Note that `message` was not taken, for it has over `bytes_max`; return what to do."""
        state = self.state
        state.now_s = now_s
        who = state.peers.get(peer)
        match message:
            case m.OpenJob() | m.Inputs() if isinstance(who, Client):
                jobs.refuse(state, who, message, [], bytes_max)
            case m.Outcomes() if isinstance(who, Node):
                reports.refuse_outcomes(state, who, message, bytes_max)
            case _:
                pass
        return settle(state)

    def blob_lost(self, number: int, why: str, now_s: float) -> list[Effect]:
        """Note that the bytes of a blob could not be kept, or not be read; return what to do."""
        self.state.now_s = now_s
        blobs.lost(self.state, number, why)
        return settle(self.state)

    def unreachable(self, peer: bytes, now_s: float) -> list[Effect]:
        """Note that `peer` could not be reached; return what to do."""
        self.state.now_s = now_s
        who = self.state.peers.get(peer)
        if who is not None and who.unreachable_s is None:
            who.unreachable_s = now_s
        return settle(self.state)

    def note_heard(self, peer: bytes, now_s: float, user: str) -> None:
        """Note that somebody lives whose message is dealt with later."""
        who = self.state.peers.get(peer)
        if who is not None and who.user == user:
            who.heard_s = now_s

    def expire(self, now_s: float) -> list[Effect]:
        """Do what is due at `now_s`; return what to do."""
        self.state.now_s = now_s
        if now_s >= self._beat_s:
            self._beat_s = now_s + m.BEAT_S
            for peer in self.state.peers:
                self.state.send(peer, m.Heartbeat())
        if now_s >= self._tick_s:
            self._tick_s = now_s + TICK_S
            upkeep.tick(self.state, self._autoscalers)
        return settle(self.state)

    def next_deadline_s(self) -> float:
        """Return when `expire` must be called next, on the caller's clock.

        Only `expire` changes it.
        """
        return min(self._beat_s, self._tick_s)

    def direction(self, peer: bytes) -> type[Client] | type[Node] | None:
        """Return what kind of peer this is: `Client`, `Node`, or None before its Hello."""
        who = self.state.peers.get(peer)
        return None if who is None else type(who)

    def follower(self, job_id: bytes) -> tuple[bytes | None, str]:
        """Return the routing id and the key of a job's client, for whom its output is."""
        job = self.state.jobs.get(job_id)
        client = self.state.clients.get(job.owner) if job is not None else None
        return (None, "") if client is None else (client.peer, client.user)

    def peers(self) -> list[tuple[bytes, str]]:
        """Return all connections that said Hello: routing id and key."""
        return [(peer, who.user) for peer, who in self.state.peers.items()]

    def expel(self, peer: bytes, why: str, now_s: float, *, keys: bool = True) -> list[Effect]:
        """Give up a peer, as a matter of keys or for what it does; return what to do."""
        self.state.now_s = now_s
        connections.expel(self.state, peer, m.Refused(why, not_authorised=keys))
        return settle(self.state)

    def set_tenants(self, tenants: Tenants) -> None:
        """Count from now on for these tenants: a job that is open stays with the one it has."""
        self.state.tenants = tenants

    def announce_key(self, coming: ServerKey, now_s: float) -> list[Effect]:
        """Tell everybody what will be this scheduler's key; return what to do."""
        self.state.now_s = now_s
        renewing.announce(self.state, coming)
        return settle(self.state)

    def key_taken(self, peer: bytes, key: str, now_s: float) -> list[Effect]:
        """Note that the node on a connection has another key from now on; return what to do."""
        self.state.now_s = now_s
        who = self.state.peers.get(peer)
        if isinstance(who, Node):
            renewing.key_taken(self.state, who, key)
        return settle(self.state)

    def snapshot(self, now_s: float) -> dict[str, object]:
        """Return all of the state as plain data, without secrets and payloads."""
        return snapshot(self.state, now_s)

    def check(self) -> None:
        """Assert what holds between any two calls. Costs O(state): for tests."""
        invariants.check(self.state)

    def _begin(self) -> None:
        """Note when this life began: with the first word of anybody."""
        self._began = True
        self.state.former.settled_s = self.state.now_s + SETTLED_S
        self._autoscalers.expected_s = self.state.now_s + EXPECTED_S

    # --- who speaks ---

    def _hello(self, peer: bytes, hello: m.ClientHello | m.NodeHello, user: str) -> None:
        """Take up a client or a node, if it speaks our protocol and is what it says."""
        state = self.state
        if not m.PROTOCOL_OLDEST <= hello.protocol <= m.PROTOCOL:
            state.send(peer, m.Refused(_why_not_spoken(hello, self._welcome.version)))
        elif isinstance(hello, m.ClientHello):
            if connections.client_hello(state, peer, hello, user):
                state.send(peer, self._welcome_to(user))
                renewing.tell(state, state.clients[hello.session])
        elif (node := connections.node_hello(state, peer, hello, user)) is not None:
            state.send(peer, self._welcome)
            renewing.tell(state, node)
            reconcile.compare(state, node, hello.held)
            nodes.is_back(state, node)

    def _welcome_to(self, user: str) -> m.Welcome:
        """Return what a client hears, whose quotas may be its own."""
        tenants = self.state.tenants
        most = tenants.quotas_of(tenants.of(user)).bytes_max
        if most == self._welcome.bytes_max:
            return self._welcome
        return replace(self._welcome, bytes_max=most)

    def _from_known(
        self, who: Client | Node, peer: bytes, message: m.Message, payload: list[bytes]
    ) -> None:
        state = self.state
        if who.unreachable_s is not None and isinstance(who, Node):
            state.marks.nodes[who.id] = None
        who.heard_s, who.unreachable_s = state.now_s, None
        if isinstance(who, Client) and who.away_s is not None:
            absence.come_back(state, who)
        try:
            if isinstance(who, Client) and type(message) in _CLIENTS_SAY:
                self._from_client(who, message, payload)  # type: ignore[arg-type]
            elif isinstance(who, Node) and type(message) in _NODELETS_SAY:
                self._from_nodelet(who, message, payload)  # type: ignore[arg-type]
            else:
                raise ValueError("not a message of its role")
        except ValueError as error:  # what it says does not fit together: that message is void
            state.note(f"ignored {type(message).__name__}: {error}", peer)

    def _from_client(self, client: Client, said: am.AdminToScheduler, payload: list[bytes]) -> None:
        state = self.state
        match said:
            case m.OpenJob():
                jobs.open_(state, client, said, payload)
            case m.Inputs():
                if job := self._job_of(client, said.job, "submit"):
                    jobs.inputs(state, job, said, payload)
            case m.CloseJob():
                if job := self._job_of(client, said.job, "close job"):
                    jobs.close(state, job)
                    state.record(client.user, "close job", job.id, "ok")
            case m.InputsEnd():
                if job := self._job_of(client, said.job, "submit"):
                    jobs.inputs_end(state, job, said.total)
            case m.AckOutcomes() | m.AckOutput() | m.ReplayOutput():
                self._about_lease(client, said)
            case m.BlobPiece():
                if job := self._job_of(client, said.about, "send a blob"):
                    blobs.piece(state, job, said, payload)
            case m.InputPiece():
                if job := self._job_of(client, said.job, "send an input"):
                    big_inputs.piece(state, job, said, payload)
            case m.ListNodes():
                _tell_nodes(state, client)
            case m.AskDemand():
                state.send(client.peer, self._autoscalers.ask(state, said, client.name))
            case am.ManageKeys(operation=am.KeyOperation.ROTATE_NODE) if client.user:
                state.record(client.user, f"renew the key of node {said.user}", None, "ok")
                renewing.renew(state, client.peer, said.user)
            case am.ManageKeys() | m.ReplaceKey():  # where there are keys, the shell has answered
                state.send(
                    client.peer, am.KeysManaged(why="this cluster needs no keys, and has none")
                )
            case am.AskJobs():
                state.send(client.peer, operators.open_jobs(state))
            case am.EndJobs():
                state.record(client.user, "end all jobs", None, "ok")
                state.send(client.peer, operators.end_jobs(state, said.by))
            case am.ForgetNodes():
                state.record(client.user, "forget nodes", None, "ok")
                operators.forget(state, said.names)
                _tell_nodes(state, client)
            case m.Heartbeat() | m.ClientHello():
                pass
            case jm.ListJobs() | jm.ShowJob() | jm.CancelJob() | jm.DetachJob():
                answer = questions.answer(state, client, said, sees_all=self._sees_all)
                state.send(client.peer, answer)
            case om.ReadOutput():
                questions.read_output(state, client, said, sees_all=self._sees_all)
            case ov.AskOverview() | ov.AskNode():
                told = overview.answer(state, client, said, sees_all=self._sees_all)
                state.send(client.peer, told)
            case sm.AskStored() | sm.ReadStored() | sm.EndStored():  # the shell has a store, or not
                pass
            case dm.OutcomesBefore() | dm.GivenBefore():
                pass
            case _:
                assert_never(said)

    def _from_nodelet(self, node: Node, said: m.NodeletToScheduler, payload: list[bytes]) -> None:
        state = self.state
        match said:
            case m.Outcomes():
                reports.outcomes(state, node, said, payload)
            case m.Output():
                reports.output(state, node, said, payload)
            case m.Running():
                reports.running(state, node, said)
            case m.Retracted():
                reports.retracted(state, node, said)
            case m.Stopped():
                reports.stopped(state, node, said.lease)
            case m.BlobWanted():
                blobs.wanted(state, node, said)
            case m.InputWanted():
                big_inputs.wanted(state, node, said)
            case m.LeaseRefused():
                blobs.refused(state, node, said)
            case m.Preparing():
                preparing.hear(state, node, said)
            case m.Drain():
                nodes.drain(state, node)
            case m.Heartbeat() | m.NodeHello() | m.ReplaceKey():  # the shell has taken the last one
                pass
            case _:
                assert_never(said)

    def _job_of(self, client: Client, job_id: bytes, operation: str) -> Job | None:
        """Return a job of `client`; of another's it learns no more than of one that never was."""
        job = self.state.jobs.get(job_id)
        if job is None or job.owner == client.session:
            return job
        self.state.record(client.user, operation, job_id, NOT_FOUND)
        return None

    def _about_lease(
        self, client: Client, said: m.AckOutcomes | m.AckOutput | m.ReplayOutput
    ) -> None:
        """Pass on what a client says of a lease of its own.

        One that waits for output of a lease that nobody has is told: it may have been cut off.
        Nodelets that this scheduler does not know yet have a moment to say what they hold.
        """
        state = self.state
        of = state.job_of(state.leases.get(said.lease))
        if of is not None and of.owner == client.session:
            reports.pass_on(state, said)
        elif of is not None:
            state.record(client.user, "read", of.id, NOT_FOUND)
        elif isinstance(said, m.ReplayOutput):
            job = self._job_of(client, said.job, "read")
            if job is not None and state.now_s >= job.hold_until_s:
                state.tell(job, m.LeaseLost(job.id, said.lease, ""))


def _tell_nodes(state: State, client: Client) -> None:
    """Tell all nodes, and those that were lost."""
    found = [*node_statuses(state, client.name), *operators.lost_statuses(state)]
    found.sort(key=lambda node: node.name)
    state.send(client.peer, m.Nodes(tuple(found)))


def _why_not_spoken(hello: m.ClientHello | m.NodeHello, version: str) -> str:
    """Return what a peer of another protocol is told, with the command that helps."""
    ours = f"the scheduler is burla {version} (protocol {m.PROTOCOL})"
    theirs = f"you are burla {hello.version} (protocol {hello.protocol})"
    upgrade = "an administrator upgrades the cluster with `burla up` of a newer burla"
    if hello.protocol > m.PROTOCOL:
        remedy = f"{upgrade}, or you `pip install burla=={version}`"
    elif isinstance(hello, m.NodeHello):
        remedy = "an administrator upgrades this node with `burla up`"
    else:
        remedy = f"`pip install burla=={version}`"
    return f"{ours}, {theirs}: {remedy}"
