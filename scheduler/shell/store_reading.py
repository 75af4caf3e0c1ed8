"""Reading the store: what there is of jobs, at the start, and of one as it is asked for.

In threads beside the one that writes; nothing but damage is changed.
"""

import contextlib
import errno
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import cast

from msgspec.structs import replace

from burla.protocol import laid_out, messages as m, stored_records
from burla.protocol.stored_records import Record
from burla.scheduler.core.leasing import owner_of
from burla.scheduler.store import recovery
from burla.scheduler.store.effects import (
    LoadBatch,
    LoadBlob,
    LoadPieces,
    LoadSpec,
    LoadWhole,
    Log,
    ReadPart,
)
from burla.scheduler.store.leaves import PIECE_BYTES, Place
from burla.scheduler.store.recovery import Damage, Found, Segment

from .part_reads import Frame

JOB_NAME = re.compile("[0-9a-f]{32}")  # of a folder; others are not ours
GONE = ".gone"  # its folder while it is deleted
DAMAGED = ".damaged-"  # and Unix time: a job that cannot be used
PART = ".part"  # a blob of which not all is here
TORN_SEGMENTS = 2  # of a log, that may have been written to in the group that a crash has torn
MOMENTARY = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # the scheduler lacks something for a while
PART_BYTES = 4 << 20  # of outcomes, told in one answer; one record always is

log = logging.getLogger(__name__)


class StoreReading:
    """The jobs in a directory."""

    def __init__(self, directory: Path) -> None:
        """Read from a directory that is there."""
        self.directory = directory

    def jobs(self) -> list[bytes]:
        """Return the jobs that there are, the oldest first."""
        ages: list[tuple[float, bytes]] = []
        for entry in os.scandir(self.directory / "jobs"):
            with contextlib.suppress(OSError):  # it has just been deleted
                if JOB_NAME.fullmatch(entry.name) and entry.is_dir():
                    ages.append((entry.stat().st_mtime, bytes.fromhex(entry.name)))
        return [job for _, job in sorted(ages)]

    def find_all(self) -> list[Found]:
        """Return all jobs that can be read, and remove what none of them needs.

        One that cannot be read costs only itself, and is looked at again by the next scheduler.

        Raises:
            OSError: the jobs cannot be listed.
        """
        found: list[Found] = []
        is_complete = True
        for job in self.jobs():
            try:
                one = self.find(job)
            except (OSError, ValueError) as error:
                folder = job_path(self.directory, job)
                log.error("job %s cannot be read, and is left in %s: %s", job.hex(), folder, error)
                is_complete = False
            else:
                found += [] if one is None else [one]
        self._tidy(found if is_complete else None)
        return found

    def find(self, job: bytes) -> Found | None:
        """Return what there is of a job, damage cut off; None: nothing that could be used."""
        found = self.look_at(job, torn=TORN_SEGMENTS)
        if found.opened is None or found.spec is None or found.opened.job != job:
            self._put_aside(job)
            return None
        for line in recovery.told(found.damages, lambda one: self._cut(job, one)):
            log.error("job %s: %s", job.hex()[:8], line)
        tenant = found.opened.tenant
        digests = {blob.digest for blob in found.spec.blobs}
        there = [e for e in digests if blob_path(self.directory, tenant, e).exists()]
        found.blobs = frozenset(there)
        return found

    def _put_aside(self, job: bytes) -> None:
        """Keep what cannot be used for people to look at; where nothing was written, nothing is."""
        folder = job_path(self.directory, job)
        if not any(path.stat().st_size for path in folder.iterdir()):
            shutil.rmtree(folder)
            return
        aside = folder.with_name(f"{folder.name}{DAMAGED}{int(time.time())}")
        folder.rename(aside)
        log.error("job %s: its first records are damaged: it is put aside as %s", job.hex(), aside)

    def _tidy(self, found: Sequence[Found] | None) -> None:
        """Remove what a crash has left: of deleted jobs, of uploads, and blobs of no job.

        Args:
            found: all jobs; None: there are some that could not be read.
        """
        try:
            for folder in (self.directory / "jobs").glob(f"*{GONE}"):
                shutil.rmtree(folder, ignore_errors=True)
            is_known = found is not None and not [*(self.directory / "jobs").glob(f"*{DAMAGED}*")]
            named = {
                blob_path(self.directory, one.opened.tenant, blob.digest)
                for one in found or ()
                if one.opened is not None and one.spec is not None
                for blob in one.spec.blobs
            }
            for path in self.directory.glob("blobs/*/*"):
                if path.suffix == PART or (is_known and path not in named):
                    path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("cannot remove what nobody needs in %s: %s", self.directory, error)

    def _segments(self, job: bytes, which: Log, torn: int | None = None) -> Iterator[Segment]:
        """Yield the files of a log; each is open until the next one is taken.

        `torn`: how many of the last may be; None: all.
        """
        numbers = _numbers(job_path(self.directory, job), which)
        trusted = frozenset(numbers[:-torn] if torn else ())
        for number in numbers:
            path = log_path(self.directory, job, which, number)
            with path.open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                safe = size if number in trusted else 0
                yield Segment(number, size, _reader(file.fileno()), safe)

    def _cut(self, job: bytes, damage: Damage) -> None:
        """Cut off what is damaged; what is written next would do so, too."""
        path = log_path(self.directory, job, damage.log, damage.segment)
        try:
            with path.open("r+b", buffering=0) as file:
                file.truncate(damage.at)
                os.fsync(file.fileno())
        except OSError as error:
            log.error("cannot cut %s: %s", path, error)

    def look_again(self, job: bytes) -> Found:
        """Return what is left of a job; cut nothing off."""
        return self.look_at(job, torn=None)

    def look_at(self, job: bytes, torn: int | None) -> Found:
        """Likewise; only so many of the last segments of each log are read as a whole."""
        logs = [self._segments(job, log, torn) for log in (Log.INPUTS, Log.OUTCOMES)]
        return recovery.find(*logs)

    def load_batch(self, what: LoadBatch) -> tuple[m.Inputs | None, list[bytes]]:
        """Return a batch and its payload; None: it is damaged.

        Raises:
            OSError: it cannot be read now.
        """
        path = log_path(self.directory, what.job, Log.INPUTS, what.segment)
        said, frames = self._load(path, what, m.Inputs)
        return (said, frames) if isinstance(said, m.Inputs) else (None, [])

    def load_pieces(self, what: LoadPieces) -> list[tuple[m.InputPiece, bytes]]:
        """Return the bytes of a leaf that were asked for; none: some of it is damaged.

        Raises:
            OSError: it cannot be read now.
        """
        wanted, pieces = what.wanted, []
        for number, place in enumerate(what.places, what.first):
            start = number * PIECE_BYTES
            if (body := self._load_piece(what.job, wanted.leaf, start, place)) is None:
                return []
            begin, end = max(wanted.start, start), min(wanted.stop, start + len(body))
            said = m.InputPiece(wanted.lease, wanted.job, wanted.leaf, begin)
            pieces.append((said, body[begin - start : end - start]))
        return pieces

    def load_whole(self, what: LoadWhole) -> tuple[m.Inputs | None, list[bytes]]:
        """Return a batch with its big leaves, in frames; None: some of it is damaged.

        Raises:
            OSError: it cannot be read now.
        """
        path = log_path(self.directory, what.job, Log.INPUTS, what.segment)
        said, payload = self._load(path, what, m.Inputs)
        if not isinstance(said, m.Inputs):
            return None, []
        rest, big = iter(payload), {leaf.start: leaf for leaf in what.leaves}
        leaves, frames = [], list[bytes]()
        for leaf in said.leaves:
            own = list(islice(rest, leaf.frames))
            if leaf.size:
                laid = bytearray()
                for number, place in enumerate(big[leaf.start].places):
                    at = number * PIECE_BYTES
                    piece = place and self._load_piece(what.job, leaf.start, at, place)
                    laid += piece or b""
                try:
                    own = laid_out.frames_of(memoryview(laid))
                except ValueError as error:
                    job, where = what.job.hex()[:8], f"input {leaf.start}"
                    log.error("job %s: %s does not lie as it says: %s", job, where, error)
                    return None, []
            leaves.append(replace(leaf, frames=len(own), size=0))
            frames += own
        return replace(said, leaves=tuple(leaves)), frames

    def _load_piece(self, job: bytes, leaf: int, start: int, place: Place) -> bytes | None:
        segment, at = place
        path = log_path(self.directory, job, Log.INPUTS, segment)
        try:
            with path.open("rb", buffering=0) as file:
                read = _reader(file.fileno())
                for record in stored_records.scan(read, at, at + 1):
                    said = record.message(m.InputPiece)
                    is_it = isinstance(said, m.InputPiece) and (said.leaf, said.start) == (
                        leaf,
                        start,
                    )
                    if record.is_whole and is_it:
                        return _body(read, record)
        except FileNotFoundError as error:
            log.error("job %s: cannot read an input: %s", job.hex()[:8], error)
        return None

    def load_spec(self, what: LoadSpec) -> tuple[m.OpenJob | None, list[bytes]]:
        """Return how a job was opened, and its function; None: it is damaged.

        Raises:
            OSError: it cannot be read now.
        """
        path = log_path(self.directory, what.job, Log.INPUTS, 0)
        said, frames = self._load(path, what, m.OpenJob)
        return (said, frames) if isinstance(said, m.OpenJob) else (None, [])

    @staticmethod
    def _load(
        path: Path, what: LoadBatch | LoadWhole | LoadSpec, kind: type[m.Message]
    ) -> tuple[m.Message | None, list[bytes]]:
        try:
            with path.open("rb", buffering=0) as file:
                read = _reader(file.fileno())
                for record in stored_records.scan(read, what.at, what.end):
                    if record.is_whole and (said := record.message(kind)) is not None:
                        return said, record.frames(_body(read, record))
                    break
        except FileNotFoundError as error:
            log.error("job %s: cannot read its inputs: %s", what.job.hex()[:8], error)
        return None, []

    def load_blob(self, what: LoadBlob) -> list[tuple[m.BlobPiece, bytes]]:
        """Return the pieces that were asked for; none: it is not there.

        Raises:
            OSError: it cannot be read now.
        """
        path = blob_path(self.directory, what.tenant, what.digest)
        pieces = []
        try:
            with path.open("rb", buffering=0) as file:
                for at in range(what.start, what.stop, m.BLOB_PIECE_BYTES):
                    size = min(m.BLOB_PIECE_BYTES, what.stop - at)
                    data = os.pread(file.fileno(), size, at)
                    if len(data) < size:
                        return []
                    pieces.append((m.BlobPiece(what.job, what.digest, at), data))
        except FileNotFoundError as error:
            log.error("job %s: cannot read a blob of it: %s", what.job.hex()[:8], error)
            return []
        return pieces

    def read_part(self, what: ReadPart) -> tuple[list[bytes], tuple[int, int], int]:
        """Return records in frames, where the next part begins, and how many are damaged.

        Raises:
            OSError: it cannot be read now, though nothing may be wrong with it.
        """
        job, segment, at = what.asked.job, what.asked.segment, what.asked.at
        stop_segment, stop_at = what.stop
        path = log_path(self.directory, job, Log.OUTCOMES, segment)
        frames: list[bytes] = []
        damaged, end = 0, at
        try:
            with path.open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                limit = stop_at if segment == stop_segment else size
                read, part = _reader(file.fileno()), _frame_reader(file.fileno())
                start = at
                for record in stored_records.scan(read, at, limit):
                    end = record.end
                    if not record.is_whole:
                        damaged += 1
                        frames += _frames(part, start, record.at)
                        start = end
                    if end - at >= PART_BYTES:
                        break
                if end == at < limit and not _is_boundary(read, at):
                    return [], what.stop, 0  # nobody was told to ask there
                frames += _frames(part, start, end)
                if end < limit and end - at < PART_BYTES:  # nobody knows where the next one begins
                    damaged, end = damaged + 1, limit
        except OSError as error:
            if error.errno in MOMENTARY:
                raise
            log.error("job %s: cannot read its outcomes: %s", job.hex()[:8], error)
            return frames, what.stop, damaged + 1
        if end >= limit and segment < stop_segment:
            return frames, (segment + 1, 0), damaged
        return frames, (segment, end), damaged


def job_path(directory: Path, job: bytes) -> Path:
    """Return the folder of a job."""
    return directory / "jobs" / job.hex()


def log_path(directory: Path, job: bytes, which: Log, segment: int) -> Path:
    """Return the file of a segment."""
    return job_path(directory, job) / f"{which}-{segment}.log"


def blob_path(directory: Path, tenant: str, digest: bytes) -> Path:
    """Return the file of a blob."""
    return directory / "blobs" / owner_of(tenant).hex() / digest.hex()


def _numbers(folder: Path, which: Log) -> list[int]:
    names = [path.stem.removeprefix(f"{which}-") for path in folder.glob(f"{which}-*.log")]
    return sorted(int(name) for name in names if name.isdecimal())


def _reader(file: int) -> Callable[[int, int], bytes]:
    return lambda at, size: os.pread(file, size, at)


def _frame_reader(file: int) -> Callable[[int, int], bytes]:
    return lambda at, size: cast(bytes, Frame.read(file, at, size))  # as good as bytes to libzmq


def _is_boundary(read: Callable[[int, int], bytes], at: int) -> bool:
    """Return whether a record ends at a place, or the first one begins there."""
    end = 0
    for record in stored_records.scan(read, 0, at):
        end = record.end
    return end == at


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
