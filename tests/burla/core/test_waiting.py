"""The user hears why nothing happens, once a reason has lasted, and at once what has no effect."""

import math

import msgspec
from opening import open_job

from burla.core.effects import Send, Warn
from burla.core.session import OLDER, Session
from burla.core.waiting import NOTICES_MAX, REPORT_S, Waiting
from burla.protocol import messages as m

JOB = b"j" * 16
SPEC = open_job(JOB)


def test_a_reason_is_reported_once_it_has_lasted() -> None:
    waiting = Waiting()
    assert waiting.due_s == math.inf
    waiting.hear("no node", 1)
    assert waiting.due_s == 1 + REPORT_S
    assert waiting.take_due(1.5) == ""
    assert waiting.take_due(1 + REPORT_S) == "no node"
    assert waiting.due_s == math.inf


def test_a_reason_that_passes_is_not_reported() -> None:
    waiting = Waiting()
    waiting.hear("no node", 1)
    waiting.hear("", 1.5)
    assert waiting.due_s == math.inf
    assert waiting.take_due(9) == ""


def test_the_same_reason_again_is_not_reported_twice_but_another_is() -> None:
    waiting = Waiting()
    waiting.hear("no node", 1)
    waiting.take_due(2)
    waiting.hear("", 3)
    waiting.hear("no node", 4)
    assert waiting.due_s == math.inf
    waiting.hear("all nodes are busy", 5)
    assert waiting.take_due(6) == "all nodes are busy"


def test_what_this_end_sees_goes_before_what_the_scheduler_said() -> None:
    waiting = Waiting()
    waiting.hear("no node", 1)
    waiting.stall("its scheduler is silent", 1.5)
    assert waiting.take_due(2.5) == "its scheduler is silent"
    waiting.stall("", 3)
    assert waiting.take_due(4) == "no node"


def test_a_repeated_word_does_not_put_the_report_off() -> None:
    waiting = Waiting()
    waiting.hear("no node", 1)
    waiting.hear("no node", 1.9)
    assert waiting.due_s == 1 + REPORT_S


def opened() -> Session:
    session = Session(SPEC, [b"function"], prompt=True)
    session.connect(0)
    return session


def test_a_notice_is_shown_once_and_changes_nothing_else() -> None:
    session = opened()
    session.receive(m.JobStatus(JOB, "no node"), [], now_s=1)
    said = m.JobStatus(JOB, "no node", notice="region has no effect")
    assert session.receive(said, [], now_s=1.5) == [Warn(JOB, "region has no effect")]
    assert session.receive(said, [], now_s=1.6) == []
    assert session.next_deadline_s() == 1 + REPORT_S
    many = [m.JobStatus(JOB, "", notice=str(number)) for number in range(99)]
    shown = [effect for one in many for effect in session.receive(one, [], now_s=2)]
    assert len(shown) == NOTICES_MAX - 1


def test_an_older_scheduler_is_not_told_of_machines_and_that_is_said_once() -> None:
    machines = m.Machines("eu", 50)
    spec = msgspec.structs.replace(SPEC, machines=machines)
    assert Session(spec, [], prompt=True).connect(0) == [Send(spec, [])]
    session = Session(spec, [], prompt=True)
    warning = Warn(JOB, f"without effect: region, disk_gb ({OLDER})")
    assert sorted(session.connect(0, knows_machines=False), key=repr) == [Send(SPEC, []), warning]
    assert warning not in session.connect(1, knows_machines=False)


def test_an_older_scheduler_gets_no_job_with_an_image() -> None:
    spec = msgspec.structs.replace(SPEC, image="python:3.11")
    assert Session(spec, [], prompt=True).connect(0) == [Send(spec, [])]
    effects = Session(spec, [], prompt=True).connect(0, knows_images=False)
    assert not any(isinstance(effect, Send) for effect in effects)
    assert "image='python:3.11': the scheduler of the cluster runs an older burla" in str(effects)
