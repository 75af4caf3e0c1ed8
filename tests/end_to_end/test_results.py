"""Results are what the function returned when it returned, in their places."""

import itertools
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from scripts import wait_for_lines
from waiting import wait_until

from burla import remote_parallel_map

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared")]

MB = 1 << 20


def test_a_buffer_that_is_used_again_does_not_change_earlier_results() -> None:
    buffer = bytearray(8)
    numbers: list[int] = []
    array = np.zeros(3, dtype=int)

    def reuse(x: int) -> Any:
        buffer[:] = x.to_bytes(8, "big")
        numbers[:] = [x, x + 1]
        array[:] = x
        return buffer, numbers, array, memoryview(bytes(buffer)).tobytes()

    results = remote_parallel_map(reuse, range(2000))
    for x, (same_buffer, same_numbers, same_array, seen) in enumerate(results):
        assert int.from_bytes(same_buffer, "big") == int.from_bytes(seen, "big") == x
        assert same_numbers == [x, x + 1]
        assert same_array.tolist() == [x, x, x]


def test_a_big_buffer_that_is_used_again_does_not_change_earlier_results() -> None:
    array = np.zeros(MB, dtype=np.uint8)

    def reuse(x: int) -> Any:
        array[:] = x
        return array

    for x, result in enumerate(remote_parallel_map(reuse, range(40))):
        assert (result == x).all()


def test_numpy_results_are_writable_and_their_own() -> None:
    for shape in (3, 1000, 200_000):
        one, two = remote_parallel_map(lambda n: np.ones(n), [shape, shape])
        one += 1
        assert one.flags.writeable
        assert (one.sum(), two.sum()) == (2 * shape, shape)
    held = np.ones(300_000)
    (echoed,) = remote_parallel_map(lambda a: a, [held])
    echoed[:] = 5
    assert held.sum() == 300_000


def test_inputs_are_copies_and_may_be_written_to() -> None:
    array = np.zeros(200_000)

    def change(a: Any) -> float:
        a += 1
        return float(a.sum())

    assert remote_parallel_map(change, [array, array]) == [200_000.0, 200_000.0]
    assert array.sum() == 0


def test_results_are_in_the_order_of_the_inputs_whoever_is_first() -> None:
    inputs = list(range(200))
    random.Random(1).shuffle(inputs)

    def uneven(x: int) -> int:
        time.sleep(0.0001 * (x % 17))
        return x * 2

    assert remote_parallel_map(uneven, inputs) == [x * 2 for x in inputs]


def test_a_generator_yields_in_order_of_completion(tmp_path: Path) -> None:
    go = str(tmp_path / "go")

    def wait_or_not(x: int) -> int:
        until = time.monotonic() + 20
        while x == 0 and not os.path.exists(go) and time.monotonic() < until:
            time.sleep(0.005)
        return x

    results = remote_parallel_map(wait_or_not, range(5), generator=True)
    first = [next(results) for _ in range(4)]
    assert sorted(first) == [1, 2, 3, 4]
    Path(go).touch()
    assert list(results) == [0]


@pytest.mark.parametrize(
    "inputs",
    [
        range(10),
        range(10, 0, -3),
        (x for x in range(10)),
        {3: "a", 1: "b"},
        {1, 2, 3},
        "text",
        b"bytes",
        map(str, range(5)),
        np.arange(5),
        iter([1, 2, 3]),
    ],
    ids=lambda inputs: type(inputs).__name__,
)
def test_inputs_may_be_any_iterable(inputs: Any) -> None:
    inputs, copy = itertools.tee(inputs) if isinstance(inputs, Iterator) else (inputs, inputs)
    assert remote_parallel_map(lambda x: (x, type(x).__name__), inputs) == [
        (x, type(x).__name__) for x in copy
    ]


def test_rows_of_an_array_are_inputs() -> None:
    rows = np.arange(12.0).reshape(4, 3)
    assert remote_parallel_map(lambda row: float(row.sum()), rows) == [3.0, 12.0, 21.0, 30.0]


def test_a_million_calls_on_a_range_and_on_a_list() -> None:
    assert remote_parallel_map(lambda x: x * 2, range(1_000_000)) == list(range(0, 2_000_000, 2))
    numbers = list(range(1_000_000))
    assert remote_parallel_map(lambda x: x + 1, numbers) == list(range(1, 1_000_001))


def test_a_million_calls_as_a_generator() -> None:
    seen = bytearray(1_000_000)
    for x in remote_parallel_map(lambda x: x, range(1_000_000), generator=True):
        seen[x] += 1
    assert seen == b"\1" * 1_000_000


def test_an_endless_iterable_is_advanced_only_as_far_as_needed() -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(MB)

    before = psutil.Process().memory_info().rss
    results: Any = remote_parallel_map(lambda data: data, endless(), generator=True)
    for _ in range(150):
        assert len(next(results)) == MB
    grown = psutil.Process().memory_info().rss - before
    results.close()
    assert taken < 150 + 200  # what is under way is bounded, in bytes
    assert grown < 400 * MB


def test_a_generator_that_nobody_reads_stops_the_work(tmp_path: Path) -> None:
    """Results that are not taken fill windows, not memory."""
    begun = tmp_path / "begun"

    def give(x: int) -> bytes:
        with open(begun, "a") as file:
            file.write("x\n")
        return bytes(MB)

    results: Any = remote_parallel_map(give, range(10**9), generator=True)
    next(results)
    wait_for_lines(begun, 10)
    counts: list[int] = [0]

    def stands_still() -> bool:
        counts.append(begun.stat().st_size)
        time.sleep(0.2)
        return len(counts) > 5 and counts[-1] == counts[-5]

    wait_until(stands_still, "the workers wait for the reader")
    assert counts[-1] < 2 * 1500
    assert sum(len(next(results)) for _ in range(300)) == 300 * MB  # and go on
    results.close()


@pytest.mark.parametrize("size", [8, 32, 64])
def test_big_inputs_and_results_pass(size: int) -> None:
    def check(data: Any) -> Any:
        return len(data), int(data[-1]), data

    inputs = [np.full(size * MB, x, dtype=np.uint8) for x in (1, 2, 3)]
    for x, (count, last, echo) in enumerate(remote_parallel_map(check, inputs), 1):
        assert (count, last) == (size * MB, x)
        assert echo[0] == echo[-1] == x
        assert len(echo) == size * MB


def test_a_big_closure_and_big_bytes_pass() -> None:
    table = os.urandom(24 * MB)
    ends = remote_parallel_map(lambda at: table[at : at + 4], [0, 12 * MB, 24 * MB - 4])
    assert ends == [table[at : at + 4] for at in (0, 12 * MB, 24 * MB - 4)]
    assert remote_parallel_map(lambda n: bytes(n), [40 * MB, 0]) == [bytes(40 * MB), b""]


def test_all_kinds_of_results() -> None:
    kinds: list[Any] = [
        *(None, True, 2**100, 1.5, float("inf"), 1j, "ä\ud800", b"\0", (), (1, (2, [3]))),
        *([], {}, set(), frozenset({1}), range(3), slice(1, 2), Ellipsis, NotImplemented),
        *(int, len, bytearray(b"x"), {"a": [1, {2: (3,)}]}, np.float32(1.5), np.arange(3) > 1),
    ]
    results = remote_parallel_map(lambda x: x, kinds)
    for sent, got in zip(kinds, results, strict=True):
        assert type(got) is type(sent)
        assert repr(got) == repr(sent)


def test_two_results_are_never_one_object() -> None:
    shared: list[int] = []
    one, two = remote_parallel_map(lambda x: shared, [0, 1])
    one.append(1)
    assert two == []
    results = remote_parallel_map(lambda x: [shared, shared], [0])
    assert results[0][0] is results[0][1]  # within one result it stays one


def test_a_function_may_return_a_function() -> None:
    adders: Any = remote_parallel_map(lambda n: lambda x: x + n, [5])
    assert adders[0](1) == 6
