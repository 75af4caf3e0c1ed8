"""The audit log: one JSON line for whatever a key did or was kept from doing. Appended to, only.

It names people and public keys, never a secret, a token, a topic or a payload. Nobody can wash a
line out by making others: of each kind of line a key has some hundred at once and one each ten
seconds after that, what is over is counted in one line a minute, and all who have no key here are
as one. A file is renamed after its day when it has grown or the day is over; the oldest go when all
have more than `KEPT_BYTES`, which takes one key more than a week.
"""

import json
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from burla.scheduler.core.pacing import Pacer
from burla.transport.descriptors import spare

FILE_BYTES_MAX = 16 << 20  # fifty thousand lines
KEPT_BYTES = 512 << 20  # of all files before the one that is written to
LINES = 500  # of one kind and key at once
LINES_PER_S = 0.1  # likewise after that
COUNTED_S = 60.0  # between two lines that say how many were left out
USER_MAX, OPERATION_MAX, RESULT_MAX = 64, 128, 500  # characters
STRANGERS = "-"  # whose keys are not known: they may make as many as they like
DAY = "%Y-%m-%d"


@dataclass(slots=True)
class LeftOut:
    """Lines of one kind and key that were not written."""

    user: str
    key: str
    operation: str
    result: str  # of the last one
    since_s: float
    count: int = 0


class Audit:
    """Appends to one file; other processes may, too."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            OSError: it cannot be opened for appending.
        """
        self._path = path
        self._file = _open(path)
        self._day = ""  # of the first line in the file; empty: not looked at yet
        self._pacer = Pacer(LINES, LINES_PER_S)
        self._left_out: dict[bytes, LeftOut] = {}
        self._counted_s = 0.0  # when those are to be looked at

    def write(
        self,
        now_s: float,
        user: str,
        key: str,
        operation: str,
        job: str | None,
        result: str,
        *,
        is_known: bool = True,
        always: bool = False,
    ) -> None:
        """Append one line, or count it.

        Args:
            now_s: Unix time.
            user: the name of its user; empty: not known.
            key: fingerprint of a public key.
            operation: what was asked for, such as "open job".
            job: id of the job, if it is about one.
            result: "ok", or why not.
            is_known: the key is one of this cluster's.
            always: it is written however many there are: not everybody can cause it.

        Raises:
            OSError: it cannot be written.
        """
        if not always:
            kind = " ".join(operation.split(" ", 2)[:2])
            name = f"{key if is_known else STRANGERS} {kind} {result == 'ok'}".encode()
            if self._pacer.wait_s(name, now_s) is None:
                self._leave_out(name, now_s, user, key if is_known else "", kind, result)
                return
        self._append(now_s, user, key, operation, job, result)

    def _leave_out(
        self, name: bytes, now_s: float, user: str, key: str, kind: str, result: str
    ) -> None:
        left_out = self._left_out.get(name)
        if left_out is None:
            left_out = self._left_out[name] = LeftOut(user, key, kind, result, now_s)
            if len(self._left_out) == 1:
                self._counted_s = now_s + COUNTED_S
        left_out.count += 1
        left_out.result = result

    def count(self, now_s: float, *, at_once: bool = False) -> None:
        """Write how many lines were left out, if it is time.

        Raises:
            OSError: it cannot be written; the numbers are kept.
        """
        if not self._left_out or (now_s < self._counted_s and not at_once):
            return
        self._counted_s = now_s + COUNTED_S
        for name, one in list(self._left_out.items()):
            since = datetime.fromtimestamp(one.since_s, UTC).isoformat(timespec="seconds")
            result = f"{one.count} lines were left out since {since}; the last: {one.result}"
            self._append(now_s, one.user, one.key, one.operation, None, result)
            del self._left_out[name]

    def _append(
        self, now_s: float, user: str, key: str, operation: str, job: str | None, result: str
    ) -> None:
        time = datetime.fromtimestamp(now_s, UTC)
        facts = {
            "time": time.isoformat(timespec="milliseconds"),
            "user": user[:USER_MAX],
            "key": key,
            "operation": operation[:OPERATION_MAX],
            "job": job,
            "result": result[:RESULT_MAX],
        }
        self._turn_over(time.strftime(DAY))
        os.write(self._file, f"{json.dumps(facts)}\n".encode())  # in one: lines don't mix

    def _turn_over(self, today: str) -> None:
        """Begin another file if this one is of another day, or long."""
        size = os.fstat(self._file).st_size
        if not size:
            self._day = today
        elif not self._day:
            self._day = _day_of(self._path) or today
        if size < FILE_BYTES_MAX and self._day == today:
            return
        draft = Path(f"{self._path}.new")
        with spare():
            new = _open(draft)  # first: without a descriptor the old one goes on
        os.replace(self._path, _free_name(self._path, self._day))
        os.replace(draft, self._path)
        os.close(self._file)
        self._file, self._day = new, today
        _prune(self._path)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def kept(path: Path) -> list[Path]:
    """Return the files before the one at `path`, the oldest first."""
    found = [p for p in path.parent.glob(f"{path.stem}-*{path.suffix}") if p.is_file()]
    before = Path(f"{path}.1")  # as it was called once
    return ([before] if before.is_file() else []) + sorted(found)


def _prune(path: Path) -> None:
    files = kept(path)
    sizes = [file.stat().st_size for file in files]
    total = sum(sizes)
    for file, size in zip(files, sizes, strict=True):
        if total <= KEPT_BYTES:
            break
        file.unlink(missing_ok=True)
        total -= size


def _free_name(path: Path, day: str) -> Path:
    """Return the name of the next file of a day."""
    numbers = [int(name.stem.rpartition("-")[2]) for name in kept(path) if f"-{day}-" in name.name]
    return path.with_name(f"{path.stem}-{day}-{max(numbers, default=0) + 1:05}{path.suffix}")


def _day_of(path: Path) -> str:
    """Return the day of the first line in a file; empty: it says none."""
    with path.open("rb") as file:
        found = re.match(rb'\{"time": "(\d{4}-\d\d-\d\d)T', file.read(64))
    return found[1].decode() if found else ""


def _open(path: Path) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)
