"""Callers that are away in the middle of a job: what goes on, what is kept, what they are told."""

from cluster_model import ModelClient, ModelCluster, ModelNode
from expected import ended, joined, opened, retract, start
from msgspec.structs import replace

from burla.protocol import messages as m
from burla.protocol.ranges import Ranges
from burla.scheduler.core.absence import HUNG_UP_S, WANTED_S
from burla.scheduler.core.client import AWAY_LIMIT_S, CLOSED_S, SILENT_S, UNREACHABLE_S
from burla.scheduler.core.effects import Forget, Note, Send
from burla.scheduler.core.given_up import in_words

AWAY = Note("client u@h is away: its jobs wait for it")


def serving(inputs: int = 20) -> tuple[ModelCluster, ModelNode, ModelClient]:
    """Return a cluster whose only node serves the job of its only client, by lease 1."""
    cluster = ModelCluster()
    node, client = cluster.node(2), cluster.client()
    cluster.inputs(client, inputs)
    cluster.end(client)
    heard = cluster.heard()
    assert heard[:5] == [*joined(node), *opened(client)]
    assert node.held[node.active() or b""].total == inputs
    return cluster, node, client


def wait(cluster: ModelCluster, seconds: float) -> None:
    for _ in range(round(seconds / 0.25)):
        cluster.later(0.25)


def be_away(cluster: ModelCluster, client: ModelClient, seconds: float = SILENT_S) -> None:
    cluster.fall_silent(client)
    wait(cluster, seconds)


def test_the_job_of_a_caller_that_stands_still_goes_on_and_nothing_is_run_twice() -> None:
    cluster, node, client = serving()
    cluster.run(node, 5)
    be_away(cluster, client)
    assert AWAY in cluster.heard()
    cluster.run(node, 10)
    wait(cluster, AWAY_LIMIT_S - SILENT_S - 1)
    kept = node.unacked[node.active() or b""]
    assert [run for said in kept for run in said.done] == [(5, 15)]
    assert not [e for e in cluster.heard_but_beats() if isinstance(e, Note)]
    before = client.peer
    cluster.reconnect_client(client)
    cluster.reconnect_node(node)  # it was asked for a Hello, and sends all of it again
    assert Forget(before) in cluster.heard()
    assert client.have == Ranges([(0, 15)])
    wait(cluster, 6)
    cluster.run(node, 10)
    assert client.have == Ranges([(0, 20)])


def test_a_caller_that_could_only_not_speak_goes_on_where_it_was() -> None:
    cluster, node, client = serving()
    client.silent = True
    wait(cluster, SILENT_S + 1)
    assert cluster.heard_but_beats() == [AWAY]
    client.silent = False
    wait(cluster, 1)
    cluster.run(node, 20)
    assert client.have == Ranges([(0, 20)])
    assert not cluster.core.state.jobs[client.job].is_away


def test_a_caller_that_is_away_gets_no_more_nodes() -> None:
    cluster, _, client = serving()
    be_away(cluster, client)
    cluster.heard()
    new = cluster.node(2)
    wait(cluster, 10)
    assert cluster.heard_but_beats() == joined(new)


def test_another_job_that_waits_gets_the_node_of_a_caller_that_is_away() -> None:
    cluster, node, client = serving()
    be_away(cluster, client)
    other = cluster.client(user="v")
    cluster.inputs(other, 2)
    cluster.heard()
    wait(cluster, 0.5)
    assert retract(node, 1, 20) in cluster.heard()
    cluster.answer_retracts(node, begun=2)
    cluster.run(node, 2)  # what ran may end
    assert ended(node, 1) in cluster.heard()
    cluster.stop(node)
    assert start(node, other, 2) in cluster.heard()
    cluster.run(node, 2)
    assert other.have == Ranges([(0, 2)])
    cluster.say(other.peer, m.CloseJob(other.job))
    cluster.heard()
    wait(cluster, 10)
    assert not node.held or not node.active(), "the caller that is away gets it only when back"
    cluster.reconnect_client(client)
    cluster.reconnect_node(node)
    wait(cluster, 6)
    cluster.stop(node)
    cluster.run(node, 20)
    assert client.have == Ranges([(0, 20)])


def test_a_call_of_a_caller_that_is_away_does_not_keep_others_waiting_for_ever() -> None:
    cluster, node, client = serving()
    be_away(cluster, client)
    other = cluster.client(user="v")
    cluster.inputs(other, 2)
    wait(cluster, 0.5)
    cluster.answer_retracts(node, begun=2)
    wait(cluster, WANTED_S - 1)
    assert ended(node, 1) not in cluster.heard()
    wait(cluster, 1.25)
    assert ended(node, 1) in cluster.heard()
    cluster.stop(node)
    assert node.active() is not None


def test_a_caller_whose_end_has_closed_the_connection_has_most_likely_ended() -> None:
    cluster, node, client = serving()
    cluster.fall_silent(client)
    cluster.unreachable(client.peer)
    cluster.heard()
    wait(cluster, UNREACHABLE_S)
    assert cluster.heard_but_beats() == [AWAY, retract(node, 1, 20)]
    cluster.answer_retracts(node, begun=2)
    wait(cluster, HUNG_UP_S)
    assert cluster.heard_but_beats() == [retract(node, 1, 2), ended(node, 1)]
    cluster.stop(node)
    wait(cluster, 20)
    cluster.heard()
    cluster.reconnect_client(client)  # it was a tunnel after all
    cluster.run(node, 20)
    wait(cluster, 6)
    cluster.run(node, 20)
    assert client.have == Ranges([(0, 20)])


def test_a_connection_that_broke_for_want_of_a_word_was_not_closed_at_its_end() -> None:
    cluster, node, client = serving()
    be_away(cluster, client, CLOSED_S + 1)
    cluster.unreachable(client.peer)
    wait(cluster, 60)
    assert cluster.heard_but_beats() == [AWAY]
    assert node.held[node.active() or b""].total == 20


def test_who_is_away_for_too_long_is_given_up_and_told_so() -> None:
    cluster, node, client = serving()
    be_away(cluster, client, AWAY_LIMIT_S)
    gone = Note(f"client u@h is given up: away for {AWAY_LIMIT_S:.0f} s")
    wait(cluster, 0.5)
    assert cluster.heard_but_beats() == [
        AWAY,
        gone,
        Forget(client.peer),
        ended(node, 1, discard=True),
    ]
    cluster.stop(node)
    wait(cluster, 239.5)
    cluster.heard()
    cluster.reconnect_client(client)
    (failed,) = _failures(cluster)
    assert (failed.away_s, failed.limit_s) == (840.0, 600.0)
    assert "away for 14 min" in failed.text
    assert "after 10 min" in failed.text
    assert not cluster.core.state.jobs


def test_what_is_told_of_a_job_that_was_given_up_is_for_its_own_caller_only() -> None:
    cluster, _, client = serving()
    be_away(cluster, client, AWAY_LIMIT_S + 1)
    other = cluster.client(user="v")
    cluster.heard()
    cluster.say(other.peer, client.open(resumed=True), [b"function"])
    assert not _failures(cluster)


def _failures(cluster: ModelCluster) -> list[m.JobFailed]:
    sent = [e.message for e in cluster.heard() if isinstance(e, Send)]
    return [message for message in sent if isinstance(message, m.JobFailed)]


def test_a_caller_that_missed_why_its_job_failed_is_told_again() -> None:
    cluster = ModelCluster()
    node, client = cluster.node(2), cluster.client(func_cpu=4)
    cluster.fall_silent(client)
    wait(cluster, 8)
    cluster.heard()
    cluster.reconnect_client(client)
    assert client.failed.startswith("no node of the cluster can run one such call")
    assert not node.held


def test_an_error_that_got_lost_with_its_node_is_no_reason_to_wait_for_ever() -> None:
    cluster, node, client = serving(4)
    cluster.fall_silent(client)
    said = node.run(node.active() or b"", 0, 1)
    cluster.say(node.peer, replace(said, failed=True), [b"r"])
    node.alive = False
    cluster.unreachable(node.peer)
    wait(cluster, 2)
    new = cluster.node(2)
    cluster.reconnect_client(client)
    wait(cluster, 6)
    cluster.run(new, 4)
    assert client.have == Ranges([(0, 4)])


def test_durations_in_words() -> None:
    given = [0.4, 42.4, 119, 130, 600, 840, 7300, 100_000]
    assert [in_words(seconds) for seconds in given] == [
        *("0 s", "42 s", "119 s", "2 min", "10 min", "14 min", "2 h 2 min", "27 h 47 min"),
    ]
