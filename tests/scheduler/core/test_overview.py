"""What people ask about the whole cluster: who has which node; whose it is, only who may know."""

from typing import Any

import pytest
from opening import client_hello, node_hello, open_job

from burla.protocol import messages as m, overview_messages as ov
from burla.protocol.codec import decode, encode
from burla.protocol.node_messages import NodeState
from burla.scheduler.core.effects import Send
from burla.scheduler.core.quotas import Quotas, Tenants
from burla.scheduler.core.scheduler import Scheduler

ANNA, BERT, ROOT = "a" * 64, "b" * 64, "f" * 64
JOBS = {ANNA: b"a" * 16, BERT: b"b" * 16}
QUOTAS = Quotas(jobs_max=7, inputs_max=100, bytes_max=1 << 20, opens_per_s=9)


def cluster() -> Scheduler:
    """Return one in which two people have a node each, and a third node is free."""
    core = Scheduler(bytes(16), "0", "inproc://pub")
    core.set_tenants(
        Tenants(Quotas(), {"anna": QUOTAS}, {ANNA: "anna", BERT: "bert", ROOT: "root"})
    )
    for number, key in enumerate((ANNA, BERT, ROOT)):
        node = bytes([number + 1]) * 16
        hello = node_hello(node, name=f"n{number}", version="1.2", gpus=("L4",))
        core.receive(f"node{number}".encode(), hello, [], 10.0, f"key of n{number}")
        core.receive(key.encode(), client_hello(bytes([number]) * 16), [], 10.0, key)
        if key in JOBS:
            peer, job = key.encode(), JOBS[key]
            core.receive(peer, open_job(job, name=f"f{number}"), [b"f"], 10.0, key)
            leaves = (m.Leaf(0, 0, 1, 1),)
            inputs = m.Inputs(job=job, batch=0, start=0, leaves=leaves)
            core.receive(peer, inputs, [b"x"], 10.0, key)
    core.check()
    return core


def asked(core: Scheduler, key: str, question: ov.OverviewQuestion, now_s: float = 15.0) -> Any:
    """Return what somebody hears, as it comes from the wire."""
    heard = core.receive(key.encode(), question, [], now_s, key, sees_all=key == ROOT)
    (said,) = [
        each.message
        for each in heard
        if isinstance(each, Send) and isinstance(each.message, ov.OverviewAnswer)
    ]
    assert decode(encode(said), ov.OverviewAnswer)[0] == said
    return said


def users(said: ov.Overview) -> dict[str, str]:
    return {seen.status.name: seen.user for seen in said.nodes}


def test_an_administrator_sees_who_has_which_node() -> None:
    said = asked(cluster(), ROOT, ov.AskOverview())
    assert (said.who, said.sees_all, said.nodes_total) == ("root", True, 3)
    assert users(said) == {"n0": "anna", "n1": "bert", "n2": ""}
    first = said.nodes[0]
    assert (first.status.state, first.status.job) == (NodeState.LEASED, "f0")
    assert (first.job, first.slots, first.busy, first.leased_s) == (JOBS[ANNA], 2, 1, 5.0)
    assert said.nodes[2] == ov.NodeSeen(said.nodes[2].status)


def test_everybody_else_sees_of_others_no_more_than_that_a_node_is_taken() -> None:
    said = asked(cluster(), ANNA, ov.AskOverview())
    assert (said.who, said.sees_all) == ("anna", False)
    assert users(said) == {"n0": "anna", "n1": "", "n2": ""}
    other = said.nodes[1]
    assert (other.status.state, other.status.job, other.job) == (NodeState.LEASED, "", b"")
    assert (other.slots, other.busy) == (2, 1)  # how loaded it is, is no secret
    assert [use.user for use in said.tenants] == ["anna"]


def test_what_users_have_and_may_have_is_told() -> None:
    said = asked(cluster(), ROOT, ov.AskOverview())
    anna, bert, root = said.tenants
    assert (anna.user, bert.user, root.user) == ("anna", "bert", "root")
    assert (anna.jobs, anna.inputs, anna.nodes, anna.slots, anna.calls) == (1, 1, 1, 2, 0)
    assert (anna.jobs_max, anna.inputs_max, anna.bytes_max, anna.opens_per_s) == (
        7,
        100,
        1 << 20,
        9,
    )
    assert (root.jobs, root.jobs_max) == (0, Quotas().jobs_max)


def finish(core: Scheduler, number: int, key: str) -> None:
    """Have the only call of somebody's job return."""
    job = core.state.jobs[JOBS[key]]
    (lease,) = job.work.leases
    said = m.Outcomes(
        lease=lease, seq=1, done=((0, 1),), failed=False, runs=b"", output=0, call_s=0.1
    )
    core.receive(f"node{number}".encode(), said, [b"y"], 11.0, f"key of n{number}")


def test_calls_are_counted_of_jobs_that_run_and_that_are_over() -> None:
    core = cluster()
    finish(core, 0, ANNA)
    assert asked(core, ANNA, ov.AskOverview()).calls == 1
    core.receive(ANNA.encode(), m.CloseJob(JOBS[ANNA]), [], 12.0, ANNA)
    finish(core, 1, BERT)
    counted = [asked(core, key, ov.AskOverview()).calls for key in (ANNA, BERT, ROOT)]
    assert counted == [1, 1, 2]
    assert [use.calls for use in asked(core, ROOT, ov.AskOverview()).tenants] == [1, 1, 0]


def test_a_node_tells_what_it_has_done_for_whom_of_those_that_the_asker_may_see() -> None:
    core = cluster()
    said = asked(core, ROOT, ov.AskNode("n0"))
    assert (said.version, said.joined_s, said.node.status.gpus) == ("1.2", 5.0, ("L4",))
    (turn,) = said.turns
    assert (turn.user, turn.name, turn.is_leased, turn.leased_s) == ("anna", "f0", True, 5.0)
    assert asked(core, ANNA, ov.AskNode("n0")).turns == (turn,)
    for_bert = asked(core, BERT, ov.AskNode("n0"))
    assert (for_bert.turns, for_bert.turns_total, for_bert.node.user) == ((), 0, "")
    assert asked(core, ROOT, ov.AskNode("nowhere")) == ov.NodeShown(None)


def test_a_node_that_was_lost_is_there_with_what_it_has_done() -> None:
    core = cluster()
    core.unreachable(b"node0", 16.0)
    core.expire(17.0)
    seen = asked(core, ROOT, ov.AskOverview(), 18.0).nodes[0].status
    assert (seen.name, seen.state) == ("n0", NodeState.LOST)
    assert seen.why
    said = asked(core, ROOT, ov.AskNode("n0"), 18.0)
    assert said.node.status.state is NodeState.LOST
    assert [turn.is_leased for turn in said.turns] == [False]


def test_where_there_are_no_keys_all_are_one() -> None:
    core = Scheduler(bytes(16), "0", "inproc://pub")
    core.receive(b"c", client_hello(), [], 0.0)
    (sent,) = core.receive(b"c", ov.AskOverview(), [], 0.0)
    assert isinstance(sent, Send)
    assert isinstance(sent.message, ov.Overview)
    assert [use.user for use in sent.message.tenants] == ["everybody"]


@pytest.mark.parametrize("name", ["n" * 20, "\N{GRINNING FACE}" * 256])
def test_an_answer_fits_into_a_header_however_many_nodes_there_are(name: str) -> None:
    core = Scheduler(bytes(16), "0", "inproc://pub")
    count = ov.NODES_SEEN_MAX + 10
    for number in range(count):
        hello = node_hello(number.to_bytes(16, "big"), name=f"{number:05}{name}"[:256])
        core.receive(b"%d" % number, hello, [], 0.0, "k")
    core.receive(b"c", client_hello(), [], 0.0)
    sent = core.receive(b"c", ov.AskOverview(), [], 0.0)[-1]
    assert isinstance(sent, Send)
    said = decode(encode(sent.message), ov.OverviewAnswer)[0]
    assert said.nodes_total == count
    assert 0 < len(said.nodes) <= ov.NODES_SEEN_MAX


def test_many_users_with_many_jobs_are_gone_through_once() -> None:
    """The loop serves nobody meanwhile, and each open dashboard asks every two seconds."""

    class Looked(dict[str, str]):
        times = 0

        def get(self, key: str, default: Any = None) -> Any:
            Looked.times += 1
            return super().get(key, default)

    count = 60
    keys = [f"{number:064x}" for number in range(count)]
    core = Scheduler(bytes(16), "0", "inproc://pub")
    users = Looked({key: f"user{number}" for number, key in enumerate(keys)})
    core.set_tenants(Tenants(Quotas(), {}, users))
    for number, key in enumerate(keys):
        job = number.to_bytes(16, "big")
        core.receive(key.encode(), client_hello(job), [], 10.0, key)
        core.receive(key.encode(), open_job(job), [b"f"], 10.0, key)
    Looked.times = 0
    told = core.receive(keys[0].encode(), ov.AskOverview(), [], 11.0, keys[0], sees_all=True)
    (said,) = [each.message for each in told if isinstance(each, Send)]
    assert isinstance(said, ov.Overview)
    assert [use.jobs for use in said.tenants] == [1] * count
    assert Looked.times < 10 * count
