"""The disk of the store, on a real one."""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from opening import open_job

from burla.protocol import messages as m, store_messages as sm
from burla.protocol.store_messages import StoredState, StoreOpened
from burla.protocol.stored_records import pack
from burla.scheduler.shell.store_files import StoreFiles, StoreTakenError, log_path
from burla.scheduler.store.effects import Append, Log, ReadPart, SaveFacts

JOB, LEASE = b"J" * 16, b"L" * 16
OPENED = StoreOpened(JOB, "ann", "key", "3.11", "u", "h", 1.0)


class Store:
    """A store whose writes are awaited."""

    def __init__(self, directory: Path) -> None:
        self.told = threading.Condition()
        self.files = StoreFiles(directory, self._done)
        self.ends = dict.fromkeys(Log, 0)

    def _done(self) -> None:
        with self.told:
            self.told.notify()

    def append(
        self,
        log: Log,
        message: m.Message,
        payload: Sequence[bytes] = (),
        segment: int = 0,
        is_first: bool = False,
    ) -> str:
        """Write a record; return why that failed."""
        frames = pack(message, payload)
        at = 0 if segment else self.ends[log]
        self.files.put(Append(JOB, log, segment, at, frames, is_first))
        self.ends[log] += 0 if segment else sum(map(len, frames))
        with self.told:
            outcomes = self.files.take_outcomes()
            while not outcomes:
                assert self.told.wait(20)
                outcomes = self.files.take_outcomes()
        ((job, why),) = outcomes
        assert job == JOB
        return why


@contextmanager
def store(directory: Path) -> Iterator[Store]:
    made = Store(directory)
    try:
        yield made
    finally:
        made.files.close()


def filled(made: Store) -> None:
    for message, payload in ((OPENED, []), (open_job(JOB, detached=b""), [b"function"])):
        assert made.append(Log.INPUTS, message, payload) == ""
    for seq in (1, 2, 3):
        assert made.append(Log.OUTCOMES, outcomes(seq), [b"r" * 9]) == ""


def outcomes(seq: int) -> m.JobOutcomes:
    return m.JobOutcomes(job=JOB, lease=LEASE, seq=seq, node="n", runs=b"", output=0)


def test_what_was_told_as_written_is_found_by_the_next_scheduler(tmp_path: Path) -> None:
    with store(tmp_path) as made:
        filled(made)
    with store(tmp_path) as made:
        assert made.files.jobs() == [JOB]
        found = made.files.find(JOB)
    assert found is not None
    assert (found.opened, found.function) == (OPENED, [b"function"])
    assert found.progress.leases[LEASE].seq == 3
    assert found.damages == []
    assert (tmp_path / "jobs").stat().st_mode & 0o77 == 0


@pytest.mark.parametrize("is_torn", [False, True])
def test_a_torn_or_changed_end_is_cut_off_and_told(
    tmp_path: Path, is_torn: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with store(tmp_path) as made:
        filled(made)
    path = log_path(tmp_path, JOB, Log.OUTCOMES, 0)
    data = bytearray(path.read_bytes())
    third = 2 * len(data) // 3
    data[-1] ^= 1
    path.write_bytes(data[:-1] if is_torn else data)
    with store(tmp_path) as made:
        found = made.files.find(JOB)
    assert found is not None
    assert found.progress.leases[LEASE].seq == 2
    assert path.stat().st_size == third == found.places[Log.OUTCOMES].at
    assert "are cut off: what they held is run again" in caplog.text


def test_what_is_damaged_in_the_middle_is_passed_over_by_who_reads(tmp_path: Path) -> None:
    with store(tmp_path) as made:
        filled(made)
        path = log_path(tmp_path, JOB, Log.OUTCOMES, 0)
        data = bytearray(path.read_bytes())
        third = len(data) // 3
        data[2 * third - 1] ^= 1
        path.write_bytes(data)
        facts = sm.StoredJob(JOB, "f", StoredState.DONE, 1, 1, 1, 0, 0, 0, 0, "", "", None)
        ask = ReadPart(b"p", sm.ReadStored(JOB, 0, 0), (0, len(data)), facts)
        frames, place, damaged = made.files.read_part(ask)
    assert b"".join(frames) == bytes(data[:third] + data[2 * third :])
    assert (place, damaged) == ((0, len(data)), 1)


def test_a_write_that_fails_fails_what_follows_it_until_it_is_begun_anew(tmp_path: Path) -> None:
    with store(tmp_path) as made:
        filled(made)
        log_path(tmp_path, JOB, Log.OUTCOMES, 1).mkdir()
        assert "Is a directory" in made.append(Log.OUTCOMES, outcomes(4), segment=1)
        assert "was to be written before it" in made.append(Log.OUTCOMES, outcomes(5))
        made.ends[Log.OUTCOMES] -= sum(map(len, pack(outcomes(5))))
        assert made.append(Log.OUTCOMES, outcomes(4), is_first=True) == ""


def test_two_schedulers_never_have_one_store(tmp_path: Path) -> None:
    with store(tmp_path), pytest.raises(StoreTakenError, match="another scheduler keeps"):
        StoreFiles(tmp_path, lambda: None)


def test_a_table_that_is_damaged_is_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "facts.sqlite").write_bytes(b"no table at all" * 100)
    facts = sm.StoredJob(JOB, "f", StoredState.DONE, 1, 1, 1, 2, 2, 0, 9, "", "", None)
    with store(tmp_path) as made:
        filled(made)
        made.files.put(SaveFacts("ann", facts))
    assert "is damaged, and made anew" in caplog.text
    with sqlite3.connect(tmp_path / "facts.sqlite") as table:
        rows = table.execute("SELECT job, tenant, state, done FROM jobs").fetchall()
    table.close()
    assert rows == [(JOB.hex(), "ann", "done", 2)]
