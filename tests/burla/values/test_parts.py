"""Big functions in parts: taken apart, held, and loaded again."""

import os
import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from burla.values import held_parts, parts, payloads
from burla.values.held_parts import HeldParts
from burla.values.parts import INLINE_BYTES_MAX, PART_BYTES_MIN, PARTS_MAX, Arrived, Part

BIG = 2 * PART_BYTES_MIN


def returns(value: Any) -> Any:
    """Return a function that refers to `value`."""
    return lambda: value


def taken(function: Any) -> parts.Apart:
    apart = parts.take_parts(payloads.take_apart_function(function))
    assert apart is not None
    return apart


def copy_of(part: Part) -> memoryview:
    return memoryview(bytearray(part.view))


def test_what_was_copied_is_as_it_was() -> None:
    table, text = np.ones(PART_BYTES_MIN, np.uint8), b"b" * PART_BYTES_MIN
    pieces = payloads.take_apart_function(lambda: (bytes(table), text))
    pieces.copy()
    table[:] = 2
    apart = parts.take_parts(pieces)
    assert apart is not None
    assert any(part.view.obj is text for part in apart.parts), "copied for nothing"
    assert loaded(apart) == (b"\1" * PART_BYTES_MIN, text)


def loaded(apart: parts.Apart) -> Any:
    """Load a function from copies of its parts."""
    arrived = [
        Arrived(bytes(part.view), part.is_bytes, partial(copy_of, part)) for part in apart.parts
    ]
    return payloads.load_function([apart.first], arrived)()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    parts._bytes_kept = {}


VALUES = {
    "array": np.arange(BIG // 8),
    "read-only array": np.frombuffer(os.urandom(BIG), np.uint8),
    "fortran": np.asfortranarray(np.random.default_rng(1).random((300, 400))),
    "not contiguous": np.arange(BIG)[::2],
    "bytes": os.urandom(BIG),
    "bytearray": bytearray(os.urandom(BIG)),
    "text": "ä" * BIG,
    "half a character": "\ud800" * BIG,
    "list": list(range(100_000)),
    "many": [np.full(PART_BYTES_MIN, n % 251, np.uint8) for n in range(PARTS_MAX + 5)],
    "many bytes": [bytes([n % 251]) * PART_BYTES_MIN for n in range(PARTS_MAX + 5)],
    "all": [os.urandom(BIG), np.arange(BIG), os.urandom(BIG), "x" * BIG, bytearray(BIG)],
    "bytes of just the size": bytes(PART_BYTES_MIN),
    "bytes a bit smaller": bytes(PART_BYTES_MIN - 1),
    "class of bytes": [bytes, bytes.fromhex, os.urandom(BIG)],
}


@pytest.mark.parametrize("name", VALUES)
def test_a_function_is_what_it_was(name: str) -> None:
    value = VALUES[name]
    came = loaded(taken(returns(value)))
    whole = payloads.load_function(payloads.dump_function(returns(value)))()
    for found in (came, whole):
        assert type(found) is type(value)
        assert pickle.dumps(found, 5) == pickle.dumps(pickle.loads(pickle.dumps(value, 5)), 5)


def test_small_functions_travel_as_ever() -> None:
    assert parts.take_parts(payloads.take_apart_function(returns(b"x" * 1000))) is None
    held = payloads.hold_function(returns, payloads.take_apart_function(returns(1)), None)
    assert (held.parts, len(held.frames)) == ([], 1)


def test_the_big_is_a_part_and_the_rest_of_the_function_travels() -> None:
    array, data = np.arange(BIG), os.urandom(BIG)
    apart = taken(returns([array, data]))
    assert [part.is_bytes for part in apart.parts] == [False, True]
    assert apart.parts[1].view.obj is data, "copied"
    assert len(apart.first) < INLINE_BYTES_MAX


def test_bytes_twice_are_one_part_and_one_object() -> None:
    data = os.urandom(BIG)
    apart = taken(returns([data, data]))
    assert len(apart.parts) == 1
    one, other = loaded(apart)
    assert one is other


def test_bytes_are_the_object_that_the_worker_has_still() -> None:
    first = loaded(taken(returns([data := os.urandom(BIG)])))[0]
    assert loaded(taken(returns([data, 1])))[0] is first
    loaded(taken(returns([os.urandom(BIG)])))
    assert loaded(taken(returns([data])))[0] is not first, "only those of the last function stay"


def test_what_a_function_writes_to_an_array_the_next_does_not_see(tmp_path: Path) -> None:
    def change() -> float:
        array[0] += 1
        return float(array[0])

    array = np.zeros(BIG)
    pieces = payloads.take_apart_function(change)
    frames = payloads.hold_function(change, pieces, str(tmp_path / "m" / "parts")).frames
    assert [payloads.load_function(frames)() for _ in range(2)] == [1.0, 1.0]


def test_parts_that_do_not_belong_together_are_refused() -> None:
    apart = taken(returns(np.arange(BIG)))
    wrong = parts.Apart(apart.first, [Part(memoryview(b"short"), False)])
    with pytest.raises(payloads.NotLoadableError, match="do not belong together"):
        loaded(wrong)


def test_a_part_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    function = returns(np.arange(BIG))
    pieces = payloads.take_apart_function(function)
    held = payloads.hold_function(function, pieces, str(tmp_path / "m" / "parts"))
    for path in (tmp_path / "m" / "parts").iterdir():
        path.unlink()
    with pytest.raises(payloads.NotLoadableError, match="cannot be mapped"):
        payloads.load_function(held.frames)


# --- what is held ---


def part(content: bytes | bytearray) -> Part:
    return Part(memoryview(content), False)


def test_the_same_content_is_held_once() -> None:
    held = HeldParts()
    one, other = held.hold(part(b"abc" * 1000)), held.hold(part(bytearray(b"abc" * 1000)))
    assert one is other
    assert bytes(one.content) == b"abc" * 1000


def test_what_changes_afterwards_is_another_content_and_the_held_stays() -> None:
    held = HeldParts()
    content = bytearray(b"abc" * 1000)
    one = held.hold(part(content))
    content[0:1] = b"X"
    assert held.hold(part(content)) is not one
    assert bytes(one.content) == b"abc" * 1000


def test_what_is_not_needed_goes_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_parts, "KEPT_BYTES_MAX", 2500)
    held = HeldParts()
    found = [held.hold(part(bytes([at]) * 1000)) for at in range(4)]
    held.release(found)
    assert [each.content is None for each in found] == [True, True, False, False]
    needed = held.hold(part(b"\x07" * 5000))
    assert needed.content is not None


def test_what_is_not_needed_goes_by_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    held = HeldParts(str(tmp_path / "parts"))
    one, needed = held.hold(part(b"x" * 1000)), held.hold(part(b"y" * 1000))
    held.release([one])
    assert held._timer is not None
    held._timer.cancel()
    monkeypatch.setattr(held_parts, "KEPT_S", 0.0)
    held._on_time()
    assert [Path(each.path).exists() for each in (one, needed)] == [False, True]


def test_a_place_without_room_leaves_the_function_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(held_parts, "FREE_SHARE", 1)
    function = returns(np.arange(BIG))
    held = payloads.hold_function(function, payloads.take_apart_function(function), str(tmp_path))
    assert payloads.load_function(held.frames)().sum() == np.arange(BIG).sum()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_somebody_removed_is_made_again(tmp_path: Path) -> None:
    held = HeldParts(str(tmp_path / "parts"))
    one = held.hold(part(b"x" * 1000))
    os.unlink(one.path)
    again = held.hold(part(b"x" * 1000))
    assert Path(again.path).read_bytes() == b"x" * 1000


def test_without_the_fast_hash_all_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "xxhash", None)
    held = HeldParts()
    assert held.hold(part(b"abc")) is held.hold(part(bytearray(b"abc")))
