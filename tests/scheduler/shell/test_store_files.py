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
from burla.scheduler.shell.store_files import StoreFiles, StoreTakenError
from burla.scheduler.shell.store_reading import log_path
from burla.scheduler.store import leaves
from burla.scheduler.store.effects import (
    Append,
    Delete,
    DropBlob,
    LoadPieces,
    LoadSpec,
    LoadWhole,
    Log,
    ReadPart,
    SaveFacts,
    WriteBlob,
)
from burla.values.frames import LaidOut, take_apart_plain

JOB, LEASE = b"J" * 16, b"L" * 16
OPEN = open_job(JOB, detached=b"", environment=b"HOME")
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
    for message, payload in ((OPENED, []), (OPEN, [b"function"])):
        assert made.append(Log.INPUTS, message, payload) == ""
    for seq in (1, 2, 3):
        assert made.append(Log.OUTCOMES, outcomes(seq), [b"r" * 9]) == ""


def outcomes(seq: int) -> m.JobOutcomes:
    return m.JobOutcomes(job=JOB, lease=LEASE, seq=seq, node="n", runs=b"", output=0)


def test_what_was_told_as_written_is_found_by_the_next_scheduler(tmp_path: Path) -> None:
    with store(tmp_path) as made:
        filled(made)
    with store(tmp_path) as made:
        assert made.files.reading.jobs() == [JOB]
        found = made.files.reading.find(JOB)
        assert found is not None
        said, function = made.files.reading.load_spec(LoadSpec(JOB, *found.spec_at))
    assert (found.opened, function) == (OPENED, [b"function"])
    assert said == OPEN
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
        found = made.files.reading.find(JOB)
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
        frames, place, damaged = made.files.reading.read_part(ask)
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


def done(made: Store, number: int) -> list[tuple[bytes, str]]:
    """Return so many outcomes of writes."""
    told: list[tuple[bytes, str]] = []
    with made.told:
        while len(told) < number:
            told += made.files.take_outcomes()
            assert len(told) >= number or made.told.wait(20)
    return told


def blob(job: bytes = JOB) -> WriteBlob:
    return WriteBlob(job, "ann", b"D" * 32, 0, [b"blob"], True)


def test_a_job_that_cannot_be_read_costs_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with store(tmp_path) as made:
        filled(made)
    (tmp_path / "jobs" / ("z" * 32)).mkdir()
    bad = tmp_path / "jobs" / ("ab" * 16)
    (bad / "inputs-0.log").mkdir(parents=True)
    with store(tmp_path) as made:
        assert [found.opened for found in made.files.reading.find_all()] == [OPENED]
    assert f"job {bad.name} cannot be read, and is left in {bad}" in caplog.text
    assert bad.is_dir()


def test_segments_are_open_one_at_a_time(tmp_path: Path) -> None:
    with store(tmp_path) as made:
        filled(made)
        for segment in range(1, 40):
            log_path(tmp_path, JOB, Log.OUTCOMES, segment).touch()
        open_at_once = []
        for _ in made.files.reading._segments(JOB, Log.OUTCOMES):
            names = [
                path.readlink().name
                for path in Path("/proc/self/fd").iterdir()
                if path.is_symlink()
            ]
            open_at_once.append(sum(name.startswith("outcomes-") for name in names))
        assert max(open_at_once) <= 2  # one more is open to be written
        assert made.files.reading.find(JOB) is not None


def test_a_job_whose_first_records_are_damaged_is_put_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with store(tmp_path) as made:
        filled(made)
    path = log_path(tmp_path, JOB, Log.INPUTS, 0)
    path.write_bytes(b"x" + path.read_bytes()[1:])
    with store(tmp_path) as made:
        assert made.files.reading.find_all() == []
        assert made.files.reading.jobs() == []
    (aside,) = (tmp_path / "jobs").iterdir()
    assert aside.name.startswith(f"{JOB.hex()}.damaged-")
    assert len(list(aside.iterdir())) == 2
    assert str(aside) in caplog.text


def test_what_a_crash_has_left_is_removed_at_the_start(tmp_path: Path) -> None:
    with store(tmp_path) as made:
        filled(made)
        made.files.put(blob())
        assert done(made, 1) == [(JOB, "")]
    (tmp_path / "jobs" / f"{'ab' * 16}.gone").mkdir()
    (named,) = tmp_path.glob("blobs/*/*")
    named.with_name(f"{named.name}.{JOB.hex()}.part").touch()
    with store(tmp_path) as made:
        assert len(made.files.reading.find_all()) == 1
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == [JOB.hex()]
    assert list(tmp_path.glob("blobs/*/*")) == []


def test_deletions_are_carried_out_in_their_place(tmp_path: Path) -> None:
    with store(tmp_path) as made:
        filled(made)
        made.append(Log.OUTCOMES, outcomes(4))
        again = Append(JOB, Log.INPUTS, 0, 0, pack(OPENED), True)
        with made.files._ready:  # one group
            for write in (blob(), DropBlob("ann", b"D" * 32), Delete(JOB), again, blob()):
                made.files._queue.append(write)
            made.files._ready.notify()
        assert done(made, 3) == [(JOB, "")] * 3
        assert [path.name for path in (tmp_path / "jobs" / JOB.hex()).iterdir()] == ["inputs-0.log"]
        assert len(list(tmp_path.glob("blobs/*/*"))) == 1


def test_the_thread_outlives_what_cannot_be_renamed_or_deleted(tmp_path: Path) -> None:
    with store(tmp_path) as made:
        filled(made)
        made.files.put(blob())
        assert done(made, 1) == [(JOB, "")]
        (whole,) = tmp_path.glob("blobs/*/*")
        whole.unlink()
        (whole / "in the way").mkdir(parents=True)
        made.files.put(DropBlob("ann", b"D" * 32))
        made.files.put(blob())
        ((job, why),) = done(made, 1)
        assert job == JOB
        assert "directory" in why.lower()
        assert made.append(Log.OUTCOMES, outcomes(4), is_first=True) == ""


def test_jobs_are_kept_without_a_table_that_cannot_be_opened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "facts.sqlite").mkdir()
    with store(tmp_path) as made:
        filled(made)
    assert "go on without it" in caplog.text
    assert (tmp_path / "facts.sqlite").is_dir()


def test_where_no_record_begins_nothing_is_read_and_nothing_damaged(tmp_path: Path) -> None:
    with store(tmp_path) as made:
        filled(made)
        size = log_path(tmp_path, JOB, Log.OUTCOMES, 0).stat().st_size
        facts = sm.StoredJob(JOB, "f", StoredState.DONE, 1, 1, 1, 0, 0, 0, 0, "", "", None)
        ask = ReadPart(b"p", sm.ReadStored(JOB, 0, 7), (0, size), facts)
        assert made.files.reading.read_part(ask) == ([], (0, size), 0)


def test_at_a_start_only_the_end_of_a_log_is_read_and_damage_before_is_found_by_who_reads(
    tmp_path: Path,
) -> None:
    with store(tmp_path) as made:
        filled(made)
        for segment in (1, 2):
            data = b"".join(b"".join(pack(outcomes(10 * segment + n), [b"x" * 99])) for n in (1, 2))
            log_path(tmp_path, JOB, Log.OUTCOMES, segment).write_bytes(data)
        first = log_path(tmp_path, JOB, Log.OUTCOMES, 0)
        first.write_bytes(first.read_bytes()[:-1] + b"?")
        found = made.files.reading.find(JOB)
        assert found is not None
        assert found.damages == []
        assert [one.log for one in made.files.reading.look_again(JOB).damages] == [Log.OUTCOMES]
        last = log_path(tmp_path, JOB, Log.OUTCOMES, 1)
        last.write_bytes(last.read_bytes()[:-1] + b"?")
        found = made.files.reading.find(JOB)
        assert found is not None
        assert [(one.log, one.segment) for one in found.damages] == [(Log.OUTCOMES, 1)]


def with_big_input(made: Store, laid: bytes) -> tuple[LoadWhole, list[leaves.Place]]:
    """Write down a batch of two leaves, one of them big, whose pieces lie in two segments."""
    reading, places = made.files.reading, []
    parts = (m.Leaf(0, 0, 1, 1), m.Leaf(0, 1, 1, 0, len(laid)))
    at = made.ends[Log.INPUTS]
    assert made.append(Log.INPUTS, m.Inputs(job=JOB, batch=0, start=0, leaves=parts), [b"l"]) == ""
    end = made.ends[Log.INPUTS]
    for number, start in enumerate(range(0, len(laid), leaves.PIECE_BYTES)):
        segment = int(number == 2)
        places.append((segment, 0 if segment else made.ends[Log.INPUTS]))
        said = m.InputPiece(JOB, JOB, 1, start)
        data = laid[start : start + leaves.PIECE_BYTES]
        assert made.append(Log.INPUTS, said, [data], segment, bool(segment)) == ""
    big = leaves.LeafAt(0, parts[1])
    for number, place in enumerate(places):
        big.put(number, place)
    assert reading.find(JOB) is not None
    return LoadWhole(JOB, 0, 0, at, end, (big,)), places


def test_a_big_input_is_read_in_parts_and_whole_and_found_again(tmp_path: Path) -> None:
    value = [bytearray(b"a" * (1 << 20)), bytearray(b"b" * (1 << 20))]
    laid = LaidOut(take_apart_plain(value))
    (image,) = laid.read(0, laid.size)
    with store(tmp_path) as made:
        filled(made)
        whole, places = with_big_input(made, image)
        start, stop = 999, (2 << 20) + 5
        wanted = m.InputWanted(LEASE, JOB, 0, 1, 0, start, stop)
        pieces = made.files.reading.load_pieces(LoadPieces(JOB, wanted, 0, tuple(places)))
        assert [said.start for said, _ in pieces] == [start, 1 << 20, 2 << 20]
        assert b"".join(data for _, data in pieces) == image[start:stop]
        said, frames = made.files.reading.load_whole(whole)
        found = made.files.reading.find(JOB)
    assert said is not None
    assert [(leaf.frames, leaf.size) for leaf in said.leaves] == [(1, 0), (len(frames) - 1, 0)]
    assert frames == [b"l", *laid.frames()]
    assert found is not None
    assert [one.places for one in found.leaves.values()] == [places]
    assert found.batches[0].is_whole()


def test_a_piece_that_is_damaged_or_another_one_is_not_handed_out(tmp_path: Path) -> None:
    with store(tmp_path) as made:
        filled(made)
        whole, places = with_big_input(made, bytes(3 << 20))
        reading = made.files.reading
        wanted = m.InputWanted(LEASE, JOB, 0, 1, 0, 0, 1 << 20)
        assert reading.load_pieces(LoadPieces(JOB, wanted, 0, tuple(places[:1])))
        assert reading.load_pieces(LoadPieces(JOB, wanted, 0, tuple(places[1:2]))) == []
        assert reading.load_whole(whole) == (None, [])  # it has no head
        path = log_path(tmp_path, JOB, Log.INPUTS, 0)
        with path.open("r+b") as file:
            file.seek(places[0][1] + 5000)
            file.write(b"changed")
        assert reading.load_pieces(LoadPieces(JOB, wanted, 0, tuple(places[:1]))) == []
        path.unlink()
        assert reading.load_pieces(LoadPieces(JOB, wanted, 0, tuple(places[:1]))) == []
        assert reading.load_whole(whole) == (None, [])
