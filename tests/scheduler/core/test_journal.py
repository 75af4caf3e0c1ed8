"""Jobs in the log of the scheduler, as lines."""

from cluster_model import ModelCluster
from msgspec.structs import replace

from burla.protocol import messages as m
from burla.scheduler.core.journal import LINES_PER_S, Journal


def kept() -> ModelCluster:
    cluster = ModelCluster()
    cluster.core.state.journal.is_kept = True
    return cluster


def lines(cluster: ModelCluster) -> list[str]:
    return cluster.core.state.journal.take()


def test_a_job_is_opened_leased_and_complete() -> None:
    cluster = kept()
    node, client = cluster.node(), cluster.client(user="anna")
    job = client.job.hex()[:8]
    cluster.inputs(client, 1)
    cluster.end(client)
    cluster.run(node, 1)
    cluster.later(2.0)
    cluster.say(client.peer, m.CloseJob(client.job))
    opened, leased, ended = lines(cluster)
    assert opened == f"job {job} of anna@h opened: f"
    assert leased.startswith(f"job {job} is leased node {node.name}, 2 slots: lease ")
    assert ended == f"job {job} of anna@h ended: complete; 1 outcomes in 2 s"


def test_it_is_said_why_a_job_ended() -> None:
    cluster = kept()
    stopped, failed, gone = (cluster.client() for _ in range(3))
    lines(cluster)
    cluster.say(stopped.peer, m.CloseJob(stopped.job))
    (line, *_) = lines(cluster)
    assert ": by its caller; 0 outcomes" in line
    cluster.core.state.jobs[failed.job].failed = True
    verdict = m.JobFailed(failed.job, "", "no node fits")
    cluster.core.state.jobs[failed.job].failure = verdict
    cluster.say(failed.peer, m.CloseJob(failed.job))
    assert any("ended: failed: no node fits" in line for line in lines(cluster))
    cluster.core.state.away_limit_s = 40.0
    del cluster.clients[gone.peer]
    for _ in range(200):
        cluster.later(0.25)
    assert any("ended: its caller" in line for line in lines(cluster))


def test_a_node_that_is_lost_is_said_with_the_job_that_it_served() -> None:
    cluster = kept()
    node, client = cluster.node(), cluster.client()
    cluster.inputs(client, 1)
    lines(cluster)
    node.alive = False
    for _ in range(80):
        cluster.later(0.25)
    (line,) = lines(cluster)
    assert line.startswith(f"job {client.job.hex()[:8]} has lost node {node.name}: lease ")


def test_no_word_of_a_client_makes_a_line_of_its_own() -> None:
    cluster = kept()
    client = cluster.client()
    lines(cluster)
    cluster.say(client.peer, replace(client.open(), job=b"x" * 16, name="f\n\x1b[2Jroot"))
    (line,) = lines(cluster)
    assert line.endswith("opened: f??[2Jroot")


def test_too_many_lines_a_second_are_counted_and_none_is_made_for_nobody() -> None:
    journal = Journal(is_kept=True)
    for number in range(LINES_PER_S + 7):
        journal.add(5.5, str, number)
    assert len(journal.take()) == LINES_PER_S
    journal.add(6.5, str, "next")
    assert journal.take() == ["7 lines about jobs were left out", "next"]
    journal.is_kept = False
    journal.add(7.5, lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    assert journal.take() == []
