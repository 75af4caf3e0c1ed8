"""What nodes install for a job: who is told of it, and what becomes of a node that cannot."""

from typing import Any

import pytest
from opening import client_hello, node_hello, open_job

from burla.protocol import messages as m
from burla.protocol.image_messages import IMAGES
from burla.protocol.package_messages import PACKAGES
from burla.scheduler.core.effects import Send
from burla.scheduler.core.scheduler import Scheduler

JOB = b"j" * 16
CLIENT, ONE, TWO = b"client", b"one", b"two"


class World:
    """A scheduler with a client, and nodes by name."""

    def __init__(self, *nodes: bytes, features: tuple[str, ...] = (PACKAGES,), **job: Any) -> None:
        self.core = Scheduler(bytes(16), "0", "pub")
        self.said: list[tuple[bytes, Any]] = []
        self.say(CLIENT, client_hello(CLIENT.ljust(16)))
        for node in nodes:
            hello = node_hello(node.ljust(16), name=node.decode(), features=features)
            self.say(node, hello)
        self.say(CLIENT, open_job(JOB, packages=b"packed", **job))
        leaf = m.Leaf(0, 0, 64, 1)
        self.say(CLIENT, m.Inputs(job=JOB, batch=0, start=0, leaves=(leaf,), total=64), [b"x"])

    def say(self, peer: bytes, message: m.Message, payload: Any = ()) -> list[Any]:
        """Return what is said to others for that."""
        effects = self.core.receive(peer, message, list(payload), 0.0)
        self.core.check()
        said = [(one.peer, one.message) for one in effects if isinstance(one, Send)]
        self.said += said
        return [message for _, message in said]

    def lease(self, node: bytes) -> m.StartLease:
        return next(
            message
            for peer, message in reversed(self.said)
            if peer == node and isinstance(message, m.StartLease)
        )

    def prepares(self, node: bytes, text: str) -> list[Any]:
        return self.say(node, m.Preparing(self.lease(node).lease, text))

    def refuses(self, node: bytes) -> list[Any]:
        return self.say(node, m.LeaseRefused(self.lease(node).lease, "no six\nat all", ("six",)))


@pytest.mark.parametrize(("features", "packed"), [((PACKAGES,), b"packed"), ((), b"")])
def test_only_a_node_that_knows_packages_is_told(features: tuple[str, ...], packed: bytes) -> None:
    assert World(ONE, features=features).lease(ONE).packages == packed


def test_the_caller_is_told_while_no_node_of_the_job_has_begun() -> None:
    world = World(ONE, TWO)
    assert world.prepares(ONE, "installing six") == []  # the other one may have begun
    assert world.prepares(TWO, "installing six") == [
        m.JobStatus(JOB, "one: installing six (and 1 more nodes)")
    ]
    assert world.prepares(ONE, "") == [m.JobStatus(JOB, "")]


def test_a_late_or_foreign_word_changes_nothing() -> None:
    world = World(ONE, TWO)
    assert world.say(TWO, m.Preparing(world.lease(ONE).lease, "x")) == []
    assert world.say(TWO, m.Preparing(b"?" * 16, "x")) == []
    world.say(CLIENT, m.CloseJob(JOB))
    assert world.prepares(ONE, "late") == []


def test_a_job_that_has_not_begun_fails_by_name_and_may_be_opened_anew() -> None:
    world = World(ONE)
    world.prepares(ONE, "installing six")
    [failed] = world.refuses(ONE)
    text = "node one cannot serve this job: no six\nat all"
    assert failed == m.JobFailed(JOB, "", text, packages=("six",))
    world.say(CLIENT, m.CloseJob(JOB))
    world.say(ONE, m.Stopped(world.lease(ONE).lease))
    world.say(CLIENT, open_job(JOB))
    assert world.lease(ONE).packages == b""


def test_a_detached_job_that_lacks_packages_says_what_to_do() -> None:
    """Nobody opens it anew: its client may be gone."""
    world = World(ONE, detached=b"")
    [failed] = world.refuses(ONE)
    assert failed.packages == ("six",)
    assert failed.text.startswith("node one cannot serve this job: no six\nat all\n")
    assert "without detach=True first" in failed.text


def test_a_job_that_runs_elsewhere_goes_on_there() -> None:
    world = World(ONE, TWO)
    said = world.refuses(TWO)
    assert m.EndLease(world.lease(TWO).lease, True) in said
    assert not any(isinstance(message, m.JobFailed) for message in said)
    before = world.lease(TWO)
    world.say(TWO, m.Stopped(before.lease))
    assert world.lease(TWO) is before  # it is not asked again
    job = world.core.state.jobs[JOB]
    assert world.core.state.nodes[TWO.ljust(16)].misfit(job) == ("", "two cannot serve it: no six")


def test_a_node_that_cannot_have_an_image_is_left_out_of_a_job_that_runs() -> None:
    world = World(ONE, TWO, features=(IMAGES,), image="python:3.11")
    assert world.lease(TWO).image == "python:3.11"
    refused = m.LeaseRefused(world.lease(TWO).lease, "no such host")
    said = world.say(TWO, refused)
    assert m.EndLease(world.lease(TWO).lease, True) in said
    assert not any(isinstance(message, m.JobFailed) for message in said)
    last = m.LeaseRefused(world.lease(ONE).lease, "no such host")
    [failed] = [one for one in world.say(ONE, last) if isinstance(one, m.JobFailed)]
    assert failed.text == "node one cannot serve this job: no such host"
