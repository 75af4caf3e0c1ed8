"""Results that are kept under a name, across runs of a script: `resume=`.

    resume/NAME/name.json                  what the user calls it; the folder is a digest of that
    resume/NAME/FUNCTION/function.json     which function, as a digest of all that it does
    resume/NAME/FUNCTION/N.results         results by the content of their inputs: checkpoint_files

in the user's data directory. Each run appends to a file of its own, so runs of one name do not
disturb each other; what has not been used for a month goes, and so does the oldest beyond a bound.
"""

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from burla.errors import BadSetting
from burla.system.paths import data_directory
from burla.values.contents import DIGEST_BYTES, NO_DIGEST, digest_of
from burla.values.file_locks import OPEN_PRIVATELY

from .checkpoint_files import MANY, ONE, Record, ResultsFile

FOLDER = "resume"
NAME_CHARS_MAX = 256
KEEP_DAYS = 30  # since it was last used
BYTES_MAX = 64 << 30  # of all names together; and at most half of what the disk could have
FREE_MIN = 256 << 20  # bytes that are left free on the disk
FILE_BYTES_MAX = 4 << 30  # a file that has so many gets no more
SYNC_S = 10.0  # after so long what was written is given to the disk
DAY_S = 86400.0
OFFSET_BITS = 20  # of a place: which result of a record it is
PLACE_BITS = 56
FIRST_PLACE = 1 << PLACE_BITS - 1  # so that none is 0, and all are as long
PLACE_MASK = FIRST_PLACE - 1

Known = tuple[int, int, int]  # index of an input, how many from there on, place of the first
Parts = Mapping[str, bytes]  # of a function: digests by what they are of


class Checkpoint:
    """What is kept of one function under one name, and is added to."""

    def __init__(self, name: str, function: str, parts: Parts) -> None:
        """Open it; what is older than others may go.

        Args:
            name: that the user gave.
            function: what that is called.
            parts: of it: what they are digests of is told when they change.

        Raises:
            BadSetting: there is no home for it.
            OSError: it cannot be written to; the text says where.
        """
        self.name = name
        self.problem = ""  # why nothing more is kept
        folder = _folder_of(name)
        digest = blake2b(digest_size=DIGEST_BYTES)
        for key, part in sorted(parts.items()):
            digest.update(f"{key}={part.hex()};".encode())
        self._folder = folder / digest.hexdigest()
        self.changed = "" if self._folder.is_dir() else _what_changed(folder, function, parts)
        try:
            self._begin(name, function, parts)
        except OSError as error:
            number = errno.ENOTDIR if isinstance(error, FileExistsError) else error.errno
            why = os.strerror(number or errno.EIO)
            text = f"resume={name!r} cannot keep results in {self._folder}: {why}"
            raise OSError(number, text) from None
        self._room = _make_room(keep=self._folder)
        self._synced_s = time.monotonic()
        self._records: list[tuple[ResultsFile, Record]] = []
        self._first: dict[bytes, list[int]] = {}  # records by the digest that they begin with
        self._taken: set[int] = set()  # records that were taken as a whole
        self._known: dict[bytes, int] | None = None  # see `_index`; few runs need it
        self._is_whole: dict[int, bool] = {}  # by record, once that was looked at
        self._files: list[ResultsFile] = []
        self._own: ResultsFile | None = None
        self._read_all()

    def _begin(self, name: str, function: str, parts: Parts) -> None:
        root = self._folder.parents[1]
        root.parent.mkdir(parents=True, exist_ok=True)
        for folder in (root, self._folder.parent, self._folder):
            folder.mkdir(mode=0o700, exist_ok=True)
        _write_json(self._folder.parent / "name.json", {"name": name})
        told = {key: part.hex() for key, part in parts.items()}
        _write_json(self._folder / "function.json", {"function": function, "parts": told})

    def _read_all(self) -> None:
        """Find all results; the first file that nobody writes to is ours from now on."""
        self._files = [ResultsFile(path) for path in sorted(self._folder.glob("*.results"))]
        for file in self._files:
            with contextlib.suppress(OSError):  # it is not ours to write to, but it may be read
                if self._own is None and _size(file.path) < FILE_BYTES_MAX and file.try_lock():
                    self._own = file
            try:
                for record in file.scan():
                    self._note(file, record)
                if self._own is file:
                    file.cut()
            except OSError:
                if self._own is file:  # nobody knows where it ends
                    file.close()
                    self._own = None

    def _note(self, file: ResultsFile, record: Record) -> None:
        self._first.setdefault(record.digests[:DIGEST_BYTES], []).append(len(self._records))
        self._records.append((file, record))

    def has_any(self) -> bool:
        """Return whether there was anything to take over."""
        return bool(self._records)

    # --- taking over ---

    def take(self, digest: bytes) -> int | None:
        """Return the place of a result for such an input; None: there is none, or none more.

        So inputs that are alike, as of a simulation that is run again and again, have a result
        each.
        """
        if digest == NO_DIGEST:
            return None
        if self._known is None:
            self._known = self._index()
        places = self._known.pop(digest, None)
        while places:
            place = places & PLACE_MASK
            places >>= PLACE_BITS  # what is left
            record = place >> OFFSET_BITS
            if record not in self._taken and self._is_good(record):
                if places:
                    self._known[digest] = places
                return place
        return None

    def take_each(self, digests: bytes) -> list[Known]:
        """Return what there is for many inputs: runs of them whose results follow each other.

        Inputs in the order of the run before are found record by record, which costs little.
        """
        if not self._records:
            return []
        known: list[Known] = []
        left: list[int] = []
        at, end = 0, len(digests)
        while at < end:
            if (found := self._take_record(digests, at)) is None:
                left.append(at)
                at += DIGEST_BYTES
            else:
                count = len(self._records[found][1].digests)
                place = found << OFFSET_BITS
                known.append((at // DIGEST_BYTES, count // DIGEST_BYTES, place))
                at += count
        for at in left:
            if (one := self.take(digests[at : at + DIGEST_BYTES])) is not None:
                known.append((at // DIGEST_BYTES, 1, one))
        known.sort()
        return known

    def _take_record(self, digests: bytes, at: int) -> int | None:
        """Return a record that has results for the inputs from here on, each of its own."""
        for number in self._first.get(digests[at : at + DIGEST_BYTES], ()):
            record = self._records[number][1].digests
            is_it = number not in self._taken and digests.startswith(record, at)
            if is_it and self._is_good(number) and digests[at : at + DIGEST_BYTES] != NO_DIGEST:
                self._taken.add(number)
                return number
        return None

    def _index(self) -> dict[bytes, int]:
        """Return the places of all results by digest; several are one number, the first lowest."""
        known: dict[bytes, int] = {}
        for number, (_, record) in enumerate(self._records):
            if number in self._taken:
                continue
            ends = range(DIGEST_BYTES, len(record.digests) + 1, DIGEST_BYTES)
            each = [record.digests[end - DIGEST_BYTES : end] for end in ends]
            first = FIRST_PLACE | number << OFFSET_BITS
            places = range(first, first + len(each))
            if len(set(each)) == len(each) and known.keys().isdisjoint(each):
                known.update(zip(each, places, strict=True))
                continue
            for digest, place in zip(each, places, strict=True):
                before = known.get(digest, 0)
                bits = -(-before.bit_length() // PLACE_BITS) * PLACE_BITS
                known[digest] = before | place << bits
        known.pop(NO_DIGEST, None)
        return known

    def _is_good(self, number: int) -> bool:
        if number not in self._is_whole:
            file, record = self._records[number]
            frames = None
            with contextlib.suppress(OSError):
                frames = file.load(record)
            self._is_whole[number] = frames is not None
        return self._is_whole[number]

    def frames_of(self, record: int) -> tuple[list[Any], bool]:
        """Return the frames of a record, which is what a place is without `OFFSET_BITS`.

        The second is whether it is a list of results.

        Raises:
            OSError: it is not there any more.
        """
        file, found = self._records[record]
        frames = file.load(found)
        if frames is None:
            raise OSError(f"{file.path} has changed")
        return frames, found.kind == MANY

    # --- keeping ---

    def keep(self, digests: bytes, frames: Sequence[Any], *, many: bool) -> None:
        """Keep the result of an input, or those of many from one pickle."""
        if self.problem or digests.count(0) == len(digests):
            return
        size = sum(memoryview(frame).nbytes for frame in frames) + len(digests)
        if size > self._room:
            self.problem = f"there is no room for more in {self._folder.parent.parent}"
            return
        try:
            self._room -= self._file().append(MANY if many else ONE, digests, frames)
        except OSError as error:
            self.problem = f"{error.strerror or error} ({self._folder})"
            return
        if time.monotonic() > self._synced_s + SYNC_S:
            self._file().sync()
            self._synced_s = time.monotonic()

    def _file(self) -> ResultsFile:
        while self._own is None:
            path = self._folder / f"{time.time_ns():020}-{os.getpid()}.results"
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it may have been dropped
            file = ResultsFile(path)
            if file.try_lock():
                self._own = file
        return self._own

    def close(self) -> None:
        """Let others append to our file."""
        if self._own is not None:
            self._own.sync()
            self._own.close()
            self._own = None


# --- all of them ---


class Kept(NamedTuple):
    """What is kept of one function under one name."""

    name: str
    function: str
    results: int
    size: int
    used_s: float  # Unix time
    folder: Path


def all_kept(name: str | None = None) -> list[Kept]:
    """Return what is kept, under one name or all, the one used last first."""
    found = []
    for folder in _function_folders():
        label = _read_json(folder.parent / "name.json").get("name", "?")
        if name is not None and label != name:
            continue
        function = str(_read_json(folder / "function.json").get("function", "?"))
        files = [ResultsFile(path) for path in folder.glob("*.results")]
        results = 0
        for file in files:
            with contextlib.suppress(OSError):
                results += sum(len(record.digests) // DIGEST_BYTES for record in file.scan())
        size = sum(_size(file.path) for file in files)
        found.append(Kept(str(label), function, results, size, _used_s(folder), folder))
    return sorted(found, key=lambda kept: -kept.used_s)


def drop(name: str | None) -> int:
    """Delete what is kept under a name, or all; return how many bytes that was."""
    dropped = all_kept(name)
    for kept in dropped:
        _remove(kept.folder)
    return sum(kept.size for kept in dropped)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        if not any(one.is_dir() for one in folder.parent.iterdir()):
            shutil.rmtree(folder.parent, ignore_errors=True)


def _make_room(keep: Path) -> int:
    """Delete what is old, and the oldest of what is too much; return what may be added."""
    now_s = time.time()
    sizes = {folder: sum(map(_size, folder.glob("*.results"))) for folder in _function_folders()}
    disk = shutil.disk_usage(keep)
    total = sum(sizes.values())
    most = min(BYTES_MAX, (disk.free + total) // 2)
    for folder in sorted(sizes, key=_used_s):
        is_old = now_s - _used_s(folder) > KEEP_DAYS * DAY_S
        if folder != keep and (is_old or total > most) and not _is_in_use(folder):
            _remove(folder)
            total -= sizes[folder]
    return max(0, min(most - total, disk.free - FREE_MIN))


def _is_in_use(folder: Path) -> bool:
    """Return whether a run appends to what is in a folder."""
    for path in folder.glob("*.results"):
        file = ResultsFile(path)
        with contextlib.suppress(OSError):
            if not file.try_lock():
                return True
            file.close()
    return False


def _function_folders() -> list[Path]:
    with contextlib.suppress(OSError):
        return [path for path in _root().glob("*/*") if path.is_dir()]
    return []


def _root() -> Path:
    directory = data_directory()
    if directory is None:
        raise BadSetting("XDG_DATA_HOME", None, "a directory for results, because there is no HOME")
    return Path(directory) / FOLDER


def _folder_of(name: str) -> Path:
    return _root() / digest_of(name.encode("utf-8", "surrogatepass")).hex()


def _what_changed(folder: Path, function: str, parts: Parts) -> str:
    """Say what is another since a function of that name was last used; empty: it never was."""
    before: list[tuple[float, Mapping[str, str]]] = []
    for path in folder.glob("*/function.json"):
        known = _read_json(path)
        if known.get("function") == function and isinstance(known.get("parts"), dict):
            before.append((_used_s(path.parent), known["parts"]))
    if not before:
        return ""
    _, last = max(before, key=lambda one: one[0])
    now = {key: part.hex() for key, part in parts.items()}
    changed = sorted(key for key in now.keys() | last.keys() if now.get(key) != last.get(key))
    more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
    return ", ".join(changed[:4]) + more


def _used_s(folder: Path) -> float:
    try:
        return (folder / "function.json").stat().st_mtime
    except OSError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _write_json(path: Path, content: object) -> None:
    """Write a file as a whole; its time says when it was used."""
    new = path.with_name(f"{path.name}.{os.urandom(4).hex()}.new")
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | OPEN_PRIVATELY, 0o600)
    with open(file, "w", encoding="utf-8") as text:
        json.dump(content, text)
    new.replace(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def days_left(kept: Kept) -> int:
    """Return for how many days more something is kept if nobody uses it."""
    return max(0, int(KEEP_DAYS - (time.time() - kept.used_s) / DAY_S))
