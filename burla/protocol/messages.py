"""Every message between the programs, declared once. Pure.

Each conversation is described in docs/PROTOCOL.md; the docstrings here say who sends a message to
whom, when, and what its payload is. A message is decoded against the union of its direction and
nothing else.
"""

from typing import Annotated

from msgspec import Meta

from . import (
    job_messages as jm,
    key_messages as km,
    output_messages as om,
    overview_messages as ov,
    store_messages as sm,
)
from .blob_messages import (
    BlobPiece as BlobPiece,
    BlobWanted as BlobWanted,
    LeaseRefused as LeaseRefused,
)

# Of which all are made. They are used from here, as the messages are.
from .fields import (
    BEAT_S as BEAT_S,
    BLOB_PIECE_BYTES as BLOB_PIECE_BYTES,
    BLOB_WINDOW as BLOB_WINDOW,
    BLOBS_MAX as BLOBS_MAX,
    BLOBS_SHARE as BLOBS_SHARE,
    ENVIRONMENT_BYTES_MAX as ENVIRONMENT_BYTES_MAX,
    GPUS_MAX as GPUS_MAX,
    HEADER_BYTES_MAX as HEADER_BYTES_MAX,
    HELD_MAX as HELD_MAX,
    JOB_INPUT_COUNT as JOB_INPUT_COUNT,
    JOB_INPUT_WINDOW as JOB_INPUT_WINDOW,
    LEASE_OUTCOME_WINDOW as LEASE_OUTCOME_WINDOW,
    LEASE_OUTPUT_WINDOW as LEASE_OUTPUT_WINDOW,
    LONG_CALLS_MAX as LONG_CALLS_MAX,
    NODES_MAX as NODES_MAX,
    NOTICE as NOTICE,
    NUMBER_MAX as NUMBER_MAX,
    OUTPUT_CHUNKS_MAX as OUTPUT_CHUNKS_MAX,
    PARTS_MAX as PARTS_MAX,
    PAYLOAD_BYTES_MAX as PAYLOAD_BYTES_MAX,
    PIECE_FRAMES_MAX as PIECE_FRAMES_MAX,
    RANGES_MAX as RANGES_MAX,
    RUN_TABLE_BYTES_MAX as RUN_TABLE_BYTES_MAX,
    RUNS_MAX as RUNS_MAX,
    SEAL_BYTES as SEAL_BYTES,
    SECRET_BYTES_MAX as SECRET_BYTES_MAX,
    STDERR as STDERR,
    STDOUT as STDOUT,
    TRIED_MAX as TRIED_MAX,
    WISHES_MAX as WISHES_MAX,
    Blob as Blob,
    BlobDigest as BlobDigest,
    BlobKind as BlobKind,
    Blobs as Blobs,
    Bulk as Bulk,
    CallPolicy as CallPolicy,
    Count as Count,
    Digest as Digest,
    Done as Done,
    Fragment as Fragment,
    Gpus as Gpus,
    HashSeed as HashSeed,
    Held as Held,
    Id as Id,
    Key as Key,
    Kind as Kind,
    Leaf as Leaf,
    Line as Line,
    LongCall as LongCall,
    LongCalls as LongCalls,
    Machines as Machines,
    Message as Message,
    Minor as Minor,
    Names as Names,
    Opaque as Opaque,
    Owner as Owner,
    Packed as Packed,
    Positive as Positive,
    Run as Run,
    Runs as Runs,
    Seal as Seal,
    Seconds as Seconds,
    Secret as Secret,
    Span as Span,
    Stream as Stream,
    Streams as Streams,
    Text as Text,
    Tried as Tried,
    Try as Try,
    Version as Version,
    Whose as Whose,
    Word as Word,
)
from .image_messages import ImageName
from .input_messages import (
    BatchWanted as BatchWanted,
    InputPiece as InputPiece,
    InputWanted as InputWanted,
)
from .node_messages import (
    AskDemand as AskDemand,
    Demand as Demand,
    ListNodes as ListNodes,
    Nodes as Nodes,
    NodeState as NodeState,
    NodeStatus as NodeStatus,
    Wish as Wish,
)
from .package_messages import Lacking, PackedPackages, Preparing as Preparing

# Raised with every change of a message. Fields are only added, at the end and with a default, and a
# field too many is passed over: so the protocol of the last minor version of burla is served.
PROTOCOL, PROTOCOL_OLDEST = 5, 5


class Heartbeat(Message, frozen=True):
    """Any -> any, each second: I am alive. Never answered."""


# --- client -> scheduler ---


class ClientHello(Message, frozen=True):
    """client -> scheduler: first word on every connection; answered by Welcome or Refused."""

    protocol: Version
    version: Word
    python: Minor  # "3.11": functions travel only between equal minors
    session: Id  # one per client process; the same after a reconnect
    user: Word
    host: Word
    features: Names = ()  # what of the protocol it knows besides, as `key_messages.KEYS`


class OpenJob(Bulk, frozen=True, kw_only=True):
    """client -> scheduler: a job begins, or (after a reconnect) goes on. Payload: the function."""

    job: Id
    topic: Id  # secret under which its output is published; subscribed to before this is sent
    name: Word  # of the function, for people
    func_cpu: Positive
    func_ram: Positive | None  # bytes per call
    max_parallelism: Positive | None
    unpack: bool | None  # inputs hold positional arguments; None: those that are tuples
    environment: Packed  # opaque to all but the worker
    secret: Secret = b""  # seals its outcomes, see mac.py; empty where nobody else could write
    grow: bool = False  # machines may be made for it
    lazy: bool = False  # its inputs are read as slots need them: its client is told of slots
    digest: Digest = b""  # of the function, see digest.py; empty: no job may follow it
    hash_seed: HashSeed | None = None  # the caller's, if it is known; None: that of the cluster
    resumed: bool = False  # outcomes of it may be under way: nodes that hold some are awaited
    done: Done = ()  # ranges whose outcomes the client has, ascending
    fragments: bool = False  # big outcomes may come in fragments
    blobs: Blobs = ()  # that belong to it, big parts of the function first; see blob_messages.py
    policy: CallPolicy | None = None  # only to a scheduler that has said that it knows it
    tried: Tried = ()  # calls without outcome that have failed before
    packages: PackedPackages = b""  # that the function needs; likewise
    # only to a scheduler that keeps such jobs: it outlives its caller; a note to who reads of it
    detached: Opaque | None = None
    adopted: bool = False  # it was attached: what its client has of it is safe before calls begin
    machines: Machines | None = None  # that are made for it; only to who has said `MACHINES`
    blake3: bool = False  # its outcomes may be sealed with BLAKE3, see mac.py
    image: ImageName = ""  # in which its calls run; only to who has said `IMAGES`


class Inputs(Bulk, frozen=True, kw_only=True):
    """client -> scheduler: batch `batch`, its indices beginning at `start`. Payload: its leaves.

    But not those that say their `size` instead: see input_messages.py.
    """

    job: Id
    batch: Count
    start: Count
    leaves: Annotated[tuple[Leaf, ...], Meta(max_length=PARTS_MAX)]
    total: Count | None = None  # of the job: this is its last batch; InputsEnd need not follow
    coming: Count = 0  # inputs that are known to follow


class InputsEnd(Message, frozen=True):
    """client -> scheduler: the job has `total` inputs; no more batches come."""

    job: Id
    total: Count


class AckOutcomes(Message, frozen=True):
    """client -> scheduler -> nodelet: outcomes of the lease up to message `seq` are safe."""

    lease: Id
    seq: Count


class AckOutput(Message, frozen=True):
    """client -> scheduler -> nodelet: output of the lease up to chunk `number` is shown."""

    lease: Id
    number: Count


class ReplayOutput(Message, frozen=True):
    """client -> scheduler -> nodelet: send output after chunk `after` again, directly.

    If no node has the lease any more the scheduler answers LeaseLost.
    """

    job: Id
    lease: Id
    after: Count


class CloseJob(Message, frozen=True):
    """client -> scheduler: the job is over (complete, failed or cancelled): stop all of it."""

    job: Id


class ReplaceKey(Message, frozen=True):
    """client or nodelet -> scheduler: this key is mine, too, with the same rights.

    Answered by KeysManaged, to a nodelet by KeyReplaced. Said again, it changes nothing. The key
    under which it is said goes on to count for some time.
    """

    key: Key  # public
    overlap_s: Seconds  # so long; at most `admission.OVERLAP_S_MAX`


ClientToScheduler = (
    ClientHello
    | OpenJob
    | Inputs
    | InputsEnd
    | AckOutcomes
    | AckOutput
    | ReplayOutput
    | CloseJob
    | BlobPiece
    | InputPiece
    | ListNodes
    | ReplaceKey
    | jm.ListJobs
    | jm.ShowJob
    | jm.CancelJob
    | jm.DetachJob
    | om.ReadOutput
    | ov.AskOverview
    | ov.AskNode
    | sm.ClientAboutStore
    | Heartbeat
)

# --- scheduler -> client ---


class Welcome(Message, frozen=True):
    """scheduler -> client or nodelet: the connection is accepted."""

    scheduler: Id  # new with each life of the scheduler
    version: Word
    publisher: Word  # endpoint of the PUB channel; clients subscribe there
    bytes_max: Count = 0  # of functions and inputs of one key at once; 0: not said
    time_s: Seconds = 0.0  # Unix time on the scheduler's machine as this was sent; 0: not said
    features: Names = ()  # as in a Hello
    shared: Word = ""  # where all nodes have one file system; empty: they have none


class Refused(Message, frozen=True):
    """scheduler -> client or nodelet: the connection is not accepted; `reason` is for people."""

    reason: Text
    not_authorised: bool = False  # a matter of keys


class HelloRequired(Message, frozen=True):
    """scheduler -> any: I do not know you (any more): say Hello and what you hold."""


class JobOutcomes(Bulk, frozen=True, kw_only=True):
    """scheduler -> client: outcomes from one lease, as its nodelet sent them. Payload: its runs.

    With `fragment` the payload is that; `runs` is empty but with the last one of an outcome.
    """

    job: Id
    lease: Id
    seq: Positive  # per lease, from 1; a repeated one changes nothing but is acknowledged again
    node: Word
    runs: Runs
    output: Count  # chunks of the lease's output that went ahead of these outcomes
    call_s: Seconds = 0.0  # mean duration of recent calls there, told if its job is `lazy`
    seal: Seal = b""
    fragment: Fragment | None = None
    tried: Tried = ()  # calls that have failed and are called again


class JobOutput(Message, frozen=True):
    """scheduler -> client, by PUB or (a replay) directly: output. Payload: a frame a chunk."""

    job: Id
    lease: Id
    number: Positive  # of the first chunk; per lease, from 1
    streams: Streams  # per chunk


class JobRunning(Message, frozen=True):
    """scheduler -> client: calls of the job that last, as the nodelet of one lease said."""

    job: Id
    lease: Id
    node: Word
    calls: LongCalls
    loading_s: Seconds


class LeaseLost(Message, frozen=True):
    """scheduler -> client: nothing more comes from this lease; missing output of it is lost."""

    job: Id
    lease: Id
    node: Word


class JobStatus(Message, frozen=True):
    """scheduler -> client: how the job stands, when that changes."""

    job: Id
    waiting: Text  # why nothing of it runs; empty while it has a lease
    slots: Count = 0  # of all its leases; told if it is `lazy`
    notice: Line = ""  # that the user is to see, once


class JobFailed(Message, frozen=True):
    """scheduler -> client: the job cannot go on; answered by CloseJob."""

    job: Id
    argument: Word  # the argument that cannot be satisfied, or empty
    text: Text
    index: Count | None = None  # of the input that is why
    nodes: Names = ()  # that were lost with it
    away_s: Seconds = 0.0  # since its client was heard; not 0: that is why it was given up
    limit_s: Seconds = 0.0  # after which a job is given up then
    packages: Lacking = ()  # that a node cannot have: nothing has begun, and files of them may help
    momentary: bool = False  # other jobs have used a quota up: it may be opened again in a while


class CallLost(Message, frozen=True):
    """scheduler -> client: the outcome of an input whose nodes were lost, of a job that goes on."""

    job: Id
    index: Count
    nodes: Names


class ClusterEnded(Message, frozen=True):
    """scheduler -> client: the cluster is taken down, and all jobs of this client have ended."""

    by: Word


SchedulerToAutoscaler = Welcome | Refused | HelloRequired | Demand | km.ServerKey | Heartbeat

SchedulerToClient = (
    Welcome
    | Refused
    | HelloRequired
    | JobOutcomes
    | JobOutput
    | JobRunning
    | LeaseLost
    | JobStatus
    | JobFailed
    | BlobWanted
    | InputWanted
    | BatchWanted
    | CallLost
    | ClusterEnded
    | Nodes
    | jm.JobShown
    | sm.SchedulerAboutStore
    | km.ServerKey
    | Heartbeat
)

# --- scheduler -> nodelet ---


class StartLease(Bulk, frozen=True, kw_only=True):
    """scheduler -> nodelet: this node now serves `job`. Payload: the function."""

    lease: Id
    job: Id
    slots: Positive  # calls that may run at once
    func_cpu: Positive
    unpack: bool | None
    environment: Packed
    secret: Secret = b""  # of the job
    outcome_window: Positive  # bytes of unacknowledged outcomes
    report_s: Seconds  # outcomes are gathered for this long, unless a slot runs dry
    keep: Id | None = None  # a lease that lingers: its workers go on with this one, if they can
    func_ram: Positive | None = None  # bytes that one call may use; more ends it
    # earlier leases, to be ended as by EndLease(discard=True)
    over: Annotated[tuple[Id, ...], Meta(max_length=HELD_MAX)] = ()
    hash_seed: HashSeed | None = None  # of its workers; None: that of the cluster
    fragments: bool = False  # as in OpenJob
    blobs: Blobs = ()  # of the job; asked for if the node has not got them of the same owner
    owner: Owner = b""  # whose blobs they are: nobody else's are the same, whatever their bytes
    policy: CallPolicy | None = None  # only to a node that has said that it knows it
    packages: PackedPackages = b""  # likewise
    blake3: bool = False  # as in OpenJob
    image: ImageName = ""  # in which its calls run; only to a node that has said `IMAGES`
    # a lease of the same session that lingers: its workers end, and what its place has imported of
    # what is installed may serve this one; only to a node that has said `FOLLOWS`
    follows: Id | None = None


class Assign(Bulk, frozen=True, kw_only=True):
    """scheduler -> nodelet: run these spans, earlier ones first. Payload: leaves it has not got."""

    lease: Id
    left: Count  # inputs of the job, also such as are known to come, that nobody was dealt yet
    spans: Annotated[tuple[Span, ...], Meta(max_length=PARTS_MAX)]
    leaves: Annotated[tuple[Leaf, ...], Meta(max_length=PARTS_MAX)]
    # batches that are done everywhere: their leaves are not needed again
    forget: Annotated[tuple[Count, ...], Meta(max_length=PARTS_MAX)]
    report_s: Seconds = 0.0  # from now on; 0: as before
    tried: Tried = ()  # of the spans, or of such as come with the next message


class Retract(Message, frozen=True):
    """scheduler -> nodelet: give back up to `inputs` inputs from the end; answered by Retracted."""

    lease: Id
    inputs: Positive


class Drained(Message, frozen=True):
    """scheduler -> nodelet: answer to Drain, once the node serves nobody: it may end."""


class Linger(Message, frozen=True):
    """scheduler -> nodelet: the job of this lease is over, and nobody wants what it left behind.

    Its workers stay, for a job that is like it, until StartLease names it in `keep`, or EndLease.
    """

    lease: Id


class EndLease(Message, frozen=True):
    """scheduler -> nodelet: stop the lease's workers; answered by Stopped."""

    lease: Id
    discard: bool  # nobody wants its outcomes and output any more


SchedulerToNodelet = (
    Welcome
    | Refused
    | HelloRequired
    | StartLease
    | BlobPiece
    | InputPiece
    | Assign
    | Retract
    | AckOutcomes
    | AckOutput
    | ReplayOutput
    | Linger
    | EndLease
    | Drained
    | km.ServerKey
    | km.RenewKey
    | km.KeyReplaced
    | Heartbeat
)

# --- nodelet -> scheduler ---


class NodeHello(Message, frozen=True):
    """nodelet -> scheduler: first word on every connection; answered by Welcome or Refused."""

    protocol: Version
    version: Word
    python: Minor
    node: Id  # one per life of a nodelet: its epoch
    name: Word
    cpus: Positive
    ram: Positive  # bytes
    held: Annotated[tuple[Held, ...], Meta(max_length=HELD_MAX)]
    isolation: Word = "process"  # the tier of the node; nodelet/isolation/probe.py has them
    features: Names = ()  # what of the protocol it knows besides, as `key_messages.KEYS`
    gpus: Gpus = ()


class Outcomes(Bulk, frozen=True, kw_only=True):
    """nodelet -> scheduler: what has been run since the last one. Payload: the runs.

    With `fragment` the payload is that; `done` and `runs` are empty but with the last one.
    """

    lease: Id
    seq: Positive
    done: Done  # [lo, hi) that the runs cover, ascending
    failed: bool  # one of the runs is an error or a death
    runs: Runs
    output: Count
    call_s: Seconds  # mean time of a recent call; 0: not known
    seal: Seal = b""  # by the job's secret, over what the client acts on
    fragment: Fragment | None = None  # of one big outcome
    tried: Tried = ()  # failed, to be called again: here, or given back with this (`other_node`)
    tally: jm.Tally | None = None  # of their calls, for people


class Output(Message, frozen=True):
    """nodelet -> scheduler: what calls printed. Payload: one frame a chunk."""

    lease: Id
    number: Positive
    streams: Streams
    replay: bool = False  # asked for by the client: goes to it directly
    inputs: Whose = ()  # per chunk: whose it is; empty: not known


class Running(Message, frozen=True):
    """nodelet -> scheduler: calls of the lease that last, every few seconds while there are such.

    Said once without any, when they are over.
    """

    lease: Id
    calls: LongCalls  # those that have run for longest first
    loading_s: Seconds  # since when a worker has been loading the function; 0: not for long


class Retracted(Message, frozen=True):
    """nodelet -> scheduler: answer to Retract: these spans were not begun and are given back."""

    lease: Id
    spans: Annotated[tuple[Span, ...], Meta(max_length=PARTS_MAX)]


class Stopped(Message, frozen=True):
    """nodelet -> scheduler: all processes of the lease are gone, its scratch is wiped."""

    lease: Id


class Drain(Message, frozen=True):
    """nodelet -> scheduler: give this node no more work, and take back what it has not begun.

    Said again after each Welcome. Answered by Drained when its last lease has ended.
    """


class Join(Message, frozen=True):
    """joining nodelet -> scheduler, under the key of a join token: this is my own key.

    The only word that such a key may say; answered by Joined or Refused. The token is then used up.
    """

    protocol: Version
    key: Key  # public
    name: Word


class Joined(Message, frozen=True):
    """scheduler -> joining nodelet: your key is known from now on; connect with it."""

    # the first key that the scheduler had, by which seeds of hash() go; empty: that of now
    first_key: Secret = b""


JoiningToScheduler = Join
SchedulerToJoining = Joined | Refused

NodeletToScheduler = (
    NodeHello
    | Outcomes
    | Output
    | Running
    | Retracted
    | Stopped
    | BlobWanted
    | InputWanted
    | LeaseRefused
    | Preparing
    | Drain
    | ReplaceKey
    | Heartbeat
)
