"""What is kept of jobs, in a file: so it outlives the scheduler. SQLite, written by one thread.

The loop never waits for a disk: it leaves rows; what cannot be written in time is dropped, and that
is said. A file that makes no sense is put aside, for what is in it is no reason not to serve.
"""

import logging
import os
import sqlite3
import threading
import time
from _queue import SimpleQueue
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import msgspec

from burla.protocol.job_messages import JobRecord
from burla.scheduler.core.outputs import Filed, Part
from burla.scheduler.core.records import KEPT_MAX

from . import output_rows

AGE_S_MAX = 30 * 86400.0
BYTES_MAX = 64 << 20  # of all records, as they are written
PRUNE_S = 60.0  # between two looks at what is too old or too much
WAITING_MAX = 100  # parts that wait to be written; a part is some hundreds of rows
WAITING_OUTPUT_MAX = 8  # before output must not wait as well, of which there may be much
READING_MAX = 64  # who wait for what is in the file
CLOSE_S = 2.0  # for what waits to be written at the end
COMPLAIN_S = 60.0
FORMAT = 1

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    job BLOB PRIMARY KEY,
    tenant TEXT NOT NULL,
    told REAL NOT NULL,  -- Unix time
    record BLOB NOT NULL  -- job_messages.JobRecord as msgpack
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_time ON jobs (told);
"""
PUT = "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?)"
# what is too old, beyond the number, or beyond the bytes, counted from the newest on
PRUNE = """
DELETE FROM jobs WHERE told < ? OR job IN (
    SELECT job FROM (
        SELECT job,
               row_number() OVER newest AS place,
               sum(length(record)) OVER newest AS size
        FROM jobs WINDOW newest AS (ORDER BY told DESC, job)
    ) WHERE place > ? OR size > ?
)
"""

Rows = Sequence[tuple[str, JobRecord]]
Work = Callable[[sqlite3.Connection], None]
Found = Callable[[list[Part], int], None]
log = logging.getLogger(__name__)


class RecordFile:
    """The file, and the thread that writes it."""

    def __init__(self, path: Path, clock_s: Callable[[], float] = time.time) -> None:
        """Look at the file, if it is there; it is made with the first rows."""
        self._path, self._clock_s = path, clock_s
        self._queue: SimpleQueue[tuple[Work, Callable[[], None]] | None] = SimpleQueue()
        self._asked = self._read = 0  # parts of the queue that read; each is counted in one thread
        self._complained_s = float("-inf")
        self._pruned_s = float("-inf")
        self._encoder = msgspec.msgpack.Encoder()
        self._thread: threading.Thread | None = None
        if path.exists():
            self._check()

    def read(self) -> list[tuple[str, JobRecord, float]]:
        """Return the newest rows: tenant, record, how many seconds ago it was written."""
        decoder = msgspec.msgpack.Decoder(JobRecord)
        found: list[tuple[str, JobRecord, float]] = []
        now_s = self._clock_s()
        if not self._path.exists():
            return found
        try:
            with closing(self._connect()) as database:
                newest = "SELECT tenant, record, told FROM jobs ORDER BY told DESC LIMIT ?"
                for tenant, record, told_s in database.execute(newest, (KEPT_MAX,)):
                    with suppress(msgspec.DecodeError, TypeError):  # of another version of burla
                        found.append((tenant, decoder.decode(record), max(0.0, now_s - told_s)))
        except (sqlite3.Error, OSError) as error:
            self._complain("cannot be read", error)
        return found

    def put(self, rows: Rows) -> None:
        """Have rows written, in place of those of the same jobs."""
        if not rows:
            return
        if self._waiting() >= WAITING_MAX:
            self._complain("is not written fast enough", OSError(f"{len(rows)} jobs are left out"))
            return
        self._have_done(partial(self._write_part, told_s=self._clock_s(), rows=rows))

    def put_output(self, filed: Sequence[Filed], now_s: float) -> None:
        """Have output written; `now_s`: on the clock of its parts."""
        if self._waiting() >= WAITING_OUTPUT_MAX:
            self._complain("is not written fast enough", OSError("output of jobs is left out"))
            return
        told_s = self._clock_s()
        ahead_s = told_s - now_s
        self._have_done(lambda database: output_rows.write(database, filed, told_s, ahead_s))

    def fetch_output(self, job: bytes, tenant: str, now_s: float, found: Found) -> bool:
        """Have the output of a job read, behind what waits to be written; False: too many wait.

        `found` is called in a thread, with nothing if it cannot be read.
        """
        if self._asked - self._read >= READING_MAX:
            return False
        self._asked += 1
        ahead_s = self._clock_s() - now_s

        def read(database: sqlite3.Connection) -> None:
            known = output_rows.read(database, job, tenant, ahead_s)
            self._read += 1
            found(*known)

        def failed() -> None:
            self._read += 1
            found([], 0)

        self._have_done(read, failed)
        return True

    def _waiting(self) -> int:
        """Return how much waits to be written: who reads costs nobody a place."""
        return self._queue.qsize() - (self._asked - self._read)

    def read_output(self, job: bytes, tenant: str, now_s: float) -> tuple[list[Part], int]:
        """Return the output of a job."""
        try:
            with closing(self._connect()) as database:
                return output_rows.read(database, job, tenant, self._clock_s() - now_s)
        except (sqlite3.Error, OSError) as error:
            self._complain("cannot be read", error)
            return [], 0

    def _have_done(self, work: Work, failed: Callable[[], None] = lambda: None) -> None:
        """Have something done with the file, in its turn."""
        self._queue.put((work, failed))
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="burla-jobs", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Write what waits, for a bounded time."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(CLOSE_S)

    # --- in the thread ---

    def _write(self) -> None:
        database = None
        while (what := self._queue.get()) is not None:
            work, failed = what
            try:
                if database is None:
                    self._make()
                    database = self._connect()
                work(database)
            except (sqlite3.Error, OSError) as error:
                self._complain("cannot be written", error)
                if database is not None:
                    database.close()
                database = None  # anew, for the file may have been moved
                failed()
        if database is not None:
            database.close()

    def _write_part(self, database: sqlite3.Connection, *, told_s: float, rows: Rows) -> None:
        encode = self._encoder.encode
        with database:  # all or nothing
            for tenant, record in rows:
                database.execute(PUT, (record.summary.job, tenant, told_s, encode(record)))
            if told_s >= self._pruned_s + PRUNE_S:
                self._pruned_s = told_s
                database.execute(PRUNE, (told_s - AGE_S_MAX, KEPT_MAX, BYTES_MAX))
                output_rows.prune(database, told_s - AGE_S_MAX, told_s)

    # --- the file ---

    def _check(self) -> None:
        """Put aside what is no file of ours."""
        try:
            self._make()
        except sqlite3.DatabaseError as error:
            self._complain(f"is put aside as {self._path.name}.broken", error)
            with suppress(OSError):
                self._path.replace(self._path.with_name(f"{self._path.name}.broken"))
                for rest in ("-wal", "-shm"):
                    self._path.with_name(f"{self._path.name}{rest}").unlink(missing_ok=True)
        except OSError as error:
            self._complain("cannot be used", error)

    def _make(self) -> None:
        """Make the file, for this user only, or see that it is one of ours."""
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with closing(self._connect()) as database:
            (found,) = database.execute("PRAGMA user_version").fetchone()
            if found not in (0, FORMAT):
                raise sqlite3.DatabaseError(f"its format is {found}, ours is {FORMAT}")
            database.executescript(SCHEMA + output_rows.SCHEMA)
            database.execute(f"PRAGMA user_version = {FORMAT}")

    def _connect(self) -> sqlite3.Connection:
        """Return a connection, whose file must be there: it is never made with others' rights."""
        database = sqlite3.connect(f"file:{_quoted(self._path)}?mode=rw", uri=True)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.Error:  # it is damaged, or no such file at all
            database.close()
            raise
        return database

    def _complain(self, what: str, error: Exception) -> None:
        now_s = self._clock_s()
        if now_s >= self._complained_s + COMPLAIN_S:
            self._complained_s = now_s
            log.error("the file of jobs %s %s: %s", self._path, what, error)


def _quoted(path: Path) -> str:
    """Return a path as it stands in a URI."""
    from urllib.parse import quote

    return quote(str(path))
