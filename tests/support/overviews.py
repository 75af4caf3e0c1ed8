"""What a scheduler says of a cluster with some nodes, jobs and users, for tests of who shows it."""

from typing import Any

from burla.protocol import job_messages as jm, messages as m, overview_messages as ov
from burla.protocol.job_messages import JobState

JOB = bytes(range(16))
OPTIONS = jm.JobOptions(2, 3 << 30, 10, True, True, 5.0, 2)


def summary(state: JobState = JobState.RUNNING, **more: Any) -> jm.JobSummary:
    """Return a job in a line, with `more` of its fields as given."""
    usual: dict[str, Any] = {"job": JOB, "user": "anna", "name": "parse", "state": state}
    usual |= {"opened_ago_s": 100.0, "took_s": 90.0, "total": 1000, "done": 400, "failed": 3}
    usual |= {"retried": 2, "slots": 8, "nodes": 2, "why": ""}
    return jm.JobSummary(**(usual | more))


def record(state: JobState = JobState.RUNNING, **more: Any) -> jm.JobRecord:
    """Return all that is kept of a job, with `more` of the fields of its line as given."""
    return jm.JobRecord(
        summary=summary(state, **more),
        options=OPTIONS,
        python="3.11",
        waited_s=7.0,
        waits=(jm.Wait("number 1 in line, the node is busy", 0.5, 6.5),),
        nodes=(jm.NodeShare("n1", 2, 4, 80.0, 300, True), jm.NodeShare("n2", 1, 4, 8.0, 1, False)),
        more_nodes=3,
        faults=(
            jm.Fault(7, "ValueError", "no\nsecond line", "n1", 3),
            jm.Fault(9, "KeyError", "'x'", "n2"),
            jm.Fault(11, "ValueError", "", ""),
        ),
        slow=(m.LongCall(5, 6, 30.0), m.LongCall(20, 30, 4.0)),
        durations=((10, 300), (12, 100)),
        bytes_in=123_456,
        bytes_out=5_000_000,
        lasting=(jm.Lasting("n1", 17, 18, 75.0), jm.Lasting("n2", 0, 0, 20.0)),
    )


def status(name: str, state: m.NodeState = m.NodeState.FREE, **more: Any) -> m.NodeStatus:
    """Return how a node with 8 CPUs is, with `more` of the fields as given."""
    usual: dict[str, Any] = {"isolation": "uid", "cpus": 8, "ram": 4 << 30, "python": "3.11"}
    return m.NodeStatus(name=name, state=state, **({"job": ""} | usual | more))


def seen(name: str, user: str = "anna", slots: int = 8, busy: int = 8) -> ov.NodeSeen:
    """Return a node that works for somebody."""
    is_told = status(name, m.NodeState.LEASED, job="parse" if user else "")
    return ov.NodeSeen(is_told, user, JOB if user else b"", slots, busy, 30.0)


def use(user: str, **more: Any) -> ov.TenantUse:
    """Return what a user has, with `more` of the fields as given."""
    usual: dict[str, Any] = {"jobs": 1, "inputs": 10, "bytes_held": 1000, "nodes": 2, "slots": 8}
    usual |= {"calls": 400, "jobs_max": 10, "inputs_max": 1000, "bytes_max": 1 << 20}
    return ov.TenantUse(**(usual | {"user": user, "opens_per_s": 5} | more))


def overview(*nodes: ov.NodeSeen, sees_all: bool = True, calls: int = 400) -> ov.Overview:
    """Return how a cluster is."""
    found = nodes or (seen("n1"), seen("n2", "bert", busy=2), ov.NodeSeen(status("n3")))
    tenants = (use("anna"), use("bert", jobs=10))
    return ov.Overview("root", sees_all, found, len(found), calls, tenants, len(tenants))
