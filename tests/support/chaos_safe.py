"""Watches the store of a scheduler under chaos: which outcomes were on its disk, since when.

What is seen in the files counts only if it is there at the end, too: what a full disk has let be
written in part is taken back. A call that begins after its outcome was seen was run in vain.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from burla.protocol.stored_records import Record, scan
from burla.scheduler.store.progress import OutcomeRecord, Progress

LOOK_S = 0.02
Place = tuple[str, int, int]  # job, segment, end of the record in it
Kept = dict[str, tuple[str, int]]  # id of a stored job -> user, number among the user's jobs


@dataclass
class _Log:
    """The outcomes of one job, as far as they were read."""

    segment: int = 0
    at: int = 0
    progress: Progress = field(default_factory=Progress)


class Watch:
    """Looks again and again; use it as a context manager, then ask `safe_since`."""

    def __init__(self, store: Path) -> None:
        """Watch a store, there or to be."""
        self._store = store
        self._logs: dict[str, _Log] = defaultdict(_Log)
        self._seen: list[tuple[Place, int, list[tuple[int, int]]]] = []  # place, when, ranges
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Watch":
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End."""
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(LOOK_S):
            self._look()

    def _look(self) -> None:
        for folder in self._store.glob("jobs/*"):
            if len(folder.name) == 32:
                with suppress(OSError):  # it is not there yet, or not any more
                    self._read_on(folder)

    def _read_on(self, folder: Path) -> None:
        log = self._logs[folder.name]
        while True:
            path = folder / f"outcomes-{log.segment}.log"
            if (size := path.stat().st_size) < log.at:
                self._forget_beyond(folder, log, size)
            for record, ranges in _records(path, log.at, log.progress):
                log.at = record.end
                place = (folder.name, log.segment, record.end)
                if ranges:
                    self._seen.append((place, time.monotonic_ns(), ranges))
            if not path.with_name(f"outcomes-{log.segment + 1}.log").exists():
                return
            log.segment, log.at = log.segment + 1, 0

    def _forget_beyond(self, folder: Path, log: _Log, size: int) -> None:
        """Take back what was cut off: it was torn, or there was no room for it all."""
        here = (folder.name, log.segment)
        self._seen = [one for one in self._seen if one[0][:2] != here or one[0][2] <= size]
        log.at, log.progress = size, Progress()
        for segment in range(log.segment + 1):
            end = size if segment == log.segment else None  # what is written meanwhile is news
            for _ in _records(folder / f"outcomes-{segment}.log", 0, log.progress, end):
                pass

    def safe_since(self) -> dict[tuple[str, int], int]:
        """Return since when (monotonic, in ns) each outcome was known to be on the disk.

        By id of the job, and index.
        """
        there = dict(self._all())
        since: dict[tuple[str, int], int] = {}
        for place, ns, ranges in self._seen:
            if there.get(place) != ranges:
                continue
            for lo, hi in ranges:
                since.update(dict.fromkeys(((place[0], x) for x in range(lo, hi)), ns))
        return since

    def _all(self) -> Iterator[tuple[Place, list[tuple[int, int]]]]:
        for folder in self._store.glob("jobs/*"):
            progress = Progress()
            for segment in range(len([*folder.glob("outcomes-*.log")])):
                path = folder / f"outcomes-{segment}.log"
                for record, ranges in _records(path, 0, progress):
                    yield (folder.name, segment, record.end), ranges


def _records(
    path: Path, at: int, progress: Progress, end: int | None = None
) -> Iterator[tuple[Record, list[tuple[int, int]]]]:
    """Yield the whole records of a file up to `end`, and what outcomes are new in each."""
    with path.open("rb") as file:

        def read(at: int, size: int) -> bytes:
            file.seek(at)
            return file.read(size)

        for record in scan(read, at):
            if end is not None and record.end > end:
                return
            said = record.message(OutcomeRecord)
            is_one = record.is_whole and isinstance(said, OutcomeRecord)
            size = record.end - record.body_at
            yield record, progress.note(said, size) if is_one else []  # type: ignore[arg-type]


def unsafe(since: dict[tuple[str, int], int], effects: Iterable[str], kept: Kept) -> list[str]:
    """Return the calls that began when their outcome was on the disk.

    Args:
        since: what `Watch.safe_since` has returned.
        effects: "begun|ended user job input node ns".
        kept: whose job each of the stored ones was.
    """
    names = {(*kept[job], x): ns for (job, x), ns in since.items() if job in kept}
    wrong = []
    for line in effects:
        what, user, job, x, _, ns = line.split()
        safe_ns = names.get((user, int(job), int(x)))
        if what == "begun" and safe_ns is not None and int(ns) > safe_ns:
            wrong.append(f"{line} (on the disk since {safe_ns})")
    return wrong
