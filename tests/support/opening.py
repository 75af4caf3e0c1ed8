"""The words that open a conversation, for tests that care for one or two of their fields."""

from typing import Any

from burla.protocol import messages as m
from burla.protocol.fields import POLICIES

PYTHON = "3.11"
LEASE, JOB = b"L" * 16, b"J" * 16
DIGEST = b"D" * 32  # of the function, whatever it is


def client_hello(session: bytes = bytes(16), **more: Any) -> m.ClientHello:
    """Return the first word of a client, with `more` of its fields as given."""
    usual: dict[str, Any] = {"protocol": m.PROTOCOL, "version": "0", "python": PYTHON}
    usual |= {"user": "u", "host": "h"}
    return m.ClientHello(**(usual | {"session": session} | more))


def node_hello(node: bytes = bytes(16), **more: Any) -> m.NodeHello:
    """Return the first word of a node with two CPUs, with `more` of its fields as given."""
    usual: dict[str, Any] = {"protocol": m.PROTOCOL, "version": "0", "python": PYTHON}
    usual |= {"name": "n", "cpus": 2, "ram": 1 << 30, "held": (), "features": (POLICIES,)}
    return m.NodeHello(**(usual | {"node": node} | more))


def open_job(job: bytes, topic: bytes = bytes(16), **more: Any) -> m.OpenJob:
    """Return an `OpenJob` for calls of one CPU each, with `more` of its fields as given."""
    usual: dict[str, Any] = {"name": "f", "func_cpu": 1, "func_ram": None, "max_parallelism": None}
    usual |= {"unpack": False, "environment": b"", "digest": DIGEST}
    return m.OpenJob(**(usual | {"job": job, "topic": topic} | more))


def start_lease(slots: int = 2, **more: Any) -> m.StartLease:
    """Return what gives a node to a job with calls of one CPU, with `more` fields as given."""
    usual: dict[str, Any] = {"lease": LEASE, "job": JOB, "slots": slots, "func_cpu": 1}
    usual |= {"unpack": False, "environment": b"", "outcome_window": 32 << 20, "report_s": 0.02}
    return m.StartLease(**(usual | more))
