"""Records in files: damage is found, whatever it is, and costs what it must."""

import random

import pytest

from burla.protocol import messages as m
from burla.protocol.stored_records import pack, scan

JOB = b"J" * 16


def file_of(*payloads: list[bytes]) -> tuple[bytes, list[int]]:
    """Return a file with a record for each payload, and where each begins."""
    data, starts = b"", []
    for number, payload in enumerate(payloads):
        starts.append(len(data))
        data += b"".join(pack(m.Inputs(job=JOB, batch=number, start=0, leaves=()), payload))
    return data, starts


def found(data: bytes) -> list[tuple[int, list[bytes] | None]]:
    """Return number and payload of each record; None: it is damaged."""
    records = []
    for record in scan(lambda at, size: data[at : at + size]):
        said = record.message(m.Inputs)
        assert isinstance(said, m.Inputs)
        body = data[record.body_at : record.end]
        records.append((said.batch, record.frames(body) if record.is_whole else None))
    return records


def test_what_is_packed_is_found() -> None:
    payloads = [[b"a", b"", b"bc"], [], [bytes(3 << 20)]]
    data, _ = file_of(*payloads)
    assert found(data) == list(enumerate(payloads))


@pytest.mark.parametrize("seed", range(50))
def test_a_file_that_ends_too_early_has_what_is_whole(seed: int) -> None:
    data, starts = file_of([b"x" * 50], [b"y"], [b"z" * 9])
    end = random.Random(seed).randrange(len(data))
    whole = sum(start <= end for start in starts[1:])
    assert [number for number, payload in found(data[:end]) if payload] == list(range(whole))


@pytest.mark.parametrize("seed", range(200))
def test_a_bit_that_has_changed_is_found_and_what_follows_a_body_is_not_lost(seed: int) -> None:
    payloads = [[b"x" * 50], [b"y"], [b"z" * 9]]
    data, starts = file_of(*payloads)
    where = random.Random(seed).randrange(len(data) * 8)
    damaged = bytearray(data)
    damaged[where // 8] ^= 1 << where % 8
    hit = sum(start <= where // 8 for start in starts) - 1
    records = found(bytes(damaged))
    assert all(payload in (None, payloads[number]) for number, payload in records)
    good = [number for number, payload in records if payload is not None]
    is_in_body = len(records) == len(payloads)
    assert good == [n for n in range(len(payloads)) if n < hit or (n > hit and is_in_body)]


def test_bodies_that_are_trusted_are_not_read() -> None:
    data, starts = file_of([bytes(3 << 20)], [b"y" * 100], [bytes(3 << 20)])
    data = data[:1000] + b"x" + data[1001:]  # nobody looks there
    read = 0

    def reader(at: int, size: int) -> bytes:
        nonlocal read
        read += size
        return data[at : at + size]

    records = list(scan(reader, trusted=starts[2]))
    assert [record.is_whole for record in records] == [True] * 3
    assert [record.at for record in records] == starts
    assert read < 5 << 20
    assert not next(scan(reader)).is_whole
