"""The output of jobs in the file of records: rows of parts, by job. Called by the file's thread."""

import sqlite3
from collections.abc import Sequence
from contextlib import suppress

import msgspec
from msgspec import Struct

from burla.scheduler.core.outputs import Filed, Part

BYTES_MAX = 256 << 20  # of all output; the jobs that were written to last have room

SCHEMA = """
CREATE TABLE IF NOT EXISTS output (
    job BLOB NOT NULL,
    tenant TEXT NOT NULL,
    place INTEGER NOT NULL,  -- of the first chunk
    stop INTEGER NOT NULL,  -- behind the last one
    told REAL NOT NULL,  -- Unix time
    lost INTEGER NOT NULL,  -- bytes that were left out until then
    size INTEGER NOT NULL,
    part BLOB NOT NULL,  -- Row as msgpack
    PRIMARY KEY (job, tenant, place)
) WITHOUT ROWID;
"""
PUT = "INSERT OR REPLACE INTO output VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
CLEAR = "DELETE FROM output WHERE job = ? AND tenant = ?"
LEAVE_OUT = f"{CLEAR} AND place >= ? AND stop <= ?"
READ = "SELECT place, lost, part FROM output WHERE job = ? AND tenant = ? ORDER BY place"
# of jobs that are not kept any more, what is too old, and what is beyond the bytes
PRUNE = """
DELETE FROM output WHERE told < ? OR (told < ? AND job NOT IN (SELECT job FROM jobs)) OR job IN (
    SELECT job FROM (
        SELECT job, sum(sum(size)) OVER (ORDER BY max(told) DESC, job) AS total
        FROM output GROUP BY job
    ) WHERE total > ?
)
"""
YOUNG_S = 60.0  # the record of a job may be written later than what it has printed


class Row(Struct, frozen=True, array_like=True):
    """One part."""

    lease: bytes
    number: int
    node: str
    at_s: float  # Unix time
    streams: tuple[int, ...]
    inputs: tuple[tuple[int, int], ...]
    chunks: tuple[bytes, ...]


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Row)


def write(
    database: sqlite3.Connection, filed: Sequence[Filed], told_s: float, ahead_s: float
) -> None:
    """Write parts; `ahead_s`: by how much Unix time is ahead of the clock of the parts."""
    with database:
        for one in filed:
            key = one.job, one.tenant
            if one.is_new:
                database.execute(CLEAR, key)
            for part in one.parts:
                facts = (part.lease, part.number, part.node, part.at_s + ahead_s)
                row = _encode(Row(*facts, part.streams, part.inputs, part.chunks))
                known = (*key, part.place, part.stop, told_s, one.lost_bytes, len(row), row)
                database.execute(PUT, known)
            if one.gap[0] < one.gap[1]:
                database.execute(LEAVE_OUT, (*key, *one.gap))


def read(
    database: sqlite3.Connection, job: bytes, tenant: str, ahead_s: float
) -> tuple[list[Part], int]:
    """Return the parts of a job, and how many bytes are left out between them."""
    parts, lost_bytes = [], 0
    for place, lost, data in database.execute(READ, (job, tenant)):
        with suppress(msgspec.DecodeError):  # of another version of burla
            row = _decoder.decode(data)
            facts = (row.lease, row.number, row.node, row.at_s - ahead_s, row.streams, row.inputs)
            parts.append(Part(place, *facts, row.chunks, sum(map(len, row.chunks))))
            lost_bytes = max(lost_bytes, lost)
    return parts, lost_bytes


def prune(database: sqlite3.Connection, oldest_s: float, now_s: float) -> None:
    """Let go of what is too old or too much."""
    database.execute(PRUNE, (oldest_s, now_s - YOUNG_S, BYTES_MAX))
