"""Big buffers that several calls have."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from burla.interfaces.codes import Codes, pack
from burla.interfaces.parts import SharedParts, first_buffers
from burla.values.many import Many, Packed, Reference, Shared

BIG = np.arange(200_000.0)


def call_with(*arrays: Any) -> Any:
    return pack(Codes().of(lambda *a: [one.sum() for one in a]), arrays, {})


def kinds(given: Any) -> list[type]:
    return [type(one) for one in given.buffers]


def test_what_comes_again_is_put_down_once_by_its_content(tmp_path: Path) -> None:
    parts = SharedParts(str(tmp_path / "parts"))
    other = BIG + 1
    first = parts.refer(call_with(BIG, other).input)
    assert kinds(first) == [memoryview, memoryview]
    again = parts.refer(call_with(BIG.copy(), other).input)
    assert kinds(again) == [Reference, Reference]
    assert parts.refer(call_with(BIG).input).buffers == again.buffers[:1]
    many = Many()
    assert many(again) == [BIG.sum(), other.sum()]
    files = [*(tmp_path / "parts").iterdir()]
    assert len(files) == 2
    parts.release()


def test_where_nothing_is_shared_they_go_with_each_call() -> None:
    parts = SharedParts(None)
    for _ in range(3):
        assert kinds(parts.refer(call_with(BIG).input)) == [memoryview]
    plain = pack(Codes().of(abs), (1,), {}).input
    assert parts.refer(plain) is plain


def test_those_of_the_first_calls_go_with_the_job_and_cannot_be_written() -> None:
    small = np.arange(1000.0)
    queue = [(None, None, call_with(BIG, small)), (None, None, call_with(BIG)), (0, 0, pack_one())]
    buffers = first_buffers(queue)
    assert [one.nbytes for one in buffers] == [BIG.nbytes]
    parts = SharedParts(None, buffers)
    given = parts.refer(pack(Codes().of(try_to_write), (BIG,), {}).input)
    assert kinds(given) == [Shared]
    assert isinstance(given, Packed)
    assert Many(shared=buffers)(given) == "assignment destination is read-only"


def pack_one() -> Any:
    return pack(Codes().of(abs), (1,), {})


def try_to_write(array: Any) -> str:
    with pytest.raises(ValueError, match="read-only") as caught:
        array[0] = 1
    return str(caught.value)
