"""Messages by which people look at a whole cluster, and at one node of it. Pure.

They go only to a scheduler that has said `OVERVIEW` among the features in its Welcome. Whose jobs
nodes run is told to administrators, and to everybody of their own.
"""

from typing import Annotated

from msgspec import Meta, Struct

from .fields import Count, Message, Opaque, Positive, Seconds, Word
from .job_messages import JobState
from .node_messages import NodeStatus

OVERVIEW = "overview"  # a feature: who says so answers the messages here
NODES_SEEN_MAX = 4096  # in one answer; their number is told, too
TENANTS_MAX = 1000  # likewise
TURNS_MAX = 64  # jobs of one node


class NodeSeen(Struct, frozen=True, array_like=True):
    """A node, and for whom it works; of what the asker may not know, texts are empty."""

    status: NodeStatus
    user: Word = ""
    job: Opaque = b""  # its id
    slots: Count = 0  # calls that it may run at once for that job
    busy: Count = 0  # that it runs, as far as the scheduler knows
    leased_s: Seconds = 0.0  # for how long it has served the job


class TenantUse(Struct, frozen=True, array_like=True):
    """What a user has now, and may have at once."""

    user: Word
    jobs: Count
    inputs: Count  # without an outcome
    bytes_held: Count  # of functions and inputs
    nodes: Count  # that serve its jobs
    slots: Count  # calls that these may run at once
    calls: Count  # with an outcome since the scheduler began
    jobs_max: Count
    inputs_max: Count
    bytes_max: Count
    opens_per_s: Count  # jobs opened a second, on average


class NodeTurn(Struct, frozen=True, array_like=True):
    """What a node has done for one job."""

    job: Opaque
    user: Word
    name: Word  # of its function
    state: JobState
    opened_ago_s: Seconds
    leases: Positive
    slots: Count  # of the last lease
    leased_s: Seconds
    calls: Count  # with outcomes
    is_leased: bool  # now


# --- client -> scheduler ---


class AskOverview(Message, frozen=True):
    """client -> scheduler: how is the cluster? Answered by Overview."""


class AskNode(Message, frozen=True):
    """client -> scheduler: how is a node, and what has it done? Answered by NodeShown."""

    name: Word


OverviewQuestion = AskOverview | AskNode

# --- scheduler -> client ---


class Overview(Message, frozen=True):
    """scheduler -> client: answer to AskOverview, by name."""

    who: Word  # asks, as the scheduler knows them
    sees_all: bool  # jobs of everybody, as an administrator does
    nodes: Annotated[tuple[NodeSeen, ...], Meta(max_length=NODES_SEEN_MAX)]
    nodes_total: Count  # of which the first are told
    calls: Count  # with an outcome since the scheduler began, of jobs that the asker sees
    tenants: Annotated[tuple[TenantUse, ...], Meta(max_length=TENANTS_MAX)]
    tenants_total: Count  # likewise


class NodeShown(Message, frozen=True):
    """scheduler -> client: answer to AskNode; the jobs that run first, then the newest first."""

    node: NodeSeen | None  # None: there is none of this name
    version: Word = ""  # of its burla
    joined_s: Seconds = 0.0  # since then it has been there
    turns: Annotated[tuple[NodeTurn, ...], Meta(max_length=TURNS_MAX)] = ()
    turns_total: Count = 0  # of which the first are told


OverviewAnswer = Overview | NodeShown
