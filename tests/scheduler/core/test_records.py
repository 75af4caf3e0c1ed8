"""What is kept of jobs: counts, errors and waits by name, and all of it bounded."""

from typing import Any

import msgspec
import pytest
from cluster_model import ModelClient, ModelCluster, ModelNode, ident
from msgspec.structs import replace
from outcomes import payload_of

from burla.protocol import job_messages as jm, messages as m, output_messages as om
from burla.protocol.job_messages import JobState
from burla.protocol.ranges import Ranges
from burla.scheduler.core import records, telling
from burla.scheduler.core.effects import KeepRecords
from burla.scheduler.core.questions import unfiled
from burla.scheduler.core.records import FOLD_AGE_S, KEPT_MAX, Recording


def told(cluster: ModelCluster, job: bytes) -> jm.JobRecord:
    """Return what is kept of a job."""
    state = cluster.core.state
    kept = state.records
    record = kept.open.get(job) or kept.former.get(job) or kept.over[job]
    names = {node.id: node.name for node in state.nodes.values()}
    return telling.told(record, state.jobs.get(job), cluster.now_s, names.__getitem__)


def run(
    cluster: ModelCluster, node: ModelNode, count: int, tally: jm.Tally | None = None, **more: Any
) -> m.Outcomes:
    """Let a node say that the first calls of its lease have ended."""
    (lease,) = [each for each in node.held if each not in node.stopping]
    for lo, hi in node.held[lease].pop_front(count):
        node.held[lease].add(lo, hi)
        said = replace(node.run(lease, lo, hi), tally=tally, **more)
        cluster.say(node.peer, said, payload_of(said.runs))
    return said


def one_map(
    cluster: ModelCluster,
    client: ModelClient,
    node: ModelNode,
    number: int,
    detached: bytes | None = None,
    question: jm.JobQuestion | om.ReadOutput | None = None,
) -> bytes:
    """Let a client open another job of one input, have it run, and somebody ask meanwhile."""
    cluster.stop(node)
    client.job, client.entered, client.batches = ident(5000 + number), 0, []
    client.have = Ranges()
    opened = msgspec.structs.replace(client.open(), detached=detached)
    cluster.say(client.peer, opened, [b"function"])
    cluster.inputs(client, 1)
    cluster.end(client)
    if question is not None:
        cluster.say(client.peer, question)
    run(cluster, node, 1, jm.Tally(((3, 1),)))
    cluster.say(client.peer, m.CloseJob(client.job))
    return client.job


def test_a_job_is_counted_while_it_runs_and_kept_when_it_is_over() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    alice = cluster.client(user="alice")
    cluster.inputs(alice, 5)
    cluster.later(1.0)
    said = run(cluster, node, 2, jm.Tally(((10, 2),)))
    shown = told(cluster, alice.job)
    assert shown.summary == jm.JobSummary(
        *(alice.job, "alice@h", "f", JobState.RUNNING, 1.0, 1.0, None, 2, 0, 0, 2, 1, "")
    )
    assert shown.durations == ((10, 2),)
    assert shown.bytes_out == sum(map(len, payload_of(said.runs)))
    assert shown.bytes_in == 2  # two leaves of a byte
    assert shown.nodes == (jm.NodeShare(node.name, 1, 2, 1.0, 2, True),)
    cluster.end(alice)
    run(cluster, node, 3, jm.Tally(((11, 3),)))
    cluster.later(1.0)
    assert told(cluster, alice.job).summary.state is JobState.COMPLETE
    cluster.say(alice.peer, m.CloseJob(alice.job))
    cluster.heard()
    shown = told(cluster, alice.job)
    assert (shown.summary.state, shown.summary.total, shown.summary.done) == ("complete", 5, 5)
    assert shown.summary.took_s == 1.0, "its caller's last word came later"
    assert shown.durations == ((10, 2), (11, 3))
    assert not shown.nodes[0].is_leased


def test_a_report_that_is_repeated_is_counted_once() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    alice = cluster.client()
    cluster.inputs(alice, 5)
    said = run(cluster, node, 2, jm.Tally(((10, 2),), 1, (jm.ToldFault(0, b"E", b"x"),)))
    cluster.say(node.peer, said, payload_of(said.runs))
    shown = told(cluster, alice.job)
    assert shown.durations == ((10, 2),)
    assert (shown.summary.failed, len(shown.faults)) == (1, 1)


def test_a_nodelet_that_tells_no_durations_is_believed_its_mean() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    alice = cluster.client()
    cluster.inputs(alice, 5)
    run(cluster, node, 4)
    assert told(cluster, alice.job).durations == ((jm.bucket_of(node.call_s), 4),)


def test_errors_are_kept_by_input_with_their_node_and_are_bounded() -> None:
    cluster = ModelCluster()
    node = cluster.node(cpus=100)
    alice = cluster.client(policy=m.CallPolicy(goes_on=True))
    cluster.inputs(alice, 100)
    for index in range(100):
        tally = jm.Tally(((1, 1),), 1, (jm.ToldFault(index, b"ValueError", b"no %d" % index, 2),))
        run(cluster, node, 1, tally)
    shown = told(cluster, alice.job)
    assert shown.summary.failed == 100
    assert len(shown.faults) == jm.FAULTS_MAX
    assert shown.faults[1] == jm.Fault(1, "ValueError", "no 1", node.name, 2)
    cluster.heard()


def test_the_first_error_of_a_job_is_why_it_failed() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    alice = cluster.client()
    cluster.inputs(alice, 5)
    run(cluster, node, 1, jm.Tally(((1, 1),), 1, (jm.ToldFault(0, b"E", b"no"),)), failed=True)
    assert told(cluster, alice.job).summary.state is JobState.FAILING
    cluster.say(alice.peer, m.CloseJob(alice.job))
    summary = told(cluster, alice.job).summary
    assert (summary.state, summary.why) == (JobState.FAILED, "input 0: E: no")


def test_the_slowest_calls_have_names() -> None:
    cluster = ModelCluster()
    node = cluster.node(cpus=100)
    alice = cluster.client()
    cluster.inputs(alice, 50)
    for index in range(50):
        run(cluster, node, 1, jm.Tally(((25, 1),), slow=m.LongCall(index, index + 1, 10 + index)))
    slow = told(cluster, alice.job).slow
    assert [call.lo for call in slow] == list(range(49, 49 - jm.SLOW_MAX, -1))


def test_why_a_job_waited_is_kept_and_a_place_in_line_is_no_new_reason() -> None:
    cluster = ModelCluster()
    alice, bob = cluster.client(user="alice"), cluster.client(user="bob")
    cluster.inputs(alice, 1)
    cluster.inputs(bob, 1)
    for _ in range(8):
        cluster.later(0.25)
    shown = told(cluster, bob.job)
    assert shown.summary.state is JobState.WAITING
    assert shown.summary.why == "no node is connected to the cluster"
    assert shown.waits == (jm.Wait("no node is connected to the cluster", 0.0, 2.0),)
    assert shown.waited_s == 2.0
    node = cluster.node(cpus=1)
    for _ in range(8):
        cluster.later(0.25)
    waiting = bob if told(cluster, alice.job).summary.nodes else alice
    first, second = told(cluster, waiting.job).waits
    assert second.why.startswith("number 1 in line")
    assert (first.seconds, second.after_s, second.seconds) == (2.25, 2.25, 1.75)
    cluster.answer_retracts(node)
    cluster.heard()


@pytest.mark.parametrize("places", [("number 12 in line, a", "number 3 in line, a")])
def test_reasons_that_differ_in_numbers_are_one(places: tuple[str, str]) -> None:
    cluster = ModelCluster()
    alice = cluster.client()
    record = cluster.core.state.records.open[alice.job]
    for at_s, why in enumerate(places, 1):
        records.note_reason(record, why, at_s)
    records.end_wait(record, 5.0)
    assert record.waits.over == [jm.Wait(places[0], 0.0, 5.0)]


def test_a_loop_of_small_maps_is_one_record() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    alice = cluster.client()
    cluster.say(alice.peer, m.CloseJob(alice.job))
    ids = [one_map(cluster, alice, node, number) for number in range(50)]
    kept = cluster.core.state.records
    assert list(kept.over) == [ident(1002), ids[0]]  # nothing was ever run of the first
    shown = told(cluster, ids[0])
    assert (shown.summary.maps, shown.summary.done, shown.summary.total) == (50, 50, 50)
    assert shown.durations == ((3, 50),)
    assert shown.nodes[0].calls == 50
    cluster.later(FOLD_AGE_S + 1.0)
    one_map(cluster, alice, node, 99)
    assert len(kept.over) == 3
    cluster.heard()


@pytest.mark.parametrize(
    ("question", "is_kept"),
    [(jm.ShowJob(""), True), (om.ReadOutput(""), True), (jm.ShowJob("", brief=True), False)],
)
def test_a_map_of_a_loop_that_somebody_has_asked_for_keeps_its_name(
    question: jm.JobQuestion | om.ReadOutput, is_kept: bool
) -> None:
    cluster = ModelCluster()
    node = cluster.node()
    alice = cluster.client()
    cluster.say(alice.peer, m.CloseJob(alice.job))
    one_map(cluster, alice, node, 1)
    asked_for = one_map(cluster, alice, node, 2, question=question)
    assert (asked_for in cluster.core.state.records.over) is is_kept
    last = one_map(cluster, alice, node, 3)
    assert last not in cluster.core.state.records.over
    cluster.heard()


def test_each_detached_job_is_a_record_of_its_own() -> None:
    cluster = ModelCluster()
    node, keeper = cluster.node(), cluster.client()
    cluster.say(keeper.peer, m.CloseJob(keeper.job))
    ids = [one_map(cluster, keeper, node, number, b"alice") for number in range(3)]
    assert set(ids) <= set(cluster.core.state.records.over)
    assert [told(cluster, one).summary.maps for one in ids] == [1, 1, 1]
    cluster.heard()


def test_so_many_are_kept_and_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "KEPT_MAX", 10)
    cluster = ModelCluster()
    clients = [cluster.client() for _ in range(15)]
    for client in clients:
        cluster.say(client.peer, m.CloseJob(client.job))
    assert list(cluster.core.state.records.over) == [client.job for client in clients[5:]]
    monkeypatch.setattr(records, "KEPT_BYTES_MAX", 3 * records.RECORD_COST + 1000)
    last = cluster.client()
    cluster.say(last.peer, m.CloseJob(last.job))
    assert len(cluster.core.state.records.over) == 3
    cluster.heard()


# --- the file ---


def filed(cluster: ModelCluster, seconds: float) -> dict[bytes, tuple[str, jm.JobRecord]]:
    """Return what is to be put into the file while time passes."""
    found: dict[bytes, tuple[str, jm.JobRecord]] = {}
    for _ in range(round(seconds / 0.25)):
        cluster.later(0.25)
    for effect in cluster.heard():
        if isinstance(effect, KeepRecords):
            found |= {record.summary.job: (tenant, record) for tenant, record in effect.rows}
    return found


def restarted(cluster: ModelCluster, kept: dict[bytes, tuple[str, jm.JobRecord]]) -> ModelCluster:
    """Return another life of the scheduler, a minute later."""
    new = ModelCluster()
    new.now_s = 1000.0
    told = [(tenant, record, 60.0) for tenant, record in kept.values()]
    new.core.state.records.restore(telling.taken_up(told, new.now_s), new.now_s)
    return new


def test_nothing_is_filed_where_nobody_wants_it() -> None:
    cluster = ModelCluster()
    cluster.client()
    assert filed(cluster, 30.0) == {}


def test_what_is_over_is_filed_once_and_what_is_open_now_and_then() -> None:
    cluster = ModelCluster()
    cluster.core.state.records.restore([], 0.0)
    alice, bob = cluster.client(), cluster.client()
    cluster.say(alice.peer, m.CloseJob(alice.job))
    assert set(filed(cluster, 3.0)) == {alice.job, bob.job}
    assert set(filed(cluster, 5.0)) == set()
    assert set(filed(cluster, 10.0)) == {bob.job}


def test_records_outlive_the_scheduler_and_an_open_job_goes_on_with_its_own() -> None:
    cluster = ModelCluster()
    cluster.core.state.records.restore([], 0.0)
    node = cluster.node()
    alice, bob = cluster.client(), cluster.client()
    cluster.inputs(alice, 5)
    run(cluster, node, 2, jm.Tally(((10, 2),), 1, (jm.ToldFault(0, b"E", b"x"),)))
    cluster.say(bob.peer, m.CloseJob(bob.job))
    new = restarted(cluster, filed(cluster, 12.0))
    kept = new.core.state.records
    assert (set(kept.over), set(kept.former)) == ({bob.job}, {alice.job})
    new.clients[alice.peer] = alice
    new.say(alice.peer, alice.hello())
    new.say(alice.peer, alice.open(resumed=True), [b"function"])
    assert not kept.former
    shown = told(new, alice.job)
    assert shown.durations == ((10, 2),)
    assert shown.faults[0].node == node.name
    assert 60.0 < shown.summary.took_s < 75.0, "it is as old as ever"
    new.heard()


def test_an_open_job_that_does_not_come_back_is_lost() -> None:
    cluster = ModelCluster()
    cluster.core.state.records.restore([], 0.0)
    alice = cluster.client()
    new = restarted(cluster, filed(cluster, 12.0))
    new.now_s += records.FORMER_S
    (_, record), *_ = filed(new, 3.0).values()
    assert record.summary.state is JobState.LOST
    assert set(new.core.state.records.over) == {alice.job}


def test_nobody_takes_over_the_record_of_another_tenant() -> None:
    cluster = ModelCluster()
    cluster.core.state.records.restore([], 0.0)
    alice = cluster.client()
    kept = {job: ("alice's key", record) for job, (_, record) in filed(cluster, 12.0).items()}
    new = restarted(cluster, kept)
    thief = new.client()
    thief.job = alice.job
    new.say(thief.peer, thief.open(), [b"function"])
    assert set(new.core.state.records.former) == {alice.job}
    new.say(thief.peer, m.CloseJob(alice.job))
    assert new.core.state.records.over[alice.job].tenant == ""
    new.now_s += records.FORMER_S
    new.later(0.25)
    new.heard()


def test_at_the_end_all_is_filed_at_once() -> None:
    cluster = ModelCluster()
    cluster.core.state.records.restore([], 0.0)
    alice = cluster.client()
    rows = unfiled(cluster.core.state, at_once=True)
    assert [record.summary.job for _, record in rows] == [alice.job]


def test_a_record_has_room_for_what_it_may_hold() -> None:
    assert KEPT_MAX * records.RECORD_COST <= records.KEPT_BYTES_MAX
    assert Recording.__struct_config__.eq is False


def test_what_is_taken_up_is_in_the_order_in_which_it_ended() -> None:
    cluster = ModelCluster()
    cluster.core.state.records.restore([], 0.0)
    clients = [cluster.client() for _ in range(5)]
    for client in reversed(clients):
        cluster.now_s += 0.1
        cluster.say(client.peer, m.CloseJob(client.job))
    kept = filed(cluster, 3.0)
    new = restarted(cluster, dict(sorted(kept.items())))
    assert list(new.core.state.records.over) == list(cluster.core.state.records.over)


def test_an_id_that_is_used_again_confuses_nobody() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    alice, bob = cluster.client(), cluster.client()
    for client in (alice, bob):
        cluster.say(client.peer, m.CloseJob(client.job))
    one_map(cluster, alice, node, 1)
    one_map(cluster, bob, node, 1)  # another session, the same id
    cluster.heard()
    last = one_map(cluster, alice, node, 2)
    cluster.heard()
    assert told(cluster, last).summary.maps == 1
    assert told(cluster, ident(5001)).summary.maps == 1


# --- what is known of calls that failed, were slow, or lasted ---


def failed(index: int, kind: bytes, **more: Any) -> jm.Tally:
    fault = jm.ToldFault(index, kind, b"text", 2, 3.0, 5000, b"begun\nhalf")
    return jm.Tally(((1, 1),), 1, (fault,), types=((kind, 1),), **more)


def test_of_a_call_that_failed_its_time_memory_and_last_words_are_kept() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    alice = cluster.client(policy=m.CallPolicy(goes_on=True))
    cluster.inputs(alice, 5)
    run(cluster, node, 1, failed(0, b"ValueError"))
    shown = told(cluster, alice.job)
    facts = (node.name, 2, 3.0, 5000, "begun\nhalf")
    assert shown.faults == (jm.Fault(0, "ValueError", "text", *facts),)
    assert shown.error_types == (jm.ErrorCount("ValueError", 1),)


def test_errors_of_each_type_are_counted_and_one_of_each_is_kept() -> None:
    cluster = ModelCluster()
    node = cluster.node(cpus=100)
    alice = cluster.client(policy=m.CallPolicy(goes_on=True))
    cluster.inputs(alice, 70)
    for index in range(70):
        run(cluster, node, 1, failed(index, b"KeyError" if index >= 60 else b"ValueError"))
    shown = told(cluster, alice.job)
    types = {one.type: one.calls for one in shown.error_types}
    assert types == {"ValueError": 60, "KeyError": 10}
    assert len(shown.faults) == jm.FAULTS_MAX
    assert [fault.index for fault in shown.faults if fault.type == "KeyError"] == [60]


def test_types_of_errors_are_bounded() -> None:
    cluster = ModelCluster()
    node = cluster.node(cpus=100)
    alice = cluster.client(policy=m.CallPolicy(goes_on=True))
    cluster.inputs(alice, 90)
    for index in range(90):
        run(cluster, node, 1, failed(index, b"Error%d" % index))
    assert len(told(cluster, alice.job).error_types) == jm.TYPES_MAX
    cluster.core.check()


def test_slow_calls_have_a_node_and_what_is_known_of_them() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    alice = cluster.client()
    cluster.inputs(alice, 5)
    slow = jm.Tally(
        ((1, 1),), slow=m.LongCall(0, 1, 9.0), slow_memory=77, slow_words=b"\x1b[2Jwords"
    )
    run(cluster, node, 1, slow)
    shown = told(cluster, alice.job)
    assert shown.slowest == (jm.SlowCall(0, 1, 9.0, node.name, 77, "?[2Jwords"),)
    assert shown.slow == (m.LongCall(0, 1, 9.0),)


def test_the_time_line_has_leases_and_calls_that_lasted_and_is_bounded() -> None:
    cluster = ModelCluster()
    node = cluster.node(cpus=100)
    alice = cluster.client()
    cluster.later(2.0)
    cluster.inputs(alice, 400)
    cluster.later(10.0)
    for index in range(300):
        ended = (jm.EndedCall(index, index + 1, 4.0, index == 299),)
        run(cluster, node, 1, jm.Tally(((1, 1),), ended=ended))
    shown = told(cluster, alice.job)
    assert len(shown.calls) == jm.CALLS_KEPT_MAX
    assert shown.calls[-1] == jm.CallSpan(node.name, 299, 300, 8.0, 4.0, True)
    (lease,) = shown.leases
    assert (lease.node, lease.is_leased) == (node.name, True)
    assert lease.after_s + lease.seconds == 12.0
    cluster.say(alice.peer, m.CloseJob(alice.job))
    shown = told(cluster, alice.job)
    assert [one.is_leased for one in shown.leases] == [False]


def test_what_lasts_now_is_told_until_it_has_ended() -> None:
    cluster = ModelCluster()
    node = cluster.node(cpus=100)
    alice = cluster.client()
    cluster.inputs(alice, 50)
    (lease,) = node.held
    calls = tuple(m.LongCall(index, index + 1, 60.0 - index) for index in range(16))
    cluster.say(node.peer, m.Running(lease, calls, 0.0))
    assert len(told(cluster, alice.job).running) == 16
    run(cluster, node, 3)
    assert [one.lo for one in told(cluster, alice.job).running] == list(range(3, 16))


def test_all_of_it_is_there_again_in_another_life() -> None:
    cluster = ModelCluster()
    node = cluster.node()
    alice = cluster.client(policy=m.CallPolicy(goes_on=True))
    cluster.inputs(alice, 5)
    cluster.later(10.0)
    ended = (jm.EndedCall(0, 1, 4.0),)
    run(cluster, node, 1, failed(0, b"KeyError", slow=m.LongCall(0, 1, 4.0), ended=ended))
    cluster.say(alice.peer, m.CloseJob(alice.job))
    before = told(cluster, alice.job)
    new = restarted(cluster, {alice.job: ("", before)})
    after = told(new, alice.job)
    assert after.faults == before.faults
    assert (after.slowest, after.error_types) == (before.slowest, before.error_types)
    assert after.calls == before.calls
    assert [one.seconds for one in after.leases] == [one.seconds for one in before.leases]
