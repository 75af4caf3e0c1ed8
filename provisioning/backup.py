"""The head of a cluster in one file, and back: keys, who may use it, quotas, its settings.

Jobs are not in it, and need not be: clients and nodes hold them, and go on with a scheduler that
has the same address and keys. Detached jobs, which may be gigabytes, and the records of jobs are in
it if that is asked for (job_backup.py). What daemons make anew (logs, sockets, process ids) is left
out.
"""

import hashlib
import io
import os
import re
import tarfile
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import msgspec

from burla.protocol import VERSION
from burla.provisioning.core.machines import BadConfig
from burla.provisioning.core.steps import NAME

from . import job_backup, state as st
from .state import State

MANIFEST = "burla-backup.json"
FORMAT, FORMAT_WITH_JOBS = 1, 2
FILES_MAX = 10_000
FILE_BYTES_MAX = 1 << 30
MADE_ANEW = re.compile(
    r"(?!audit[.-]).*\.(pid|child|log|log\.\d+|ready|served|token|new|lock|s)"
    r"|(scheduler|autoscaler|local-\d+)\.sh"
    r"|s|s\.pub|scheduler-state\.json|\..*"
)


class Manifest(msgspec.Struct, frozen=True):
    """What a backup says of itself."""

    format: int
    burla: str  # version
    cluster: str
    address: str
    made: str
    files: dict[str, str]  # path -> SHA-256


def default_file(cluster: str) -> Path:
    """Return where a backup goes if nothing is said: here, by name and time."""
    return Path(f"burla-{cluster}-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz")


def save(state: State, file: Path, *, with_jobs: bool = False) -> Manifest:
    """Write all of a cluster's head into `file`, which is made; return what is in it.

    Args:
        state: of the cluster.
        file: must not be there.
        with_jobs: also the records of its jobs, and the detached ones with their results.

    Raises:
        BadConfig: the file is there already, or cannot be written.
    """
    name = state.config.name
    there = dict(_files(st.directory_of(name)))
    manifest = Manifest(
        format=FORMAT_WITH_JOBS if with_jobs else FORMAT,
        burla=VERSION,
        cluster=name,
        address=state.address,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        files={path: hashlib.sha256(data).hexdigest() for path, data in there.items()},
    )
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            level = 1 if with_jobs else 9  # what is big is not worth the time
            with (
                os.fdopen(descriptor, "wb") as out,
                tarfile.open(fileobj=out, mode="w:gz", compresslevel=level) as tar,
            ):
                _add(tar, MANIFEST, msgspec.json.encode(manifest))
                for path, data in there.items():
                    _add(tar, path, data)
                if with_jobs:
                    job_backup.save(tar, st.directory_of(name))
                tar.close()
                out.flush()
                os.fsync(out.fileno())
            os.link(draft, file)  # unlike a rename, it never replaces
        finally:
            draft.unlink(missing_ok=True)
    except FileExistsError:
        raise BadConfig(f"{file} is there already: name another file") from None
    except OSError as error:
        raise BadConfig(f"cannot write {file}: {error.strerror or error}") from None
    return manifest


def restore(file: Path) -> Manifest:
    """Bring back what `save` wrote, for this user; return what it was.

    Raises:
        BadConfig: it is no backup, it is damaged, or there is such a cluster already.
    """
    try:
        with tarfile.open(file, "r:gz") as tar:
            there = dict(_members(tar))
    except (OSError, EOFError, tarfile.TarError) as error:
        why = getattr(error, "strerror", None) or error
        raise BadConfig(f"{file} is not a backup that can be read: {why}") from None
    manifest = _manifest(file, there.pop(MANIFEST, b""))
    for path, digest in manifest.files.items():
        if hashlib.sha256(there.get(path, b"")).hexdigest() != digest:
            raise BadConfig(f"{file} is damaged: {path} is not what was saved")
    name = manifest.cluster
    directory = st.directory_of(name)
    with st.alone(name):
        if (directory / st.FILE).exists():
            raise BadConfig(
                f"there is a cluster {name!r} here already: move {directory} out of the way, or end"
                f" it by `burla down --cluster {name}`"
            )
        try:
            # the last one makes it a cluster: half of one is none
            for path in sorted(manifest.files, key=lambda path: path == st.FILE):
                if path == st.FILE and manifest.format == FORMAT_WITH_JOBS:
                    _restore_jobs(file, directory)
                _write(directory / path, there[path])
        except OSError as error:
            raise BadConfig(f"cannot restore to {directory}: {error}") from None
    return manifest


def _restore_jobs(file: Path, directory: Path) -> None:
    try:
        with tarfile.open(file, "r:gz") as tar:
            job_backup.restore(tar, directory)
    except (EOFError, zlib.error, tarfile.TarError) as error:
        raise BadConfig(f"{file} is damaged: {error}") from None


def _files(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Yield what is kept of a cluster: path below its folder, and content."""
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not path.is_file() or MADE_ANEW.fullmatch(path.name):
            continue
        if job_backup.is_of_jobs(path.relative_to(directory)):
            continue
        with suppress(FileNotFoundError):  # it has just been replaced, or removed
            yield path.relative_to(directory).as_posix(), path.read_bytes()


def _write(path: Path, data: bytes) -> None:
    """Write a file that only this user can read; nobody ever sees half of it."""
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _add(tar: tarfile.TarFile, path: str, data: bytes) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
    tar.addfile(entry, io.BytesIO(data))


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a backup; who made it may not be who should have.

    Raises:
        TarError: it has what no backup has.
    """
    for number, entry in enumerate(job_backup.heads(tar)):
        path = PurePosixPath(entry.name)
        is_inside = not path.is_absolute() and ".." not in path.parts and path.parts
        if not (entry.isfile() and is_inside) or number > FILES_MAX or entry.size > FILE_BYTES_MAX:
            raise tarfile.TarError(f"{entry.name!r} does not belong into a backup")
        data = tar.extractfile(entry)
        assert data is not None, entry.name
        yield path.as_posix(), data.read()


def _manifest(file: Path, data: bytes) -> Manifest:
    try:
        found = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError:
        raise BadConfig(f"{file} is not a backup of a cluster") from None
    if found.format not in (FORMAT, FORMAT_WITH_JOBS):
        raise BadConfig(
            f"{file} was made by burla {found.burla}, whose backups have format {found.format}:"
            " restore it with that version"
        )
    if not NAME.fullmatch(found.cluster) or st.FILE not in found.files:
        raise BadConfig(f"{file} is not a backup of a cluster")
    return found
