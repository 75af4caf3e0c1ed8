import itertools

from perf.measure import ALONE_S, SERIES_S, Series, Summary, in_turn, ratio, summary
from perf.uneven import LAST, LAST_S, ideal_s, in_order_s, lengths


def test_a_summary_is_least_median_greatest() -> None:
    assert summary([3.0, 1.0, 2.0, 10.0]) == Summary(1.0, 2.5, 10.0)


def test_a_ratio_pairs_measurements_of_the_same_round() -> None:
    assert ratio([1.0, 8.0, 3.0], [2.0, 4.0, 6.0]) == 0.5
    assert ratio([1.0, 8.0, 3.0], [2.0]) == 0.5  # it sat the others out


def test_a_series_that_was_measured_apart_brings_the_rounds_that_its_ratios_are_of() -> None:
    series = Series("case", {"burla": [1.0, 1.0], "Pool": [2.0, 2.0]}, ["quiet"])
    series.join(Series("case", {"burla": [3.0, 3.0], "Ray Pool": [6.0, 4.0]}, ["busy"]), "burla")
    assert series.seconds == {"burla": [1.0, 1.0], "Pool": [2.0, 2.0], "Ray Pool": [6.0, 4.0]}
    assert series.times("burla", "Pool") == 0.5
    assert series.times("burla", "Ray Pool") == (0.5 + 0.75) / 2
    assert series.notes == ["quiet", "beside Ray Pool: busy"]


def test_contenders_take_turns() -> None:
    order: list[str] = []
    clock = itertools.count(1.0)

    def run_of(name: str) -> float:
        order.append(name)
        return next(clock)

    runs = {"a": lambda: run_of("a"), "b": lambda: run_of("b")}
    series = in_turn(Series("case"), 3, runs, slow_s=100)
    assert order == ["a", "b", "b", "a", "a", "b"]  # nobody always follows the same one
    assert series.seconds == {"a": [1.0, 4.0, 5.0], "b": [2.0, 3.0, 6.0]}


def test_who_is_far_behind_makes_no_pauses_between_the_rounds_of_others() -> None:
    order: list[str] = []
    clock = [0.0]

    def run_of(name: str, seconds: float) -> float:
        order.append(name)
        clock[0] += seconds
        return seconds

    runs = {
        "quick": lambda: run_of("quick", 0.1),
        "slow": lambda: run_of("slow", 1.5),
        "near": lambda: run_of("near", 0.9),  # many times the quickest, and yet no pause
    }
    series = in_turn(Series("case"), 3, runs, slow_s=100, clock_s=lambda: clock[0])
    first = ["quick", "slow", "near"]
    assert order == [*first, "near", "quick", "quick", "near", "slow", "slow"]
    assert {name: len(taken) for name, taken in series.seconds.items()} == dict.fromkeys(runs, 3)


def test_a_slow_contender_takes_part_once() -> None:
    series = in_turn(Series("case"), 3, {"slow": lambda: 9.0, "quick": lambda: 1.0}, slow_s=8)
    assert series.seconds == {"slow": [9.0], "quick": [1.0, 1.0, 1.0]}


def test_a_contender_takes_part_until_it_has_had_its_time() -> None:
    runs = {"slow": lambda: 3.0, "quick": lambda: 1.0}
    series = in_turn(Series("case"), 5, runs, slow_s=5)
    assert series.seconds == {"slow": [3.0, 3.0], "quick": [1.0] * 5}


def test_a_contender_whose_rounds_take_long_has_had_its_time_whatever_they_tell() -> None:
    clock = [0.0]

    def slow() -> float:
        clock[0] += 4.0
        return 0.001  # the median of many

    runs = {"slow": slow, "quick": lambda: 1.0}
    series = in_turn(Series("case"), 5, runs, slow_s=5, clock_s=lambda: clock[0])
    assert (len(series.seconds["slow"]), len(series.seconds["quick"])) == (2, 5)
    assert not series.notes


def test_so_many_contenders_that_a_round_takes_long_have_fewer_rounds() -> None:
    clock = [0.0]

    def run() -> float:
        clock[0] += SERIES_S / 2
        return 0.001

    series = in_turn(Series("case"), 5, {"a": run, "b": run}, slow_s=100, clock_s=lambda: clock[0])
    assert series.seconds == {"a": [0.001] * 2, "b": [0.001] * 2}
    assert series.notes == ["no more than 2 of 5 rounds: these took long enough"]
    slow = in_turn(
        Series("case"), 5, dict.fromkeys("abcd", run), slow_s=100, clock_s=lambda: clock[0]
    )
    assert {len(taken) for taken in slow.seconds.values()} == {2}
    alone = in_turn(Series("case"), 5, {"a": run}, ALONE_S, clock_s=lambda: clock[0])
    assert alone.seconds == {"a": [0.001] * 5}


def test_the_schedules_that_are_computed_are_right() -> None:
    assert ideal_s([1, 1, 1, 1, 4], 2) == 4
    assert in_order_s([1, 1, 1, 1, 4], 2) == 6


def test_uneven_calls_are_the_same_everywhere_and_mean_what_they_should() -> None:
    calls = lengths(2_000)
    assert calls == lengths(2_000)
    assert calls[-LAST:] == [LAST_S] * LAST
    assert abs(sum(calls[:-LAST]) / (2_000 - LAST) - 0.005) < 1e-9
    assert 1.10 < in_order_s(calls, 8) / ideal_s(calls, 8) < 1.14
