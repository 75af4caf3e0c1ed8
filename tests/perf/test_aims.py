"""What is to be reached, and what is said of it."""

import importlib

import pytest

from perf.__main__ import CASES
from perf.aims import AIMS, judged
from perf.measure import Series
from perf.peers import BURLA


def test_a_time_is_judged_by_its_median() -> None:
    (one,) = judged(Series("latency", {BURLA: [0.0009, 0.0008, 0.5], "Pool": [0.1] * 3}))
    assert (one.what, one.bound, one.measured) == ("time, in s", "at most 1 ms", "0.9 ms")
    assert one.verdict == "reached"
    (one,) = judged(Series("latency", {BURLA: [0.0011]}))
    assert one.verdict == "missed"


def test_a_ratio_is_that_to_the_quickest_variant_of_the_contender_named() -> None:
    series = Series("tiny/range", {BURLA: [6.0, 6.0], "Pool": [20.0, 20.0], "Pool, chunk 9": [8.0]})
    series.seconds["Poolside"] = [1.0, 1.0]
    (one,) = judged(series)
    assert (one.what, one.measured, one.verdict) == ("times Pool, chunk 9", "0.75", "missed")
    del series.seconds["Pool"], series.seconds["Pool, chunk 9"]
    assert not list(judged(series)), "nobody to compare with"


def test_a_figure_may_be_bounded_from_below() -> None:
    busy, memory = judged(
        Series(
            "scale/10 nodes, scheduler's time per message",
            {BURLA: [1.0]},
            figures={"of the slots busy": 0.9, "scheduler's memory, MB": 120.0},
        )
    )
    assert (busy.bound, busy.verdict) == ("at least 0.95", "missed")
    assert (memory.bound, memory.measured, memory.verdict) == ("at most 300", "120", "reached")


@pytest.mark.parametrize("name", AIMS)
def test_each_aim_is_of_a_case_that_has_such_a_series_and_figure(name: str) -> None:
    case, _, what = name.partition("/")
    assert case in CASES
    module = importlib.import_module(f"perf.{case}")
    assert module.__file__ is not None
    with open(module.__file__) as file:
        source = file.read()
    assert what in ("", "*") or what in source or what.split()[0] in source
