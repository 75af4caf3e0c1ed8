"""The user hears why nothing happens, once a reason has lasted."""

import math

from burla.core.waiting import REPORT_S, Waiting


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
