"""The seal on outcomes covers all that a client acts on."""

import os
from typing import Any

import blake3
import msgpack
import msgspec
import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace
from outcomes import outcomes, table_of

from burla.protocol import mac, messages as m
from burla.protocol.mac import BLAKE3_KEY, is_sealed, seal

SECRET = os.urandom(m.SECRET_BYTES_MAX)
RUNS = table_of([m.Run(0, 2, m.Kind.RESULTS, 1), m.Run(5, 6, m.Kind.ERROR, 2)])
PAYLOAD = [b"one", b"two", b"three"]


def arrived(payload: list[bytes], *, blake3: bool = False, **other: Any) -> m.JobOutcomes:
    said = replace(outcomes(bytes(16), [], seq=3), runs=RUNS, output=4)
    sealed = seal(SECRET, said, payload, blake3=blake3)
    fields: dict[str, Any] = {
        "job": bytes(16),
        "lease": bytes(16),
        "seq": 3,
        "node": "n",
        "runs": RUNS,
    }
    return m.JobOutcomes(**(fields | {"output": 4, "seal": sealed} | other))


@pytest.mark.parametrize("blake3", [False, True])
def test_what_comes_unchanged_is_taken(blake3: bool) -> None:
    said = arrived(PAYLOAD, blake3=blake3)
    assert is_sealed(SECRET, said, PAYLOAD, blake3=blake3)
    assert is_sealed(SECRET, said, [memoryview(x) for x in PAYLOAD], blake3=blake3)  # type: ignore[misc]  # any buffer
    assert len(said.seal) == m.SEAL_BYTES


def test_who_takes_blake3_also_takes_the_seal_of_a_node_that_does_not_know_it() -> None:
    assert is_sealed(SECRET, arrived(PAYLOAD), PAYLOAD, blake3=True)
    assert not is_sealed(SECRET, arrived(PAYLOAD[:2]), PAYLOAD, blake3=True)


def test_a_seal_of_blake3_is_not_taken_where_it_was_not_asked_for() -> None:
    assert not is_sealed(SECRET, arrived(PAYLOAD, blake3=True), PAYLOAD)


def test_without_blake3_both_sides_do_with_the_other_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = arrived(PAYLOAD, blake3=True)
    monkeypatch.setattr(mac, "_blake3", lambda: None)
    assert arrived(PAYLOAD, blake3=True).seal == arrived(PAYLOAD).seal != fast.seal
    assert is_sealed(SECRET, arrived(PAYLOAD), PAYLOAD, blake3=True)
    assert not is_sealed(SECRET, fast, PAYLOAD, blake3=True)


def test_the_seal_of_blake3_is_what_the_protocol_says() -> None:
    facts = msgpack.packb([bytes(16), 3, 4, RUNS, [3, 3, 5]])
    key = blake3.blake3(SECRET, derive_key_context=BLAKE3_KEY).digest()
    sealed = len(facts).to_bytes(8, "big") + facts + b"".join(PAYLOAD)
    assert arrived(PAYLOAD, blake3=True).seal == blake3.blake3(sealed, key=key).digest()[:16]


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
@pytest.mark.parametrize("blake3", [False, True])
def test_a_changed_header_is_refused(change: dict[str, Any], blake3: bool) -> None:
    said = arrived(PAYLOAD, blake3=blake3, **change)
    assert not is_sealed(SECRET, said, PAYLOAD, blake3=blake3)


@pytest.mark.parametrize("blake3", [False, True])
def test_changed_borders_of_frames_are_refused(blake3: bool) -> None:
    for payload in (PAYLOAD[:2], [b"onet", b"wo", b"three"], [b"onetwothree"], [*PAYLOAD, b""]):
        assert not is_sealed(SECRET, arrived(PAYLOAD, blake3=blake3), payload, blake3=blake3)


@given(st.binary(min_size=1, max_size=200), st.booleans(), st.data())
def test_any_flipped_bit_is_refused(payload: bytes, blake3: bool, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(payload) * 8 - 1))
    changed = bytearray(payload)
    changed[at // 8] ^= 1 << at % 8
    said = arrived([payload], blake3=blake3)
    assert is_sealed(SECRET, said, [payload], blake3=blake3)
    assert not is_sealed(SECRET, said, [bytes(changed)], blake3=blake3)
    assert not is_sealed(os.urandom(32), said, [payload], blake3=blake3)


def test_without_a_secret_there_is_no_seal() -> None:
    said = msgspec.structs.replace(arrived(PAYLOAD), seal=b"")
    assert seal(b"", said, PAYLOAD) == b""
    assert is_sealed(b"", said, PAYLOAD)
