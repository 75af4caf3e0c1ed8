"""The disk of the store: one thread writes, in groups that are made durable together.

    facts.sqlite                     how each job is, for whoever looks for it (WAL)
    jobs/JOB/inputs-N.log            its function and inputs: records, stored_records.py
    jobs/JOB/outcomes-N.log          outcomes, output, leases, its end
    jobs/JOB.gone                    a job that is being deleted
    jobs/JOB.damaged-TIME            one that cannot be used, for people to look at
    blobs/TENANT/DIGEST[.JOB.part]   what functions refer to, by SHA-256

All that a job needs is in its files; the table can be made again from them, and is, if it is
damaged. Whatever is told as written has been given to the disk by fsync.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import sqlite3
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from pathlib import Path

from burla.scheduler.store.effects import (
    Append,
    Delete,
    DropBlob,
    SaveFacts,
    WriteBlob,
)

from .store_reading import GONE, PART, StoreReading, blob_path, job_path, log_path

GROUP_BYTES = 32 << 20  # written before they are made durable together
FILES_MAX = 64  # open at once
IOV_MAX = 512  # parts of one write
FACTS = "facts.sqlite"
TABLE = """CREATE TABLE IF NOT EXISTS jobs (
    job TEXT PRIMARY KEY, tenant TEXT, name TEXT, state TEXT, made_s REAL, ended_s REAL,
    total INTEGER, done INTEGER, failed INTEGER, size INTEGER, said TEXT)"""

Write = Append | WriteBlob | SaveFacts | Delete | DropBlob
Outcome = tuple[bytes, str]  # a job, and why its oldest write failed; empty: it is on the disk

log = logging.getLogger(__name__)


class StoreTakenError(Exception):
    """Another scheduler has this store."""


class StoreFiles:
    """A store in a directory, and the thread that writes to it."""

    def __init__(self, directory: Path, done: Callable[[], None]) -> None:
        """Open it.

        Args:
            directory: made if it is not there.
            done: called in the thread when `take_outcomes` has something.

        Raises:
            StoreTakenError: another process has it.
            OSError: it cannot be made.
        """
        self.directory = directory
        self.reading = StoreReading(directory)
        self._done = done
        (directory / "jobs").mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / "blobs").mkdir(mode=0o700, exist_ok=True)
        self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            text = f"another scheduler keeps its detached jobs in {directory}"
            raise StoreTakenError(text) from None
        self._queue: deque[Write] = deque()
        self._ready = threading.Condition()
        self._closing = False
        self._outcomes: deque[Outcome] = deque()
        self._files: OrderedDict[Path, int] = OrderedDict()
        self._failed: set[bytes] = set()  # jobs: what was queued behind a failure fails, too
        self._thread = threading.Thread(target=self._run, name="burla-store", daemon=True)
        self._thread.start()

    # --- in the loop ---

    def put(self, write: Write) -> None:
        """Have something written."""
        with self._ready:
            self._queue.append(write)
            self._ready.notify()

    def take_outcomes(self) -> list[Outcome]:
        """Return what has become of writes since the last call, in order."""
        taken = []
        while self._outcomes:
            taken.append(self._outcomes.popleft())
        return taken

    def room(self) -> int:
        """Return how many bytes are free."""
        disk = os.statvfs(self.directory)
        return disk.f_bavail * disk.f_frsize

    def close(self) -> None:
        """Write what waits, and let go of the store."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        self._thread.join()
        os.close(self._lock)

    # --- in the thread ---

    def _run(self) -> None:
        table = self._open_table()
        while group := self._wait_group():
            try:
                outcomes = self._carry_out(group, table)
            except Exception as error:  # whatever it is, the thread goes on, and nobody waits
                log.exception("cannot write to %s", self.directory)
                writes = [write for write in group if isinstance(write, Append | WriteBlob)]
                self._failed.update(write.job for write in writes)
                outcomes = [(write.job, f"{error} ({self.directory})") for write in writes]
            self._outcomes.extend(outcomes)
            self._done()
        if table is not None:
            with contextlib.suppress(sqlite3.Error):
                table.close()
        for file in self._files.values():
            _close(file)

    def _wait_group(self) -> list[Write]:
        """Return what waits, a bounded part of it; nothing: it is over."""
        group: list[Write] = []
        room = GROUP_BYTES
        with self._ready:
            while not self._queue and not self._closing:
                self._ready.wait()
            while self._queue and room > 0:
                write = self._queue.popleft()
                if isinstance(write, Append | WriteBlob):
                    room -= sum(map(len, write.frames))
                group.append(write)
        return group

    def _carry_out(self, group: list[Write], table: sqlite3.Connection | None) -> list[Outcome]:
        """Do all of a group; nothing is deleted before or after what was queued beside it."""
        outcomes: list[Outcome] = []
        writes: list[Append | WriteBlob] = []
        for write in group:
            if isinstance(write, Append | WriteBlob):
                writes.append(write)
            elif isinstance(write, Delete | DropBlob):
                outcomes += self._write_group(writes)
                writes = []
                self._remove(write)
        outcomes += self._write_group(writes)
        self._save([one for one in group if isinstance(one, SaveFacts | Delete)], table)
        return outcomes

    def _write_group(self, writes: Sequence[Append | WriteBlob]) -> list[Outcome]:
        """Write, and make it durable together."""
        outcomes: list[tuple[Append | WriteBlob, str]] = []
        dirty: dict[Path, list[int]] = {}  # files, and which of the outcomes depend on them
        for write in writes:
            path, why = self._write(write)
            dirty.setdefault(path, []).append(len(outcomes))
            outcomes.append((write, why))
        for path, which in dirty.items():
            if why := self._sync(path):
                for at in which:
                    outcomes[at] = outcomes[at][0], why
                    self._failed.add(outcomes[at][0].job)
        for at, (write, why) in enumerate(outcomes):
            if isinstance(write, WriteBlob) and write.is_last and not why:
                outcomes[at] = write, self._finish_blob(write)
        return [(write.job, why) for write, why in outcomes]

    def _remove(self, what: Delete | DropBlob) -> None:
        try:
            if isinstance(what, Delete):
                self._delete(what.job)
            else:
                blob_path(self.directory, what.tenant, what.digest).unlink(missing_ok=True)
        except OSError as error:  # the next scheduler removes it
            log.error("cannot delete from %s: %s", self.directory, error)

    def _write(self, write: Append | WriteBlob) -> tuple[Path, str]:
        """Write one thing; return where, and why that cannot be; empty: it is written."""
        if isinstance(write, Append):
            path = log_path(self.directory, write.job, write.log, write.segment)
            at, is_first = write.at, write.is_first
        else:
            path, at, is_first = _part_path(self.directory, write), write.start, write.start == 0
        if is_first:
            self._failed.discard(write.job)
        elif write.job in self._failed:
            return path, "what was to be written before it was not"
        try:
            file = self._file(path)
            if is_first:
                os.ftruncate(file, at)
            _write_all(file, write.frames, at)
        except OSError as error:
            self._failed.add(write.job)
            return path, f"{error.strerror} ({self.directory})"
        return path, ""

    def _file(self, path: Path) -> int:
        """Return a file that is open for writing."""
        file = self._files.get(path)
        if file is None:
            is_new = not path.exists()
            if is_new and not path.parent.exists():
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _sync_directory(path.parent.parent)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if is_new:
                _sync_directory(path.parent)
            self._files[path] = file
        self._files.move_to_end(path)
        return file

    def _sync(self, path: Path) -> str:
        file = self._files.get(path)
        if file is None:
            return ""
        try:
            os.fdatasync(file)
        except OSError as error:
            return f"{error.strerror} ({self.directory})"
        if len(self._files) > FILES_MAX:
            _close(self._files.pop(path))
        return ""

    def _finish_blob(self, write: WriteBlob) -> str:
        """Let a blob have its name: all of it is on the disk. Return why that cannot be."""
        part = _part_path(self.directory, write)
        if (file := self._files.pop(part, None)) is not None:
            _close(file)
        try:
            part.replace(blob_path(self.directory, write.tenant, write.digest))
            _sync_directory(part.parent)
        except OSError as error:
            self._failed.add(write.job)
            return f"{error.strerror} ({self.directory})"
        return ""

    def _delete(self, job: bytes) -> None:
        """Delete a job, at once as far as anybody can find it."""
        self._failed.discard(job)
        folder = job_path(self.directory, job)
        for path in [path for path in self._files if path.parent == folder]:
            _close(self._files.pop(path))
        for part in self.directory.glob(f"blobs/*/*.{job.hex()}{PART}"):
            if (file := self._files.pop(part, None)) is not None:
                _close(file)
            part.unlink(missing_ok=True)
        gone = folder.with_name(folder.name + GONE)
        shutil.rmtree(gone, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):  # nothing of it was written
            folder.rename(gone)
            _sync_directory(gone.parent)
        shutil.rmtree(gone, ignore_errors=True)

    # --- facts ---

    def _open_table(self) -> sqlite3.Connection | None:
        """Return the table; None: it cannot be opened, and jobs are kept without it."""
        path = self.directory / FACTS
        try:
            return self._open_or_renew(path)
        except (sqlite3.Error, OSError) as error:
            log.error("cannot open %s, and go on without it: %s", path, error)
            return None

    @staticmethod
    def _open_or_renew(path: Path) -> sqlite3.Connection:
        try:
            return _open_table(path)
        except sqlite3.OperationalError:  # the disk is full, or it is locked: it may be whole
            raise
        except sqlite3.DatabaseError as error:
            log.error("%s is damaged, and made anew from the files of the jobs: %s", path, error)
            for name in (FACTS, f"{FACTS}-wal", f"{FACTS}-shm"):
                with contextlib.suppress(OSError):
                    old = path.with_name(name)
                    old.replace(old.with_name(f"{name}.damaged-{int(time.time())}"))
            return _open_table(path)

    def _save(self, facts: Sequence[SaveFacts | Delete], table: sqlite3.Connection | None) -> None:
        """Write facts down. Nobody waits for it: they follow from the files of the jobs."""
        if not facts or table is None:
            return
        try:
            with table:
                for one in facts:
                    if isinstance(one, Delete):
                        table.execute("DELETE FROM jobs WHERE job = ?", (one.job.hex(),))
                        continue
                    job = one.facts
                    row: tuple[object, ...] = (job.job.hex(), one.tenant, job.name, str(job.state))
                    row += (job.made_s, job.ended_s, job.total, job.done, job.failed)
                    row += (job.size, job.said)
                    marks = ", ".join("?" * len(row))
                    table.execute(f"INSERT OR REPLACE INTO jobs VALUES ({marks})", row)
        except sqlite3.Error as error:
            log.error("cannot write to %s: %s", self.directory / FACTS, error)


def _part_path(directory: Path, write: WriteBlob) -> Path:
    whole = blob_path(directory, write.tenant, write.digest)
    return whole.with_name(f"{whole.name}.{write.job.hex()}{PART}")


def _write_all(file: int, frames: Sequence[bytes], at: int) -> None:
    for first in range(0, len(frames), IOV_MAX):
        parts = [memoryview(frame) for frame in frames[first : first + IOV_MAX] if len(frame)]
        while parts:
            written = os.pwritev(file, parts, at)
            at += written
            while parts and written >= len(parts[0]):
                written -= len(parts.pop(0))
            if written:
                parts[0] = parts[0][written:]


def _close(file: int) -> None:
    """Close a file; what counts of it has been synced."""
    with contextlib.suppress(OSError):
        os.close(file)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_table(path: Path) -> sqlite3.Connection:
    table = sqlite3.connect(path)
    try:
        table.execute("PRAGMA journal_mode=WAL")
        table.execute("PRAGMA synchronous=NORMAL")
        table.execute(TABLE)
        table.execute("SELECT count(*) FROM jobs").fetchone()
        table.commit()
    except sqlite3.DatabaseError:
        table.close()
        raise
    return table
