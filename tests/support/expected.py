"""Effects that tests expect of the scheduler's core, each in a line; others are written out."""

from collections.abc import Sequence
from typing import Any

from cluster_model import ModelClient, ModelNode, ident
from outcomes import outcomes

from burla.protocol import messages as m
from burla.scheduler.core.effects import Note, Record, Send
from burla.scheduler.core.quotas import BYTES_MAX

WELCOME = m.Welcome(ident(1), "0", "inproc://pub", BYTES_MAX)  # of a model cluster


def joined(node: ModelNode) -> list[Record | Note | Send]:
    """Return what a node's first Hello makes, if there is nothing for it to do."""
    return [
        Record("", f"join as node {node.name}", None, "ok"),
        Note(f"node {node.name} joined: {node.cpus} CPUs"),
        Send(node.peer, WELCOME),
    ]


def opened(client: ModelClient) -> list[Record | Send]:
    """Return what a client's first Hello makes, and its OpenJob, if no node is free."""
    return [Send(client.peer, WELCOME), Record("", "open job", client.job, "ok")]


def closed(client: ModelClient) -> Record:
    """Return the line about a job that its client closed."""
    return Record("", "close job", client.job, "ok")


def start(
    node: ModelNode,
    client: ModelClient,
    lease: int,
    slots: int = 2,
    function: bytes = b"function",
    **more: Any,
) -> Send:
    """Return the word that begins the lease of this number."""
    usual: dict[str, Any] = {"func_cpu": 1, "unpack": False, "environment": b""}
    usual |= {"outcome_window": m.LEASE_OUTCOME_WINDOW, "report_s": 0.02}
    message = m.StartLease(lease=ident(lease), job=client.job, slots=slots, **(usual | more))
    return Send(node.peer, message, [function])


def assign(
    node: ModelNode,
    lease: int,
    *spans: m.Span,
    left: int = 0,
    leaves: Sequence[m.Leaf] = (),
    forget: tuple[int, ...] = (),
    report_s: float = 0.02,
) -> Send:
    """Return the word that assigns `spans` to a lease, with `leaves` of a byte each."""
    message = m.Assign(
        lease=ident(lease),
        left=left,
        spans=spans,
        leaves=tuple(leaves),
        forget=forget,
        report_s=report_s,
    )
    return Send(node.peer, message, [b"x"] * len(leaves))


def passed_on(client: ModelClient, node: ModelNode, lease: int, seq: int, lo: int, hi: int) -> Send:
    """Return the word that brings results of [lo, hi) to a client."""
    return forwarded(client, node, outcomes(ident(lease), [m.Run(lo, hi, m.Kind.RESULTS, 1)], seq))


def forwarded(
    client: ModelClient, node: ModelNode, said: m.Outcomes, payload: Sequence[bytes] = (b"r",)
) -> Send:
    """Return the word that brings to a client what a node said."""
    message = m.JobOutcomes(
        job=client.job, lease=said.lease, seq=said.seq, node=node.name, runs=said.runs, output=0
    )
    return Send(client.peer, message, list(payload))


def to(party: ModelNode | ModelClient, message: m.Message) -> Send:
    """Return what brings `message` to a party."""
    return Send(party.peer, message)


def retract(node: ModelNode, lease: int, inputs: int) -> Send:
    """Return the word that asks a lease to give back what it has not begun."""
    return Send(node.peer, m.Retract(ident(lease), inputs))


def acked(node: ModelNode, lease: int, seq: int) -> Send:
    """Return the word that what the client has of a lease is safe."""
    return Send(node.peer, m.AckOutcomes(ident(lease), seq))


def ended(node: ModelNode, lease: int, *, discard: bool = False) -> Send:
    """Return the word that ends a lease."""
    return Send(node.peer, m.EndLease(ident(lease), discard))
