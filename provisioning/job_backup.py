"""Jobs in the backup of a head: their records, and the detached ones. Gigabytes: never in memory.

Segments of the store only grow, so what a job has at one moment is a part of each of its files, up
to where a record ends. A job whose inputs grow meanwhile is left out: it was not handed over yet.
Behind the files stands which of them belong together, with their digests.
"""

import hashlib
import os
import re
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import quote

import msgspec

from burla.protocol import stored_records
from burla.scheduler.config import JOBS_FILE, STORE

PLACE = "burla-jobs"  # in the archive: what lies below it is a file of jobs
LIST = f"{PLACE}.json"
LIST_BYTES_MAX = 1 << 30
PIECE_BYTES = 1 << 20
JOB = re.compile("[0-9a-f]{32}")
FILE = re.compile(
    rf"([\w-]+/|[\w.-]+\.)(?:{re.escape(JOBS_FILE)}|{STORE}/"
    r"(?:jobs/([0-9a-f]{32})/(?:inputs|outcomes)-\d{1,9}\.log|blobs/[0-9a-f]{32}/[0-9a-f]{64}))"
)
SUMS = dict[str, str]  # path below the folder of the cluster -> SHA-256


class Part(NamedTuple):
    """What of a file belongs to a backup."""

    path: Path
    size: int


def is_of_jobs(path: Path) -> bool:
    """Return whether a file, by its path below the folder of a cluster, belongs to jobs."""
    folders = path.parts[:-1]
    in_store = any(one == STORE or one.endswith(f".{STORE}") for one in folders)
    return in_store or JOBS_FILE in path.name


def save(tar: tarfile.TarFile, directory: Path) -> None:
    """Add what a cluster has of jobs, while it goes on with them.

    Raises:
        OSError: something cannot be read or written.
    """
    sums: SUMS = {}
    for path in sorted([*directory.glob(f"*{JOBS_FILE}"), *directory.glob(f"*/*{JOBS_FILE}")]):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / JOBS_FILE
            _copy_table(path, copy)
            _add(tar, directory, path, Part(copy, copy.stat().st_size), sums)
    for store in sorted([*directory.glob(f"*{STORE}"), *directory.glob(f"*/{STORE}")]):
        _save_store(tar, directory, store, sums)
    data = msgspec.json.encode(sums)
    entry = _entry(LIST, len(data))
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        tar.addfile(entry, file)


def _copy_table(path: Path, to: Path) -> None:
    """Copy a table of SQLite as it is at one moment.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with (
            closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True)) as table,
            closing(sqlite3.connect(to)) as copy,
        ):
            table.backup(copy)
    except sqlite3.Error as error:
        raise OSError(0, f"{path} cannot be read: {error}") from None


def _save_store(tar: tarfile.TarFile, directory: Path, store: Path, sums: SUMS) -> None:
    for folder in sorted((store / "jobs").glob("*")):
        if not JOB.fullmatch(folder.name):
            continue
        mine: SUMS = {}
        with suppress(FileNotFoundError):  # it has just been deleted
            inputs = _parts(folder, "inputs")
            outcomes = _parts(folder, "outcomes")
            if inputs and inputs == _parts(folder, "inputs"):
                for part in (*inputs, *outcomes):
                    _add(tar, directory, part.path, part, mine)
                sums |= mine
    for path in sorted((store / "blobs").glob("*/*")):
        with suppress(FileNotFoundError):
            if not path.suffix:  # else it is on its way in
                _add(tar, directory, path, Part(path, path.stat().st_size), sums)


def _parts(folder: Path, log: str) -> list[Part]:
    """Return the files of a log, each up to where a record ends, in their order."""
    paths = sorted(folder.glob(f"{log}-*.log"), key=lambda path: int(path.stem.split("-")[1]))
    return [Part(path, _whole_bytes(path)) for path in paths]


def _whole_bytes(path: Path) -> int:
    end = 0
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        read = lambda at, size: os.pread(file.fileno(), size, at)  # noqa: E731
        for record in stored_records.scan(read, trusted=size):
            if record.end > size:
                break
            end = record.end
    return end


def _add(tar: tarfile.TarFile, directory: Path, path: Path, part: Part, sums: SUMS) -> None:
    name = path.relative_to(directory).as_posix()
    with part.path.open("rb") as file:
        hashed = _Hashed(file)
        tar.addfile(_entry(f"{PLACE}/{name}", part.size), hashed)  # type: ignore[arg-type]
    sums[name] = hashed.sum.hexdigest()


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, 0o600, int(time.time())
    return entry


class _Hashed:
    """A file that is read once, and the digest of what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sum = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.sum.update(data)
        return data


def restore(tar: tarfile.TarFile, directory: Path) -> None:
    """Bring back what `save` has added; nothing of it is there if that fails.

    Raises:
        TarError: it is damaged, or has what no backup has.
        OSError: it cannot be written, or is there already.
    """
    written: SUMS = {}
    try:
        wanted = _write_all(tar, directory, written)
        for name, digest in wanted.items():
            if written.get(name) != digest:
                raise tarfile.TarError(f"{name} is not what was saved")
        for name in written.keys() - wanted.keys():  # of a job that was deleted just then
            (directory / name).unlink()
    except BaseException:
        for name in written:
            (directory / name).unlink(missing_ok=True)
        raise


def _write_all(tar: tarfile.TarFile, directory: Path, written: SUMS) -> SUMS:
    """Write all files of jobs, and note them as they are made; return which there should be."""
    for entry in tar:
        if entry.name == LIST and entry.isfile() and entry.size <= LIST_BYTES_MAX:
            return _list(tar, entry)
        name = entry.name.removeprefix(f"{PLACE}/")
        if name == entry.name:
            continue
        if not entry.isfile() or not FILE.fullmatch(name):
            raise tarfile.TarError(f"{entry.name!r} does not belong into a backup")
        path = directory / name
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            written[name] = ""
            data = tar.extractfile(entry)
            assert data is not None, entry.name
            hashed = _Hashed(data)
            while piece := hashed.read(PIECE_BYTES):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        written[name] = hashed.sum.hexdigest()
    raise tarfile.TarError("it ends too early")


def _list(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> SUMS:
    data = tar.extractfile(entry)
    assert data is not None, entry.name
    try:
        return msgspec.json.decode(data.read(), type=SUMS)
    except msgspec.MsgspecError as error:
        raise tarfile.TarError(f"{LIST}: {error}") from None


def heads(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the entries ahead of the files of jobs."""
    for entry in tar:
        if entry.name == LIST or entry.name.startswith(f"{PLACE}/"):
            return
        yield entry
