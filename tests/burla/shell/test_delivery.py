"""Results as lists and iterators, with errors and indices among them, against a local model."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, assert_type

import pytest
from fake_scheduler import FakeScheduler, hold_back
from fragile import Frozen, work
from hypothesis import HealthCheck, example, given, settings, strategies as st

from burla import BurlaError, JobFailed, call, remote_parallel_map as rpm
from burla.protocol import messages as m


def model(inputs: list[Any], with_index: bool) -> list[Any]:
    """Return what a plain loop makes of it."""
    results: list[Any] = []
    for one in inputs:
        try:
            results.append(work(*one.args, **one.kwargs) if type(one) is call else work(one))
        except Exception as error:
            results.append(error)
    return list(enumerate(results)) if with_index else results


def shown(value: Any) -> Any:
    """Return what of a result can be compared; of an error also where it came from."""
    if isinstance(value, tuple):
        return value[0], shown(value[1])
    if isinstance(value, Exception):
        return type(value), value.args
    return value


def index_of(value: Any) -> Any:
    return getattr(value, "burla_input_index", None)


@settings(
    max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    count=st.integers(0, 90),
    seed=st.integers(0, 1000),
    generator=st.booleans(),
    ordered=st.booleans(),
    with_index=st.booleans(),
    as_calls=st.booleans(),
    lazy=st.booleans(),
)
@example(3000, 1, True, True, True, False, False)
def test_all_combinations_are_what_a_loop_gives(
    fake: FakeScheduler,
    count: int,
    seed: int,
    generator: bool,
    ordered: bool,
    with_index: bool,
    as_calls: bool,
    lazy: bool,
) -> None:
    fake.order = Random(seed)
    inputs: list[Any] = list(range(count))
    if as_calls:
        inputs = [call(x, factor=3) if x % 2 else x for x in inputs]
    expected = list(map(shown, model(inputs, with_index)))
    results = rpm(
        work,
        iter(inputs) if lazy else inputs,
        generator=generator,
        ordered=ordered,
        with_index=with_index,
        return_exceptions=True,
    )
    got = list(results)
    for value in got:
        error = value[1] if with_index else value
        if isinstance(error, Exception):
            assert error.__traceback__ is not None
            assert index_of(error) == error.args[0]
    if generator and not ordered:
        assert sorted(map(repr, map(shown, got))) == sorted(map(repr, expected))
    else:
        assert list(map(shown, got)) == expected


def test_the_kinds_of_results(fake: FakeScheduler) -> None:
    def text(x: int) -> str:
        return str(x)

    assert_type(rpm(text, [1], with_index=True), list[tuple[int, str]])
    assert_type(rpm(text, [1], return_exceptions=True), list[str | BaseException])
    assert_type(rpm(text, [1], raise_errors=False), list[str | BaseException])
    assert_type(rpm(text, [1], generator=True, ordered=True), Iterator[str])
    assert_type(
        rpm(text, [1], generator=True, with_index=True, return_exceptions=True),
        Iterator[tuple[int, str | BaseException]],
    )
    assert rpm(text, [5], with_index=True) == [(0, "5")]


def test_an_error_carries_what_was_there(fake: FakeScheduler) -> None:
    with pytest.raises(ValueError, match="3") as caught:
        rpm(work, range(8))
    partial: Any = caught.value.burla_partial  # type: ignore[attr-defined]
    assert partial == {}  # a leaf is one outcome here
    fake.order = Random(1)
    with pytest.raises(ValueError, match="3") as caught:
        rpm(lambda x: work(x), [0, 1, 2, 3], with_index=True)
    partial = caught.value.burla_partial  # type: ignore[attr-defined]
    assert 3 not in partial
    assert dict(partial) == {index: index * 2 for index in partial}
    assert len(partial) == len(list(partial))
    assert pickle.loads(pickle.dumps(partial)) == dict(partial)


def test_an_error_that_takes_no_attributes_is_raised_all_the_same(fake: FakeScheduler) -> None:
    with pytest.raises(Frozen) as caught:
        rpm(work, [5])
    assert index_of(caught.value) == 0
    assert caught.value.burla_partial == {}  # type: ignore[attr-defined]


def test_what_had_come_and_was_not_looked_at_is_there_as_well(fake: FakeScheduler) -> None:
    """A job that fails otherwise has results that wait for their turn."""

    def script(fake: FakeScheduler, peer: bytes, said: m.Message, payload: list[bytes]) -> bool:
        if isinstance(said, m.Inputs):
            job = fake.jobs[said.job]
            fake.outcomes(peer, job, list(fake._run_leaf(job, [1], 0, 1)))
            fake.send(peer, m.JobFailed(said.job, "", "for a test"))
            return True
        return False

    fake.script = script
    with pytest.raises(JobFailed, match="for a test") as caught:
        rpm(str, [1, 2])
    assert caught.value.burla_partial == {0: "1"}  # type: ignore[attr-defined]


def test_results_that_wait_for_an_earlier_one_are_there(fake: FakeScheduler) -> None:
    def script(fake: FakeScheduler, peer: bytes, said: m.Message, payload: list[bytes]) -> bool:
        if isinstance(said, m.Inputs):
            job = fake.jobs[said.job]
            runs = list(fake._run_leaf(job, [1, 2], 1, 1))
            fake.outcomes(peer, job, runs)
            fake.send(peer, m.JobFailed(said.job, "", "for a test"))
            return True
        return False

    fake.script = script
    results = rpm(str, [7, 8], generator=True, ordered=True)
    with pytest.raises(JobFailed, match="for a test") as caught:
        next(results)
    assert caught.value.burla_partial == {1: "1"}  # type: ignore[attr-defined]


def test_a_lost_input_is_its_error_and_the_rest_goes_on(fake: FakeScheduler) -> None:
    from burla import NodeLost

    def script(fake: FakeScheduler, peer: bytes, said: m.Message, payload: list[bytes]) -> bool:
        if isinstance(said, m.Inputs):
            fake.send(peer, m.CallLost(said.job, 1, ("a", "b")))
        return False

    fake.script = script
    lost = rpm(str, [7, 8, 9], return_exceptions=True)
    assert [lost[0], lost[2]] == ["7", "9"]
    assert isinstance(lost[1], NodeLost)
    assert lost[1].nodes == ("a", "b")
    assert index_of(lost[1]) == 1
    assert "input 1 = 8 · node b: 2 nodes were lost" in str(lost[1])


def test_an_older_scheduler_is_told_nothing_that_it_does_not_know(fake: FakeScheduler) -> None:
    fake.welcome = m.Welcome(b"s" * 16, "0", f"{fake.address}.pub")
    with pytest.raises(BurlaError, match="older burla, which does not know return_exceptions"):
        rpm(str, [1], return_exceptions=True)
    assert rpm(str, [1]) == ["1"]
    assert fake.count(m.OpenJob) == 1


def test_calls_are_ahead_of_an_ordered_yield_by_so_much_memory(fake: FakeScheduler) -> None:
    """The outcome of input 0 is held back: not all others may come and wait for it."""
    fed: list[int] = []

    def script(fake: FakeScheduler, peer: bytes, said: m.Message, payload: list[bytes]) -> bool:
        if isinstance(said, m.Inputs):
            fed.append(sum(leaf.count for leaf in said.leaves))
        return isinstance(said, m.Inputs) and said.start == 0

    fake.script = script
    results = rpm(lambda x: bytes(1 << 17), range(100_000), generator=True, ordered=True)
    fake.do(lambda: None)
    results.close()  # type: ignore[attr-defined]  # it is a generator
    assert sum(fed) < 100_000 // 2


def test_an_error_is_raised_at_once_also_in_order(fake: FakeScheduler) -> None:
    fake.script = hold_back()
    results = rpm(work, [1, 3], generator=True, ordered=True)
    with pytest.raises(ValueError, match="3"):
        list(results)


def test_nested_it_is_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    monkeypatch.setenv("BURLA_WORKER_PID", str(os.getpid()))
    inputs: list[Any] = [1, 3, call(2, factor=5), 5]
    for generator in (False, True):
        got = rpm(work, inputs, generator=generator, with_index=True, return_exceptions=True)
        assert list(map(shown, got)) == list(map(shown, model(inputs, True)))
    with pytest.raises(Frozen) as caught:
        rpm(work, [1, 2, 5, 6])
    assert caught.value.burla_partial == {0: 2, 1: 4}  # type: ignore[attr-defined]
    assert index_of(caught.value) == 2
