"""The file of jobs: what is put there is there again, whatever becomes of the file."""

import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest

from burla.protocol import job_messages as jm
from burla.protocol.job_messages import JobState
from burla.scheduler.core.outputs import Filed, Part
from burla.scheduler.shell import output_rows, record_file
from burla.scheduler.shell.record_file import RecordFile


def record(number: int, *, why: str = "") -> jm.JobRecord:
    job = number.to_bytes(16, "big")
    facts = (1.0, 1.0, 5, 5, 0, 0, 0, 0, why)
    summary = jm.JobSummary(job, "anna", "f", JobState.COMPLETE, *facts)
    options = jm.JobOptions(1, None, None, False, False, 0.0, 0)
    return jm.JobRecord(summary, options, "3.11", 0.0, (), (), 0, (), (), (), 0, 0)


def write(path: Path, *rows: tuple[str, jm.JobRecord], at_s: float = 1000.0) -> None:
    file = RecordFile(path, lambda: at_s)
    file.put(rows)
    file.close()


def test_what_was_put_is_there_for_the_next_one_and_for_this_user_only(tmp_path: Path) -> None:
    path = tmp_path / "jobs ?#%.sqlite3"
    write(path, ("anna", record(1)), ("bert", record(2)))
    write(path, ("anna", record(1, why="again")), at_s=1010.0)
    found = RecordFile(path, lambda: 1020.0).read()
    assert found == [("anna", record(1, why="again"), 10.0), ("bert", record(2), 20.0)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_old_and_what_is_too_much_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.sqlite3"
    write(path, ("anna", record(1)))
    monkeypatch.setattr(record_file, "KEPT_MAX", 3)
    late_s = 1000.0 + record_file.AGE_S_MAX + 1.0
    for number in range(2, 7):
        write(path, ("anna", record(number)), at_s=late_s + number)
    kept = [said.summary.job[-1] for _, said, _ in RecordFile(path).read()]
    assert kept == [6, 5, 4]
    monkeypatch.setattr(record_file, "BYTES_MAX", 1)
    write(path, ("anna", record(7)), at_s=late_s + 10)
    assert RecordFile(path).read() == []


@pytest.mark.parametrize("what", ["junk", "format"])
def test_a_file_that_makes_no_sense_is_put_aside(what: str, tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    if what == "junk":
        path.write_bytes(b"not a database" * 1000)
    else:
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA user_version = 99")
    write(path, ("anna", record(1)))
    assert len(RecordFile(path).read()) == 1
    assert (tmp_path / "jobs.sqlite3.broken").exists()


def test_a_row_of_another_version_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    write(path, ("anna", record(1)))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("INSERT INTO jobs VALUES (x'02', 'anna', 2000.0, x'93010203')")
    assert [said.summary.job[-1] for _, said, _ in RecordFile(path).read()] == [1]


def test_a_disk_that_takes_nothing_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "nowhere" / "jobs.sqlite3"
    write(path, ("anna", record(1)))
    assert RecordFile(path).read() == []
    assert "the file of jobs" in caplog.text


# --- output ---

JOB = bytes(15) + b"\1"


def part(place: int, *chunks: bytes, at_s: float = 50.0) -> Part:
    streams, size = (1,) * len(chunks), sum(map(len, chunks))
    inputs = ((place, place + 1),) * len(chunks)
    return Part(place, b"l" * 16, place + 7, "n", at_s, streams, inputs, chunks, size)


def filed(*parts: Part, gap: tuple[int, int] = (0, 0), lost: int = 0, new: bool = False) -> Filed:
    return Filed(JOB, "anna", parts, gap, lost, new)


def test_output_is_there_for_the_next_one_with_its_time(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    file = RecordFile(path, lambda: 1000.0)
    file.put([("anna", record(1))])
    file.put_output([filed(part(0, b"a", b"b"), part(2, b"\xff\0"), new=True)], now_s=60.0)
    file.close()
    later = RecordFile(path, lambda: 1100.0)
    assert later.read_output(JOB, "anna", 20.0) == (
        [part(0, b"a", b"b", at_s=-90.0), part(2, b"\xff\0", at_s=-90.0)],
        0,
    )
    assert later.read_output(JOB, "bert", 20.0) == ([], 0)


def test_what_is_left_out_and_what_an_earlier_job_of_that_name_printed_goes(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "jobs.sqlite3", lambda: 1000.0)
    file.put_output([filed(part(0, b"old"), part(9, b"older"))], 0.0)
    file.put_output([filed(*[part(at, b"%d" % at) for at in range(6)], new=True)], 0.0)
    file.put_output([filed(part(6, b"6"), gap=(1, 5), lost=4)], 0.0)
    found: list[tuple[list[Part], int]] = []
    file.fetch_output(JOB, "anna", 0.0, lambda *what: found.append(what))
    file.close()
    ((parts, lost),) = found
    assert [one.chunks[0] for one in parts] == [b"0", b"5", b"6"]
    assert lost == 4


def test_output_goes_with_the_record_of_its_job_and_when_it_is_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.sqlite3"
    now_s = 1000.0
    file = RecordFile(path, lambda: now_s)
    file.put([("anna", record(1))])
    file.put_output(
        [filed(part(0, b"x" * 1000)), Filed(b"o" * 16, "anna", (part(0),), (0, 0), 0, True)], 0.0
    )
    file.close()
    now_s = 1000.0 + 2 * record_file.PRUNE_S
    file = RecordFile(path, lambda: now_s)
    file.put([("anna", record(1))])
    file.close()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT job FROM output").fetchall() == [(JOB,)]
    monkeypatch.setattr(output_rows, "BYTES_MAX", 500)
    now_s += 2 * record_file.PRUNE_S
    file = RecordFile(path, lambda: now_s)
    file.put([("anna", record(1))])
    file.close()
    assert file.read_output(JOB, "anna", 0.0) == ([], 0)


def test_who_asks_for_output_is_answered_whatever_becomes_of_the_file(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "nowhere" / "jobs.sqlite3")
    found: list[tuple[list[Part], int]] = []
    file.fetch_output(JOB, "anna", 0.0, lambda *what: found.append(what))
    file.close()
    assert found == [([], 0)]


def test_who_reads_keeps_nothing_from_being_written(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    file = RecordFile(path, lambda: 1000.0)
    goes_on = threading.Event()

    def slow(_parts: list[Part], _lost: int) -> None:
        assert goes_on.wait(20)

    for _ in range(record_file.READING_MAX):
        assert file.fetch_output(JOB, "anna", 0.0, slow)
    assert not file.fetch_output(JOB, "anna", 0.0, slow)  # it is bounded, and told
    file.put([("anna", record(1))])
    file.put_output([filed(part(0, b"a"), new=True)], 0.0)
    goes_on.set()
    file.close()
    assert len(RecordFile(path).read()) == 1
    assert [one.chunks for one in file.read_output(JOB, "anna", 0.0)[0]] == [(b"a",)]
