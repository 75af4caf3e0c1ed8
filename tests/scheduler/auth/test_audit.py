"""The audit log: bounded, and nobody can wash a line out by making others."""

import json
from pathlib import Path
from typing import Any

import pytest

from burla.scheduler.auth import audit
from burla.scheduler.auth.audit import COUNTED_S, LINES, LINES_PER_S, Audit, kept

DAY_S = 86400.0
BEGAN_S = 1_000_000_000.0


class Log:
    """An audit log on a clock of its own."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "audit.log"
        self.audit = Audit(self.path)
        self.now_s = BEGAN_S

    def write(self, key: str = "0123", operation: str = "open job", result: str = "ok") -> None:
        self.audit.write(self.now_s, "anna", key, operation, "ab" * 16, result)

    def lines(self) -> list[dict[str, Any]]:
        files = [*kept(self.path), self.path]
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_a_flood_of_what_is_allowed_is_counted(log: Log) -> None:
    for _ in range(LINES + 1000):
        log.write()
    log.write(operation="close job")  # another kind
    log.write(result="not found")  # likewise
    log.write(key="4567")  # another key
    assert len(log.lines()) == LINES + 3
    log.now_s += COUNTED_S
    log.audit.count(log.now_s)
    log.audit.count(log.now_s)
    told = log.lines()[-1]
    assert told["result"].startswith("1000 lines were left out since 2001-09-09T01:46:40")
    assert (told["key"], told["operation"]) == ("0123", "open job")
    assert len(log.lines()) == LINES + 4
    assert COUNTED_S * LINES_PER_S >= 1
    log.write()  # and it goes on
    assert len(log.lines()) == LINES + 5


def test_strangers_are_as_one_however_many_keys_they_make(log: Log) -> None:
    for number in range(LINES + 7):
        line = (log.now_s, "", f"{number:016}", f"connect from 10.0.0.{number}", None)
        log.audit.write(*line, "not known", is_known=False)
    assert len(log.lines()) == LINES
    log.audit.count(log.now_s, at_once=True)
    assert log.lines()[-1]["result"].startswith("7 lines were left out")


def test_what_only_administrators_can_cause_is_always_written(log: Log) -> None:
    for _ in range(LINES + 7):
        log.audit.write(log.now_s, "root", "89", "revoke keys anna", None, "ok", always=True)
    assert len(log.lines()) == LINES + 7


def test_a_week_of_floods_by_one_key_leaves_the_evil_deed_to_be_read(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a hundredth of the real size, both what is kept and what is written."""
    monkeypatch.setattr(audit, "KEPT_BYTES", audit.KEPT_BYTES // 100)
    monkeypatch.setattr(audit, "FILE_BYTES_MAX", audit.FILE_BYTES_MAX // 100)
    log.write(operation="say NodeHello", result="its role is client")
    kinds = ["open job", "close job", *(f"say {number}" for number in range(10))]
    end_s = log.now_s + 7 * DAY_S / 100
    while log.now_s < end_s:
        for kind in kinds:
            log.write(operation=kind, result="x" * 150)
        log.audit.count(log.now_s)
        log.now_s += 0.25
    first = log.lines()[0]
    assert first["result"] == "its role is client"
    log.audit.close()


def test_files_are_kept_by_day_and_number_up_to_a_number_of_bytes(
    log: Log, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(audit, "FILE_BYTES_MAX", 2000)
    monkeypatch.setattr(audit, "KEPT_BYTES", 9000)
    (tmp_path / "audit.log.1").write_text("of an older version\n" * 10)
    log.write()
    log.now_s += DAY_S
    for _ in range(10):
        log.write(result="x" * 10_000)
    names = [path.name for path in kept(log.path)]
    assert names[:3] == ["audit.log.1", "audit-2001-09-09-00001.log", "audit-2001-09-10-00001.log"]
    for _ in range(50):
        log.write(result="x" * 10_000)
    files = kept(log.path)
    number = int(files[-1].stem[-5:])
    assert number > len(files)
    assert 5000 < sum(file.stat().st_size for file in files) <= 9000
    assert all(line["user"] == "anna" for line in log.lines())
    assert all(path.stat().st_mode & 0o077 == 0 for path in [*files, log.path])
    log.audit.close()
    again = Audit(log.path)  # another life, another day
    again.write(log.now_s + DAY_S, "anna", "0123", "open job", None, "ok")
    assert kept(log.path)[-1].name == f"audit-2001-09-10-{number + 1:05}.log"
    assert len(log.path.read_text().splitlines()) == 1
    again.close()


def test_a_file_that_cannot_be_begun_is_gone_on_with(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write()

    def no_more(path: Path) -> int:
        raise OSError(24, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(audit, "_open", no_more)
        log.now_s += DAY_S
        with pytest.raises(OSError, match="too many"):
            log.write()
    log.write()
    assert [line["time"][:10] for line in log.lines()] == ["2001-09-09", "2001-09-10"]
    log.audit.close()
