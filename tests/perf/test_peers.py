from collections.abc import Callable, Sequence
from typing import Any

from perf.functions import double
from perf.peers import MultiprocessingPool, groups, variants


class Fake(MultiprocessingPool):
    """A peer that notes what it is asked for."""

    few: int | None = 10

    def __init__(self, few_at_best: bool = False) -> None:
        self.few_at_best = few_at_best
        self.asked: list[tuple[int, int | None]] = []

    def map(
        self, function: Callable[[Any], Any], inputs: Sequence[Any], chunk: int | None
    ) -> list[Any]:
        self.asked.append((len(inputs), chunk))
        return [function(x) for x in inputs]


def check(results: list[int]) -> None:
    assert results == [2 * x for x in range(len(results))]


def test_who_never_rests_is_measured_apart() -> None:
    assert groups(("burla", "Pool", "joblib")) == [("burla", "Pool", "joblib")]
    assert groups(("burla",)) == [("burla",)]
    assert groups(("burla", "Pool", "Ray Pool", "dask")) == [
        ("burla", "Pool"),
        ("burla", "Ray Pool"),
        ("burla", "dask"),
    ]
    assert groups(("burla", "dask")) == [("burla", "dask")]
    assert groups(("Pool", "dask")) == [("Pool",), ("dask",)]


def test_who_would_take_minutes_maps_over_a_part_and_is_told_in_proportion() -> None:
    peer = Fake()
    runs = variants([peer], double, range(1000), [50], check, tiny=True)
    assert list(runs) == ["Pool, from 10 calls", "Pool, chunk 50"]
    peer.asked.clear()
    assert runs["Pool, from 10 calls"]() > 0
    runs["Pool, chunk 50"]()
    assert peer.asked == [(10, None), (1000, 50)]


def test_other_chunks_are_tried_only_where_they_help() -> None:
    assert list(variants([Fake(True)], double, range(1000), [50], check, tiny=True)) == [
        "Pool, from 10 calls"
    ]
    assert list(variants([Fake(True)], double, range(1000), [50], check)) == [
        "Pool",
        "Pool, chunk 50",
    ]
