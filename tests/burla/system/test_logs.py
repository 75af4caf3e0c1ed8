"""The log of a daemon: appended to, changed when it is long, never begun anew."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import logging, os, sys
from burla.system import logs
logs.FILE_BYTES_MAX = int(sys.argv[1])
logs.Handler.__init__.__defaults__ = (logs.FILE_BYTES_MAX,)
logs.set_up("tiny", logging.INFO)
for number in range(int(sys.argv[2])):
    logging.info("line %d", number)
os.write(2, b"as C code writes\\n")
"""


def run(log: Path, size: int, lines: int, flags: int = os.O_APPEND) -> None:
    """Run a daemon that logs, with its stderr in a file."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | flags, 0o600)
    try:
        subprocess.run(
            [sys.executable, "-c", SCRIPT, str(size), str(lines)], stderr=file, check=True
        )
    finally:
        os.close(file)


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("of yesterday\n")
    run(log, 1 << 20, 3)
    said = log.read_text().splitlines()
    assert said[0] == "of yesterday"
    assert [line.partition(" INFO ")[2] for line in said[1:4]] == ["line 0", "line 1", "line 2"]
    assert said[4:] == ["as C code writes"]


def test_a_long_one_is_set_aside_with_nothing_lost_in_what_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    run(log, 1000, 100)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("x.log", "x.log.1", "x.log.2", "x.log.3"),
    ]
    names = ("x.log.3", "x.log.2", "x.log.1", "x.log")
    text = "".join((tmp_path / name).read_text() for name in names)
    numbers = [int(line.split()[-1]) for line in text.splitlines() if "INFO" in line]
    assert numbers == list(range(numbers[0], 100))
    assert len(numbers) > 50
    assert log.read_text().endswith("as C code writes\n")
    assert log.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("name", "flags"), [("x.txt", os.O_APPEND), ("x.log", 0)])
def test_what_is_not_our_log_is_left_alone(tmp_path: Path, name: str, flags: int) -> None:
    run(tmp_path / name, 1000, 100, flags)
    assert [path.name for path in tmp_path.iterdir()] == [name]
