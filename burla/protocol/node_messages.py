"""What people and autoscalers ask of the nodes that there are, and are told. Pure."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from .fields import (
    NODES_MAX,
    WISHES_MAX,
    Count,
    Gpus,
    Line,
    Machines,
    Message,
    Minor,
    Names,
    Positive,
    Seconds,
    Word,
)


class ListNodes(Message, frozen=True):
    """client -> scheduler: which nodes are there? Answered by Nodes."""


class AskDemand(Message, frozen=True):
    """autoscaler -> scheduler: what do jobs wait for? Answered by Demand.

    An autoscaler is a client that may be an administrator; it asks every few seconds. What one of
    this name said last counts until it asks again, for a bounded time.
    """

    name: Word
    doing: Line  # about the demand, for callers who wait; empty: nothing
    cpus: Count  # of a node that it would make; 0: it makes none
    ram: Count  # likewise, in bytes; 0: not known
    retire: Annotated[tuple[Word, ...], Meta(max_length=NODES_MAX)] = ()  # not leased: it deletes
    gpus: Count = 0  # of a node that it would make
    heeds: Names = ()  # which fields of `Machines`, by name


class NodeState(StrEnum):
    """What a node does."""

    FREE = "free"
    LEASED = "leased"  # or its last lease is still ending
    LEAVING = "leaving"  # it is drained or about to be deleted: no job gets it any more
    LOST = "lost"  # nothing is heard of it; it may come back


class NodeStatus(Struct, frozen=True, array_like=True):
    """One node, for people."""

    name: Word
    isolation: Word
    cpus: Positive
    ram: Positive  # bytes
    python: Minor
    state: NodeState
    job: Word  # name of the function it serves, if that is the asker's own; else empty
    idle_s: Seconds = 0.0  # since when it serves nobody; 0: it does
    lost_s: Seconds = 0.0  # for how long it has been given up, if it has
    why: Word = ""  # then
    gpus: Gpus = ()


class Nodes(Message, frozen=True):
    """scheduler -> client: answer to ListNodes: all nodes, and those that were lost, by name."""

    nodes: Annotated[tuple[NodeStatus, ...], Meta(max_length=NODES_MAX)]


class Wish(Struct, frozen=True, array_like=True):
    """A job for which machines may be made, and what is known of how long it will last."""

    python: Minor
    func_cpu: Positive
    func_ram: Positive | None  # bytes per call
    calls: Count  # inputs without outcome, as far as they were sent
    max_parallelism: Positive | None
    slots: Count  # that it has
    call_s: Seconds  # mean time of a recent call; 0: none has ended
    waited_s: Seconds  # since its first lease began; without one, since it was opened
    fits: bool  # some node that is connected could run it
    func_gpu: Count = 0  # devices per call
    machines: Machines | None = None  # what those are to be like


class Demand(Message, frozen=True):
    """scheduler -> autoscaler: answer to AskDemand: all nodes, and the jobs that may grow."""

    nodes: Annotated[tuple[NodeStatus, ...], Meta(max_length=NODES_MAX)]
    wishes: Annotated[tuple[Wish, ...], Meta(max_length=WISHES_MAX)]
