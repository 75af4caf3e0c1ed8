"""Ranges behave as a set of integers does."""

from itertools import pairwise

from hypothesis import given, strategies as st

from burla.protocol.ranges import Ranges, ascend

PARTS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=12)
BOUND = st.integers(0, 45)


def indices(ranges: object) -> set[int]:
    return {i for lo, hi in ranges for i in range(lo, hi)}  # type: ignore[attr-defined]  # any


@given(PARTS, PARTS, BOUND, BOUND)
def test_it_is_a_set_of_integers(
    added: list[tuple[int, int]], removed: list[tuple[int, int]], lo: int, hi: int
) -> None:
    ranges, model = Ranges(), set[int]()
    for part in added:
        new = set(range(*part)) - model
        assert ranges.add(*part) == len(new)
        model |= new
    for part in removed:
        assert indices(ranges.remove(*part)) == model & set(range(*part))
        model -= set(range(*part))
    assert indices(ranges) == model
    assert ranges.total == len(model)
    assert bool(ranges) == bool(model)
    assert indices(ranges.missing(lo, hi)) == set(range(lo, hi)) - model
    assert indices(ranges.common(lo, hi)) == set(range(lo, hi)) & model
    assert ranges.covers(lo, hi) == (set(range(lo, hi)) <= model)
    assert (lo in ranges) == (lo in model)
    bounds = list(ranges)
    assert all(a < b for a, b in bounds)
    assert all(one[1] < two[0] for one, two in pairwise(bounds))


@given(PARTS, st.integers(0, 60))
def test_popping_takes_the_smallest_or_the_largest(
    added: list[tuple[int, int]], count: int
) -> None:
    front, back = Ranges(added), Ranges(added)
    model = sorted(indices(front))
    assert sorted(indices(front.pop_front(count))) == model[:count]
    assert sorted(indices(front)) == model[count:]
    taken = back.pop_back(count)
    assert sorted(indices(taken)) == (model[-count:] if count else [])
    assert taken == sorted(taken)


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_what_one_set_has_more_than_another(some: set[int], others: set[int]) -> None:
    def ranges(numbers: set[int]) -> Ranges:
        return Ranges((number, number + 1) for number in numbers)

    parts = ranges(some).minus(ranges(others))
    assert Ranges(parts) == ranges(some - others)
    assert parts == [] or ascend(parts)
    assert ranges(some).total == len(some)
