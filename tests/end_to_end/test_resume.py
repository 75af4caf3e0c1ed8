"""Results that are taken over by the next run of a script."""

import asyncio
import itertools
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripts import run, started, wait_for_lines
from waiting import wait_until

import burla
from burla import remote_parallel_map as rpm
from burla.resume.checkpoints import all_kept

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared")]

Calls = Callable[[], dict[Any, int]]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


class Point:
    """A class of results."""

    def __init__(self, x: int) -> None:
        self.x = x


def counting(log: Path, kind: Any = int) -> Any:
    """Return a function that notes its calls, and a function that returns them."""

    def function(x: Any) -> Any:
        with log.open("a") as file:
            file.write(f"{x}\n")
        if x == -1:
            raise KeyError(x)
        if x == -2:
            os._exit(3)
        return kind(x)

    def calls() -> dict[int, int]:
        lines = log.read_text().split() if log.exists() else []
        log.write_text("")
        return Counter(map(int, lines))

    return function, calls


CASES: list[tuple[Any, dict[str, Any], Any]] = [
    (list, {}, int),
    (list, {"generator": True, "ordered": True}, Point),
    (iter, {"with_index": True}, Point),
    (iter, {"generator": True, "ordered": True}, int),
    (np.array, {"generator": True, "with_index": True}, int),
]


@pytest.mark.parametrize(("kind", "way", "result"), CASES)
def test_only_what_is_new_is_called_and_all_comes_as_without(
    kind: Any, way: dict[str, Any], result: Any, data: Path
) -> None:
    function, calls = counting(data / "log", result)
    inputs = [3, 4, 4, 5, 9, 6, 8, 7]
    rpm(function, kind(inputs[:5]), resume="some")
    assert calls() == {3: 1, 4: 2, 5: 1, 9: 1}
    more = [0, *inputs, 1, 4]
    for called in ({0: 1, 6: 1, 8: 1, 7: 1, 1: 1, 4: 1}, {}):
        got = list(rpm(function, kind(more), resume="some", **way))
        if "with_index" in way:
            assert sorted((index, getattr(one, "x", one)) for index, one in got) == list(
                enumerate(more)
            )
        else:
            assert [getattr(value, "x", value) for value in got] == more
        assert calls() == called


def test_errors_name_the_input_they_are_of_and_are_not_kept(
    data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    function, calls = counting(data / "log")
    rpm(function, range(5), resume="errors")
    with pytest.raises(KeyError) as caught:
        rpm(function, [0, 1, -1, 2, 3, 4], resume="errors")
    assert caught.value.burla_input_index == 2  # type: ignore[attr-defined]
    assert caught.value.__notes__[-1].startswith("input 2 = -1 ")
    assert dict(caught.value.burla_partial).items() <= {0: 0, 1: 1, 3: 2, 4: 3, 5: 4}.items()  # type: ignore[attr-defined]
    calls()
    inputs = [*range(5), -1, 7, -2, 9]
    got = rpm(function, inputs, resume="errors", return_exceptions=True)
    assert [index for index, one in enumerate(got) if isinstance(one, Exception)] == [5, 7]
    assert [one.burla_input_index for one in got if isinstance(one, burla.CallFailed)] == [7]
    assert calls()[-1] == 1
    again = rpm(function, inputs, resume="errors", return_exceptions=True)
    assert [value for value in again if isinstance(value, int)] == [*range(5), 7, 9]
    assert calls() == {-1: 1, -2: 3}
    assert "resume='errors' takes over 7 of 9 results, and calls 2" in capfd.readouterr().err


def test_an_iterator_without_end_and_slow_known_inputs_do_not_hold_up_others(data: Path) -> None:
    function, _ = counting(data / "log")
    rpm(function, range(3000), resume="endless", spinner=False)
    results = rpm(function, itertools.count(), generator=True, resume="endless")
    assert set(range(3000)) < set(itertools.islice(results, 3010))
    results.close()  # type: ignore[attr-defined]
    alike = rpm(function, itertools.repeat(1), generator=True, ordered=True, resume="endless")
    assert list(itertools.islice(alike, 5)) == [1] * 5
    alike.close()  # type: ignore[attr-defined]


def test_coroutines_take_over_too(data: Path) -> None:
    function, calls = counting(data / "log")

    async def main() -> tuple[list[int], list[int]]:
        first = await burla.amap(function, [1, 2], resume="async")
        second = [x async for x in burla.amap(function, [2, 3, 1], generator=True, resume="async")]
        return first, second

    assert asyncio.run(main()) == ([1, 2], [2, 1, 3])
    assert calls() == {1: 1, 2: 1, 3: 1}


SCRIPT = """
import os, time, helpers
from burla import remote_parallel_map as rpm
LIMIT = {limit}
class Found:
    def __init__(self, x):
        self.x = x + LIMIT
def f(x):
    with open("{log}", "a") as file:
        file.write(f"{{x}}\\n")
    while x >= 20 and os.path.exists("{log}.wait"):
        time.sleep(0.01)
    return Found(helpers.double(x))
found = rpm(f, range(40), resume="script", max_parallelism=1)
assert type(found[0]) is Found
print(sum(one.x for one in found))
"""


def write(data: Path, limit: int = 1, double: str = "2 * x") -> str:
    (data / "helpers.py").write_text(f"def double(x):\n    return {double}\n")
    return SCRIPT.format(limit=limit, log=data / "log")


def test_a_script_that_was_killed_goes_on_and_a_change_is_told(data: Path) -> None:
    wait = data / "log.wait"
    wait.touch()
    with started(write(data), data) as process:
        assert len(wait_for_lines(data / "log", 21)) == 21
        wait_until(lambda: sum(one.results for one in all_kept()) == 20, "results of 20 calls")
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait.unlink()
    done = run(write(data), data)
    assert done.stdout == f"{sum(2 * x + 1 for x in range(40))}\n", done.stderr
    assert "takes over 20 of 40 results, and calls 20" in done.stderr
    for double, why in (("2 * x", "Found"), ("3 * x", "module helpers")):
        done = run(write(data, 2, double), data)
        assert f"has changed since it was last used: {why}\n" in done.stderr


def test_big_results_are_files_that_are_mapped(data: Path) -> None:
    def big(n: int) -> Any:
        return np.full(n, 7.0), {"n": n}

    sizes = [300_000, 5, 1_000_000]
    first = rpm(big, sizes, resume="big")
    again = rpm(big, sizes, resume="big")
    assert [(array.sum(), facts) for array, facts in again] == [
        (array.sum(), facts) for array, facts in first
    ]
    again[0][0][0] = 1.0  # it is the caller's own
    assert rpm(big, sizes, resume="big")[0][0][0] == 7.0
