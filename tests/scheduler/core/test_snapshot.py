"""The state as plain data: what an operator sees, and what nobody may."""

import json
from typing import Any

from cluster_model import ModelCluster, ident
from opening import client_hello, node_hello, open_job

from burla.protocol import messages as m
from burla.protocol.ranges import Ranges
from burla.scheduler.core.scheduler import Scheduler
from burla.scheduler.core.snapshot import LISTED_MAX

TOPIC, SECRET = b"a topic, 16 byte", b"a secret of 32 bytes, in hex too"


def shown(core: Scheduler, now_s: float = 0.0) -> dict[str, Any]:
    """Return the snapshot as whoever reads the file sees it."""
    found: dict[str, Any] = json.loads(json.dumps(core.snapshot(now_s)))
    return found


def test_an_empty_scheduler_has_empty_tables() -> None:
    assert shown(Scheduler(ident(1), "0", "pub")) == {
        "scheduler": ident(1).hex(),
        "jobs": [],
        "leases": [],
        "gone": [],
        "nodes": [],
        "clients": [],
        "usages": {},
        "blobs": [],
        "free": [],
        "marked": {"jobs": [], "leases": [], "nodes": []},
    }


def test_it_says_where_inputs_are_and_what_leases_went_through() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    client = cluster.client()
    waiting = cluster.client(func_cpu=64)
    cluster.inputs(client, 4)
    lease = node.active()
    assert lease is not None
    cluster.later(1.0)
    cluster.run(node, 1)
    found = shown(cluster.core, cluster.now_s + 1.0)
    job, other = found["jobs"]
    assert job["inputs"] == {
        "total": None,
        "entered": 4,
        "pending": {"count": 0, "ranges": []},
        "assigned": 3,
        "limbo": {"count": 0, "ranges": []},
        "quarantine": {"count": 0, "ranges": []},
        "done": {"count": 1, "ranges": [[0, 1]]},
    }
    assert (job["id"], job["leases"], job["slots"]) == (client.job.hex(), [lease.hex()], 2)
    assert (other["id"], other["leases"]) == (waiting.job.hex(), [])
    assert other["told"].startswith("no connected node fits")
    (held,) = found["leases"]
    assert (held["state"], held["node"], held["job"]) == ("active", node.name, client.job.hex())
    assert held["held"] == {"count": 3, "ranges": [[1, 4]]}
    assert held["transitions"] == [[2.0, "active"]]
    (machine,) = found["nodes"]
    assert (machine["lease"], machine["is_free"]) == (lease.hex(), False)
    assert [each["jobs"] for each in found["clients"]] == [[client.job.hex()], [waiting.job.hex()]]
    assert found["usages"][""]["jobs"] == 2


def test_a_lease_that_is_gone_is_remembered_with_its_story() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    client = cluster.client()
    lease = node.active()
    assert lease is not None
    cluster.say(client.peer, m.CloseJob(client.job))
    cluster.stop(node)
    found = shown(cluster.core, cluster.now_s)
    assert found["leases"] == []
    (gone,) = found["gone"]
    assert gone == {
        "id": lease.hex(),
        "node": node.name,
        "job": client.job.hex(),
        "transitions": [[0.0, "active"], [0.0, "stopping"], [0.0, "gone"]],
    }
    assert found["free"] == [node.name]


def test_no_secret_and_no_payload_is_in_it() -> None:
    core = Scheduler(ident(1), "0", "pub")
    core.receive(b"c", client_hello(ident(2)), [], 0.0)
    core.receive(b"n", node_hello(ident(4), cpus=1), [], 0.0)
    core.receive(b"c", open_job(ident(3), TOPIC, secret=SECRET), [b"the function"], 0.0)
    leaves = (m.Leaf(0, 0, 1, 1),)
    said = m.Inputs(job=ident(3), batch=0, start=0, leaves=leaves)
    core.receive(b"c", said, [b"the inputs"], 0.0)
    text = json.dumps(core.snapshot(0.0))
    for word in (TOPIC, SECRET, b"the function", b"the inputs"):
        assert word.decode() not in text
        assert word.hex() not in text


def test_very_many_gaps_are_counted_and_the_first_are_listed() -> None:
    core = Scheduler(ident(1), "0", "pub")
    core.receive(b"c", client_hello(ident(2)), [], 0.0)
    done = Ranges((at, at + 1) for at in range(0, 1000, 2))
    core.receive(b"c", open_job(ident(3), resumed=True, done=tuple(done)), [b"f"], 0.0)
    (job,) = shown(core)["jobs"]
    assert job["inputs"]["done"]["count"] == 500
    assert len(job["inputs"]["done"]["ranges"]) == LISTED_MAX
