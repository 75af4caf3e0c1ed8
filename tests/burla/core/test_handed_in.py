"""What is counted of the inputs of a job, and the places that are made for their results."""

import pytest

from burla.core.handed_in import PLACES, HandedIn


def test_places_are_made_for_all_inputs_at_once() -> None:
    handed_in, results = HandedIn(total=100), list[object]()
    handed_in.count = 8
    handed_in.make_places(results)
    assert (len(results), handed_in.coming()) == (100, 92)
    handed_in.count = 100
    handed_in.make_places(results)
    assert (len(results), handed_in.coming()) == (100, 0)


def test_but_no_more_than_there_is_memory_for() -> None:
    handed_in, results = HandedIn(total=1 << 60), list[object]()
    handed_in.count = 8
    handed_in.make_places(results)
    assert len(results) == PLACES
    handed_in.count = PLACES + 1
    handed_in.make_places(results)
    assert len(results) == 2 * PLACES


def test_where_nobody_knows_how_many_come_each_has_its_place() -> None:
    handed_in, results = HandedIn(), list[object]()
    handed_in.count = 8
    handed_in.make_places(results)
    assert (len(results), handed_in.coming()) == (8, None)


@pytest.mark.parametrize("results", [[None] * 100, None])
def test_of_a_list_that_got_shorter_no_place_is_left(results: list[object] | None) -> None:
    handed_in = HandedIn(total=100, count=60)
    handed_in.end(results)
    assert results is None or len(results) == 60
