"""Who reads the output of jobs, and who follows it: whose it is, and administrators."""

from typing import Any

import pytest
from opening import client_hello, node_hello, open_job

from burla.protocol import messages as m, output_messages as om
from burla.scheduler.core import following
from burla.scheduler.core.effects import Effect, FetchOutput, Follow, Publish, Send
from burla.scheduler.core.outputs import Part, Reading
from burla.scheduler.core.quotas import Quotas, Tenants
from burla.scheduler.core.scheduler import Scheduler

ANNA, BERT, ROOT = "key of anna", "key of bert", "key of root"
JOB = b"a" * 16
TOPIC, OTHER = b"t" * 16, b"u" * 16


class Cluster:
    """One at which anna has a job that runs, and two others look on."""

    def __init__(self) -> None:
        """Open the job."""
        self.core = Scheduler(bytes(16), "0", "inproc://pub")
        self.core.set_tenants(Tenants(Quotas(), {}, {ANNA: "anna", BERT: "bert", ROOT: "root"}))
        self.core.receive(b"n", node_hello(b"n" * 16), [], 0.0, "key of n")
        for number, key in enumerate((ANNA, BERT, ROOT)):
            self.core.receive(key.encode(), client_hello(bytes([number]) * 16), [], 0.0, key)
        self.core.receive(ANNA.encode(), open_job(JOB, name="f"), [b"f"], 0.0, ANNA)
        leaves = (m.Leaf(0, 0, 1, 1),)
        inputs = m.Inputs(job=JOB, batch=0, start=0, leaves=leaves)
        self.core.receive(ANNA.encode(), inputs, [b"x"], 0.0, ANNA)
        (self.lease,) = self.core.state.jobs[JOB].work.leases
        self.number = 1

    def says(self, *chunks: bytes, at_s: float = 1.0) -> list[Effect]:
        """Let the node pass on what was printed."""
        said = m.Output(self.lease, self.number, (1,) * len(chunks))
        self.number += len(chunks)
        effects = self.core.receive(b"n", said, list(chunks), at_s, "key of n")
        self.core.check()
        return effects

    def ask(self, key: str, at_s: float = 2.0, **more: Any) -> list[Effect]:
        """Return what follows when somebody asks."""
        question = om.ReadOutput(JOB.hex()[:8], **more)
        heard = self.core.receive(key.encode(), question, [], at_s, key, sees_all=key == ROOT)
        return [e for e in heard if not isinstance(e, Send) or isinstance(e.message, om.KeptOutput)]

    def read(self, key: str, **more: Any) -> tuple[om.KeptOutput, bytes]:
        """Return what somebody is told."""
        (sent,) = self.ask(key, **more)
        assert isinstance(sent, Send)
        assert isinstance(sent.message, om.KeptOutput)
        assert len(sent.payload) == sum(len(part.streams) for part in sent.message.parts)
        return sent.message, b"".join(sent.payload)


@pytest.mark.parametrize("key", [ANNA, ROOT])
def test_output_is_read_by_whose_it_is_and_by_administrators(key: str) -> None:
    cluster = Cluster()
    cluster.says(b"one\n", b"two\n")
    said, text = cluster.read(key)
    assert text == b"one\ntwo\n"
    part = om.OutputPart(0, cluster.lease, said.parts[0].node, 1.0, (1, 1))
    assert said == om.KeptOutput(JOB, (part,), 2)


def test_of_anothers_job_nobody_learns_whether_it_is_there() -> None:
    cluster = Cluster()
    cluster.says(b"secret\n")
    said, text = cluster.read(BERT, topic=TOPIC)
    assert (said, text) == (om.KeptOutput(b"", why="there is no job 61616161"), b"")
    assert not cluster.core.state.records.outputs.followers


def test_it_is_read_on_from_a_place_also_within_a_part() -> None:
    cluster = Cluster()
    cluster.says(b"one\n", b"two\n")
    cluster.says(b"three\n")
    said, text = cluster.read(ANNA, after=1)
    assert (text, said.parts[0].place, said.stop) == (b"two\nthree\n", 1, 3)
    said, text = cluster.read(ANNA, after=3)
    assert (said.parts, said.stop) == ((), 3)


def test_much_is_told_in_several_answers_and_what_is_not_kept_is_counted() -> None:
    cluster = Cluster()
    for _ in range(100):
        cluster.says(bytes(30_000))
    size, due, lost = 0, 0, 0
    while True:
        said, text = cluster.read(ANNA, after=due)
        size += len(text)
        lost += said.lost_bytes
        assert len(text) <= om.READ_BYTES
        due = said.parts[-1].place + len(said.parts[-1].streams)
        if due == said.stop:
            break
    assert size + lost == 100 * 30_000
    assert lost > 0


def test_who_follows_is_told_what_comes_by_a_topic_of_its_own_and_the_end() -> None:
    cluster = Cluster()
    cluster.says(b"before\n")
    cluster.read(ANNA, topic=TOPIC)
    cluster.read(ROOT, topic=OTHER)
    heard = cluster.says(b"after\n", at_s=3.0)
    published = [e for e in heard if isinstance(e, Publish)]
    assert len(published) == 1, "its caller hears it as if nobody followed"
    follows = [e for e in heard if isinstance(e, Follow)]
    assert [(e.topic, e.user) for e in follows] == [(TOPIC, ANNA), (OTHER, ROOT)]
    assert follows[0].message.parts[0].place == 1
    assert follows[0].payload == (b"after\n",)
    heard = cluster.core.receive(ANNA.encode(), m.CloseJob(JOB), [], 4.0, ANNA)
    ends = [e.message.is_over for e in heard if isinstance(e, Follow)]
    assert ends == [True, True]
    assert not cluster.core.state.records.outputs.followers
    cluster.core.check()


def test_who_does_not_ask_again_is_told_no_more() -> None:
    cluster = Cluster()
    cluster.read(ANNA, topic=TOPIC)
    late_s = 2.0 + om.FOLLOW_S + 0.1
    assert not [e for e in cluster.says(b"x", at_s=late_s) if isinstance(e, Follow)]
    assert not cluster.core.state.records.outputs.followers


def test_nobody_takes_the_topic_of_another_and_not_too_many_follow() -> None:
    cluster = Cluster()
    cluster.read(ANNA, topic=TOPIC)
    assert "another follows" in cluster.read(ROOT, topic=TOPIC)[0].why
    for number in range(following.FOLLOWERS_MAX - 1):
        assert not cluster.read(ANNA, topic=number.to_bytes(16, "big"))[0].why
    assert "32 follow the job already" in cluster.read(ANNA, topic=OTHER)[0].why
    assert cluster.read(ANNA, topic=b"short")[0].job == JOB, "it is no topic: nobody follows"


def test_what_is_not_here_is_looked_for_in_the_file() -> None:
    cluster = Cluster()
    cluster.says(b"one\n")
    cluster.core.receive(ANNA.encode(), m.CloseJob(JOB), [], 2.0, ANNA)
    assert cluster.read(ANNA)[0].is_over
    cluster.core.state.records.outputs.forget(JOB)
    assert cluster.read(ANNA) == (om.KeptOutput(JOB, is_over=True), b""), "there is no file"
    cluster.core.state.records.outputs.is_filed = True
    (fetch,) = cluster.ask(ANNA, after=1)
    reading = Reading(ANNA.encode(), JOB, "anna", 1, True)
    assert fetch == FetchOutput(reading)
    parts = [Part(0, b"l" * 16, 2, "n", -5.0, (1, 2), (), (b"one\n", b"two\n"), 8)]
    sent = following.fetched(reading, parts, 0, 10.0)
    part = om.OutputPart(1, b"l" * 16, "n", 15.0, (2,))
    assert sent == Send(ANNA.encode(), om.KeptOutput(JOB, (part,), 2, is_over=True), [b"two\n"])


def test_who_cannot_wait_for_the_file_is_told_so() -> None:
    said = following.put_off(Reading(b"peer", JOB, "anna", 0, True))
    assert said.peer == b"peer"
    assert isinstance(said.message, om.KeptOutput)
    assert "ask again" in said.message.why
