"""All that the scheduler knows: tables, an outbox, marks. Data that imports nothing that acts.

What happens to it is in functions, by topic: jobs.py, leases.py, nodes.py and so on. They change
the tables, put what is to be sent into `effects`, and mark what must be looked at before those are
handed over: settling.py then decides once, however much one event has changed.
"""

from collections import deque
from collections.abc import Sequence

from msgspec import Struct, field

from burla.protocol.key_messages import ServerKey
from burla.protocol.messages import Message, NodeStatus

from .blob_table import BlobTable
from .client import Client
from .effects import Effect, Note, Record, Send
from .input_table import InputTable
from .job import Job
from .journal import Journal
from .lease import Lease, LeaseState
from .node import Node
from .pacing import Pacer
from .quotas import Tenants, Usage, new_opens
from .records import Records

GONE_KEPT = 1000  # leases that are remembered after their end, for whoever looks for a fault


class GoneLease(Struct, frozen=True):
    """What is remembered of a lease that no table has any more."""

    id: bytes
    node: str  # its name
    job: bytes
    history: tuple[tuple[float, LeaseState], ...]


class GivenUp(Struct, frozen=True):
    """What is remembered of a job whose client was away for too long."""

    session: bytes
    user: str  # its key
    heard_s: float  # when the client was last heard
    for_room: bool  # its tenant's quotas were needed for others


class LostNode(Struct, frozen=True):
    """What is remembered of a node that was given up, until it is back or removed."""

    status: NodeStatus  # at the time
    lost_s: float  # when, on the caller's clock
    why: str


class Marks(Struct):
    """What is to be looked at before effects are handed over; empty between two events."""

    jobs: dict[bytes, None] = field(default_factory=dict)  # may have more to run, in order
    leases: dict[bytes, Lease] = field(default_factory=dict)  # may have room for more work
    nodes: dict[bytes, None] = field(default_factory=dict)  # may be free now


class Former(Struct):
    """What is known of what an earlier life of the scheduler has left with nodes."""

    settled_s: float = float("inf")  # when all nodelets have told what they hold of it
    awaited: set[bytes] | None = None  # its nodes that are not back; None: it is not known which


class Made(Struct):
    """How many there were so far."""

    leases: int = 0
    turns: int = 0  # of jobs that were queued up


class State(Struct, eq=False):
    """The tables of one life of the scheduler."""

    instance: bytes  # 16 bytes; leases are named after it, so that lives don't mix
    tenants: Tenants = field(default_factory=Tenants)
    is_private: bool = False  # one node, of the client's own machine, and never another
    away_limit_s: float = float("inf")  # jobs of a client that is away for longer are given up
    now_s: float = 0.0  # of the event that is being handled, on the caller's clock
    former: Former = field(default_factory=Former)
    nodes: dict[bytes, Node] = field(default_factory=dict)  # by id
    clients: dict[bytes, Client] = field(default_factory=dict)  # by session
    peers: dict[bytes, Client | Node] = field(default_factory=dict)  # by routing id
    jobs: dict[bytes, Job] = field(default_factory=dict)  # those that are open
    leases: dict[bytes, Lease] = field(default_factory=dict)  # of any state but GONE
    usages: dict[str, Usage] = field(default_factory=dict)  # by tenant: those with open jobs
    opens: Pacer = field(default_factory=new_opens)  # how often tenants open jobs
    free: dict[bytes, Node] = field(default_factory=dict)  # those that may be leased are among them
    given_up: dict[bytes, GivenUp] = field(default_factory=dict)  # by job, the oldest first
    gone: deque[GoneLease] = field(default_factory=lambda: deque(maxlen=GONE_KEPT))
    effects: list[Effect] = field(default_factory=list)  # the outbox
    journal: Journal = field(default_factory=Journal)
    marks: Marks = field(default_factory=Marks)
    server_key: ServerKey | None = None  # that will be ours; None: the one of now stays
    lost: dict[str, LostNode] = field(default_factory=dict)  # by name; the oldest first
    blobs: BlobTable = field(default_factory=BlobTable)
    inputs: InputTable = field(default_factory=InputTable)  # big ones, on their way
    records: Records = field(default_factory=Records)  # of jobs, for people
    made: Made = field(default_factory=Made)

    def send(self, peer: bytes, message: Message, payload: Sequence[bytes] = ()) -> None:
        """Send a message to a connection."""
        self.effects.append(Send(peer, message, payload))

    def tell(self, job: Job, message: Message, payload: Sequence[bytes] = ()) -> None:
        """Send a message to the client of a job, if it is connected."""
        client = self.clients.get(job.owner)
        if client is not None and client.peer:
            self.effects.append(Send(client.peer, message, payload))

    def note(self, text: str, peer: bytes = b"") -> None:
        """Write to the log; `peer`: whom it is about, if it may say so too often."""
        self.effects.append(Note(text, peer))

    def record(self, user: str, operation: str, job: bytes | None, result: str) -> None:
        """Write to the audit log; a private cluster has none."""
        if not self.is_private:
            self.effects.append(Record(user, operation, job, result))

    def job_of(self, lease: Lease | None) -> Job | None:
        """Return the open job that a lease serves or served; None: it is closed, or not known."""
        return self.jobs.get(lease.job) if lease is not None and lease.wanted else None

    def queue_up(self, job: Job) -> None:
        """Put a job behind all others that are as entitled to a node."""
        self.made.turns += 1
        job.turn = self.made.turns
