"""Which inputs are run alone, and who is named, after nodes were lost."""

import pytest
from cluster_model import ident

from burla.protocol.ranges import Ranges
from burla.scheduler.core.suspects import LOSSES_KEPT, VERDICT_S, Guilty, Loss, Suspects


def loss(
    number: int, *held: tuple[int, int], alone: int | None = None, orderly: bool = False
) -> Loss:
    return Loss(ident(number), f"n{number}", Ranges(held), float(number), alone, orderly)


def suspects_of(*losses: Loss) -> Suspects:
    suspects = Suspects()
    for each in losses:
        suspects.add(each)
    suspects.check(())
    return suspects


def test_one_death_isolates_nobody_and_two_isolate_what_was_there_twice() -> None:
    suspects = suspects_of(loss(1, (0, 1000)))
    assert list(suspects.dangerous(0, 2000)) == []
    suspects.add(loss(2, (10, 20), (990, 1100)))
    assert list(suspects.dangerous(0, 2000)) == [(10, 20), (990, 1000)]
    assert list(suspects.dangerous(12, 15)) == [(12, 15)]


def test_who_was_there_three_times_but_never_alone_is_not_named() -> None:
    suspects = suspects_of(*(loss(n, (0, 4)) for n in range(1, 9)))
    assert suspects.guilty(1e9) is None


def test_who_was_alone_the_third_time_is_named_when_the_node_had_time_to_come_back() -> None:
    suspects = suspects_of(loss(1, (0, 9)), loss(2, (4, 6)), loss(3, (5, 6), alone=5))
    assert suspects.awaits_verdict(5)
    assert suspects.guilty(3.0 + VERDICT_S - 0.1) is None
    assert suspects.guilty(3.0 + VERDICT_S) == Guilty(5, ("n1", "n2", "n3"))


def test_a_node_that_comes_back_takes_its_count_with_it() -> None:
    suspects = suspects_of(loss(1, (0, 9)), loss(2, (4, 6)), loss(3, (5, 6), alone=5))
    assert suspects.undo(ident(2))
    assert not suspects.undo(ident(2))
    assert suspects.guilty(1e9) is None
    assert list(suspects.dangerous(0, 9)) == [(5, 6)]


def test_where_nodes_die_without_it_once_alone_is_not_enough() -> None:
    losses = [loss(1, (0, 9)), loss(2, (4, 6)), loss(3, (20, 30)), loss(4, (5, 6), alone=5)]
    suspects = suspects_of(*losses)
    assert suspects.guilty(1e9) is None
    suspects.add(loss(5, (5, 6), alone=5))
    assert suspects.guilty(1e9) == Guilty(5, ("n1", "n2", "n4", "n5"))


def test_where_nodes_of_other_jobs_die_once_alone_is_not_enough() -> None:
    suspects = suspects_of(loss(1, (0, 9)), loss(2, (4, 6)), loss(3, (5, 6), alone=5))
    suspects.elsewhere = 1
    assert suspects.guilty(1e9) is None


@pytest.mark.parametrize("count", [2, 5])
def test_nodes_that_said_that_they_end_count_for_nothing(count: int) -> None:
    suspects = suspects_of(*(loss(n, (0, 9), orderly=True) for n in range(count)))
    assert list(suspects.dangerous(0, 9)) == []


def test_but_what_makes_each_node_end_does_not_do_so_for_ever() -> None:
    suspects = suspects_of(*(loss(n, (0, 9), orderly=True) for n in range(6)))
    assert list(suspects.dangerous(0, 9)) == [(0, 9)]
    for number in range(6, 9):
        assert suspects.guilty(1e9) is None
        suspects.add(loss(number, (3, 4), alone=3, orderly=True))
    assert suspects.guilty(1e9) is not None


def test_what_has_its_outcome_is_no_suspect_and_is_forgotten() -> None:
    suspects = suspects_of(loss(1, (0, 9)), loss(2, (4, 6)))
    suspects.prune(Ranges([(0, 5)]))
    assert list(suspects.dangerous(0, 9)) == [(5, 6)]
    suspects.prune(Ranges([(0, 9)]))
    assert not suspects.is_open
    assert list(suspects.dangerous(0, 9)) == []


def test_only_so_many_losses_are_remembered() -> None:
    suspects = suspects_of(*(loss(n, (n, n + 1)) for n in range(LOSSES_KEPT + 5)))
    assert next(each.name for each in suspects.losses) == "n5"
