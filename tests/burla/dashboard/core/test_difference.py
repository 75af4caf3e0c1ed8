"""Only what has changed is sent: of a thousand nodes the cells of those that do something else."""

from burla.dashboard.core.cells import Cell
from burla.dashboard.core.difference import Change, Shown, difference, merged

CELLS = [Cell(f"n{number}", "free", "free") for number in range(1000)]
BEFORE = Shown({"figures": "<p>1", "grid": "<g>"}, CELLS, [(1.0, 5.0, 2), (2.0, 6.0, 2)])


def test_who_has_nothing_gets_all() -> None:
    change = difference(None, BEFORE)
    assert change == Change(dict(BEFORE.parts), [], list(BEFORE.points), first=True)


def test_who_has_all_gets_nothing() -> None:
    assert difference(BEFORE, BEFORE).is_nothing()


def test_cells_that_changed_are_sent_with_their_places() -> None:
    cells = list(CELLS)
    cells[7] = Cell("n7", "leased user-0 load-4", "busy")
    now = Shown(BEFORE.parts, cells, BEFORE.points)
    assert difference(BEFORE, now) == Change(cells=[(7, "leased user-0 load-4", "busy")])


def test_other_nodes_come_as_another_grid() -> None:
    now = Shown({"figures": "<p>1", "grid": "<h>"}, CELLS[1:], BEFORE.points)
    assert difference(BEFORE, now) == Change({"grid": "<h>"})


def test_points_that_are_new_are_sent() -> None:
    now = Shown(BEFORE.parts, CELLS, [*BEFORE.points, (3.0, 7.0, 2)])
    assert difference(BEFORE, now) == Change(points=[(3.0, 7.0, 2)])


def test_a_chart_that_begins_again_is_sent_as_a_whole() -> None:
    now = Shown(BEFORE.parts, CELLS, [(9.0, 1.0, 0), (10.0, 1.0, 0)])
    assert difference(BEFORE, now) == Change(points=list(now.points), first=True)


def test_what_went_wrong_leaves_the_rest_as_it_was() -> None:
    wrong = Shown({"problem": "<p>no answer"}, stale=True)
    assert difference(BEFORE, wrong) == Change({"problem": "<p>no answer"}, stale=True)
    shown = merged(BEFORE, wrong)
    assert difference(shown, wrong).is_nothing()
    again = Shown({**BEFORE.parts, "problem": ""}, CELLS, BEFORE.points)
    assert difference(shown, again) == Change({"problem": ""})
    assert merged(shown, again) == again
