"""What is over a limit is told with its size and index, and never waited for."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from marked import marked_cluster

from burla import InputTooLarge, JobFailed, ResultNotSendable, remote_parallel_map
from burla.values import frames

pytestmark = pytest.mark.slow

MOST = 8_000_000
BINDS = ["", "tcp://127.0.0.1:0"]


@pytest.fixture(params=BINDS, ids=["ipc", "tcp"])
def small_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """A cluster of two nodes on which each user has little room."""
    options = ("--tenant-bytes", str(MOST))
    with marked_cluster(tmp_path, 1, 1, bind=request.param, options=options):
        yield


def size_of(x: Any) -> int:
    return len(x)


def lazily(values: list[Any]) -> Iterator[Any]:
    yield from values


@pytest.mark.usefixtures("small_cluster")
@pytest.mark.parametrize("make", [list, lazily])
def test_an_input_over_the_quota_is_named_with_its_size_and_the_limit(
    make: Callable[[list[Any]], Any],
) -> None:
    inputs = [b"a", b"b", os.urandom(2 * MOST), b"c"]
    with pytest.raises(InputTooLarge, match=r"^input 2 has 16,000,.* at most 8,000,000 ") as raised:
        remote_parallel_map(size_of, make(inputs))
    assert raised.value.burla_input_index == 2
    assert remote_parallel_map(size_of, [b"abc"]) == [3]


@pytest.mark.usefixtures("small_cluster")
def test_a_function_over_the_quota_is_told_with_its_size_and_the_limit() -> None:
    data = os.urandom(2 * MOST)
    wanted = r"^the function, .* has ([\d,]+) bytes, .* at most 8,000,000 bytes"
    with pytest.raises(JobFailed, match=wanted) as raised:
        remote_parallel_map(lambda x: data[x], range(3))
    (said,) = re.findall(wanted, str(raised.value))
    # beside the data, the modules of this test process go along: the more tests, the more there are
    assert 0 <= int(said.replace(",", "")) - len(data) < 4 << 20
    assert remote_parallel_map(size_of, [b"abc"]) == [3]


@pytest.mark.usefixtures("small_cluster")
def test_many_inputs_that_are_over_the_quota_together_say_so() -> None:
    def f(x: bytes) -> int:
        import time

        time.sleep(60)
        return len(x)

    with pytest.raises(JobFailed, match=r"^over your quota of bytes .*: 8000000 at once"):
        remote_parallel_map(f, [os.urandom(200_000) for _ in range(100)])
    assert remote_parallel_map(size_of, [b"abc"]) == [3]


def large(x: int) -> Any:
    """Return, or raise, something that is over the limit, which is low here."""
    from burla.values import frames

    vars(frames)["VALUE_BYTES_MAX"] = 3 << 20
    if x == 1:
        return bytes(4 << 20)
    if x == 2:
        return [bytearray(1 << 20) for _ in range(4)]
    if x == 3:
        raise ValueError("x" * (4 << 20))
    if x == 4:
        raise ValueError(bytearray(4 << 20))
    return x


@pytest.mark.parametrize("index", [1, 2])
def test_a_result_over_the_limit_is_an_error_with_its_index(tmp_path: Path, index: int) -> None:
    words = rf"^input {index} .* cannot be sent: it has 4,194,.* at most 3,145,728 can"
    with marked_cluster(tmp_path, 1), pytest.raises(ResultNotSendable, match=words) as raised:
        remote_parallel_map(large, [0, index] if index == 1 else [0, 0, index])
    assert raised.value.burla_input_index in (1, 2)


@pytest.mark.parametrize("index", [3, 4])
def test_an_exception_over_the_limit_comes_as_text(tmp_path: Path, index: int) -> None:
    with marked_cluster(tmp_path, 1), pytest.raises(Exception, match="can be sent") as raised:
        remote_parallel_map(large, [0, index])
    assert raised.value.burla_input_index == 1  # type: ignore[attr-defined]
    assert len(str(raised.value)) < 1 << 20


def test_an_input_over_the_limit_of_all_clusters_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "VALUE_BYTES_MAX", 3 << 20)
    with marked_cluster(tmp_path, 1):
        with pytest.raises(InputTooLarge, match=r"^input 1 cannot be .* 4,194,") as raised:
            remote_parallel_map(size_of, [b"", bytes(4 << 20)])
        assert raised.value.burla_input_index == 1
        data = bytes(4 << 20)
        with pytest.raises(ValueError, match=r"cannot be sent: with all .* 4,195,.* at most"):
            remote_parallel_map(lambda x: data[x], [1])


def test_a_value_of_many_buffers_comes_and_goes(tmp_path: Path) -> None:
    def f(x: list[bytearray]) -> list[bytearray]:
        return [bytearray(part) for part in x]

    parts = [bytearray(20_000) for _ in range(9_000)]
    with marked_cluster(tmp_path, 1):
        (back,) = remote_parallel_map(f, [parts])
        assert back == parts
        parts = [bytearray(80_000) for _ in range(1_300)]
        (back,) = remote_parallel_map(f, [parts])
        assert back == parts
