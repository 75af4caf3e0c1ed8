"""The seal on outcomes covers all that a client acts on."""

import os
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace
from outcomes import outcomes, table_of

from burla.protocol import messages as m
from burla.protocol.mac import is_sealed, seal

SECRET = os.urandom(m.SECRET_BYTES_MAX)
RUNS = table_of([m.Run(0, 2, m.Kind.RESULTS, 1), m.Run(5, 6, m.Kind.ERROR, 2)])
PAYLOAD = [b"one", b"two", b"three"]


def arrived(payload: list[bytes], **other: Any) -> m.JobOutcomes:
    said = replace(outcomes(bytes(16), [], seq=3), runs=RUNS, output=4)
    sealed = seal(SECRET, said, payload)
    fields: dict[str, Any] = {
        "job": bytes(16),
        "lease": bytes(16),
        "seq": 3,
        "node": "n",
        "runs": RUNS,
    }
    return m.JobOutcomes(**(fields | {"output": 4, "seal": sealed} | other))


def test_what_comes_unchanged_is_taken() -> None:
    assert is_sealed(SECRET, arrived(PAYLOAD), PAYLOAD)
    assert is_sealed(SECRET, arrived(PAYLOAD), [memoryview(x) for x in PAYLOAD])  # type: ignore[misc]  # any buffer
    assert len(arrived(PAYLOAD).seal) == m.SEAL_BYTES


@pytest.mark.parametrize(
    "change",
    [
        {"lease": b"x" * 16},
        {"seq": 4},
        {"output": 3},
        {"runs": RUNS[:1]},
        {"runs": table_of([m.Run(0, 2, m.Kind.RESULTS, 2), m.Run(5, 6, m.Kind.ERROR, 1)])},
        {"runs": table_of([m.Run(0, 2, m.Kind.RESULTS, 1), m.Run(5, 6, m.Kind.DEATH, 2)])},
        {"runs": table_of([m.Run(1, 3, m.Kind.RESULTS, 1), m.Run(5, 6, m.Kind.ERROR, 2)])},
        {"seal": b""},
        {"seal": bytes(16)},
    ],
)
def test_a_changed_header_is_refused(change: dict[str, Any]) -> None:
    assert not is_sealed(SECRET, arrived(PAYLOAD, **change), PAYLOAD)


def test_changed_borders_of_frames_are_refused() -> None:
    for payload in (PAYLOAD[:2], [b"onet", b"wo", b"three"], [b"onetwothree"], [*PAYLOAD, b""]):
        assert not is_sealed(SECRET, arrived(PAYLOAD), payload)


@given(st.binary(min_size=1, max_size=200), st.data())
def test_any_flipped_bit_is_refused(payload: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(payload) * 8 - 1))
    changed = bytearray(payload)
    changed[at // 8] ^= 1 << at % 8
    said = arrived([payload])
    assert is_sealed(SECRET, said, [payload])
    assert not is_sealed(SECRET, said, [bytes(changed)])
    assert not is_sealed(os.urandom(32), said, [payload])


def test_without_a_secret_there_is_no_seal() -> None:
    said = msgspec.structs.replace(arrived(PAYLOAD), seal=b"")
    assert seal(b"", said, PAYLOAD) == b""
    assert is_sealed(b"", said, PAYLOAD)
