"""The disk of the store: one thread writes, in groups that are made durable together.

    facts.sqlite                     how each job is, for whoever looks for it (WAL)
    jobs/JOB/inputs-N.log            its function and inputs: records, stored_records.py
    jobs/JOB/outcomes-N.log          outcomes, output, leases, its end
    blobs/TENANT/DIGEST              what functions refer to, by SHA-256

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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from burla.protocol import messages as m, stored_records
from burla.protocol.stored_records import Record
from burla.scheduler.core.leasing import owner_of
from burla.scheduler.store import recovery
from burla.scheduler.store.effects import (
    Append,
    Delete,
    DropBlob,
    LoadBatch,
    LoadBlob,
    Log,
    ReadPart,
    SaveFacts,
    WriteBlob,
)
from burla.scheduler.store.recovery import Damage, Found, Segment

GROUP_BYTES = 32 << 20  # written before they are made durable together
FILES_MAX = 64  # open at once
PART_BYTES = 4 << 20  # of outcomes, told in one answer; one record always is
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
        try:
            while group := self._wait_group():
                self._outcomes.extend(self._carry_out(group, table))
                self._done()
        finally:
            table.close()
            for file in self._files.values():
                os.close(file)

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

    def _carry_out(self, group: list[Write], table: sqlite3.Connection) -> list[Outcome]:
        outcomes: list[tuple[Append | WriteBlob, str]] = []
        dirty: dict[Path, list[int]] = {}  # files, and which of the outcomes depend on them
        facts: list[SaveFacts | Delete] = []
        for write in group:
            if isinstance(write, Append | WriteBlob):
                path, why = self._write(write)
                dirty.setdefault(path, []).append(len(outcomes))
                outcomes.append((write, why))
            elif isinstance(write, DropBlob):
                _blob_path(self.directory, write.tenant, write.digest).unlink(missing_ok=True)
            else:
                facts.append(write)
        for path, which in dirty.items():
            if why := self._sync(path):
                for at in which:
                    outcomes[at] = outcomes[at][0], why
                    self._failed.add(outcomes[at][0].job)
        for write, why in outcomes:
            if isinstance(write, WriteBlob) and write.is_last and not why:
                self._finish_blob(write)
        self._save(facts, table)
        for change in facts:
            if isinstance(change, Delete):
                self._delete(change.job)
        return [(write.job, why) for write, why in outcomes]

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
            os.close(self._files.pop(path))
        return ""

    def _finish_blob(self, write: WriteBlob) -> None:
        """Let a blob have its name: all of it is on the disk."""
        part = _part_path(self.directory, write)
        if (file := self._files.pop(part, None)) is not None:
            os.close(file)
        part.replace(_blob_path(self.directory, write.tenant, write.digest))
        _sync_directory(part.parent)

    def _delete(self, job: bytes) -> None:
        folder = job_path(self.directory, job)
        for path in [path for path in self._files if path.parent == folder]:
            os.close(self._files.pop(path))
        for part in self.directory.glob(f"blobs/*/*.{job.hex()}.part"):
            if (file := self._files.pop(part, None)) is not None:
                os.close(file)
            part.unlink(missing_ok=True)
        self._failed.discard(job)
        shutil.rmtree(folder, ignore_errors=True)

    # --- facts ---

    def _open_table(self) -> sqlite3.Connection:
        path = self.directory / FACTS
        try:
            return _open_table(path)
        except sqlite3.DatabaseError as error:
            log.error("%s is damaged, and made anew from the files of the jobs: %s", path, error)
            for name in (FACTS, f"{FACTS}-wal", f"{FACTS}-shm"):
                with contextlib.suppress(OSError):
                    old = self.directory / name
                    old.replace(old.with_name(f"{name}.damaged-{int(time.time())}"))
            return _open_table(path)

    def _save(self, facts: Sequence[SaveFacts | Delete], table: sqlite3.Connection) -> None:
        """Write facts down. Nobody waits for it: they follow from the files of the jobs."""
        if not facts:
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

    # --- reading: in other threads ---

    def jobs(self) -> list[bytes]:
        """Return the jobs that there are, the oldest first."""
        folders = [entry for entry in os.scandir(self.directory / "jobs") if entry.is_dir()]
        folders.sort(key=lambda entry: entry.stat().st_mtime)
        return [bytes.fromhex(entry.name) for entry in folders if len(entry.name) == 32]

    def find(self, job: bytes) -> Found | None:
        """Return what there is of a job, damage cut off; None: nothing that could be used."""
        with contextlib.ExitStack() as files:
            segments = {each: list(self._segments(job, each, files)) for each in Log}
            found = recovery.find(segments[Log.INPUTS], segments[Log.OUTCOMES])
            for line in recovery.told(found.damages, lambda one: self._cut(job, one)):
                log.error("job %s: %s", job.hex()[:8], line)
        if found.opened is None or found.spec is None or found.opened.job != job:
            log.error("job %s: its first records are not there: it is deleted", job.hex()[:8])
            shutil.rmtree(job_path(self.directory, job), ignore_errors=True)
            return None
        tenant = found.opened.tenant
        digests = {blob.digest for blob in found.spec.blobs}
        there = [e for e in digests if _blob_path(self.directory, tenant, e).exists()]
        found.blobs = frozenset(there)
        return found

    def _segments(self, job: bytes, which: Log, files: contextlib.ExitStack) -> Iterator[Segment]:
        for number in _numbers(job_path(self.directory, job), which):
            path = log_path(self.directory, job, which, number)
            file = files.enter_context(path.open("rb", buffering=0)).fileno()
            yield Segment(number, os.fstat(file).st_size, _reader(file))

    def _cut(self, job: bytes, damage: Damage) -> None:
        path = log_path(self.directory, job, damage.log, damage.segment)
        with path.open("r+b", buffering=0) as file:
            file.truncate(damage.at)
            os.fsync(file.fileno())

    def look_again(self, job: bytes) -> Found:
        """Return what is left of a job; cut nothing off."""
        with contextlib.ExitStack() as files:
            segments = {each: list(self._segments(job, each, files)) for each in Log}
            return recovery.find(segments[Log.INPUTS], segments[Log.OUTCOMES])

    def load_batch(self, what: LoadBatch) -> tuple[m.Inputs | None, list[bytes]]:
        """Return a batch and its payload; None: it is damaged."""
        path = log_path(self.directory, what.job, Log.INPUTS, what.segment)
        try:
            with path.open("rb", buffering=0) as file:
                read = _reader(file.fileno())
                for record in stored_records.scan(read, what.at, what.end):
                    said = record.message(m.Inputs)
                    if record.is_whole and isinstance(said, m.Inputs):
                        return said, record.frames(_body(read, record))
                    break
        except OSError as error:
            log.error("job %s: cannot read its inputs: %s", what.job.hex()[:8], error)
        return None, []

    def load_blob(self, what: LoadBlob) -> list[tuple[m.BlobPiece, bytes]]:
        """Return the pieces that were asked for; none: it is not there."""
        path = _blob_path(self.directory, what.tenant, what.digest)
        pieces = []
        try:
            with path.open("rb", buffering=0) as file:
                for at in range(what.start, what.stop, m.BLOB_PIECE_BYTES):
                    size = min(m.BLOB_PIECE_BYTES, what.stop - at)
                    data = os.pread(file.fileno(), size, at)
                    if len(data) < size:
                        return []
                    pieces.append((m.BlobPiece(what.job, what.digest, at), data))
        except OSError as error:
            log.error("job %s: cannot read a blob of it: %s", what.job.hex()[:8], error)
            return []
        return pieces

    def read_part(self, what: ReadPart) -> tuple[list[bytes], tuple[int, int], int]:
        """Return records in frames, where the next part begins, and how many are damaged."""
        job, segment, at = what.asked.job, what.asked.segment, what.asked.at
        stop_segment, stop_at = what.stop
        path = log_path(self.directory, job, Log.OUTCOMES, segment)
        frames: list[bytes] = []
        damaged, end = 0, at
        try:
            with path.open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                limit = stop_at if segment == stop_segment else size
                read = _reader(file.fileno())
                start = at
                for record in stored_records.scan(read, at, limit):
                    end = record.end
                    if not record.is_whole:
                        damaged += 1
                        frames += _frames(read, start, record.at)
                        start = end
                    if end - at >= PART_BYTES:
                        break
                frames += _frames(read, start, end)
                if end < limit and end - at < PART_BYTES:  # nobody knows where the next one begins
                    damaged, end = damaged + 1, limit
        except OSError as error:
            log.error("job %s: cannot read its outcomes: %s", job.hex()[:8], error)
            damaged, limit = damaged + 1, end
        if end >= limit and segment < stop_segment:
            return frames, (segment + 1, 0), damaged
        return frames, (segment, end), damaged


def job_path(directory: Path, job: bytes) -> Path:
    """Return the folder of a job."""
    return directory / "jobs" / job.hex()


def log_path(directory: Path, job: bytes, which: Log, segment: int) -> Path:
    """Return the file of a segment."""
    return job_path(directory, job) / f"{which}-{segment}.log"


def _blob_path(directory: Path, tenant: str, digest: bytes) -> Path:
    return directory / "blobs" / owner_of(tenant).hex() / digest.hex()


def _part_path(directory: Path, write: WriteBlob) -> Path:
    whole = _blob_path(directory, write.tenant, write.digest)
    return whole.with_name(f"{whole.name}.{write.job.hex()}.part")


def _numbers(folder: Path, which: Log) -> list[int]:
    names = [path.stem.removeprefix(f"{which}-") for path in folder.glob(f"{which}-*.log")]
    return sorted(int(name) for name in names if name.isdecimal())


def _reader(file: int) -> Callable[[int, int], bytes]:
    return lambda at, size: os.pread(file, size, at)


def _body(read: Callable[[int, int], bytes], record: Record) -> bytes:
    return b"".join(_frames(read, record.body_at, record.end))


def _frames(read: Callable[[int, int], bytes], start: int, stop: int) -> list[bytes]:
    """Return bytes of a file in frames of a bounded size."""
    frames = []
    while start < stop:
        frames.append(read(start, min(1 << 20, stop - start)))
        if not frames[-1]:
            break
        start += len(frames[-1])
    return frames


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
