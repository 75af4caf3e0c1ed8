"""Many users' jobs on many nodes: all of them end, soon, and nobody is kept waiting for nothing.

`BURLA_SEED=17 pytest tests/simulation/test_crowd.py` plays one seed, `BURLA_CROWDS=2000` more of
them; `python -m crowd` (tests/support) tells how well they went.
"""

import math
import os

import pytest
from crowd import Report, again, fluid_end_s, play, uneven
from world import Caller

from perf.aims import FAIR, FIRST_S
from perf.shares import fair_s

SEED = os.environ.get("BURLA_SEED")
SEEDS = [int(SEED)] if SEED else range(int(os.environ.get("BURLA_CROWDS", "80")))
# A node serves one job, so a small job on a big node wastes most of it; twice is what that costs.
QUIET_FACTOR, QUIET_S = 2.0, 0.5  # the constant: joining, forking, handing over, the last calls


@pytest.mark.parametrize("seed", SEEDS)
def test_every_job_of_a_crowd_gets_its_results_and_soon_if_nothing_breaks(seed: int) -> None:
    try:
        report = play(seed)
        if not report.troubled:
            assert report.makespan_s <= QUIET_FACTOR * report.ideal_s + QUIET_S, report
    except BaseException as error:
        error.add_note(again(seed))
        raise


def test_a_seed_gives_the_same_figures_each_time() -> None:
    def figures(report: Report) -> tuple[float, float, list[float]]:
        return report.makespan_s, report.ideal_s, report.waits_s

    assert figures(play(11)) == figures(play(11))


def test_waits_that_are_alike_are_fair_and_one_that_is_long_is_not() -> None:
    def fairness(*waits_s: float) -> float:
        callers = [Caller(b"", 1, first_s=wait_s) for wait_s in waits_s]
        return Report(0, False, 1.0, 1.0, callers).fairness

    assert fairness(0.5, 0.5, 0.5) == pytest.approx(1.0)
    assert fairness(0.0, 0.0, 0.0, 10_000.0) == pytest.approx(0.25, rel=0.01)


def test_the_ideal_counts_slots_from_the_birth_of_their_node_to_its_death() -> None:
    forever = math.inf
    assert fluid_end_s([(0.0, 8.0)], [(0.0, forever, 4)]) == 2.0
    assert fluid_end_s([(0.0, 8.0)], [(0.0, forever, 4), (1.0, forever, 4)]) == 1.5
    assert fluid_end_s([(0.0, 8.0)], [(0.0, forever, 2), (0.0, 1.0, 4)]) == 2.0
    assert fluid_end_s([(0.0, 4.0), (3.0, 4.0)], [(0.0, forever, 4)]) == 4.0


def test_a_second_user_starts_soon_and_both_end_as_in_a_fair_split() -> None:
    world = uneven((0.1,) * 1_000)
    for _ in range(2):
        world.add_node(8)
    one = world.add_client("alice").call(1_000)
    later_s = 2.0
    two: list[Caller] = []
    world.clock.after(later_s, lambda: two.append(world.add_client("bob").call(1_000)))
    world.run_until(lambda: one.finished and bool(two) and two[0].finished)
    assert two[0].first_s - two[0].started_s <= FIRST_S
    for caller, fair in zip((one, *two), fair_s(1_000, later_s, 16), strict=True):
        assert caller.ended_s - caller.started_s <= FAIR * fair


def test_a_node_that_joins_gets_work_at_once() -> None:
    world = uneven((0.05,) * 800)
    nodes = [world.add_node(4)]
    caller = world.add_client().call(800)
    world.clock.after(1.0, lambda: nodes.append(world.add_node(12)))
    world.run_until(lambda: caller.finished)
    left_s = (800 * 0.05 - 4 * 1.0) / 16
    assert caller.ended_s - caller.started_s <= 1.0 + left_s + 0.3


def test_a_node_that_dies_costs_a_job_little_more_than_its_share() -> None:
    world = uneven((0.02,) * 3_200)
    nodes = [world.add_node(8) for _ in range(4)]
    caller = world.add_client().call(3_200)
    world.clock.after(1.0, nodes[0].die)
    world.run_until(lambda: caller.finished)
    world.check_call(caller)
    ideal_s = 1.0 + (3_200 * 0.02 - 32 * 1.0) / 24
    assert caller.ended_s - caller.started_s <= ideal_s + 2.0
